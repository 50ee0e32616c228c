"""The compute thread with real models and real messages, without a network: two stages handed frames by the test."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.control.moves import Carried
from engine.data.errors import Corrupt, InvalidInput, NotFound, Stale, Unavailable
from engine.data.generation import Segment
from engine.data.model import ModelRef
from engine.data.sampling import Sampling
from engine.folders import cache_folder
from engine.model.sources.card import prepare
from engine.model.weights.weight_folder import WeightFolder
from engine.service import wire
from engine.service.errors import from_number
from engine.service.meters import Meters
from engine.service.worker.kv_export import export_session
from engine.service.worker.prepared_stage import PreparedStage
from engine.service.worker.stage_runner import RunnerOptions, StageRunner
from protos import noodle_pb2 as pb
from tests.service.reference import reference

MODEL = "qwen3:tiny"
PROMPT = (4, 5, 6, 7, 8)
NUM_NEW = 6


class Stage:
    """A runner and what it delivered."""

    def __init__(self, name: str, start: int, stop: int, kv_budget_bytes: int = 10**7) -> None:
        card = prepare(ModelRef(MODEL, 0), cache_folder())
        self.out: queue.Queue[pb.StepFrame | pb.StepReport] = queue.Queue()
        self.runner = StageRunner(RunnerOptions(name, "cpu", kv_budget_bytes), Meters(), self.out.put)
        self.request = pb.LoadRequest(folder=card.folder, fingerprint=card.fingerprint, plan_version=3, start=start, stop=stop)
        wire.to_message(card.ref, self.request.model)
        self.weights = WeightFolder(Path(card.folder))
        self.reply = self.runner.call(lambda: self.runner.load(self.request, self.weights)).result(60)

    def step(self, frame: pb.StepFrame) -> pb.StepFrame | pb.StepReport:
        self.runner.submit(frame)
        return self.out.get(timeout=120)

    def prepared(self, plan: int) -> PreparedStage:
        """The same items for another plan, as a worker prepares them that holds none of them."""
        request = pb.LoadRequest()
        request.CopyFrom(self.request)
        request.plan_version = plan
        return PreparedStage(request, self.weights, "cpu", 10**7, None, lambda done, what: None)

    def taken_over(self, prepared: PreparedStage, carried: tuple[Carried, ...]) -> tuple[str, ...]:
        """Commit as that worker; returns the sessions that are not complete there."""
        self.runner.unload()
        return self.runner.commit(prepared, carried)

    def idle(self) -> None:
        """Return when everything submitted has run."""
        self.runner.call(lambda: None).result(60)


@pytest.fixture
def pair() -> Iterator[tuple[Stage, Stage]]:
    num_items = prepare(ModelRef(MODEL, 0), cache_folder()).num_items
    stages = Stage("a", 0, 2), Stage("b", 2, num_items)
    yield stages
    for stage in stages:
        stage.runner.close()


def frame(
    position: int, tokens: tuple[int, ...], index: int | None, *, session: str = "s", epoch: int = 1, plan: int = 3, room: int = 50
) -> pb.StepFrame:
    message = pb.StepFrame(plan_version=plan, step_id=position + 1)
    sampling = Sampling() if position == 0 else None
    message.segments.append(wire.segment_to_message(Segment(session, epoch, position, tokens, index, sampling, room)))
    return message


def through(pair: tuple[Stage, Stage], message: pb.StepFrame) -> pb.SegmentResult:
    middle = pair[0].step(message)
    report = middle if isinstance(middle, pb.StepReport) else pair[1].step(middle)
    assert isinstance(report, pb.StepReport)
    (result,) = report.results
    return result


def generate(pair: tuple[Stage, Stage], tokens: list[int], position: int, count: int) -> list[int]:
    """Go on from `tokens[position:]`; returns the new tokens."""
    new: list[int] = []
    for index in range(count):
        result = through(pair, frame(position, tuple(tokens[position:]), index))
        assert result.code == 0, result.message
        position = len(tokens)
        tokens = [*tokens, result.token_id]
        new.append(result.token_id)
    return new


def test_two_stages_equal_generate_and_a_repeated_step_appends_nothing(pair: tuple[Stage, Stage]) -> None:
    expected = reference(MODEL, PROMPT, NUM_NEW)
    first = through(pair, frame(0, PROMPT, 0)).token_id
    step = frame(len(PROMPT), (first,), 1)
    middle = pair[0].step(step)
    again = pair[0].step(step)
    assert isinstance(middle, pb.StepFrame) and isinstance(again, pb.StepFrame)
    assert middle.payload == again.payload
    one, two = pair[1].step(middle), pair[1].step(again)
    assert [r.token_id for r in (*one.results, *two.results)] == [expected[1]] * 2  # type: ignore[union-attr]
    rest = generate(pair, [*PROMPT, first, expected[1]], len(PROMPT) + 1, NUM_NEW - 2)
    assert [first, expected[1], *rest] == expected


def test_when_a_step_came_and_was_done_is_told_by_a_clock_that_never_jumps(pair: tuple[Stage, Stage]) -> None:
    """Hops are told apart by what each takes beyond its least so far: a host's clock that jumped would make that wrong for good."""
    began_s = time.monotonic()
    middle = pair[0].step(frame(0, PROMPT, 0))
    (timing,) = middle.timings
    assert began_s <= timing.arrived_s <= timing.done_s <= time.monotonic()
    assert timing.done_s - timing.arrived_s >= timing.compute_s


def test_a_session_goes_on_elsewhere_from_its_exported_keys_and_values(pair: tuple[Stage, Stage]) -> None:
    expected = reference(MODEL, PROMPT, NUM_NEW)
    assert generate(pair, list(PROMPT), 0, 3) == expected[:3]
    tokens = [*PROMPT, *expected[:3]]
    carried = (Carried("s", 1, 2, len(tokens) - 1),)
    for stage in pair:  # each range on a worker that held nothing
        prepared = stage.prepared(plan=4)
        raw = [m.SerializeToString() for m in exported(stage)]
        assert prepared.take([pb.KvMessage.FromString(m) for m in raw]) > 0
        assert stage.runner.call(lambda prepared=prepared, stage=stage: stage.taken_over(prepared, carried)).result(60) == ()
    last = through(pair, frame(len(tokens) - 1, (tokens[-1],), 3, epoch=2, plan=4))
    assert last.code == 0 and last.token_id == expected[3]


def test_damaged_keys_and_values_are_refused(pair: tuple[Stage, Stage]) -> None:
    generate(pair, list(PROMPT), 0, 2)
    messages, fresh = exported(pair[0]), pair[0].prepared(plan=4)
    messages[-1].block.crc32 ^= 1
    with pytest.raises(Corrupt, match="send them again"):
        fresh.take(messages)
    with pytest.raises(InvalidInput, match="header"):
        pair[0].prepared(plan=4).take(messages[1:])
    pair[0].runner.call(pair[0].runner.forget_sessions).result(60)
    with pytest.raises(NotFound):
        exported(pair[0])


def exported(stage: Stage) -> list[pb.KvMessage]:
    model, sessions = stage.runner.owned_model(), stage.runner.sessions
    return export_session(model, sessions, pb.ExportKvRequest(session_id="s", epoch=1))


@pytest.mark.parametrize(
    ("message", "code", "text"),
    [
        (frame(len(PROMPT), (1,), 1, plan=2), Unavailable, "plan 2 arrived at a stage of plan 3"),
        (frame(len(PROMPT) + 3, (1,), 1), None, "send from 5"),
        (frame(len(PROMPT), (1,), 1, epoch=0), Stale, "epoch"),
        (frame(len(PROMPT), (1,), 1, session="other"), NotFound, "not open on this stage"),
    ],
)
def test_a_step_that_does_not_belong_is_refused_and_changes_nothing(
    pair: tuple[Stage, Stage], message: pb.StepFrame, code: type | None, text: str
) -> None:
    first = through(pair, frame(0, PROMPT, 0)).token_id
    result = through(pair, message)
    assert result.code != 0 and text in result.message
    if code is not None:
        assert type(from_number(result.code, result.message)) is code
    assert through(pair, frame(len(PROMPT), (first,), 1)).token_id == reference(MODEL, PROMPT, 2)[1]


@pytest.mark.parametrize("damage", ["payload", "shape", "dtype", "length"])
def test_damaged_hidden_states_are_refused(pair: tuple[Stage, Stage], damage: str) -> None:
    middle = pair[0].step(frame(0, PROMPT, 0))
    assert isinstance(middle, pb.StepFrame)
    broken = pb.StepFrame.FromString(middle.SerializeToString())
    if damage == "payload":
        broken.payload = bytes([broken.payload[0] ^ 1]) + broken.payload[1:]
    elif damage == "shape":
        broken.shape[0] += 1
    elif damage == "dtype":
        broken.dtype = 7  # type: ignore[assignment]
    else:
        broken.payload = broken.payload[:-4]
    report = pair[1].step(broken)
    assert isinstance(report, pb.StepReport) and report.results[0].code != 0
    whole = pair[1].step(middle)
    assert whole.results[0].token_id == reference(MODEL, PROMPT, 1)[0]  # type: ignore[union-attr]


def test_a_full_budget_refuses_one_session_and_serves_the_others_of_the_step() -> None:
    num_items = prepare(ModelRef(MODEL, 0), cache_folder()).num_items
    whole = Stage("w", 0, num_items, kv_budget_bytes=60_000)
    room = 60_000 // whole.runner.owned_model().kv.bytes_per_token
    message = frame(0, PROMPT, 0, session="big", room=room + 1)
    message.segments.extend(frame(0, PROMPT, 0, session="small", room=20).segments)
    report = whole.step(message)
    by_session = {r.session_id: r for r in report.results}  # type: ignore[union-attr]
    assert by_session["small"].token_id == reference(MODEL, PROMPT, 1)[0] and by_session["small"].code == 0
    assert by_session["big"].code != 0 and "budget" in by_session["big"].message
    whole.runner.close()


def test_a_release_frees_the_memory_and_travels_on(pair: tuple[Stage, Stage]) -> None:
    through(pair, frame(0, PROMPT, 0))
    assert all(s.runner.owned_model().kv.used_bytes > 0 for s in pair)
    onward = pair[0].step(pb.StepFrame(plan_version=3, step_id=99, releases=["s"]))
    assert isinstance(onward, pb.StepFrame) and list(onward.releases) == ["s"]
    pair[1].runner.submit(onward)
    pair[1].idle()
    assert all(s.runner.owned_model().kv.used_bytes == 0 and s.runner.sessions.ids() == () for s in pair)
    assert pair[1].out.empty()


def test_loading_another_slice_keeps_what_it_holds_and_forgets_the_sessions(pair: tuple[Stage, Stage]) -> None:
    through(pair, frame(0, PROMPT, 0))
    card = prepare(ModelRef(MODEL, 0), cache_folder())
    request = pb.LoadRequest(folder=card.folder, fingerprint=card.fingerprint, plan_version=4, start=0, stop=3)
    wire.to_message(card.ref, request.model)
    runner = pair[0].runner
    assert runner.held_items(request) == range(0, 2)
    reply = runner.call(lambda: runner.load(request, WeightFolder(Path(card.folder)))).result(60)
    assert runner.sessions.ids() == () and runner.sessions.plan_version == 4
    request.plan_version = 3
    with pytest.raises(Stale, match="came too late"):
        runner.call(lambda: runner.load(request, WeightFolder(Path(card.folder)))).result(60)
    assert runner.sessions.plan_version == 4 and runner.owned_model().stop == 3
    assert 0 < reply.read_bytes < reply.weight_bytes
    request.fingerprint = "0" * 64
    assert runner.held_items(request) == range(0), "nothing of this model serves another one"


def test_a_caller_that_gives_up_does_not_end_the_compute_thread(pair: tuple[Stage, Stage]) -> None:
    """Every RPC that waits for this thread may be cancelled at any moment, before its turn or during it."""
    runner, gate, began = pair[0].runner, threading.Event(), threading.Event()
    running = runner.call(lambda: (began.set(), gate.wait(60)))
    waiting = runner.call(lambda: 1)
    assert began.wait(60)
    assert waiting.cancel() and not running.cancel()
    gate.set()
    assert runner.call(lambda: 7).result(60) == 7
    assert through(pair, frame(0, PROMPT, 0)).token_id == reference(MODEL, PROMPT, 1)[0]
