"""Text is text and a `y` is an answer only to what could be read: where keys and pastes go, in the order in which they were typed."""

from __future__ import annotations

import time

import pytest
from textual import events
from textual.keys import _character_to_key
from textual.pilot import Pilot

from noodle_tui.app import ConsoleApp
from noodle_tui.core import messages as m
from noodle_tui.core.pages import EntryKind, Leaving, Page, Preview
from noodle_tui.core.reading import READING_S, Reading
from noodle_tui.widgets.prompt_field import PromptField
from tests.tui import frames
from tests.tui.harness import agree, finished, link_of, live, pass_by, run, shown

HOSTILE = "R\ny\rD y\x1b[31m\x1a\x03\x7f:drain cpu-b\nq"


def burst(app: ConsoleApp, text: str) -> None:
    """As fast as a terminal hands it over: nothing runs in between."""
    for character in text:
        name = {"\r": "enter", "\x1b": "escape", " ": "space", ":": "colon", "/": "slash"}.get(character, character)
        app.post_message(events.Key(name, character))


def prompt_of(app: ConsoleApp) -> str:
    return app.main.query_one("#prompt", PromptField).value


def test_a_question_typed_right_behind_the_digit_is_the_prompt() -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await live(app, pilot)
        burst(app, "8t Ry qM")
        await pilot.pause()
        assert prompt_of(app) == "t Ry qM" and app.state.ui.page is Page.PROMPT
        assert app.state.held is None and app.state.ui.dialog is None and not app.state.quitting
        app.paint()
        assert "esc then 1-9 screens" in shown(app), "the way out of the field stands on the screen"
        burst(app, "\x1b5")
        await pilot.pause()
        assert app.state.ui.page is Page.EVENTS and app.main.field is None

    run(test)


@pytest.mark.parametrize("way", ["8", ":prompt\r", "p", "tab"])
def test_every_way_to_the_prompt_screen_has_its_field_focused(way: str) -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await live(app, pilot)
        if way == "tab":
            await pilot.press("7", "tab")
        else:
            burst(app, way)
        burst(app, "hold on")
        await pilot.pause()
        assert app.state.ui.page is Page.PROMPT and prompt_of(app) == "hold on"

    run(test)


def test_what_was_typed_is_sent_by_an_enter_in_the_same_burst() -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await live(app, pilot)
        burst(app, "8hello\rR y")
        await finished(app, pilot)
        assert [request.prompt for request in link_of(app).requests] == ["hello"]
        assert prompt_of(app) == "R y" and app.state.ui.dialog is None

    run(test)


def test_the_field_keeps_its_keys() -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await pilot.press("8", *"abc", "left", "left", "X", "end", "backspace", "home", "delete")
        assert prompt_of(app) == "Xb"
        await pilot.press("tab", "end", "ctrl+u", "1", "0", "enter")
        assert app.main.settings()[0] == 10 and app.main.field is app.main.query_one("#prompt")

    run(test)


@pytest.mark.parametrize("receiver", ["prompt", "filter", "command", "help", "nothing", "dialog"])
def test_pasted_text_never_acts(receiver: str) -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await live(app, pilot)
        await pilot.press("2")
        link_of(app).plans[""] = frames.plan()
        keys = {"prompt": ["8"], "filter": ["slash"], "command": ["colon"], "help": ["question_mark"], "nothing": [], "dialog": ["R"]}
        await pilot.press(*keys[receiver])
        await finished(app, pilot, "preview")
        pass_by(app, 1.0)
        before = app.state.ui.dialog
        app.post_message(events.Paste(HOSTILE))
        await pilot.pause()
        assert link_of(app).calls == [] and link_of(app).requests == [] and app.is_running and not app.state.quitting
        assert app.state.ui.dialog == before and app.state.held is None
        ui = app.state.ui
        text = {"prompt": prompt_of(app), "filter": ui.entry.text if ui.entry else "", "command": ui.entry.text if ui.entry else ""}
        assert receiver not in text or "drain cpu-b" in text[receiver]
        assert receiver not in ("filter", "command") or (ui.entry is not None and ui.entry.kind is EntryKind(receiver))
        assert receiver != "help" or "drain cpu-b" in ui.help_filter

    run(test)


def test_spaces_and_joiners_of_other_scripts_can_be_typed_and_pasted() -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await live(app, pilot)
        await pilot.press("8")
        typed = "می\u200cخواهم 全\u3000角 «\u00a0à\u202f!"
        for character in typed:
            app.post_message(events.Key(_character_to_key(character), character))
        await pilot.pause()
        assert prompt_of(app) == typed
        app.post_message(events.Paste(" 👩\u200d👧"))
        await pilot.pause()
        assert prompt_of(app).endswith("👩\u200d👧")

    run(test)


@pytest.mark.parametrize(("key", "character"), [("alt+3", "3"), ("alt+3", None)])
def test_alt_and_a_key_are_esc_and_that_key(key: str, character: str | None) -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await live(app, pilot)
        await pilot.press("8", "a")
        app.post_message(events.Key(key, character))
        await pilot.pause()
        assert app.state.ui.page is Page.PLAN and prompt_of(app) == "a"

    run(test)


@pytest.mark.parametrize("character", ["3", None])
def test_alt_and_a_key_in_the_help_clear_the_filter_and_begin_another(character: str | None) -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await live(app, pilot)
        await pilot.press("question_mark", "a", "b")
        app.post_message(events.Key("alt+3", character))
        await pilot.pause()
        assert app.state.ui.help and app.state.ui.help_filter == "3" and app.state.ui.page is Page.OVERVIEW

    run(test)


def test_alt_and_a_capital_letter_are_esc_and_the_capital_letter() -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await live(app, pilot)
        link_of(app).plans[""] = frames.plan()
        await pilot.press("question_mark")
        app.post_message(events.Key("alt+shift+r", "R"))
        await pilot.pause()
        assert not app.state.ui.help and isinstance(app.state.ui.dialog, Preview)

    run(test)


def test_the_window_losing_its_focus_does_not_turn_text_into_commands() -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await live(app, pilot)
        await pilot.press("8")
        app.post_message(events.AppBlur())
        await pilot.pause()
        burst(app, "R y")
        await pilot.pause()
        assert prompt_of(app) == "R y" and app.state.ui.dialog is None

    run(test)


# --- a `y` needs a preview that could be read --------------------------------------------------------------------------
def test_a_y_that_comes_with_its_letter_does_nothing_and_says_so() -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await live(app, pilot)
        await pilot.press("6")
        burst(app, "Xy")
        await pilot.pause()
        app.paint()
        await pilot.pause()
        assert link_of(app).calls == [] and "CANCEL SESSION s-1" in shown(app)
        assert "y came before this could be read" in shown(app)
        await agree(app, pilot)
        await finished(app, pilot, "action")
        assert link_of(app).calls == [("cancel", "s-1", 14)]

    run(test, (100, 40))


@pytest.mark.parametrize(("waited_s", "acts"), [(READING_S - 0.1, False), (READING_S + 0.1, True)])
def test_half_a_second_on_the_screen_is_enough(waited_s: float, acts: bool) -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await live(app, pilot)
        await pilot.press("6", "X")
        app.paint()
        app.clock = Stopped(app.reading._since_s + waited_s)
        app.post_message(events.Key("y", "y"))
        await finished(app, pilot, "action")
        assert bool(link_of(app).calls) is acts

    run(test, (100, 40))


def test_a_key_that_waited_in_a_queue_counts_from_when_it_was_typed() -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await live(app, pilot)
        await pilot.press("6", "X")
        app.paint()
        pass_by(app, 2 * READING_S)
        typed = events.Key("y", "y")
        typed.time = time.monotonic() - 3 * READING_S
        app.post_message(typed)
        await finished(app, pilot, "action")
        assert link_of(app).calls == []

    run(test, (100, 40))


def test_a_preview_that_nobody_can_see_is_not_confirmed() -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await live(app, pilot)
        await pilot.press("6")
        await agree(app, pilot, "X")
        await finished(app, pilot, "action")
        assert link_of(app).calls == []

    run(test, (50, 10))


def test_other_contents_have_to_be_read_anew() -> None:
    reading, preview = Reading(), Preview("cluster.auto", "off", 14, choices=("off", "auto"))
    other = Preview("cluster.auto", "auto", 14, choices=("off", "auto"))
    reading.painted(preview, 10.0)
    reading.painted(preview, 10.4)
    assert not reading.can_be_meant(preview, 10.4) and reading.can_be_meant(preview, 10.5)
    assert not reading.can_be_meant(other, 20.0), "it was not painted yet"
    reading.painted(other, 20.0)
    assert not reading.can_be_meant(other, 20.4) and reading.can_be_meant(other, 20.5)
    reading.painted(Leaving("x", hasty=True), 30.0)
    reading.painted(Leaving("x"), 30.4)
    assert reading.can_be_meant(Leaving("x"), 30.5), "that a key came too early changes nothing to read"


def test_leaving_in_the_middle_of_a_change_needs_reading_too() -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await live(app, pilot)
        app.dispatch(m.ActionChanged("PROFILE gpu-a", "running", "10 %"))
        burst(app, "qy")
        await pilot.pause()
        assert isinstance(app.state.ui.dialog, Leaving) and not app.state.quitting

    run(test)


class Stopped:
    """A clock that stands still."""

    def __init__(self, now_s: float) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s


# --- only changes of the plan exclude each other -------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("page", "key", "call"), [("6", "X", "cancel"), ("2", "D", "drain"), ("1", "H", "apply"), ("1", "M", "set_adaptation")]
)
def test_a_running_profile_stops_no_other_change(page: str, key: str, call: str) -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await live(app, pilot, mode="off")
        link = link_of(app)
        link.plans["without gpu-a"] = frames.plan()
        link.answers["plans"] = former()
        app.dispatch(m.ActionChanged("PROFILE gpu-a", "running", "10 %"))
        await pilot.press(page, key)
        await finished(app, pilot, "preview")
        await agree(app, pilot)
        await finished(app, pilot, "action")
        assert [name for name, *_ in link.calls] == [call]
        assert next(run.title for run in app.state.actions) == "PROFILE gpu-a"
        app.paint()
        await pilot.pause()
        assert "(+1 running)" in shown(app)

    run(test, (100, 40))


def test_a_second_change_of_the_plan_is_refused_in_its_dialog() -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await live(app, pilot)
        link_of(app).plans[""] = frames.plan()
        app.dispatch(m.ActionChanged("DRAIN gpu-a", "running", "moving", is_move=True))
        await pilot.press("R")
        await finished(app, pilot, "preview")
        assert "DRAIN gpu-a is still running: one change of the plan at a time" in shown(app)
        await agree(app, pilot)
        assert link_of(app).calls == [] and isinstance(app.state.ui.dialog, Preview)
        app.dispatch(m.ActionChanged("DRAIN gpu-a", "done", "", is_move=True))
        await agree(app, pilot)
        await finished(app, pilot, "action")
        assert [name for name, *_ in link_of(app).calls] == ["apply"]

    run(test, (100, 40))


def former() -> tuple[object, ...]:
    from engine.data.plan import AdoptedPlan

    cuts = (0, 5, 9, 12, 14)
    return (AdoptedPlan(1.0, frames.plan(plan_version=13)), AdoptedPlan(2.0, frames.plan(cuts=cuts, plan_version=14)))
