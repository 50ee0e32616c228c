"""Recordings: what was received comes back, whatever happened to the file."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.data.errors import Corrupt, InvalidInput, NotFound, Refused
from engine.data.generation import GenerateRequest
from engine.data.status import Event, SessionStatus, Severity
from engine.data.watch_frame import WatchFrame
from noodle_tui.cluster.frame_json import frame_from_plain, frame_to_plain
from noodle_tui.cluster.recording import Recorder, Recording
from noodle_tui.cluster.replay import ReplayLink
from noodle_tui.core import messages as m
from noodle_tui.options import Options
from tests.tui import frames

FLOATS = st.floats(allow_nan=False, allow_infinity=False, width=32).map(lambda x: round(x, 6))


def write(path: Path, *timed: tuple[float, WatchFrame | str]) -> Path:
    recorder = Recorder(path, "127.0.0.1:7070", 1_700_000_000.0, 0.0)
    for at_s, what in timed:
        if isinstance(what, str):
            recorder.lost(what, 1_700_000_000.0 + at_s, at_s)
        else:
            recorder.frame(what, 1_700_000_000.0 + at_s, at_s)
    recorder.close()
    return path


def framed(sequence: int, **changes: object) -> WatchFrame:
    stages = tuple(frames.stage(history_s=(0.001, 0.0)) for _ in range(2))
    return frames.frame(frames.status(stages=stages, **changes), frames.event(sequence))  # type: ignore[arg-type]


SCRIPT: tuple[tuple[float, WatchFrame | str], ...] = (
    (0.0, framed(1)),
    (1.0, framed(2)),
    (2.0, framed(3, plan_version=15)),
    (3.0, "connection refused"),
    (9.0, framed(4, plan_version=15)),
    (10.0, framed(5, plan_version=16)),
)


@settings(deadline=None)
@given(st.text(), FLOATS, st.one_of(st.none(), FLOATS), st.sampled_from(list(Severity)))
def test_any_frame_survives_the_journey(text: str, number: float, maybe: float | None, severity: Severity) -> None:
    node = frames.changed(frames.node(text), gpu_utilisation=maybe, progress=number)
    frame = frames.frame(frames.status(nodes=(node,), stages=(), name=text), Event(1, number, severity, text, text, text))
    assert frame_from_plain(json.loads(json.dumps(frame_to_plain(frame)))) == frame


def test_unknown_keys_are_skipped_and_missing_ones_take_their_defaults() -> None:
    raw = frame_to_plain(framed(1))
    raw["status"]["from_the_future"] = 1
    del raw["status"]["failure"]
    assert frame_from_plain(raw) == framed(1)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [("phase", "dancing", "frame.status.phase"), ("nodes", 3, "frame.status.nodes"), ("model", 3, "frame.status.model is")],
)
def test_a_wrong_field_is_named(key: str, value: object, message: str) -> None:
    raw = frame_to_plain(framed(1))
    raw["status"][key] = value
    with pytest.raises(Corrupt, match=message):
        frame_from_plain(raw)


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_a_recording_comes_back(tmp_path: Path, name: str) -> None:
    recording = Recording(write(tmp_path / name, *SCRIPT))
    assert len(recording) == len(SCRIPT) and not recording.torn and not recording.num_damaged
    assert [recording.frame(i) for i in (0, 5)] == [SCRIPT[0][1], SCRIPT[5][1]]
    assert recording.frame(3) is None and recording.entries[3].lost == "connection refused"
    assert [event.sequence for event in recording.events_until(2)] == [1, 2, 3]


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_a_torn_end_costs_its_last_frame_only(tmp_path: Path, name: str) -> None:
    whole = write(tmp_path / name, *SCRIPT).read_bytes()
    num_kept = []
    for cut in range(len(whole) - 1, len(whole) * 17 // 20, -len(whole) // 60):
        path = tmp_path / f"cut-{cut}-{name}"
        path.write_bytes(whole[:cut])
        num_kept.append(len(Recording(path)))
    assert num_kept[0] >= len(SCRIPT) - 1 and num_kept == sorted(num_kept, reverse=True) and num_kept[-1] >= 1


def test_a_damaged_line_is_skipped_and_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", *SCRIPT)
    lines = path.read_bytes().splitlines(keepends=True)
    lines[2] = lines[2].replace(b'"phase":"serving"', b'"phase":"dancing"')
    lines[3] = b"\xff\x00\n"
    path.write_bytes(b"".join(lines))
    recording = Recording(path)
    assert (len(recording), recording.num_damaged) == (len(SCRIPT) - 2, 2)


def test_events_of_a_coordinator_that_began_anew_are_a_new_list(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", (0.0, framed(70, uptime_s=500.0)), (1.0, framed(1, uptime_s=1.0)), (2.0, framed(2, uptime_s=2.0)))
    recording = Recording(path)
    assert [event.sequence for event in recording.events_until(0)] == [70]
    assert [event.sequence for event in recording.events_until(2)] == [1, 2]


ENDS = tuple(SessionStatus(f"s-{n}", "done", 4, 8, 8, 0.25, 9.0, 1.5, 0.03, finish_reason="length") for n in range(60))


def listing(first: int, stop: int, at: int) -> tuple[float, WatchFrame]:
    """The sessions `first` to `stop`, newest first."""
    return float(at), framed(at + 1, latest=ENDS[first:stop][::-1])


def test_sessions_that_ended_are_written_once_and_seen_from_everywhere(tmp_path: Path) -> None:
    lists: list[tuple[float, WatchFrame | str]] = [listing(0, 0, 0), listing(0, 50, 1), listing(0, 50, 2), listing(3, 53, 3)]
    lists += [(4.0, "connection refused"), listing(3, 53, 5)]
    lists += [listing(57, 60, 6), listing(57, 60, 7)]  # a coordinator that knows nothing of those before
    path = write(tmp_path / "a.jsonl", *lists)
    recording = Recording(path)
    for index in (7, 0, 3, 1, 6, 2, 5):
        assert recording.frame(index) == lists[index][1], index
    assert path.read_bytes().count(b'"state":"done"') == 50 + 3 + 3


def test_a_recording_with_whole_lists_is_read_as_ever(tmp_path: Path) -> None:
    lists = [listing(0, 20, 0), listing(1, 21, 1), listing(2, 22, 2)]
    path = write(tmp_path / "a.jsonl")
    with path.open("ab") as file:
        for at_s, frame in lists:
            file.write(json.dumps({"at_s": at_s, "wall_s": 1.7e9 + at_s, "frame": frame_to_plain(frame)}).encode() + b"\n")
    recording = Recording(path)
    assert [recording.frame(i) for i in (2, 0, 1)] == [lists[i][1] for i in (2, 0, 1)]
    assert len(recording._ended) == 22  # what a list repeats is kept once


def test_a_replay_that_jumps_shows_what_had_ended_by_then(tmp_path: Path) -> None:
    def test(link: ReplayLink, posted: list[m.Message]) -> None:
        link.pause()
        for wall_s, names in ((3, ["s-2", "s-1", "s-0"]), (1, ["s-0"]), (4, ["s-2", "s-1", "s-0"])):
            link.seek_wall(1_700_000_000.0 + wall_s)
            jumped = next(message for message in reversed(posted) if isinstance(message, m.FrameArrived))
            assert [s.session_id for s in jumped.frame.status.ended.latest] == names

    path = write(tmp_path / "a", listing(0, 0, 0), listing(0, 1, 1), listing(0, 2, 2), listing(0, 3, 3), listing(0, 3, 4))
    replay(path, test, speed=0.25)


def test_a_file_is_never_overwritten(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", *SCRIPT)
    with pytest.raises(Refused, match="exists"):
        Recorder(path, "", 0.0, 0.0)


def test_what_is_no_recording_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x").write_text('{"a": 1}\n')
    with pytest.raises(InvalidInput, match="is not a recording"):
        Recording(tmp_path / "x")
    (tmp_path / "y").write_text('{"noodle_recording": 99}\n')
    with pytest.raises(InvalidInput, match="version 99"):
        Recording(tmp_path / "y")
    with pytest.raises(NotFound):
        Recording(tmp_path / "z")
    with pytest.raises(Corrupt, match="no frame"):
        Recording(write(tmp_path / "empty"))


# --- replay -------------------------------------------------------------------------------------------------------
def replay(path: Path, test: Callable[[ReplayLink, list[m.Message]], None], num_shown: int = 1, speed: float = 1024.0) -> list[m.Message]:
    """Let the replay run until `num_shown` moments were posted, then do what the test does."""

    async def session() -> list[m.Message]:
        posted: list[m.Message] = []
        more = asyncio.Event()

        def post(message: m.Message) -> None:
            posted.append(message)
            more.set()

        link = ReplayLink(Options(replay=str(path), speed=speed), post)
        running = asyncio.create_task(link.run())
        async with asyncio.timeout(20):
            while sum(isinstance(message, m.ReplayMoved) for message in posted) < num_shown:
                more.clear()
                await more.wait()
        test(link, posted)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await link.stop()
        return posted

    return asyncio.run(session())


def test_a_replay_posts_what_was_received_in_order(tmp_path: Path) -> None:
    posted = replay(write(tmp_path / "a", *SCRIPT), lambda link, posted: None, num_shown=len(SCRIPT))
    shown = [message for message in posted if isinstance(message, m.FrameArrived | m.LinkLost)]
    assert [type(message) for message in shown] == [m.FrameArrived] * 3 + [m.LinkLost] + [m.FrameArrived] * 2
    assert isinstance(shown[2], m.FrameArrived) and shown[2].frame == SCRIPT[2][1] and not shown[2].anew


def test_seeking(tmp_path: Path) -> None:
    def test(link: ReplayLink, posted: list[m.Message]) -> None:
        def at() -> int:
            return next(message.index for message in reversed(posted) if isinstance(message, m.ReplayMoved))

        link.pause()
        link.seek_plan(1)
        assert at() == 2
        link.seek_plan(1)
        assert at() == 5
        link.seek_plan(1)
        assert at() == 5, "there is no later change"
        link.seek_plan(-1)
        assert at() == 2
        link.step(-1)
        assert at() == 1
        link.step(-9)
        assert at() == 0
        link.seek_wall(1_700_000_000.0 + 5)
        assert at() == 4
        jumped = next(message for message in reversed(posted) if isinstance(message, m.FrameArrived))
        assert jumped.anew and [event.sequence for event in jumped.frame.events] == [1, 2, 3, 4]

    replay(write(tmp_path / "a", *SCRIPT), test, speed=0.25)


def test_a_replay_cannot_be_asked_to_act(tmp_path: Path) -> None:
    def test(link: ReplayLink, posted: list[m.Message]) -> None:
        asyncio.get_running_loop().create_task(link.generate(1, GenerateRequest("x")))
        with pytest.raises(StopIteration):
            link.plan("").send(None)

    with pytest.raises(Refused, match="no cluster"):
        replay(write(tmp_path / "a", *SCRIPT), test)


def test_a_missing_file_is_a_sentence(tmp_path: Path) -> None:
    posted: list[m.Message] = []
    asyncio.run(ReplayLink(Options(replay=str(tmp_path / "no")), posted.append).run())
    assert isinstance(posted[0], m.BootFailed) and "no recording" in posted[0].error
