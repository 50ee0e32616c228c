"""The reducer: every state of the link, the display and its events, without a clock."""

from __future__ import annotations

from dataclasses import replace

import pytest

from noodle_tui.changes.reducer import reduce
from noodle_tui.core import messages as m
from noodle_tui.core.pages import Page
from noodle_tui.listings import cursor_identity
from noodle_tui.state import MAX_EVENTS, STALE_AFTER_S, ConsoleState, LinkState
from tests.tui import frames


def play(*timed: tuple[float, m.Message], state: ConsoleState | None = None) -> ConsoleState:
    state = state or ConsoleState()
    for now_s, message in timed:
        state = reduce(state, message, now_s)
    return state


def arrived(*events: object, **changes: object) -> m.FrameArrived:
    return m.FrameArrived(frames.frame(frames.status(**changes), *events), 1_700_000_000.0)  # type: ignore[arg-type]


def test_every_message_has_a_handler() -> None:
    from noodle_tui.changes.reducer import _HANDLERS

    assert set(_HANDLERS) == set(m.Message.__args__)  # type: ignore[attr-defined]


def test_a_frame_makes_the_link_live() -> None:
    state = play((0.0, m.Dialling("a:1")), (1.0, arrived()))
    assert state.link.state is LinkState.LIVE
    assert state.latest is not None and state.latest.arrived_s == 1.0


@pytest.mark.parametrize(("silence_s", "expected"), [(STALE_AFTER_S - 0.01, LinkState.LIVE), (STALE_AFTER_S, LinkState.STALE)])
def test_silence_turns_live_into_stale(silence_s: float, expected: LinkState) -> None:
    state = play((0.0, m.Dialling("a:1")), (1.0, arrived()), (1.0 + silence_s, m.Tick()))
    assert state.link.state is expected


def test_a_frame_ends_stale() -> None:
    state = play((1.0, arrived()), (9.0, m.Tick()), (9.5, arrived()))
    assert (state.link.state, state.link.since_s) == (LinkState.LIVE, 9.5)


def test_offline_keeps_the_values_and_counts_down() -> None:
    state = play((1.0, arrived()), (2.0, m.LinkLost("refused", 3.0)), (3.0, m.Dialling("a:1")), (3.1, m.LinkLost("refused", 5.1)))
    assert state.link.state is LinkState.OFFLINE
    assert state.link.since_s == 2.0, "the outage began with the first failure"
    assert (state.link.attempt, state.link.retry_at_s) == (1, 5.1)
    assert state.shown is not None, "old values stay on the screen"


def test_dialling_does_not_hide_that_the_link_is_down() -> None:
    state = play((2.0, m.LinkLost("refused", 3.0)), (3.0, m.Dialling("a:1")))
    assert state.link.state is LinkState.OFFLINE
    assert state.link.retry_at_s is None


def test_silence_while_offline_is_still_offline() -> None:
    assert play((1.0, arrived()), (2.0, m.LinkLost("x", 3.0)), (99.0, m.Tick())).link.state is LinkState.OFFLINE


def test_a_failed_start_waits_for_the_user() -> None:
    state = play((0.0, m.BootProgress("starting")), (1.0, m.BootFailed("no such model\n\x1b[31m")))
    assert state.link.state is LinkState.OFFLINE and state.link.retry_at_s is None
    assert state.link.error == "no such model ?[31m"


def test_a_new_start_forgets_the_dead_processes() -> None:
    state = play((0.0, arrived()), (0.5, m.ProcessesDied(("w1 died",))), (1.0, m.BootProgress("again")))
    assert (state.failures, state.shown) == ((), None), "old values are of another cluster"


def test_events_are_newest_first_and_once() -> None:
    first = arrived(frames.event(1), frames.event(2))
    state = play((1.0, first), (2.0, first), (3.0, arrived(frames.event(2), frames.event(3))))
    assert state.latest is not None
    assert [event.sequence for event in state.latest.events] == [3, 2, 1]


def test_events_are_bounded() -> None:
    state = play((1.0, arrived(*(frames.event(i) for i in range(MAX_EVENTS + 50)))))
    assert state.latest is not None
    assert len(state.latest.events) == MAX_EVENTS
    assert state.latest.events[0].sequence == MAX_EVENTS + 49


def test_a_restarted_coordinator_starts_a_new_list_of_events() -> None:
    state = play((1.0, arrived(frames.event(70), uptime_s=500.0)), (2.0, arrived(frames.event(1), uptime_s=1.0)))
    assert state.latest is not None
    assert [event.sequence for event in state.latest.events] == [1]


def test_hold_freezes_what_is_shown_but_not_what_is_known() -> None:
    state = play((1.0, arrived(frames.event(1))), (2.0, m.HoldToggled(5.0)), (3.0, arrived(frames.event(2), plan_version=15)))
    assert state.shown is not None and state.shown.status.plan_version == 14
    assert state.num_waiting_events == 1
    state = play((4.0, m.HoldToggled(6.0)), state=state)
    assert state.shown is not None and state.shown.status.plan_version == 15
    assert state.num_waiting_events == 0


def test_hold_without_values_is_harmless() -> None:
    assert play((1.0, m.HoldToggled(5.0))).held is None


def cursor(state: ConsoleState) -> str:
    return cursor_identity(state, Page.NODES)


@pytest.mark.parametrize(("keys", "expected"), [("u", "gpu-a"), ("dd", "gpu-c"), ("e", "pi-d"), ("eu", "gpu-c"), ("eh", "gpu-a")])
def test_the_node_cursor_stays_on_the_table(keys: str, expected: str) -> None:
    names = {"u": "nav.up", "d": "nav.down", "e": "nav.end", "h": "nav.home"}
    state = play((1.0, arrived()), *((2.0, m.KeyPressed(names[key])) for key in keys))
    assert cursor(state) == expected


def test_the_node_cursor_follows_its_node_and_a_shrinking_cluster() -> None:
    state = play((1.0, arrived()), *((2.0, m.KeyPressed("nav.down")) for _ in range(3)))
    assert cursor(state) == "pi-d"
    swapped = frames.status(nodes=tuple(reversed(frames.status().nodes)), stages=tuple(reversed(frames.status().stages)))
    assert cursor(play((3.0, m.FrameArrived(frames.frame(swapped), 0.0)), state=state)) == "pi-d"
    assert cursor(play((3.0, m.FrameArrived(frames.frame(frames.status(2)), 0.0)), state=state)) == "cpu-b"


def test_hostile_names_are_safe_once_they_are_in_the_state() -> None:
    evil = "a\x1b]0;owned\x07\u202e[red]\nb"
    status = frames.status(name=evil, cluster_id=evil, nodes=(frames.node(evil),))
    state = play((1.0, m.FrameArrived(frames.frame(status, frames.event(1, evil)), 0.0)))
    view = state.latest
    assert view is not None
    texts = (view.status.model.name, view.status.cluster_id, view.status.nodes[0].worker_id, view.events[0].text)
    assert set(texts) == {"a?]0;owned?[red] b"}
    assert view.status.nodes[0].state is status.nodes[0].state, "enums survive the cleaning"


def test_states_are_values() -> None:
    before = play((1.0, arrived()))
    copy = replace(before)
    reduce(before, m.LinkLost("x", 1.0), 2.0)
    assert before == copy


def test_an_event_that_is_told_again_with_a_count_is_one_row() -> None:
    first, other = frames.event(1, "declined"), frames.event(2, "serving on 4 stages")
    again = replace(frames.event(5, "8 times in 9 s: declined"), again_of=1)
    state = play((1.0, arrived(first, other)), (2.0, arrived(again)))
    assert state.latest is not None and [event.sequence for event in state.latest.events] == [5, 2]
