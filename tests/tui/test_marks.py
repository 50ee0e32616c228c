"""`m` marks rows of Nodes and Sessions; a capital letter then means all of them, after one preview."""

from __future__ import annotations

from dataclasses import replace

import pytest
from textual.pilot import Pilot

from engine.data.errors import Refused
from engine.data.status import EndedSessions, NodeState
from noodle_tui.app import ConsoleApp
from noodle_tui.changes.actions import title_of
from noodle_tui.core.pages import Page, Preview
from noodle_tui.text.tables import MARK
from tests.tui import frames
from tests.tui.harness import agree, finished, link_of, live, run, shown


def marked_rows(app: ConsoleApp) -> list[str]:
    return [row.split()[1] for row in shown(app).split("\n") if row[1:2] == MARK]


def test_marked_nodes_are_left_out_of_one_plan_after_one_preview_and_taken_back_at_once() -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await live(app, pilot)
        link_of(app).plans["without gpu-a cpu-b"] = link_of(app).plans["including gpu-a cpu-b"] = frames.plan()
        await pilot.press("2", "m", "m")
        app.paint()
        await pilot.pause()
        assert marked_rows(app) == ["gpu-a", "cpu-b"] and "2 marked (*), esc unmarks" in shown(app)
        await pilot.press("D")
        await finished(app, pilot, "preview")
        assert "DRAIN gpu-a, cpu-b on lab-a?" in shown(app) and "expect    step 24.9 > 21.6 ms" in shown(app)
        assert "noodle-engine drain gpu-a cpu-b --for-plan 14" in shown(app)
        await agree(app, pilot)
        await finished(app, pilot, "action")
        await pilot.press("U")
        await finished(app, pilot, "preview")
        assert "UNDRAIN gpu-a, cpu-b" in shown(app)
        await agree(app, pilot)
        await finished(app, pilot, "action")
        assert link_of(app).calls == [("drain", ("gpu-a", "cpu-b"), 14), ("undrain", ("gpu-a", "cpu-b"), 14)]

    run(test, (100, 30))


def test_what_the_coordinator_refuses_of_several_nodes_is_told_in_the_preview_and_nothing_is_sent() -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await live(app, pilot)
        link_of(app).plans["without gpu-a cpu-b"] = Refused("the coordinator is 0.9 (protocol 4) and drains one node at a time")
        app.effects.run("drain gpu-a cpu-b")
        await finished(app, pilot, "preview")
        assert "drains one node at a time" in shown(app)
        await agree(app, pilot)
        assert link_of(app).calls == []

    run(test, (160, 40))


def test_one_refusal_of_several_sessions_stands_in_the_way_of_no_other() -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        sessions = tuple(replace(frames.status(4).sessions[0], session_id=f"s-{i}") for i in (1, 2))
        await live(app, pilot, sessions=sessions)
        link_of(app).refuses = "not now"
        await pilot.press("6", "m", "m", "X")
        await agree(app, pilot)
        await finished(app, pilot, "action")
        assert [call[1] for call in link_of(app).calls] == ["s-1", "s-2"]
        assert "s-1: not now; s-2: not now" in shown(app)

    run(test, (160, 40))


def test_nodes_that_need_different_things_are_not_changed_together() -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        nodes = list(frames.status(4).nodes)
        nodes[1] = replace(nodes[1], state=NodeState.LOST)
        await live(app, pilot, nodes=tuple(nodes))
        await pilot.press("2", "m", "m", "D")
        app.paint()
        await pilot.pause()
        assert "mark nodes that are in the same state" in " ".join(shown(app).split())
        await agree(app, pilot)
        assert link_of(app).calls == []

    run(test, (100, 30))


def test_marked_sessions_are_cancelled_and_those_that_ended_left_out() -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        sessions = tuple(replace(frames.status(4).sessions[0], session_id=f"s-{i}") for i in (1, 2, 3))
        await live(app, pilot, sessions=sessions)
        await pilot.press("6", "m", "m", "m")
        over = replace(sessions[1], state="done", finish_reason="length")
        await live(app, pilot, sessions=(sessions[0], sessions[2]), ended=EndedSessions(1, 0, (over,)))
        await pilot.press("X")
        app.paint()
        await pilot.pause()
        assert "1 of those marked ended meanwhile" in " ".join(shown(app).split())
        await agree(app, pilot)
        await finished(app, pilot, "action")
        assert [call[:2] for call in link_of(app).calls] == [("cancel", s.session_id) for s in (sessions[0], sessions[2])]

    run(test, (100, 30))


def test_esc_takes_marks_back_before_it_leaves_and_one_mark_is_no_crowd() -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await live(app, pilot)
        await pilot.press("2", "m", "escape")
        assert app.state.ui.page is Page.NODES and not app.state.ui.listing(Page.NODES).marked
        await pilot.press("home", "m", "m", "up", "m")
        assert app.state.ui.listing(Page.NODES).marked == {"gpu-a"}, "a second press unmarks"
        await pilot.press("down", "D")
        assert isinstance(app.state.ui.dialog, Preview) and app.state.ui.dialog.names == ("gpu-a",), "the mark counts, not the cursor"
        await pilot.press("escape")
        app.effects.run("ctx 127.0.0.1:2")
        await finished(app, pilot, "switch")
        assert not app.state.ui.listing(Page.NODES).marked, "a mark is of one cluster"

    run(test)


@pytest.mark.parametrize(("also", "title"), [((), "DRAIN a"), (("b",), "DRAIN a, b"), (("b", "c", "d", "e"), "DRAIN a, b, c and 2 more")])
def test_a_title_names_three(also: tuple[str, ...], title: str) -> None:
    assert title_of(Preview("cluster.drain", "a", 1, also=also)) == title
