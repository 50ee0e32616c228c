"""Admission of segments on a stage against a slow reference that keeps every accepted token."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.control.sessions.reuse.digests import token_digest
from engine.control.sessions.stage_sessions import Append, Replay, StageSessions
from engine.data.errors import Corrupt, Gap, NoodleError, NotFound, Stale, Unavailable
from engine.data.generation import UNKNOWN, Kept, Segment, Taken
from engine.data.sampling import Sampling


def segment(position: int, tokens: tuple[int, ...], epoch: int = 1, session_id: str = "s") -> Segment:
    return Segment(session_id, epoch, position, tokens, 0, Sampling() if position == 0 else None)


def append(sessions: StageSessions, part: Segment, reply: object = None) -> None:
    decision = sessions.admit(part)
    assert isinstance(decision, Append)
    sessions.commit(part, decision.session, reply)


def test_the_same_segment_twice_gets_the_same_reply_and_appends_once() -> None:
    sessions = StageSessions(1)
    append(sessions, segment(0, (1, 2, 3)), "first")
    append(sessions, segment(3, (4,)), "second")
    again = sessions.admit(segment(3, (4,)))
    assert again == Replay("second")
    assert sessions.get("s", 1).token_ids == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("part", "error"),
    [
        (segment(5, (9,)), Gap),
        (segment(3, (8,)), Corrupt),
        (segment(0, (1, 2, 3)), Stale),
        (segment(4, (9,), epoch=0), Stale),
        (segment(4, (9,), epoch=2), NotFound),
        (segment(4, (9,), session_id="other"), NotFound),
    ],
)
def test_what_does_not_follow_is_refused_and_changes_nothing(part: Segment, error: type[NoodleError]) -> None:
    sessions = StageSessions(1)
    append(sessions, segment(0, (1, 2, 3)))
    append(sessions, segment(3, (4,)))
    with pytest.raises(error):
        sessions.admit(part)
    assert sessions.get("s", 1).token_ids == [1, 2, 3, 4]
    assert sessions.ids() == ("s",)


def test_what_follows_goes_on_only_behind_what_was_chosen_here_in_its_epoch() -> None:
    sessions, ahead = StageSessions(1), Segment("s", 2, 3, (UNKNOWN,), 1, follows=True)
    part = segment(0, (1, 2, 3), epoch=2)
    assert sessions.known(ahead) is None
    sessions.commit(part, sessions.admit(part).session, "first", [7])  # type: ignore[union-attr]
    for other in (replace(ahead, epoch=1), replace(ahead, epoch=3), replace(ahead, position=2), replace(ahead, position=4)):
        assert sessions.known(other) is None
    known = sessions.known(ahead)
    assert known == Segment("s", 2, 3, (7,), 1)
    assert isinstance(sessions.admit(known), Append)
    sessions.commit(known, sessions.get("s", 2), "second", [8])
    again = sessions.known(ahead)
    assert again == known and sessions.admit(again) == Replay("second")
    sessions.commit(replace(known, position=4), sessions.get("s", 2), "a chunk, or one that chose nothing")
    assert sessions.known(replace(ahead, position=5)) is None
    part = segment(0, (1,), epoch=3)
    sessions.commit(part, sessions.admit(part).session, "several, of which nobody knows how far they hold", [4, 5])  # type: ignore[union-attr]
    assert sessions.known(replace(ahead, epoch=3, position=1)) is None


def test_a_higher_epoch_starts_afresh_and_the_stage_of_another_plan_is_not_here() -> None:
    sessions = StageSessions(4)
    append(sessions, segment(0, (1, 2, 3)))
    append(sessions, segment(0, (7,), epoch=2))
    assert sessions.get("s", 2).token_ids == [7]
    with pytest.raises(Stale, match="epoch 2"):
        sessions.admit(segment(3, (4,), epoch=1))
    for other in (3, 5):
        with pytest.raises(Unavailable, match=f"plan {other} arrived at a stage of plan 4"):
            sessions.check_plan(other)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(1, 3), st.integers(1, 2), st.integers(0, 1)), max_size=25))
def test_any_order_of_segments_keeps_each_token_once(parts: list[tuple[int, int, int, int]]) -> None:
    """Token p of epoch e is always 100 * e + p + variant; whatever arrives, the kept tokens are a prefix without holes."""
    sessions, kept, epoch_now = StageSessions(1), [], 0
    for position, length, epoch, variant in parts:
        part = segment(position, tuple(100 * epoch + p + 1000 * variant for p in range(position, position + length)), epoch)
        try:
            decision = sessions.admit(part)
        except NoodleError:
            continue
        if isinstance(decision, Replay):
            assert list(part.token_ids) == kept[position:]
            continue
        if epoch != epoch_now:
            assert epoch > epoch_now and position == 0
            kept, epoch_now = [], epoch
        assert position == len(kept)
        sessions.commit(part, decision.session, None)
        kept = kept + list(part.token_ids)
        assert sessions.get("s", epoch_now).token_ids == kept


def test_a_request_that_comes_late_does_not_bring_an_old_plan_back() -> None:
    sessions = StageSessions(plan_version=5)
    sessions.check_newer(5)
    sessions.check_newer(6)
    with pytest.raises(Stale, match="plan 4 was asked for after one of plan 5"):
        sessions.check_newer(4)


def behind(kept_id: int, tokens: tuple[int, ...], new: tuple[int, ...] = (9,), position: int | None = None) -> Segment:
    taken = Taken(kept_id, len(tokens), token_digest(tokens))
    return Segment("next", 1, len(tokens) if position is None else position, new, 0, Sampling(), 8, taken=taken)


def test_a_session_begins_only_with_what_is_kept_here_whole_and_the_same() -> None:
    sessions = StageSessions(1)
    append(sessions, segment(0, (1, 2, 3, 4, 5), epoch=2))
    assert sessions.keep(Kept(7, "s", 2, 4)) and sessions.ids() == () and sessions.kept_ids() == (7,)
    for part, error in (
        (behind(8, (1, 2)), NotFound),
        (behind(7, (1, 2, 3, 4, 5)), NotFound),
        (behind(7, (1, 3)), Corrupt),
        (behind(7, (1, 2), position=3), NotFound),
        (behind(7, ()), NotFound),
    ):
        with pytest.raises(error):
            sessions.admit(part)
    append(sessions, behind(7, (1, 2, 3)))
    assert sessions.get("next", 1).token_ids == [1, 2, 3, 9]
    sessions.drop(7)
    assert sessions.kept_ids() == () and sessions.get("next", 1).token_ids == [1, 2, 3, 9]


def test_a_session_begins_only_with_what_a_running_one_has_in_that_epoch() -> None:
    sessions = StageSessions(1)
    append(sessions, segment(0, (1, 2, 3, 4, 5), epoch=2))
    of_s = {"kept_id": 0, "session_id": "s", "epoch": 2}
    for tokens, changes, error in (
        ((1, 2), {"epoch": 1}, NotFound),
        ((1, 2), {"epoch": 3}, NotFound),
        ((1, 2), {"session_id": "t"}, NotFound),
        ((1, 2, 3, 4, 5, 6), {}, NotFound),
        ((1, 3), {}, Corrupt),
    ):
        part = behind(0, tokens)
        with pytest.raises(error):
            sessions.admit(replace(part, taken=replace(part.taken, **of_s | changes)))  # type: ignore[type-var]
    part = behind(0, (1, 2, 3))
    append(sessions, replace(part, taken=replace(part.taken, **of_s)))  # type: ignore[type-var]
    assert sessions.get("next", 1).token_ids == [1, 2, 3, 9]
    append(sessions, segment(5, (6,), epoch=2))
    assert sessions.release("next") and sessions.get("s", 2).token_ids == [1, 2, 3, 4, 5, 6], "neither changes the other"


def test_what_moves_is_kept_until_the_session_is_there_and_no_longer() -> None:
    sessions = StageSessions(1)
    append(sessions, segment(0, (1, 2, 3)))
    assert sessions.keep(Kept(7, "s", 1, 2))
    part = behind(7, (1, 2))
    moving = replace(part, taken=replace(part.taken, moves=True))  # type: ignore[type-var]
    decision = sessions.admit(moving)
    assert isinstance(decision, Append) and sessions.kept_ids() == (7,)
    sessions.commit(moving, decision.session, "reply")
    assert sessions.kept_ids() == () and sessions.admit(moving) == Replay("reply")


def test_nothing_is_kept_of_another_epoch_or_of_fewer_tokens() -> None:
    sessions = StageSessions(1)
    for kept in (Kept(1, "s", 1, 2), Kept(2, "s", 2, 4), Kept(3, "other", 2, 1)):
        append(sessions, segment(0, (1, 2, 3), epoch=2))
        assert not sessions.keep(kept)
        assert sessions.kept_ids() == ()
        sessions.release("s")
