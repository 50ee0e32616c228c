"""Themes: the shipped ones are readable, broken ones are refused with the file and the key."""

from __future__ import annotations

from importlib.resources import files

import pytest
from textual.pilot import Pilot

from engine.data.errors import InvalidInput
from noodle_tui.app import ConsoleApp
from noodle_tui.core.pages import Page
from noodle_tui.themes import choose_look, contrast, load_theme, parse_theme, theme_names
from tests.tui.harness import run
from tests.tui.scenes import NOW_S, keyed, lived
from tests.tui.test_pictures import SETTINGS

GOOD = files("themes").joinpath("noodle-dark.toml").read_text("utf-8")


def test_shipped_themes() -> None:
    assert theme_names() == ["noodle-dark", "ansi", "cvd-dark", "cvd-light", "mono", "noodle-light"]


@pytest.mark.parametrize("name", theme_names())
def test_text_stands_out_from_its_background(name: str) -> None:
    look = load_theme(name)
    assert look.name == name
    least = 7.0 if name.startswith("cvd") else 4.5
    if not look.ansi:
        paper = look.colors["background"]
        assert {k: round(contrast(c, paper), 2) for k, c in look.colors.items() if k != "background" and contrast(c, paper) < least} == {}


def test_contrast_is_the_wcag_ratio() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21.0)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


def test_mono_has_no_colour_at_all() -> None:
    styles = load_theme("mono").styles.values()
    assert all(style.color is not None and style.color.is_default for style in styles)
    assert all(style.bgcolor is not None and style.bgcolor.is_default for style in styles)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('ok = "#7fce8b"', 'ok = "greenish"', "state.ok"),
        ('ok = "#7fce8b"', "", "state.ok"),
        ("dark = true", 'dark = "yes"', "dark must be a bool"),
        ("[graph]", "[grahp]", "unknown key 'grahp'"),
        ('low = "#7fce8b"', 'low = "#7fce8b"\nlowest = "#000000"', "unknown key graph.lowest"),
        ("dark = true", "dark = = true", "not TOML"),
    ],
)
def test_a_broken_theme_is_refused_with_its_file_and_key(old: str, new: str, message: str) -> None:
    assert old in GOOD
    with pytest.raises(InvalidInput, match=r"themes/x\.toml") as caught:
        parse_theme("themes/x.toml", GOOD.replace(old, new))
    assert message in str(caught.value)


def test_an_unknown_name_lists_the_themes() -> None:
    with pytest.raises(InvalidInput, match="noodle-dark, ansi, cvd-dark, cvd-light, mono, noodle-light"):
        load_theme("../../etc/passwd")


def test_no_color_chooses_the_theme_without_colours() -> None:
    assert choose_look(None, {"NO_COLOR": ""}).name == "mono", "present counts, even when empty"
    assert choose_look(None, {}).name == "noodle-dark"
    assert choose_look("ansi", {"NO_COLOR": "1"}).name == "ansi", "what was asked for on the command line wins"


def colours(app: ConsoleApp) -> set[str]:
    """Of every cell of the terminal, in front and behind."""
    styles = [segment.style for strip in app.screen._compositor.render_strips() for segment in strip if segment.style]
    return {found.triplet.hex for style in styles for found in (style.color, style.bgcolor) if found is not None and found.triplet}


@pytest.mark.parametrize("page", Page)
def test_another_theme_is_on_the_open_screen_at_once_graphs_and_fields_included(page: Page) -> None:
    """Nothing of the old one is left."""
    shown: dict[str, set[str]] = {}

    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        state = keyed(lived(), f"screen.{page.value}")
        app.paint = lambda: None  # type: ignore[method-assign]  # the clock stands still
        app.state = state
        for name in ("noodle-dark", "noodle-light", "cvd-dark"):
            app.use_theme(name)
            app.main.paint(state, NOW_S, SETTINGS)
            await pilot.pause()
            shown[name] = colours(app)

    run(test, (120, 40))
    for name, found in shown.items():
        assert found <= {*load_theme(name).colors.values()} and len(found) > 4, name
