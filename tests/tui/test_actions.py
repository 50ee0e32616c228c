"""Capital letters: a preview first, `y` alone acts, and only on the plan that was shown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from textual.pilot import Pilot

from engine.data import InvalidInput, Refused, SessionStatus
from noodle_tui import messages as m
from noodle_tui.actions import ACTIONS
from noodle_tui.app import ConsoleApp
from noodle_tui.cluster_calls import offered_by
from noodle_tui.keys import KEYS
from noodle_tui.options import is_loopback
from noodle_tui.pages import Page, Preview
from tests.tui import frames
from tests.tui.harness import finished, link_of, live, run, shown


async def asked(app: ConsoleApp, pilot: Pilot[None]) -> None:
    await finished(app, pilot, "preview", "what-if", "action")


def test_every_capital_key_has_an_action() -> None:
    assert {key.id for key in KEYS if key.changes} == {*ACTIONS, "cluster.whatif"}


def test_a_preview_shows_the_plan_and_y_sends_it_with_the_version_it_was_made_for() -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await live(app, pilot)
        link_of(app).plans[""] = frames.plan()
        await pilot.press("R")
        await asked(app, pilot)
        assert "REBALANCE on lab-a?" in shown(app) and "bottleneck 11.8 > 7.9 ms" in shown(app) and "y = do it" in shown(app)
        await pilot.press("y")
        await asked(app, pilot)
        assert link_of(app).calls == [("apply", 14)]
        assert "REBALANCE done plan #15" in shown(app)

    run(test, (80, 30))


@pytest.mark.parametrize("key", ["enter", "escape", "n", "q", "Y", "space", "R"])
def test_no_other_key_is_yes(key: str) -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await live(app, pilot)
        link_of(app).plans[""] = frames.plan()
        await pilot.press("R")
        await asked(app, pilot)
        await pilot.press(key)
        await asked(app, pilot)
        assert link_of(app).calls == []
        if key in ("enter", "escape", "n"):
            assert app.state.ui.dialog is None

    run(test)


def test_a_plan_that_moved_meanwhile_is_refused_here() -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await live(app, pilot)
        link_of(app).plans[""] = frames.plan()
        await pilot.press("R")
        await asked(app, pilot)
        await live(app, pilot, plan_version=15)
        assert "the plan moved from #14 to #15" in shown(app)
        await pilot.press("y")
        await asked(app, pilot)
        assert link_of(app).calls == []

    run(test, (100, 40))


def test_a_refusal_by_the_coordinator_stays_until_it_is_dismissed() -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await live(app, pilot)
        link_of(app).plans[""], link_of(app).refuses = frames.plan(), "the plan is #16 now\x1b[31m"
        await pilot.press("R")
        await asked(app, pilot)
        await pilot.press("y")
        await asked(app, pilot)
        app.dispatch(m.Tick())
        assert "ERROR REBALANCE: Refused: the plan is #16 now?[31m" in shown(app)
        await pilot.press("e")
        await pilot.pause()
        assert "REBALANCE failed" in shown(app)
        await pilot.press("escape")
        await pilot.pause()
        assert "ERROR REBALANCE" not in shown(app)

    run(test, (100, 30))


def test_y_before_the_coordinator_has_answered_does_nothing() -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await live(app, pilot)
        app.dispatch(m.DialogChanged(Preview("cluster.rebalance", "", 14, pending=True)))
        await pilot.press("y")
        assert link_of(app).calls == [] and app.state.ui.dialog is not None

    run(test)


def test_a_node_is_profiled_and_screen_7_shows_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await live(app, pilot)
        link_of(app).released.clear()
        await pilot.press("2", "down", "P")
        await pilot.pause()
        assert "PROFILE cpu-b on lab-a?" in shown(app)
        await pilot.press("y")
        while "25 %" not in shown(app):
            await pilot.pause()
        assert link_of(app).calls == [("profile", "cpu-b")]
        link_of(app).released.set()
        await asked(app, pilot)
        await finished(app, pilot, "profile")
        assert app.state.ui.page is Page.PROFILE and app.state.profile.view is not None
        assert [path.name for path in (tmp_path / "profile-cpu-b").iterdir()] == ["profile.json"]

    run(test)


def test_drain_and_cancel_name_their_target() -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        sessions = tuple(SessionStatus(f"s-{i}", "decode", 1, 1, 9, 0.1, 1.0, 1.0) for i in range(3))
        await live(app, pilot, sessions=sessions)
        await pilot.press("2", "down", "D")
        await pilot.pause()
        assert "DRAIN cpu-b on lab-a?" in shown(app)
        await pilot.press("y")
        await asked(app, pilot)
        await pilot.press("6", "down", "X")
        await pilot.pause()
        assert "CANCEL SESSION s-1" in shown(app)
        await pilot.press("y")
        await asked(app, pilot)
        assert link_of(app).calls == [("drain", "cpu-b"), ("cancel", "s-1")]

    run(test)


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("R", "read-only"),
        ("D", "read-only"),
        ("H", "has no call for it"),
        ("P", "read-only"),
        ("M", "has no call for it"),
    ],
)
def test_what_cannot_be_done_says_why_and_y_does_nothing(key: str, reason: str) -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await live(app, pilot)
        assert "[READ-ONLY]" in shown(app)
        await pilot.press(key)
        await asked(app, pilot)
        assert reason in shown(app) and "y = do it" not in shown(app)
        await pilot.press("y")
        await asked(app, pilot)
        assert link_of(app).calls == []

    run(test, (100, 30), connect="10.0.0.5:7070")


def test_rw_elevates_without_a_restart() -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await live(app, pilot)
        await pilot.press("colon", *"rw", "enter")
        await pilot.pause()
        assert "[rw]" in shown(app)
        await pilot.press("D", "y")
        await asked(app, pilot)
        assert link_of(app).calls == [("drain", "gpu-a")]

    run(test, connect="10.0.0.5:7070")


def test_what_if_compares_what_the_coordinator_offers_and_a_applies_the_chosen_one() -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await live(app, pilot)
        plans = link_of(app).plans
        plans["balanced"], plans["cost"] = frames.plan(), frames.plan("cost", bottleneck_s=0.009)
        plans["memory_aware"] = Refused("does not fit pi-d")
        plans["bottleneck_first"] = InvalidInput(
            "strategy 'bottleneck_first' is unknown: choose one of balanced, cost, memory_aware, brand_new"
        )
        plans["brand_new"] = frames.plan("brand_new", bottleneck_s=0.005)
        await pilot.press("S")
        await asked(app, pilot)
        assert app.state.ui.page is Page.WHATIF
        rows = [row.split()[0].lstrip(">") for row in shown(app).split("\n")[4:10]]
        assert rows == ["current", "measured", "brand_new", "balanced", "cost", "memory_aware"], "by bottleneck, refused ones last"
        assert "does not fit pi-d" in shown(app) and "latency_optimized" not in shown(app)
        await pilot.press("down", "down", "A")
        await asked(app, pilot)
        assert "APPLY brand_new on lab-a?" in shown(app)
        await pilot.press("y")
        await asked(app, pilot)
        assert link_of(app).calls == [("apply", 14, "brand_new")]

    run(test, (100, 40))


def test_the_present_plan_is_valued_by_the_times_that_candidates_rest_on() -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await live(app, pilot)
        link_of(app).plans["balanced"] = link_of(app).plans[""] = frames.plan(bottleneck_s=0.01)
        nodes = [{"id": name, "time_s": [0.005] * 14} for name in frames.NAMES]
        link_of(app).problem_json = json.dumps({"nodes": nodes})
        await pilot.press("S")
        await asked(app, pilot)
        assert "S0 25.0 gpu-a" in shown(app) and "+150%" in shown(app), "five items of 5 ms, then 10 ms"
        await pilot.press("R")
        await asked(app, pilot)
        assert "bottleneck 25.0 > " in shown(app)

    run(test, (100, 40))


def test_the_cursor_on_the_present_plan_is_nothing_to_apply() -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await live(app, pilot)
        await pilot.press("S", "A")
        await asked(app, pilot)
        assert "choose a strategy that fits" in shown(app)

    run(test, (100, 40))


def test_offered_strategies_are_read_from_the_refusal_only() -> None:
    assert offered_by(InvalidInput("strategy 'x' is unknown: choose one of balanced, cost")) == ("balanced", "cost")
    assert offered_by(Refused("choose one of a, b")) == () and offered_by(None) == ()


@pytest.mark.parametrize(
    ("address", "expected"),
    [(None, True), ("127.0.0.1:1", True), ("127.9.9.9:1", True), ("localhost:1", True), ("[::1]:1", True), ("unix:/tmp/x", True)]
    + [(host, False) for host in ("10.0.0.5:1", "lab:1", "127.0.0.1.evil.com:1", "[::2]:1", "localhost.evil:1")],
)
def test_only_this_machine_is_writable_by_default(address: str | None, expected: bool) -> None:
    assert is_loopback(address) is expected
