"""Hints and the key line name the keys as the user has bound them, in whole words, at every width."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial

import pytest

from engine.data.errors import InvalidInput
from noodle_tui.core.keys import BY_ID, KEYS, key_of, named, with_keys
from noodle_tui.core.pages import Page
from noodle_tui.glyphs import ASCII
from noodle_tui.screens.mouse import page_at
from noodle_tui.state import ConsoleState, Setup
from noodle_tui.text.lines import Canvas
from noodle_tui.widgets import key_line as module
from noodle_tui.widgets.key_line import key_line
from tests.tui import scenes
from tests.tui.harness import live, run
from tests.tui.scenes import NOW_S, SCENES, large, page, scene
from tests.tui.test_pictures import picture, text_of

REBOUND = tuple(replace(key, keys=f"f{101 + i}") for i, key in enumerate(KEYS))
NAME = r"f1\d\d"
VERBS = "=|applies|clears|opens|closes|profiles|dismisses|takes|keeps|shows|goes|stops|compares|apply|compare|help|command|quit"
HINT = re.compile(
    rf"(?<![\w.-])(enter|tab|space|[A-Za-z?:]) ({VERBS})(?!\S)|\besc\b|\bpgdn\b|(?<!\S)[a-z]: (?!\S*:\d)|"
    r"`: |(?<!\S): ctx|newest first, \d = all|[+]\d+[^]]*, z\b"
)
FIXED = (
    "enter send",
    "up last prompts",
    "alt+enter line",
    "type to filter",
    "tab settings",
    "esc stop the answer",
)  # of text fields: nobody rebinds them


def words_of(state: ConsoleState, width: int, *, typing: bool = False) -> list[str]:
    text = "".join(span.text for span in key_line(state, Canvas(width, 24, ASCII, NOW_S), typing=typing))
    assert len(text) <= width
    return text.strip().split(module.GAP) if text else []


@pytest.mark.parametrize("name", SCENES)
def test_no_scene_names_a_key_that_was_bound_anew(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scenes, "ConsoleState", partial(ConsoleState, setup=Setup(keys=REBOUND)))
    state = scene(name)
    for size in ((80, 24), (120, 40), (200, 60)):
        text = text_of(picture(state, *size, ASCII))
        assert not HINT.search(text), HINT.search(text)
    for typing in (False, True):
        assert all(re.match(NAME, word.removeprefix("esc then ")) or word in FIXED for word in words_of(state, 120, typing=typing))


@pytest.mark.parametrize("width", range(60, 201, 7))
def test_the_key_line_is_made_of_whole_words_at_every_width(width: int) -> None:
    for name in SCENES:
        state = scene(name)
        for typing in (False, True):
            whole = {state.named(word) for word in (module._typing(state) if typing else module._words(state))}
            shown = words_of(state, width, typing=typing)
            assert set(shown) <= whole and shown, (name, shown)
    rebound = replace(scene("overview"), setup=Setup(keys=tuple(replace(key, keys="ctrl+shift+pagedown") for key in KEYS)))
    assert all(word.startswith("ctrl+shift+") for word in words_of(rebound, width))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (Page.OVERVIEW, ["enter open", "tab panel", "S what-if", "R rebalance", "space hold"]),
        (Page.EVENTS, ["enter full", "/ filter", "f kind", "g newest", ", . plans", "z all"]),
        (Page.LOGS, ["enter full", "/ filter", "w warn", "n source", "f follow", "z all"]),
        (Page.PROFILE, ["P profile", "b phase", "m measure", "n next", "z all", "c compare"]),
        (Page.WHATIF, ["A apply", "c compare", "m measure", "enter stages", "S ask again"]),
    ],
)
def test_what_matters_most_on_a_screen_fits_eighty_columns(name: Page, expected: list[str]) -> None:
    assert words_of(page(name), 80) == [*expected, "? help", "q quit"]


def test_a_large_plan_can_be_unfolded_from_its_key_line_and_a_small_one_not() -> None:
    assert "z all" in words_of(large(), 80) and "z all" not in words_of(page(Page.PLAN), 80)
    assert "z fold" in words_of(scenes.keyed(large(), "view.expand"), 80)


def test_every_name_of_a_binding_in_a_text_is_known() -> None:
    assert named("{view.hold} = {screen.what-if}, not {this}", KEYS) == "space = 4, not {this}"
    with pytest.raises(StopIteration):
        named("{view.hodl}", KEYS)
    for text in module._PAGES.values():
        for key_id in re.findall(r"[a-z]+\.[a-z_-]+", text):
            assert key_id in BY_ID


def test_tabs_are_named_and_clicked_by_their_bound_keys() -> None:
    state = replace(page(Page.PLAN), setup=Setup(keys=with_keys({"screen.plan": "ctrl+l"})))
    rows = text_of(picture(state, 120, 40, ASCII)).split("\n")
    assert "2.Nodes  ctrl+l.PLAN  4.What-if" in rows[1]
    assert page_at(state, rows[1].index("PLAN"), Canvas(120, 40, ASCII, NOW_S)) is Page.PLAN


def test_a_users_key_shows_on_the_running_console() -> None:
    from noodle_tui.config import Config
    from tests.tui.harness import link_of, shown

    config = Config(keys=with_keys({"view.hold": "u", "cluster.whatif": "W", "nav.in": "a"}))

    async def test(app, pilot) -> None:  # type: ignore[no-untyped-def]
        await live(app, pilot)
        await pilot.pause()
        assert "a open  tab panel  W what-if" in shown(app) and "u hold" in shown(app)
        await pilot.press("8")
        await pilot.pause()
        assert "esc then 1-9 screens" in shown(app), "in a field a letter is text, so the way out cannot be rebound to one"
        await pilot.press("a", "enter")
        assert [request.prompt for request in link_of(app).requests] == ["a"]
        await pilot.press("escape", "escape")
        await pilot.pause()
        assert "a write" in shown(app)
        app.effects.run("ctx 127.0.0.1:9")
        await pilot.pause()
        assert app.state.keys is config.keys, "another cluster, the same keys"

    run(test, (120, 40), config=config)
    assert key_of("view.hold", config.keys) == "u"
    with pytest.raises(InvalidInput):
        with_keys({"view.hold": "q"})
