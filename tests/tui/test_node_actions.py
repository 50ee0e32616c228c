"""`D` by the state of the node: drain, take in again, forget; `K` for warnings. Each with a preview of its own."""

from __future__ import annotations

from dataclasses import replace

import pytest
from textual.pilot import Pilot

from engine.data.status import NodeState, NodeStatus
from noodle_tui.app import ConsoleApp
from noodle_tui.changes.commands import suggestions
from noodle_tui.core.keys import KEYS
from tests.tui import frames
from tests.tui.harness import agree, finished, link_of, live, run, shown


def nodes(state: NodeState) -> tuple[NodeStatus, ...]:
    first, *others = frames.status().nodes
    return (replace(first, state=state), *others)


def test_a_drained_node_is_taken_in_again_and_the_preview_promises_what_the_coordinator_says() -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await live(app, pilot, nodes=nodes(NodeState.DRAINING))
        link_of(app).plans["including gpu-a"] = frames.plan(bottleneck_s=0.0118 / 1.05)
        link_of(app).plans["without gpu-a"] = frames.plan(bottleneck_s=0.0118 / 2.3)
        await pilot.press("2", "home", "D")
        await finished(app, pilot, "preview")
        text = shown(app)
        assert "UNDRAIN gpu-a on lab-a?" in text and "(+5%)" in text and "+130%" not in text and "noodle-engine undrain" in text
        await agree(app, pilot)
        await finished(app, pilot, "action")
        assert link_of(app).calls == [("undrain", ("gpu-a",), 14)]

    run(test, (100, 40))


def test_a_node_whose_return_changes_no_stage_promises_no_gain() -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await live(app, pilot, nodes=nodes(NodeState.DRAINING))
        link_of(app).plans["including gpu-a"] = frames.present(bottleneck_s=0.005)
        await pilot.press("2", "home", "D")
        await finished(app, pilot, "preview")
        assert "UNDRAIN gpu-a on lab-a?" in shown(app) and "%)" not in shown(app).split("expect")[1].split("copy")[0]

    run(test, (100, 40))


def test_a_lost_node_is_forgotten_unless_it_is_back() -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await live(app, pilot, nodes=nodes(NodeState.LOST))
        await pilot.press("2", "home", "D")
        await finished(app, pilot, "preview")
        assert "FORGET gpu-a on lab-a?" in shown(app)
        await live(app, pilot, nodes=nodes(NodeState.OK))
        assert "gpu-a is not lost any more" in shown(app)
        await agree(app, pilot)
        assert link_of(app).calls == []
        await live(app, pilot, nodes=nodes(NodeState.LOST), plan_version=15)
        await agree(app, pilot)
        await finished(app, pilot, "action")
        assert link_of(app).calls == [("forget", "gpu-a")], "whatever plan serves"

    run(test, (100, 40))


def test_warnings_are_acknowledged_up_to_the_event_that_the_preview_saw() -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await live(app, pilot, num_unacknowledged=3)
        await pilot.press("5", "K")
        app.paint()
        await pilot.pause()
        assert "3 new warnings, K = seen" in shown(app) and "3 warnings and errors are new" in shown(app)
        await agree(app, pilot)
        await finished(app, pilot, "action")
        assert link_of(app).calls == [("acknowledge", 1)]
        await live(app, pilot)
        await pilot.press("K")
        app.paint()
        await pilot.pause()
        assert "no warning and no error is new" in shown(app)

    run(test, (100, 40))


@pytest.mark.parametrize(("state", "word"), [(NodeState.OK, "drain"), (NodeState.DRAINING, "undrain"), (NodeState.LOST, "forget")])
def test_the_palette_offers_what_can_be_done_with_a_node(state: NodeState, word: str) -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await live(app, pilot, nodes=nodes(state))
        assert f"{word} gpu-a" in [found.text for found in suggestions(f"{word} gpu", app.state, KEYS, ())]
        app.effects.run(f"{word} gpu-a")
        await finished(app, pilot, "preview")
        assert f"{word.upper()} gpu-a on lab-a?" in shown(app)

    run(test, (100, 40))
