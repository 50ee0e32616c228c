"""The field of the Prompt screen: lines, pastes, what was sent before, how many rows it takes."""

from __future__ import annotations

import pytest
from textual import events
from textual.pilot import Pilot

from noodle_tui.app import ConsoleApp
from noodle_tui.core import messages as m
from noodle_tui.core.pages import Page
from tests.tui import frames
from tests.tui.harness import link_of, live, run, shown


async def painted(app: ConsoleApp, pilot: Pilot[None]) -> list[str]:
    """The rows of the screen once the layout has settled."""
    await pilot.pause()
    app.paint()
    await pilot.pause()
    return shown(app).split("\n")


@pytest.mark.parametrize("key", ["alt+enter", "ctrl+j", "shift+enter"])
def test_a_new_line_is_a_new_line_and_enter_sends_them_all(key: str) -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await live(app, pilot)
        await pilot.press("8", "a")
        app.post_message(events.Key(key, "\n" if key == "ctrl+j" else None))
        await pilot.press("b")
        rows = await painted(app, pilot)
        assert rows[-4].startswith(" prompt > a ") and rows[-3].startswith("          b") and rows[-2].startswith(" max tokens")
        await pilot.press("enter")
        assert link_of(app).requests[0].prompt == "a\nb" and app.main.prompt.value == ""
        rows = await painted(app, pilot)
        assert rows[-3].startswith(" prompt > write") and " > a" in shown(app) and "   b" in shown(app)

    run(test)


@pytest.mark.parametrize("opened", ["f1", "ctrl+p", "tab"])
def test_alt_and_enter_are_esc_and_enter_where_no_lines_are_written(opened: str) -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await live(app, pilot)
        await pilot.press("8", "a", opened)
        app.post_message(events.Key("alt+enter", None))
        await pilot.pause()
        assert app.state.ui.entry is None and not app.state.ui.help and app.state.ui.page is Page.PROMPT
        assert "\n" not in app.main.prompt.value

    run(test)


def test_escape_leaves_a_field_of_several_lines() -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await live(app, pilot)
        await pilot.press("8", "a", "ctrl+j", "q", "escape", "2")
        assert app.state.ui.page is Page.NODES and app.main.prompt.value == "a\nq" and not app.state.quitting

    run(test)


@pytest.mark.parametrize("ending", ["\r", "\n", "\r\n"])
def test_a_paste_keeps_its_lines_and_their_indentation(ending: str) -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await live(app, pilot)
        await pilot.press("8")
        app.post_message(events.Paste(ending.join(["  def f():", "\treturn 1", ""])))
        await pilot.pause()
        assert app.main.prompt.value == "  def f():\n    return 1" and link_of(app).requests == []

    run(test)


def test_a_setting_stays_one_line() -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await live(app, pilot)
        await pilot.press("8", "tab", "ctrl+u")
        app.post_message(events.Paste(" 1\n2 "))
        await pilot.pause()
        field = app.main.field
        assert field is not None and field.id == "max-tokens" and field.value == "1 2"

    run(test)


def test_it_grows_to_five_rows_and_what_was_said_makes_room() -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await live(app, pilot)
        await pilot.press("8")
        app.dispatch(m.PromptSent(1, "p", 64, 0.0, 0))
        app.dispatch(m.TokenArrived(1, frames.chunk(0, "\n".join(f"row{i}" for i in range(30)))))
        for i in range(7):
            await pilot.press(str(i), "ctrl+j")
            rows = await painted(app, pilot)
            num_rows = min(5, i + 2)
            assert rows[-2 - num_rows].startswith(" prompt >") and rows[-3 - num_rows].startswith(" row29"), f"{i + 2} lines"
        assert rows[-7].startswith(" prompt > 3") and rows[-4].startswith("          6") and rows[-3].strip() == ""
        await pilot.press(*["up"] * 6)
        rows = await painted(app, pilot)
        assert rows[-7].startswith(" prompt > 1") and rows[-3].startswith("          5")
        await pilot.press("ctrl+home", *["ctrl+k", "delete"] * 7)
        rows = await painted(app, pilot)
        assert rows[-3].startswith(" prompt > write") and rows[-4].startswith(" row29")

    run(test)


def test_a_long_line_takes_several_rows() -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await live(app, pilot)
        await pilot.press("8", *"x" * 80)
        rows = await painted(app, pilot)
        assert rows[-4].rstrip() == " prompt > " + "x" * 69 and rows[-3].rstrip() == " " * 10 + "x" * 11
        await pilot.resize_terminal(120, 40)
        rows = await painted(app, pilot)
        assert rows[-3].rstrip() == " prompt > " + "x" * 80

    run(test)


def test_up_and_down_at_the_edges_go_through_what_was_sent_and_back_to_what_was_begun() -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await live(app, pilot)
        await pilot.press("8")
        for i, text in enumerate(("one", "two\nlines"), 1):
            app.post_message(events.Paste(text))
            await pilot.press("enter")
            app.dispatch(m.SessionEnded(i, cancelled=True))
        seen = []
        await pilot.press(*"begun")
        for key in ("up", "up", "up", "up", "down", "down", "down", "down"):
            await pilot.press(key)
            seen.append(app.main.prompt.value)
        assert seen == ["two\nlines", "two\nlines", "one", "one", "two\nlines", "begun", "begun", "begun"]

    run(test)


def test_the_cursor_is_drawn_on_the_character_before_which_it_stands() -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await live(app, pilot)
        await pilot.press("8", "a", "漢", "b", "left", "left")
        await painted(app, pilot)
        cursors = [span.text for span in app.main.prompt.lines[0] if span.style == "cursor"]
        assert cursors == ["漢"] and app.cursor_position.x == len(" prompt > a")
        await pilot.press("escape")
        await painted(app, pilot)
        assert not [span for span in app.main.prompt.lines[0] if span.style == "cursor"]

    run(test)
