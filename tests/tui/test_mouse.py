"""With `--mouse`: clicks and the wheel do what keys do."""

from __future__ import annotations

from textual.pilot import Pilot

from noodle_tui.app import ConsoleApp
from noodle_tui.core.pages import Page, Preview
from noodle_tui.listings import cursor_identity
from tests.tui.harness import finished, live, run, shown


def row_of(app: ConsoleApp, text: str) -> int:
    return next(y for y, line in enumerate(shown(app).split("\n")) if line[1:].startswith(text))


def test_a_tab_opens_its_screen_and_a_row_takes_the_cursor() -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await live(app, pilot)
        await pilot.click(offset=(shown(app).split("\n")[1].index("2.Nodes") + 1, 1))
        await pilot.pause()
        assert app.state.ui.page is Page.NODES
        await pilot.click(offset=(3, row_of(app, "gpu-c")))
        await pilot.pause()
        assert cursor_identity(app.state, Page.NODES) == "gpu-c"
        app.main.on_mouse_scroll_up()
        assert cursor_identity(app.state, Page.NODES) == "cpu-b"
        app.main.on_mouse_scroll_down()
        await pilot.click(offset=(3, row_of(app, "pi-d")), times=2)
        await pilot.pause()
        assert cursor_identity(app.state, Page.NODES) == "pi-d" and app.state.ui.listing(Page.NODES).detail

    run(test)


def test_a_click_on_the_tab_of_a_cluster_joins_it() -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await live(app, pilot)
        app.effects.run("ctx 127.0.0.1:2")
        await finished(app, pilot, "switch")
        await live(app, pilot)
        for name, address in (("127.0.0.1:1 ", "127.0.0.1:1"), ("127.0.0.1:2 ", "127.0.0.1:2")):
            await pilot.click(offset=(shown(app).split("\n")[2].index(name), 2))
            await finished(app, pilot, "switch")
            assert app.options.connect == address

    run(test, (120, 40))


def test_a_click_beside_everything_changes_nothing_and_none_confirms_a_dialog() -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await live(app, pilot)
        before = app.state.ui
        await pilot.click(offset=(0, 0))
        await pilot.click(offset=(0, 23))
        assert app.state.ui == before
        await pilot.press("t")
        await pilot.click(offset=(shown(app).split("\n")[1].index("2.Nodes") + 1, 1))
        await pilot.pause()
        assert app.state.ui.page is Page.OVERVIEW and app.state.ui.dialog is not None

    run(test)


def test_a_key_in_the_last_row_is_that_key() -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await live(app, pilot)
        keys = shown(app).split("\n")[-1]
        await pilot.click(offset=(keys.index("? help") + 3, 23))
        assert app.state.ui.help
        await pilot.press("escape")
        await pilot.click(offset=(keys.index("R rebalance"), 23))
        assert isinstance(app.state.ui.dialog, Preview) and app.state.ui.dialog.action == "cluster.rebalance", "a preview, and no more"

    run(test)
