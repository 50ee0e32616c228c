"""Work beside the screen: what is replaced before its turn never begins, and leaves nothing behind."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest
from textual.pilot import Pilot

from noodle_tui.app import ConsoleApp
from tests.tui.harness import live, run, shown


def test_work_that_is_replaced_before_its_turn_was_never_begun(tmp_path: Path) -> None:
    """A coroutine of it would be told of as never awaited, which fails a test: see `filterwarnings`."""

    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await live(app, pilot)
        for name in ("first", "second"):
            app.effects.files.load_profile(tmp_path / f"{name}.json")
        await pilot.pause()
        gc.collect()
        assert "second.json" in shown(app)

    run(test, (120, 40))


@pytest.mark.parametrize("key", ["R", "S"])
def test_work_whose_app_ends_before_its_turn_was_never_begun(key: str) -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await live(app, pilot)
        app.effects.press({"R": "cluster.rebalance", "S": "cluster.whatif"}[key])
        app.exit()

    run(test, (120, 40))
    gc.collect()
