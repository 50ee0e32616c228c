"""The dashboard in a headless Chromium: it draws, asks nobody, logs nothing, sorts, searches, and runs no name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.report.dashboard import write_dashboard
from tests.report.browser import CHROMIUM, DRIVER, MISSING, Browser, browser
from tests.report.profiles import ENCODER_POINTS, HOSTILE, make_profile

pytestmark = pytest.mark.skipif(CHROMIUM is None or DRIVER is None, reason=MISSING)
CHARTS = ("bars", "tree-time", "tree-memory", "phases", "shares", "roofline", "samples", "items")
NAMES = "return [...document.querySelectorAll('#layers tbody tr')].map(r => r.cells[1].textContent)"


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("chromium")) as found:
        yield found


def show(tab: Browser, path: Path, profile: Any) -> None:
    write_dashboard(profile, path)
    tab.console(), tab.requests()
    tab.open(path)
    assert tab.run("return document.documentElement.dataset.ready") == "1", tab.console()


def no_complaints(tab: Browser, path: Path) -> None:
    assert tab.console() == []
    assert tab.requests() == [path.as_uri()]


@pytest.mark.parametrize(("num_blocks", "num_layers"), [(12, 40), (332, 1000)])
def test_it_draws_every_chart_in_both_themes_and_asks_nobody(tab: Browser, tmp_path: Path, num_blocks: int, num_layers: int) -> None:
    path = tmp_path / "dashboard.html"
    show(tab, path, make_profile(num_blocks))
    for _ in ("light", "dark"):
        drawn = tab.run("return arguments[0].filter(id => document.querySelector(`#${id} .main-svg`))", list(CHARTS))
        assert drawn == list(CHARTS)
        assert tab.run("return document.querySelectorAll('#bars .point').length") == num_layers
        tab.run("document.getElementById('theme').click()")
    assert len(tab.run(NAMES)) == num_layers
    assert tab.run("return document.documentElement.scrollWidth <= window.innerWidth")
    no_complaints(tab, path)


def test_every_operating_point_and_both_times_draw(tab: Browser, tmp_path: Path) -> None:
    path = tmp_path / "dashboard.html"
    profile = make_profile(12)
    show(tab, path, profile)
    titles = []
    for index in range(len(profile.points)):
        change = "const s = document.getElementById('point'); s.value = arguments[0]; s.dispatchEvent(new Event('change'));"
        tab.run(change, index)
        titles.append(tab.run("return document.querySelector('.tile span').textContent"))
    assert titles == [f"one step at {p.label}" for p in profile.points]
    before = tab.run("return document.getElementById('bars').data[0].y.slice()")
    tab.run("const s = document.getElementById('time'); s.value = 'p50_s'; s.dispatchEvent(new Event('change'))")
    assert tab.run("return document.getElementById('bars').data[0].y.slice()") != before
    no_complaints(tab, path)


def test_the_table_sorts_by_any_column_and_searches(tab: Browser, tmp_path: Path) -> None:
    path = tmp_path / "dashboard.html"
    profile = make_profile(12)
    show(tab, path, profile)
    point = profile.reference_point("decode")
    timed = [(layer.name, f.self_s) for layer in profile.layers if (f := layer.at(point))]
    slowest = [name for name, _ in sorted(timed, key=lambda pair: -pair[1])]
    tab.run("document.querySelectorAll('#layers th button')[3].click()")
    assert tab.run(NAMES)[:10] == slowest[:10]
    assert tab.run("return document.querySelectorAll('#layers th')[3].getAttribute('aria-sort')") == "descending"
    tab.run("document.querySelectorAll('#layers th button')[3].click()")
    assert tab.run(NAMES)[-10:] == slowest[:10][::-1]
    tab.run("document.querySelectorAll('#layers th button')[1].click()")
    assert tab.run(NAMES)[:4] == ["h.0", "h.0.attn", "h.0.mlp", "h.1"], "names sort by their numbers"
    search = "const i = document.querySelector('#layers input'); i.value = arguments[0]; i.dispatchEvent(new Event('input'))"
    tab.run(search, "ATTENTION h.1")
    assert set(tab.run(NAMES)) == {"h.1.attn", "h.10.attn", "h.11.attn"}
    assert tab.run("return document.querySelector('#layers .count').textContent") == "3 of 40"
    tab.run(search, "no such layer")
    assert tab.run(NAMES) == []
    no_complaints(tab, path)


def test_choosing_a_row_shows_its_samples(tab: Browser, tmp_path: Path) -> None:
    path = tmp_path / "dashboard.html"
    show(tab, path, make_profile(12))
    tab.run("document.querySelectorAll('#layers tbody tr')[4].click()")
    assert tab.run("return document.getElementById('samples').data[0].name") == "h.0.mlp"
    assert tab.run("return document.querySelector('tr.chosen').cells[1].textContent") == "h.0.mlp"


def test_hostile_names_are_shown_as_text_everywhere(tab: Browser, tmp_path: Path) -> None:
    path = tmp_path / "dashboard.html"
    show(tab, path, make_profile(12, HOSTILE))
    assert "owned" not in tab.run("return document.title")
    # Nothing of a name became an element; Plotly's own camera and zoom buttons are links without an address.
    assert tab.run("return document.querySelectorAll('main img, main script, main b:not(.tile b), main a[href]').length") == 0
    assert tab.run("return document.querySelectorAll('script').length") == 1 + 8
    shown = tab.run(NAMES)
    assert shown[0] == HOSTILE[0] and shown[2] == HOSTILE[2]
    assert shown[3] == "\\u001b]0;owned\\u0007\\u001b[31mred\\u001b[0m"
    assert shown[14] == "\\u202egnp.exe" and shown[15] == "\\ud800 lone surrogate" and shown[20] == "(no name)"
    assert len(shown[19]) == 120
    labels = tab.run("return [...document.querySelectorAll('#bars .xtick text')].map(t => t.textContent)")
    assert "<img src=x" in "".join(labels) and "layer[/foo]" in "".join(labels)
    for row in range(len(HOSTILE)):
        tab.run("document.querySelectorAll('#layers tbody tr')[arguments[0]].click()", row)
        tab.run("Plotly.Fx.hover('bars', [{curveNumber: 0, pointNumber: arguments[0]}])", row)
    assert tab.run("return document.querySelectorAll('.hoverlayer a').length") == 0
    assert "owned" not in tab.run("return document.title")
    no_complaints(tab, path)


def test_a_script_that_a_name_smuggled_in_would_not_run(tab: Browser, tmp_path: Path) -> None:
    """The page's policy is a second wall: even an element in the page runs nothing, and no request leaves."""
    path = tmp_path / "dashboard.html"
    show(tab, path, make_profile(12))
    tab.run("""const s = document.createElement('script'); s.textContent = "document.title = 'owned'"; document.body.append(s);
               const i = document.createElement('img'); i.src = 'https://example.invalid/x.png'; document.body.append(i);""")
    assert tab.run("return document.title") != "owned"
    assert any("Content Security Policy" in text or "Content-Security-Policy" in text for text in tab.console())


def test_an_encoder_has_one_phase(tab: Browser, tmp_path: Path) -> None:
    path = tmp_path / "dashboard.html"
    show(tab, path, make_profile(12, points=ENCODER_POINTS))
    assert tab.run("return document.getElementById('phases').textContent") == "this model has one phase only"
    no_complaints(tab, path)


def test_a_narrow_window_cuts_nothing_off(tab: Browser, tmp_path: Path) -> None:
    path = tmp_path / "dashboard.html"
    write_dashboard(make_profile(12, HOSTILE), path)
    tab.open(path, width=520, height=900)
    assert tab.run("return document.documentElement.scrollWidth <= window.innerWidth")
