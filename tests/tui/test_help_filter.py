"""The help: every key is in it, it can be searched by typing, and typing there does nothing else."""

from __future__ import annotations

import functools
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from textual.events import Paste
from textual.pilot import Pilot

from engine.folders import settings_path, shown_path
from noodle_tui.app import ConsoleApp
from noodle_tui.changes.help_filter import fits, pasted, typed
from noodle_tui.config import Config
from noodle_tui.core.keys import KEYS, with_keys
from noodle_tui.core.pages import Page
from noodle_tui.glyphs import ASCII
from noodle_tui.listings import table_of
from noodle_tui.options import Options
from noodle_tui.screens.help import WORDS, help_body
from noodle_tui.state import Setup
from noodle_tui.text.lines import Canvas
from noodle_tui.text.safe_text import types
from noodle_tui.themes import load_theme
from tests.tui import scenes
from tests.tui.harness import live, run, shown
from tests.tui.test_pictures import SIZES, picture, text_of

PLAIN = {"FIT", "FROM", "ITEM", "KIND", "NAME", "NODE", "TEXT", "TIME", "WHAT", "DONE", "COPY", "GAIN"}  # words as they are
NEW_KEYS = {"view.metric": "ctrl+n", "view.expand": "ctrl+o", "view.kind": "ctrl+k", "view.newest": "ctrl+g"}


@pytest.mark.parametrize("page", Page)
def test_every_key_of_a_screen_is_in_its_help(page: Page) -> None:
    keys = with_keys(NEW_KEYS)
    text = text_of(help_body(replace(scenes.page(page, "app.help"), setup=Setup(keys=keys)), Canvas(120, 400, ASCII, 0.0)))
    for key in keys:
        here = page in key.pages and not key.id.startswith("screen.")
        assert (f" {key.label} " in text and key.text in text) or not here, key.id
    for key_id, own in NEW_KEYS.items():
        assert (own in text) == (page in next(key for key in KEYS if key.id == key_id).pages)


def test_typing_filters_esc_clears_then_closes() -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await live(app, pilot)
        await pilot.press("3", "question_mark", *"roll q", "space")
        await pilot.pause()
        assert app.state.ui.help_filter == "roll q " and not app.state.quitting and app.state.ui.page is Page.PLAN
        assert "filter: roll q" in shown(app) and "nothing here contains that" in shown(app)
        await pilot.press("backspace", "backspace", "backspace")
        await pilot.press("ctrl+u", *"compare")
        await pilot.pause()
        assert "compare strategies" in shown(app) and "compare with another one" in shown(app) and "drain" not in shown(app)
        await pilot.press("escape")
        await pilot.pause()
        assert app.state.ui.help and "drain, undrain, forget a node" in shown(app)
        await pilot.press("escape")
        assert not app.state.ui.help and app.state.ui.page is Page.PLAN

    run(test, (120, 50))


def test_capitals_digits_and_y_are_letters_there() -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await live(app, pilot)
        await pilot.press("question_mark", "R", "2", "y", "D")
        await pilot.pause()
        assert app.state.ui.help_filter == "R2yD" and app.state.ui.dialog is None and app.state.ui.page is Page.OVERVIEW
        await pilot.press("question_mark")
        assert not app.state.ui.help and app.state.ui.help_filter == ""
        await pilot.press("2")
        assert app.state.ui.page is Page.NODES, "closed, keys are keys again"

    run(test)


def test_it_scrolls_and_a_paste_is_text() -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await live(app, pilot)
        await pilot.press("question_mark", "pagedown")
        assert app.state.ui.help_scroll == 10 and app.state.ui.help_filter == ""
        app.main.post_message(Paste("drain\x1b[31m\n" + "x" * 500))
        await pilot.pause()
        assert app.state.ui.help_filter.startswith("drain") and len(app.state.ui.help_filter) == 60
        assert app.state.ui.help_filter.isprintable() and app.state.ui.help_scroll == 0

    run(test)


def test_the_own_key_of_the_help_closes_it() -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await live(app, pilot)
        await pilot.press("h", "a")
        assert app.state.ui.help and app.state.ui.help_filter == "a"
        await pilot.press("h")
        assert not app.state.ui.help

    run(test, config=Config(keys=with_keys({"app.help": "h"})))


@given(st.text(max_size=80), st.text(max_size=80))
def test_whatever_is_pasted_it_stays_short_and_printable(text: str, more: str) -> None:
    found = pasted(pasted("", text), more)
    assert len(found) <= 60 and all(types(character) for character in found)


def test_words_and_keys() -> None:
    assert fits("NODE dr", "D", "drain chosen node") and not fits("node x", "D", "drain chosen node") and fits("", "a")
    assert typed("ab", "backspace", None, KEYS) == "a" and typed("ab", "ctrl+u", None, KEYS) == ""
    assert typed("ab", "question_mark", "?", KEYS) is None and typed("ab", "up", None, KEYS) is None and typed("", "j", "j", KEYS) == "j"


def test_every_abbreviation_has_its_words() -> None:
    """Titles of columns that are no words by themselves, wherever they stand."""
    titles = set()
    for make in scenes.SCENES.values():
        state = make()
        tables = [table_of(state, page) for page in Page]
        titles |= {column.title for table in tables if table is not None for column in table.columns}
    short = {title for title in titles if re.fullmatch(r"[A-Z]{1,4}|[A-Z]+/[A-Zs]+|p\d+(ms)?|P\d+", title)} - PLAIN
    assert {"STG", "UTIL", "TTFT", "OUT/MAX", "Q", "KV", "p95"} <= short
    words = " ".join(word for word, _, _ in WORDS).lower()
    assert [title for title in sorted(short) if title.lower().removesuffix("ms") not in words] == []


@pytest.mark.parametrize("width", [80, 120])
def test_no_row_of_the_help_is_cut(width: int) -> None:
    for page in Page:
        text = text_of(help_body(scenes.page(page, "app.help"), Canvas(width, 400, ASCII, 0.0)))
        told = {key.text for key in KEYS if (page in key.pages or key.changes) and not key.id.startswith(("screen.", "nav."))}
        assert [words for words in told if words not in text] == []
        assert [words for _, words, _ in WORDS if words not in text] == []


@functools.cache
def shown_on_screens() -> dict[Page, str]:
    """Everything that stands on each screen in any scene."""
    shown: dict[Page, str] = dict.fromkeys(Page, "")
    for make in scenes.SCENES.values():
        state = make()
        shown[state.ui.page] += text_of(picture(state, 120, 40, ASCII)).lower()
    return shown


@pytest.mark.parametrize("page", Page)
@pytest.mark.parametrize("width", [80, 120])
def test_a_newcomer_reads_the_words_of_a_screen_first(page: Page, width: int) -> None:
    """And each of them is a word of that screen, in one scene of it or another."""
    own = [(word, text) for word, text, pages in WORDS if str(page.number) in pages]
    opened = text_of(help_body(scenes.page(page, "app.help"), Canvas(width, 20, ASCII, 0.0)))
    assert own and [text for _, text in own if text not in opened] == []
    seen = shown_on_screens()[page]
    assert [word for word, _ in own if not any(part in seen for part in word.lower().split()) and word != "#14"] == []


@pytest.mark.parametrize("page", Page)
def test_every_screen_says_where_its_help_is(page: Page) -> None:
    for size in SIZES:
        text = text_of(picture(scenes.page(page), *size, ASCII)).rstrip().splitlines()
        assert "? help" in text[-1] and "?" in text[1], size


@pytest.mark.parametrize("size", SIZES)
def test_the_help_names_the_folders_of_this_platform(size: tuple[int, int]) -> None:
    """Whole, however long they are: a folder that has no room begins a row."""
    mac, windows = "~/Library/Application Support/noodlecore/console.toml", "~\\AppData\\Local\\noodlecore\\themes"
    state = scenes.page(Page.NODES, "app.help")
    text = text_of(help_body(replace(state, setup=replace(state.setup, files=(mac, windows))), Canvas(size[0], 400, ASCII, 0.0)))
    column = [row.rpartition("|")[2].strip() for row in text[text.index("FILES") :].splitlines()]
    assert "".join(column).startswith(f"FILES {mac}{windows}ENV")
    told = ConsoleApp(Options(), load_theme("mono"), ASCII).state.setup.files
    assert told == tuple(shown_path(settings_path(name)) for name in ("console.toml", "themes"))
