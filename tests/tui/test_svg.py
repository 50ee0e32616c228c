"""Ten screens with their colours, as the SVG that `: shot` writes. NOODLE_UPDATE_GOLDEN=1 writes them anew.

Compared is what a person sees, cell by cell: the text, its colour and weight, and the background. How Rich spells the file may change.
The files are compressed; to look at one: `gunzip -k tests/tui/svg/NAME.svg.gz`.
"""

from __future__ import annotations

import gzip
import html
import os
import re
from pathlib import Path

import pytest
from textual.pilot import Pilot

from noodle_tui.app import ConsoleApp
from noodle_tui.glyphs import ASCII, UNICODE, Glyphs
from noodle_tui.text.graph_sets import glyphs_for
from tests.tui.harness import run
from tests.tui.scenes import NOW_S, scene
from tests.tui.test_pictures import SETTINGS, utc  # noqa: F401  (a fixture)

FOLDER = Path(__file__).parent / "svg"
SHOTS: dict[str, tuple[str, tuple[int, int], str, Glyphs]] = {
    "overview": ("overview", (120, 40), "noodle-dark", UNICODE),
    "overview-light": ("overview", (80, 24), "noodle-light", UNICODE),
    "overview-cvd": ("overview", (80, 24), "cvd-dark", UNICODE),
    "nodes-ascii": ("nodes", (80, 24), "ansi", ASCII),
    "plan": ("plan", (80, 24), "noodle-dark", UNICODE),
    "what-if": ("what-if", (80, 24), "cvd-light", UNICODE),
    "events-mono": ("events", (80, 24), "mono", UNICODE),
    "profile": ("profile", (80, 24), "noodle-dark", UNICODE),
    "apply": ("confirm-rebalance", (120, 40), "noodle-dark", UNICODE),
    "braille": ("nodes", (80, 24), "noodle-dark", glyphs_for("braille", ascii_only=False)),
    "offline": ("offline", (80, 24), "noodle-dark", UNICODE),
}
_RULE = re.compile(r"\.[\w-]+-(r\d+)\s*\{([^}]*)\}")
_TEXT = re.compile(r'<text class="[\w-]+-(r\d+)" x="([\d.]+)" y="([\d.]+)"[^>]*>([^<]*)</text>')
_RECT = re.compile(r'<rect fill="([^"]+)" x="([\d.]+)" y="([\d.]+)" width="([\d.]+)"')


def shot(name: str) -> str:
    """The SVG of a scene, at a fixed moment."""
    of, size, theme, glyphs = SHOTS[name]
    taken: list[str] = []

    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        app.use_theme(theme)
        await pilot.pause()
        app.paint = lambda: None  # type: ignore[method-assign]  # the clock stands still
        app.main.paint(scene(of), NOW_S, SETTINGS)
        await pilot.pause()
        taken.append(app.export_screenshot(title=name))

    run(test, size, glyphs)
    return taken[0]


def seen(svg: str) -> list[str]:
    """Every piece of text with its style, every background, by their places."""
    styles = {rule: ";".join(sorted(part.strip() for part in style.split(";") if part.strip())) for rule, style in _RULE.findall(svg)}
    texts = [f"{float(y):7.1f} {float(x):7.1f} {html.unescape(text)!r} {styles[rule]}" for rule, x, y, text in _TEXT.findall(svg)]
    return sorted([*texts, *(f"{float(y):7.1f} {float(x):7.1f} [{float(width):.0f}] {fill}" for fill, x, y, width in _RECT.findall(svg))])


@pytest.mark.parametrize("name", SHOTS)
def test_it_looks_as_it_did(name: str) -> None:
    svg, path = shot(name), FOLDER / f"{name}.svg.gz"
    if os.environ.get("NOODLE_UPDATE_GOLDEN"):
        path.write_bytes(gzip.compress(svg.encode(), 9, mtime=0))
    assert seen(svg) == seen(gzip.decompress(path.read_bytes()).decode())


def test_every_file_is_one_that_is_compared() -> None:
    assert {path.name for path in FOLDER.iterdir()} == {f"{name}.svg.gz" for name in SHOTS}


def test_a_colour_and_a_background_count_as_a_difference() -> None:
    svg = gzip.decompress((FOLDER / "overview.svg.gz").read_bytes()).decode()
    facts = seen(svg)
    assert sum("WARN" in fact for fact in facts) >= 2 and sum("[" in fact and "#" in fact for fact in facts) > 100
    colour = re.search(r"fill: (#[0-9a-f]{6})", svg)
    assert colour is not None and seen(svg.replace(colour[1], "#123456")) != facts
