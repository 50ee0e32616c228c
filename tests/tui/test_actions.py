"""Capital letters: a preview first, `y` alone acts, and only on the plan that was shown."""

from __future__ import annotations

from pathlib import Path

import pytest
from textual.pilot import Pilot

from engine.data.adaptation import AdaptationStatus
from engine.data.errors import InvalidInput, Refused
from engine.data.plan import AdoptedPlan, Plan
from engine.data.status import SessionStatus
from noodle_tui.app import ConsoleApp
from noodle_tui.changes.actions import ACTIONS, preview_of
from noodle_tui.cluster.cluster_calls import offered_by
from noodle_tui.cluster.undoing import opposite
from noodle_tui.core import messages as m
from noodle_tui.core.keys import KEYS
from noodle_tui.core.pages import Page, Preview
from noodle_tui.glyphs import UNICODE
from noodle_tui.options import is_loopback
from tests.tui import frames
from tests.tui.harness import agree, finished, link_of, live, run, shown
from tests.tui.scenes import state_of, suggesting
from tests.tui.test_pictures import picture, text_of


async def asked(app: ConsoleApp, pilot: Pilot[None]) -> None:
    await finished(app, pilot, "preview", "what-if", "action")


def test_every_capital_key_has_an_action() -> None:
    assert {key.id for key in KEYS if key.changes} == {*ACTIONS, "cluster.whatif", "cluster.undo"} - {
        "cluster.confirm",
        "cluster.undrain",
        "cluster.forget",
    }  # D does what fits the node


def test_a_preview_shows_the_plan_and_y_sends_it_with_the_version_it_was_made_for() -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await live(app, pilot)
        link_of(app).plans[""] = frames.plan()
        await pilot.press("R")
        await asked(app, pilot)
        assert "REBALANCE on lab-a?" in shown(app) and "bottleneck 11.8 > 7.9 ms" in shown(app) and "y = do it" in shown(app)
        await agree(app, pilot)
        await asked(app, pilot)
        assert link_of(app).calls == [("apply", 14, "balanced", frames.plan().stages)], "what was shown is what is asked for"
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
        await agree(app, pilot)
        await asked(app, pilot)
        assert link_of(app).calls == []

    run(test, (100, 40))


def test_a_refusal_by_the_coordinator_stays_until_it_is_dismissed() -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await live(app, pilot)
        link_of(app).plans[""], link_of(app).refuses = frames.plan(), "the plan is #16 now\x1b[31m"
        await pilot.press("R")
        await asked(app, pilot)
        await agree(app, pilot)
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
        await agree(app, pilot)
        assert link_of(app).calls == [] and app.state.ui.dialog is not None

    run(test)


def test_a_node_is_profiled_and_screen_7_shows_it_when_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))

    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await live(app, pilot)
        link_of(app).released.clear()
        await pilot.press("2", "down", "P")
        await pilot.pause()
        assert "PROFILE cpu-b on lab-a?" in shown(app)
        await agree(app, pilot)
        while "25 %" not in shown(app):
            await pilot.pause()
        assert link_of(app).calls == [("profile", "cpu-b")]
        link_of(app).released.set()
        await asked(app, pilot)
        await finished(app, pilot, "profile")
        await pilot.pause()
        assert app.state.ui.page is Page.NODES, "the reader is not taken away from what they read"
        assert "7 shows profile-cpu-b in " in shown(app)
        while app.state.profile.view is None:
            await pilot.pause()
        await pilot.press("7")
        assert app.state.ui.page is Page.PROFILE and app.state.profile.view is not None
        assert [path.name for path in (tmp_path / "noodlecore" / "profile-cpu-b").iterdir()] == ["profile.json"]

    run(test)


def test_drain_and_cancel_name_their_target() -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        sessions = tuple(SessionStatus(f"s-{i}", "decode", 1, 1, 9, 0.1, 1.0, 1.0) for i in range(3))
        await live(app, pilot, sessions=sessions)
        link_of(app).plans["without cpu-b"] = frames.plan()
        await pilot.press("2", "down", "D")
        await asked(app, pilot)
        assert "DRAIN cpu-b on lab-a?" in shown(app) and "expect    step 24.9 > 21.6 ms,  bottleneck 11.8 > 7.9 ms" in shown(app)
        await agree(app, pilot)
        await asked(app, pilot)
        await pilot.press("6", "down", "X")
        await pilot.pause()
        assert "CANCEL SESSION s-1" in shown(app)
        await agree(app, pilot)
        await asked(app, pilot)
        assert link_of(app).calls == [("drain", ("cpu-b",), 14), ("cancel", "s-1", 14)], "both carry the plan that was seen"

    run(test, (80, 30))


def test_a_session_that_ended_cannot_be_cancelled() -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await live(app, pilot, sessions=(), latest=(SessionStatus("s-9", "done", 1, 9, 9, 0.1, 1.0, 1.0, finish_reason="length"),))
        await pilot.press("6", "X")
        await pilot.pause()
        assert "session s-9 has ended" in shown(app) and "y do it" not in shown(app)
        await agree(app, pilot)
        await asked(app, pilot)
        assert link_of(app).calls == []

    run(test, (100, 30))


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("R", "read-only"),
        ("D", "read-only"),
        ("H", "read-only"),
        ("P", "read-only"),
        ("M", "read-only"),
    ],
)
def test_what_cannot_be_done_says_why_and_y_does_nothing(key: str, reason: str) -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await live(app, pilot)
        assert "[READ-ONLY]" in shown(app)
        await pilot.press(key)
        await asked(app, pilot)
        assert reason in shown(app) and "y do it" not in shown(app)
        await agree(app, pilot)
        await asked(app, pilot)
        assert link_of(app).calls == []

    run(test, (100, 30), connect="10.0.0.5:7070")


def test_rw_elevates_without_a_restart() -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await live(app, pilot)
        await pilot.press("colon", *"rw", "enter")
        await pilot.pause()
        assert "[rw]" in shown(app)
        link_of(app).plans["without gpu-a"] = frames.plan()
        await pilot.press("D")
        await asked(app, pilot)
        await agree(app, pilot)
        await asked(app, pilot)
        assert link_of(app).calls == [("drain", ("gpu-a",), 14)]

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
        rows = [row.split()[0].lstrip(">") for row in shown(app).split("\n")[5:11]]
        assert rows == ["planned", "measured", "brand_new", "balanced", "cost", "memory_aware"], "by bottleneck, refused ones last"
        assert "does not fit pi-d" in shown(app) and "latency_optimized" not in shown(app)
        await pilot.press("down", "down", "A")
        await asked(app, pilot)
        assert "APPLY brand_new on lab-a?" in shown(app)
        await agree(app, pilot)
        await asked(app, pilot)
        assert link_of(app).calls == [("apply", 14, "brand_new", frames.plan().stages)]

    run(test, (100, 40))


def test_the_present_plan_is_valued_by_the_times_that_candidates_rest_on() -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await live(app, pilot)
        link_of(app).plans["balanced"] = link_of(app).plans[""] = frames.plan(bottleneck_s=0.01)
        link_of(app).present = frames.present(stage_s=(0.025, 0.0042, 0.0118, 0.0018), bottleneck_s=0.025)
        await pilot.press("S")
        await asked(app, pilot)
        assert "S0 25.0 gpu-a" in shown(app) and "+150%" in shown(app), "25 ms as it is priced now, not 11.8 as it was made"
        await pilot.press("R")
        await asked(app, pilot)
        assert "bottleneck 25.0 > 10.0" in shown(app)

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


def adopted(*plans: Plan) -> tuple[AdoptedPlan, ...]:
    return tuple(AdoptedPlan(1.7e9 + i, plan) for i, plan in enumerate(plans))


def test_rollback_shows_the_former_plan_with_what_it_would_take_and_sends_its_stages() -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await live(app, pilot)
        former, present = frames.plan(plan_version=13), frames.plan(cuts=(0, 5, 9, 12, 14), plan_version=14)
        link_of(app).answers["plans"] = adopted(former, present)
        await pilot.press("H")
        await asked(app, pilot)
        text = shown(app)
        assert "ROLL BACK on lab-a?" in text and "the stages of plan #13 (balanced)" in text
        assert "2 items, 1.1G weights to read, 18M KV of 6 sessions, kept" in text
        assert "9.2s beside serving, then 400ms of pause (from 2 moves here)" in text and "fullest gpu-a" in text
        assert ("estimate_move", former.stages) in link_of(app).questions
        await agree(app, pilot)
        await asked(app, pilot)
        assert link_of(app).calls == [("apply", 14, "", former.stages)]
        assert "ROLL BACK done plan #15 serves" in shown(app)

    run(test, (100, 40))


def test_rollback_to_a_plan_by_its_number_and_without_one_to_go_back_to() -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await live(app, pilot)
        present = frames.plan(cuts=(0, 5, 9, 12, 14), plan_version=14)
        first, second = frames.plan(plan_version=12), frames.plan(cuts=(0, 4, 8, 12, 14), plan_version=13)
        link_of(app).answers["plans"] = adopted(first, second, present)
        await pilot.press("colon", *"rollback 12", "enter")
        await asked(app, pilot)
        assert "ROLL BACK to the stages of plan #12" in shown(app) and app.state.ui.dialog.plan.stages == first.stages  # type: ignore[union-attr]
        await pilot.press("escape")
        link_of(app).answers["plans"] = adopted(present)
        await pilot.press("H")
        await asked(app, pilot)
        assert "there is no plan before #14 to go back to" in shown(app) and "y do it" not in shown(app)
        await agree(app, pilot)
        await asked(app, pilot)
        assert link_of(app).calls == []

    run(test, (100, 40))


def test_the_end_of_a_move_is_said_beside_its_prediction() -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await live(app, pilot)
        link_of(app).plans[""] = frames.plan()
        await pilot.press("R")
        await asked(app, pilot)
        await agree(app, pilot)
        await asked(app, pilot)
        assert "plan #15 serves: prepared 8.0s (predicted 8.7), pause 310ms (predicted 400), 4 items" in shown(app)
        link_of(app).answers["moves"] = (frames.moved(outcome="w2: no room"),)
        await live(app, pilot)
        await pilot.press("R")
        await asked(app, pilot)
        await agree(app, pilot)
        await asked(app, pilot)
        assert "ERROR REBALANCE: plan #15 was dropped: w2: no room" in shown(app)

    run(test, (120, 40))


def test_the_mode_is_chosen_in_its_preview_and_sent_with_the_one_that_was_seen() -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await live(app, pilot, mode="off")
        await pilot.press("M")
        await asked(app, pilot)
        assert "AUTO-ADAPT suggest on lab-a?" in shown(app) and "the mode is off; refused if it has changed" in shown(app)
        await pilot.press("down")
        await pilot.pause()
        assert "AUTO-ADAPT auto" in shown(app)
        await pilot.press("up", "up")
        await pilot.pause()
        assert "adaptation is off already" in shown(app)
        await agree(app, pilot)
        assert link_of(app).calls == []
        await agree(app, pilot, "down")
        await asked(app, pilot)
        assert link_of(app).calls == [("set_adaptation", "suggest", 0, "off")]
        assert "done adaptation is suggest now" in shown(app)

    run(test, (100, 30))


def test_a_mode_that_somebody_else_changed_is_refused_here() -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await live(app, pilot, mode="off")
        await pilot.press("M")
        await live(app, pilot, mode="auto")
        assert "the mode moved from off to auto since this preview" in shown(app)
        await agree(app, pilot)
        await asked(app, pilot)
        assert link_of(app).calls == []

    run(test, (100, 30))


async def suggestion_arrives(app: ConsoleApp, pilot: Pilot[None]) -> None:
    link_of(app).answers["adaptation"] = AdaptationStatus("suggest", (frames.suggested(6), frames.suggested(7)))
    await live(app, pilot, mode="suggest", suggestion_id=7)
    app.calls.look_at_suggestion()
    await finished(app, pilot, "suggestion")


def test_a_suggestion_is_offered_on_what_if_and_confirmed_there() -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await suggestion_arrives(app, pilot)
        assert "offers -33% a step" in shown(app)
        link_of(app).plans["balanced"] = Refused("nothing better")
        await pilot.press("S")
        await asked(app, pilot)
        assert "suggestion 7" in shown(app)
        await pilot.press("down", "down", "A")
        await asked(app, pilot)
        assert "CONFIRM SUGGESTION 7 on lab-a?" in shown(app) and "gpu-c is 55 % slower than planned over 240 steps" in shown(app)
        await agree(app, pilot)
        await asked(app, pilot)
        assert link_of(app).calls == [("set_adaptation", "", 7)]

    run(test, (120, 40))


def test_a_suggestion_that_lapsed_cannot_be_confirmed() -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await suggestion_arrives(app, pilot)
        await pilot.press("colon", *"confirm 7", "enter")
        await asked(app, pilot)
        assert "y = do it" in shown(app)
        await live(app, pilot, mode="suggest", suggestion_id=0)
        assert "suggestion 7 has lapsed since this preview" in shown(app)
        await agree(app, pilot)
        await pilot.press("escape", "colon", *"confirm 9", "enter")
        await asked(app, pilot)
        assert "suggestion 9 is not open" in shown(app)
        await agree(app, pilot)
        await asked(app, pilot)
        assert link_of(app).calls == [] and app.state.suggestion is None

    run(test, (100, 40))


def test_a_suggestion_that_is_only_renewed_can_still_be_confirmed() -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await suggestion_arrives(app, pilot)
        await pilot.press("colon", *"confirm 7", "enter")
        await asked(app, pilot)
        link_of(app).answers["adaptation"] = AdaptationStatus("suggest", (frames.suggested(8),))
        await live(app, pilot, mode="suggest", suggestion_id=8)
        app.calls.look_at_suggestion()
        await finished(app, pilot, "suggestion")
        assert "y = do it" in shown(app)
        await agree(app, pilot)
        await asked(app, pilot)
        assert link_of(app).calls == [("set_adaptation", "", 7)]

    run(test, (100, 40))


def test_the_same_letter_renews_a_preview_that_no_longer_holds() -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await live(app, pilot)
        link_of(app).plans[""] = frames.plan()
        await pilot.press("R")
        await asked(app, pilot)
        await live(app, pilot, plan_version=15)
        assert "R = look again" in shown(app)
        link_of(app).plans[""] = frames.plan(for_version=15)
        await pilot.press("R")
        await asked(app, pilot)
        assert "based on  plan #15" in shown(app) and "y = do it" in shown(app)

    run(test, (100, 40))


def test_quitting_asks_only_while_a_change_is_running() -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await live(app, pilot)
        link_of(app).plans[""] = frames.plan()
        link_of(app).released.clear()
        await pilot.press("R")
        await asked_for_preview(app, pilot)
        await agree(app, pilot)
        await pilot.press("q")
        await pilot.pause()
        assert "QUIT?" in shown(app) and "REBALANCE is still running: the cluster goes on with it alone" in shown(app)
        await pilot.press("n")
        await pilot.pause()
        assert app.state.ui.dialog is None and not app.state.quitting
        link_of(app).released.set()
        await asked(app, pilot)
        await pilot.press("q")
        assert app.state.quitting

    run(test, (100, 40))


async def asked_for_preview(app: ConsoleApp, pilot: Pilot[None]) -> None:
    await finished(app, pilot, "preview")


def test_all_nodes_can_be_profiled_one_after_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))

    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await live(app, pilot, nodes=frames.status(2).nodes)
        await pilot.press("4", "P")
        await pilot.pause()
        assert "PROFILE all nodes" in shown(app) and "all nodes (3 of 3; up and down choose)" in shown(app)
        await pilot.press("up")
        await pilot.pause()
        assert "PROFILE cpu-b" in shown(app)
        await agree(app, pilot, "down")
        await asked(app, pilot)
        await finished(app, pilot, "profile")
        assert link_of(app).calls == [("profile", "gpu-a"), ("profile", "cpu-b")]

    run(test, (100, 40))
    assert sorted(path.name for path in (tmp_path / "noodlecore").iterdir()) == ["profile-cpu-b", "profile-gpu-a"]


def test_n_shows_the_profile_of_the_next_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    for name in ("w1", "w2"):
        (tmp_path / f"profile-{name}").mkdir()
        (tmp_path / f"profile-{name}" / "profile.json").write_text((Path(__file__).parent / "profile.json").read_text())

    async def shown_profile(app: ConsoleApp, pilot: Pilot[None]) -> str:
        await finished(app, pilot, "profile")
        return app.state.profile.view.path.split("/")[-2] if app.state.profile.view else app.state.profile.error

    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await live(app, pilot)
        await pilot.press("7")
        first = await shown_profile(app, pilot)
        await pilot.press("n")
        second = await shown_profile(app, pilot)
        await pilot.press("n")
        assert {first, second} == {"profile-w1", "profile-w2"} and await shown_profile(app, pilot) == first

    run(test)


def test_hostile_texts_of_moves_suggestions_and_versions_reach_no_terminal() -> None:
    bad = "\x1b]0;owned\x07\x9b31m\u202e" + "x" * 1000
    state = suggesting()
    suggestion = m.SuggestionArrived(frames.suggested(sentence=bad), frames.plan(), frames.move(unknowns=(bad,)))
    state = state_of((99.6, m.PeerKnown(bad, "0.1")), (99.7, suggestion), state=state)
    compared = state_of((99.8, m.KeyPressed("screen.what-if")), (99.8, m.KeyPressed("nav.end")), state=state)
    asked_for = state_of((99.8, m.DialogChanged(preview_of(ACTIONS["cluster.confirm"], state))), state=state)
    arrived = m.PreviewArrived("cluster.confirm", "7", frames.plan(bad), move=frames.move(unknowns=(bad,)), about=bad)
    for shown_state in (compared, state_of((99.9, arrived), state=asked_for)):
        for size in ((80, 24), (200, 60)):
            text = text_of(picture(shown_state, *size, UNICODE))
            assert "owned" in text
            assert not [char for char in text.replace("\n", "") if char < " " or "\x7f" <= char < "\xa0" or char == "\u202e"]


def test_U_takes_back_what_was_done_last_after_a_preview() -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await live(app, pilot)
        await pilot.press("U")
        assert "nothing to take back" in shown(app) and app.state.ui.dialog is None
        link_of(app).plans["without cpu-b"] = link_of(app).plans["including cpu-b"] = frames.plan()
        await pilot.press("2", "down", "D")
        await asked(app, pilot)
        await agree(app, pilot)
        await finished(app, pilot, "action")
        drained = link_of(app).calls[-1]
        await pilot.press("U")
        await asked(app, pilot)
        assert drained[0] == "drain" and "UNDRAIN cpu-b" in shown(app)
        await agree(app, pilot)
        await finished(app, pilot, "action")
        assert link_of(app).calls[-1][:2] == ("undrain", ("cpu-b",))

    run(test)


async def drained(app: ConsoleApp, pilot: Pilot[None], *keys: str) -> None:
    """What was asked for with these keys is done."""
    await pilot.press(*keys)
    await asked(app, pilot)
    await agree(app, pilot)
    await finished(app, pilot, "action")


def test_U_takes_back_one_change_after_another_and_goes_through_them() -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await live(app, pilot)
        for name in ("cpu-b", "gpu-c"):
            link_of(app).plans[f"without {name}"] = link_of(app).plans[f"including {name}"] = frames.plan()
        await drained(app, pilot, "2", "down", "D")
        await drained(app, pilot, "down", "D")
        for name, place in (("gpu-c", "1 of 2"), ("cpu-b", "2 of 2"), ("gpu-c", "1 of 2"), ("cpu-b", "2 of 2")):
            await pilot.press("U")
            await asked(app, pilot)
            assert f"UNDRAIN {name}" in shown(app) and f"DRAIN {name}: change {place}" in shown(app)
        await agree(app, pilot)
        await finished(app, pilot, "action")
        assert link_of(app).calls[-1][:2] == ("undrain", ("cpu-b",))
        await drained(app, pilot, "U")
        assert link_of(app).calls[-1][:2] == ("undrain", ("gpu-c",))
        await pilot.press("U")
        assert "nothing to take back" in shown(app), "what was taken back is no change to take back"

    run(test, (100, 30))


def test_what_was_done_on_one_cluster_is_not_taken_back_on_another() -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await live(app, pilot)
        link_of(app).plans["without cpu-b"] = frames.plan()
        await drained(app, pilot, "2", "down", "D")
        app.effects.run("ctx 127.0.0.1:2")
        await finished(app, pilot, "switch")
        await live(app, pilot)
        await pilot.press("U")
        assert app.state.ui.dialog is None and "nothing to take back" in shown(app)

    run(test)


@pytest.mark.parametrize(
    ("done", "back"),
    [
        (Preview("cluster.drain", "w2", 4), ("cluster.undrain", "w2")),
        (Preview("cluster.undrain", "w2", 4), ("cluster.drain", "w2")),
        (Preview("cluster.drain", "w2", 4, also=("w3",)), ("cluster.undrain", "w2", "w3")),
        (Preview("cluster.rebalance", "", 4), ("cluster.rollback", "4")),
        (Preview("cluster.apply", "balanced", 4), ("cluster.rollback", "4")),
        (Preview("cluster.rollback", "2", 4), ("cluster.rollback", "4")),
        (Preview("cluster.auto", "auto", 4, mode="off"), ("cluster.auto", "off")),
        (Preview("cluster.cancel", "s-1", 4), ()),
        (Preview("cluster.forget", "w2", 4), ()),
    ],
)
def test_every_change_has_its_opposite_or_none(done: Preview, back: tuple[str, ...]) -> None:
    assert opposite(done) == back
