"""Commands that were entered come back with `up`, as in a shell."""

from __future__ import annotations

from textual.pilot import Pilot

from noodle_tui.app import ConsoleApp
from tests.tui.harness import live, run


def test_up_brings_earlier_commands_back_and_down_what_was_typed() -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        def typed() -> str:
            assert app.state.ui.entry is not None
            return app.state.ui.entry.text

        await live(app, pilot)
        for command in ("ro", "rw", "ro", "plan 3"):
            await pilot.press("colon", *("space" if c == " " else c for c in command), "enter")
        await pilot.press("colon", "t", "up")
        assert typed() == "plan 3"
        await pilot.press("up")
        assert typed() == "ro"
        await pilot.press("up", "up", "up")
        assert typed() == "rw", "each command once, and no further than the oldest"
        await pilot.press("down", "down", "down")
        assert typed() == "t"
        await pilot.press("down")
        assert app.state.ui.entry is not None and app.state.ui.entry.choice == 0, "below it the suggestions begin"
        await pilot.press("up")
        assert app.state.ui.entry is not None and app.state.ui.entry.choice == -1 and typed() == "t"

    run(test)


def test_the_filter_has_no_history() -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await live(app, pilot)
        await pilot.press("colon", "r", "o", "enter", "2", "slash", "up")
        assert app.state.ui.entry is not None and app.state.ui.entry.text == ""

    run(test)
