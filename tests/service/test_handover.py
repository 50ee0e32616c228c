"""Memory that two workers share: who may open it, what lies where, and steps whose message comes before their numbers."""

from __future__ import annotations

import math
import os
import queue
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import torch

from engine.data.errors import Corrupt, InvalidInput
from engine.service.errors import from_number
from engine.service.worker.handover import inlet as inlet_module
from engine.service.worker.handover.inlet import GivenUp, Inlet
from engine.service.worker.handover.outlet import LEAST_BYTES_ON_CPU, Outlet
from engine.service.worker.handover.ring import ALIGNMENT, DATA_START, NUM_SLOTS, SECRET_BYTES, Place, Ring, opened, word_of
from protos import noodle_pb2 as pb
from tests.service.late_handover import LateOutlet
from tests.service.reference import reference
from tests.service.test_stage_runner import MODEL, NUM_NEW, PROMPT, Stage, frame, pair  # noqa: F401 - a fixture

fcntl = pytest.importorskip("fcntl")
pytestmark = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="this system has no memory without a name")


def made(num_bytes: int = 2**16) -> Ring:
    ring = Ring.make(num_bytes)
    assert ring is not None
    return ring


def slot(place: Place, start: int | None = None) -> pb.Slot:
    return pb.Slot(sequence=place.sequence, start=place.start if start is None else start, made_by="stage 0-1 on a")


def filled(ring: Ring, numbers: torch.Tensor, magnitude: float = 1.0) -> Place:
    place = ring.reserve(numbers.nbytes)
    assert place is not None
    ring.memory.data(place.start, tuple(numbers.shape), numbers.dtype).copy_(numbers)
    ring.memory.marks[place.index] = word_of(place, magnitude)
    return place


def taken(inlet: Inlet, place: Place, like: torch.Tensor) -> torch.Tensor:
    at = inlet.at(slot(place), tuple(like.shape), pb.DTYPE_FLOAT32, tuple(like.shape))
    target = torch.empty_like(like)
    inlet.take(at, inlet.wait(at, "a", lambda: False), inlet.memory.data(at.start, tuple(like.shape), like.dtype), target)
    return target


# ---------------------------------------------------------------------------------------------- who may open it
def test_between_cpus_only_what_is_large_goes_through_the_memory() -> None:
    outlet = Outlet.make("cpu", 64, torch.float32, "a")
    assert outlet is not None and Inlet.of(outlet.offer, "cpu") is not None
    num_tokens = LEAST_BYTES_ON_CPU // (64 * torch.float32.itemsize)
    assert outlet.begin((num_tokens - 1, 64), torch.float32, may_be_late=False) is None
    giving = outlet.begin((num_tokens, 64), torch.float32, may_be_late=False)
    assert giving is not None and not giving.is_late
    outlet.close()


def test_nobody_uses_a_ring_until_a_reader_has_answered() -> None:
    ring = made()
    assert ring.reserve(8) is None
    assert Inlet.of(ring.offer, "cpu") is not None
    assert ring.reserve(8) == Place(1, 0)


@pytest.mark.parametrize("part", range(4))
def test_an_offer_with_one_wrong_word_is_no_offer(part: int) -> None:
    ring = made()
    words = ring.offer.split()
    words[part] = {0: "1", 1: "1000000", 2: str(int(words[2]) + 4096), 3: "00" * SECRET_BYTES}[part]
    assert opened(" ".join(words)) is None and opened(ring.offer) is not None


@pytest.mark.parametrize("offer", ["", "1", "a b c d", "-1 -1 -1 -1", "1 1 1 zz", f"{2**80} 1 8192 {'00' * 32}", "\u00e9"])
def test_what_is_no_offer_is_passed_over(offer: str) -> None:
    assert opened(offer) is None and Inlet.of(offer, "cpu") is None


def test_memory_that_could_shrink_and_other_files_are_not_opened(tmp_path: object) -> None:
    secret = b"s" * SECRET_BYTES

    def offered(descriptor: int, size: int = 2 * DATA_START) -> str:
        return f"{os.getpid()} {descriptor} {size} {secret.hex()}"

    unsealed = os.memfd_create("unsealed", os.MFD_ALLOW_SEALING)
    os.write(unsealed, secret.ljust(2 * DATA_START))
    plain = os.open(f"{tmp_path}/plain", os.O_RDWR | os.O_CREAT)
    os.write(plain, secret.ljust(2 * DATA_START))
    pipe = os.pipe()
    assert [opened(offered(d)) for d in (unsealed, plain, *pipe)] == [None] * 4
    fcntl.fcntl(unsealed, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
    assert opened(offered(unsealed)) is not None
    for descriptor in (unsealed, plain, *pipe):
        os.close(descriptor)


def test_the_memory_goes_with_its_processes() -> None:
    ring = made()
    inlet = Inlet.of(ring.offer, "cpu")
    assert inlet is not None
    ring.close()
    assert opened(ring.offer) is None
    inlet.memory.data(0, (4,), torch.float32).fill_(1.0)  # the reader's mapping stays


def test_where_there_is_no_such_memory_nothing_is_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    ring = made()
    monkeypatch.delattr(os, "memfd_create")
    assert Ring.make(4096) is None and opened(ring.offer) is None and Outlet.make("cpu", 8, torch.float32, "a") is None


# ---------------------------------------------------------------------------------------------- slots
@pytest.mark.parametrize("seed", range(30))
def test_no_slot_is_given_twice_while_it_is_unread(seed: int) -> None:
    """Against a list of all unread slots: none overlap, all keep their bytes, and room is refused only where there is none."""
    rng = random.Random(seed)
    ring = made(rng.choice((4096, 8192, 20_000)))
    size = ring.memory.num_bytes - DATA_START
    inlet = Inlet.of(ring.offer, "cpu")
    assert inlet is not None
    unread: list[tuple[Place, torch.Tensor]] = []
    for _ in range(400):
        if rng.random() < 0.5 and unread:
            place, numbers = unread.pop(0)
            assert torch.equal(taken(inlet, place, numbers), numbers)
            inlet.leave(place.sequence)
            continue
        numbers = torch.full((rng.choice((1, 3, 70, 300, 1000)), 1), float(rng.randrange(10**6)))
        room = -(-numbers.nbytes // ALIGNMENT) * ALIGNMENT
        place_or_none = ring.reserve(numbers.nbytes)
        if place_or_none is None:
            held = sum(-(-n.nbytes // ALIGNMENT) * ALIGNMENT for _, n in unread)
            assert room > size or len(unread) == NUM_SLOTS - 1 or (unread and held + 2 * room > size - 1000 * 4)
            continue
        place = place_or_none
        spans = [(p.start, p.start + n.nbytes) for p, n in unread]
        assert place.start >= 0 and place.start + numbers.nbytes <= size
        assert all(place.start >= stop or place.start + numbers.nbytes <= start for start, stop in spans)
        ring.memory.data(place.start, tuple(numbers.shape), numbers.dtype).copy_(numbers)
        ring.memory.marks[place.index] = word_of(place, 1.0)
        unread.append((place, numbers))


def test_a_slot_that_nobody_took_is_free_again() -> None:
    ring = made(4096)
    inlet = Inlet.of(ring.offer, "cpu")
    assert inlet is not None
    first = filled(ring, torch.ones(1024))
    assert ring.reserve(4) is None
    inlet.leave(first.sequence)
    assert ring.reserve(4) == Place(2, 0)


def test_a_header_is_empty_when_it_is_given_again() -> None:
    ring, numbers = made(), torch.ones(4)
    inlet = Inlet.of(ring.offer, "cpu")
    assert inlet is not None
    for _ in range(NUM_SLOTS):
        place = filled(ring, numbers)
        ring.tell(place, 1.0, 2.0)
        taken(inlet, place, numbers)
        inlet.leave(place.sequence)
    again = ring.reserve(16)
    assert again is not None and ring.memory.marks[again.index] == 0 and inlet.times(again) is None


def test_slots_that_cannot_be_are_refused() -> None:
    ring, numbers = made(), torch.ones(4)
    inlet = Inlet.of(ring.offer, "cpu")
    assert inlet is not None
    place = filled(ring, numbers)

    def at(asked: pb.Slot, shape: tuple[int, ...] = (4,), dtype: int = pb.DTYPE_FLOAT32) -> Place:
        return inlet.at(asked, shape, dtype, (4,))

    with pytest.raises(InvalidInput, match=r"shape \(5,\) arrived, this stage expects \(4,\)"):
        at(slot(place), (5,))
    with pytest.raises(InvalidInput, match="dtype number 77"):
        at(slot(place), dtype=77)
    for start in (1, ALIGNMENT - 4, ring.memory.num_bytes - DATA_START, 2**62):
        with pytest.raises(Corrupt, match=f"begins at {start}"):
            at(slot(place, start))
    with pytest.raises(Corrupt, match="cannot follow"):
        at(slot(Place(NUM_SLOTS, 0)))
    assert torch.equal(taken(inlet, place, numbers), numbers)
    with pytest.raises(Corrupt, match="was read"):
        at(slot(place))


def test_the_mark_of_another_slot_is_refused_before_and_behind_the_copy() -> None:
    ring, numbers = made(), torch.ones(4)
    inlet = Inlet.of(ring.offer, "cpu")
    assert inlet is not None
    place = filled(ring, numbers)
    ring.memory.marks[place.index] = word_of(Place(place.sequence + NUM_SLOTS, 0), 1.0)
    with pytest.raises(Corrupt, match="the mark of another one"):
        taken(inlet, place, numbers)
    ring.memory.marks[place.index] = word_of(place, 1.0)
    taken(inlet, place, numbers)
    ring.memory.marks[place.index] = 0
    with pytest.raises(Corrupt, match="written again while it was read"):
        inlet.leave(place.sequence)


@pytest.mark.parametrize("magnitude", [math.inf, math.nan])
def test_numbers_that_are_not_finite_name_the_stage_that_made_them(magnitude: float) -> None:
    ring, numbers = made(), torch.ones(4)
    inlet = Inlet.of(ring.offer, "cpu")
    assert inlet is not None
    place = filled(ring, numbers, magnitude)
    with pytest.raises(Corrupt, match="stage 0-1 on a produced non-finite values"):
        inlet.wait(place, "stage 0-1 on a", lambda: False)


# ---------------------------------------------------------------------------------------------- waiting
WRITER = """
import sys, torch
from engine.service.worker.handover.ring import Ring, word_of
ring = Ring.make(65536)
print(ring.offer, flush=True)
for line in sys.stdin:
    what = line.split()
    if what[0] == "reserve":
        place = ring.reserve(4096)
        print(place.sequence, place.start, flush=True)
    else:
        ring.memory.data(place.start, (1024,), torch.float32).fill_(float(what[1]))
        ring.memory.marks[place.index] = word_of(place, 1.0)
"""


@pytest.fixture(scope="module")
def writer() -> Iterator[Callable[[], subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []

    def start() -> subprocess.Popen[str]:
        process = subprocess.Popen([sys.executable, "-c", WRITER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def tell(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdin is not None
    print(line, file=process.stdin, flush=True)


class Waiting:
    """A thread that waits for a slot of another process."""

    def __init__(self, inlet: Inlet, place: Place) -> None:
        self.outcome: queue.Queue[object] = queue.Queue()
        self.is_over = False
        self.looks = 0
        threading.Thread(target=self._run, args=(inlet, place), daemon=True).start()
        while not self.looks:
            time.sleep(0.001)

    def _look(self) -> bool:
        self.looks += 1
        return self.is_over

    def _run(self, inlet: Inlet, place: Place) -> None:
        try:
            self.outcome.put(inlet.wait(place, "stage 0-1 on a", self._look))
        except BaseException as error:
            self.outcome.put(error)


def reserved(process: subprocess.Popen[str]) -> tuple[Inlet, Place]:
    inlet = Inlet.of(said(process), "cpu")
    assert inlet is not None
    tell(process, "reserve")
    sequence, start = map(int, said(process).split())
    return inlet, Place(sequence, start)


def test_another_process_fills_a_slot_that_is_waited_for(writer: Callable[[], subprocess.Popen[str]]) -> None:
    process = writer()
    inlet, place = reserved(process)
    waiting = Waiting(inlet, place)
    assert waiting.outcome.empty()
    tell(process, "fill 7")
    assert waiting.outcome.get(timeout=30) == word_of(place, 1.0)
    assert inlet.memory.data(place.start, (1024,), torch.float32).tolist() == [7.0] * 1024


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
@pytest.mark.parametrize("ends", ["the stream ends", "another plan is due"])
def test_a_sender_that_died_or_stands_still_is_waited_for_no_longer_than_its_step_is_wanted(
    writer: Callable[[], subprocess.Popen[str]], how: signal.Signals, ends: str
) -> None:
    process = writer()
    inlet, place = reserved(process)
    waiting = Waiting(inlet, place)
    process.send_signal(how)
    looks = waiting.looks
    while waiting.looks < looks + 100:
        time.sleep(0.001)
    assert waiting.outcome.empty()
    if ends == "the stream ends":
        inlet.end()
    else:
        waiting.is_over = True
    assert isinstance(waiting.outcome.get(timeout=30), GivenUp)


def test_a_sender_that_keeps_its_stream_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inlet_module, "LIMIT_S", 0.01)
    ring = made()
    inlet = Inlet.of(ring.offer, "cpu")
    place = ring.reserve(8)
    assert inlet is not None and place is not None
    waiting = Waiting(inlet, place)
    assert "gave a step before it was computed" in str(waiting.outcome.get(timeout=30))


# ---------------------------------------------------------------------------------------------- stages
class Shared:
    """Two stages that share memory; with `late`, the numbers of the first come when `fill` is called."""

    def __init__(self, stages: tuple[Stage, Stage], late: bool = False) -> None:
        self.a, self.b = stages
        self.fills: queue.Queue[Callable[[], None]] = queue.Queue()
        outlets = self.a.runner._outlets
        outlet = outlets.make(self.a.runner.owned_model())
        assert outlet is not None
        outlet._least_bytes = 0
        self.outlet = LateOutlet(outlet, self.fills.put) if late else outlet
        self.a.runner.call(lambda: outlets.hold(3, self.outlet)).result(60)
        self.inlet = self.b.runner.inlet(self.outlet.offer)
        assert self.inlet is not None

    def ahead(self, message: pb.StepFrame) -> pb.StepFrame:
        between = self.a.step(message)
        assert isinstance(between, pb.StepFrame)
        return between

    def step(self, message: pb.StepFrame) -> pb.StepReport:
        between = self.ahead(message)
        self.b.runner.submit(between, self.inlet)
        if self.fills.qsize():
            self.fills.get()()
        report = self.b.out.get(timeout=120)
        assert isinstance(report, pb.StepReport)
        return report


@pytest.mark.parametrize("late", [False, True])
def test_tokens_are_those_of_one_process(pair: tuple[Stage, Stage], late: bool) -> None:  # noqa: F811
    shared = Shared(pair, late)
    got: list[int] = []
    tokens, position = PROMPT, 0
    for index in range(NUM_NEW):
        report = shared.step(frame(position, tokens, index))
        assert [t.worker_id for t in report.timings] == ["a", "b"] and all(t.compute_s > 0 for t in report.timings)
        first, second = report.timings
        assert first.done_s <= second.arrived_s + second.queue_s + second.wire_in_s <= second.done_s
        got.append(report.results[0].token_id)
        position, tokens = position + len(tokens), (got[-1],)
    assert got == list(reference(MODEL, PROMPT, NUM_NEW))
    assert int(shared.outlet._ring.memory.state[1]) == NUM_NEW, "every step went through the memory, and was read"


def test_a_step_that_comes_twice_is_answered_with_the_same_numbers(pair: tuple[Stage, Stage]) -> None:  # noqa: F811
    shared = Shared(pair, late=True)
    message = frame(0, PROMPT, 0)
    token = shared.step(message).results[0].token_id
    again = shared.ahead(message)
    assert not again.HasField("slot") and again.payload, "what was sent before takes the stream"
    report = shared.b.step(again)
    assert isinstance(report, pb.StepReport) and report.results[0].token_id == token


def test_a_ring_that_is_too_small_leaves_the_step_to_the_stream(pair: tuple[Stage, Stage]) -> None:  # noqa: F811
    shared = Shared(pair)
    shared.outlet._ring._size = 2 * ALIGNMENT
    long = shared.ahead(frame(0, tuple(range(4, 24)), 0, session="long"))
    short = shared.ahead(frame(0, (4,), 0, session="short"))
    assert long.payload and not long.HasField("slot") and short.HasField("slot") and not short.payload
    for message in (long, short):
        shared.b.runner.submit(message, shared.inlet)
        report = shared.b.out.get(timeout=60)
        assert isinstance(report, pb.StepReport) and report.results[0].code == 0


def test_numbers_of_a_late_step_that_are_not_finite_fail_it_in_the_name_of_their_stage(pair: tuple[Stage, Stage]) -> None:  # noqa: F811
    shared = Shared(pair, late=True)
    model = shared.a.runner.owned_model()
    with torch.inference_mode():
        for parameter in model.module.get_submodule(model.blocks)[0].parameters():
            parameter.fill_(math.nan)
    report = shared.step(frame(0, PROMPT, 0))
    error = from_number(report.results[0].code, report.results[0].message)
    assert isinstance(error, Corrupt) and "stage 0-1 on a produced non-finite values" in str(error)


def test_a_message_about_memory_that_nobody_shares_is_refused(pair: tuple[Stage, Stage]) -> None:  # noqa: F811
    shared = Shared(pair)
    between = shared.ahead(frame(0, PROMPT, 0))
    report = shared.b.step(between)
    assert isinstance(report, pb.StepReport)
    error = from_number(report.results[0].code, report.results[0].message)
    assert isinstance(error, Corrupt) and "memory that nobody shares" in str(error)


def test_a_late_step_is_dropped_without_a_word_once_another_plan_is_due(pair: tuple[Stage, Stage]) -> None:  # noqa: F811
    shared = Shared(pair, late=True)
    between = shared.ahead(frame(0, PROMPT, 0))
    shared.b.runner.submit(between, shared.inlet)
    shared.b.runner.least_plan = 4
    shared.b.idle()
    assert shared.b.out.empty() and shared.b.runner.owned_model().kv.held_bytes == 0
    shared.b.runner.least_plan = 3
    shared.fills.get()()  # what comes now is nobody's
    assert shared.step(frame(0, PROMPT, 0, session="next")).results[0].code == 0


def test_a_slot_that_is_torn_while_it_is_read_fails_its_step_and_nothing_else(pair: tuple[Stage, Stage]) -> None:  # noqa: F811
    """It is seen once the step has run; the thread that runs all steps must outlive it."""
    shared = Shared(pair)
    between = shared.a.step(frame(0, PROMPT, 0))
    place, marks = Place(between.slot.sequence, between.slot.start), shared.inlet.memory.marks
    forward = shared.b.runner.owned_model().forward

    def tearing(*arguments: object) -> torch.Tensor:
        found = forward(*arguments)  # type: ignore[arg-type]
        marks[place.index] = word_of(Place(place.sequence + 1, place.start), 1.0)
        return found

    shared.b.runner.owned_model().forward = tearing  # type: ignore[method-assign]
    shared.b.runner.submit(between, shared.inlet)
    (result,) = shared.b.out.get(timeout=60).results
    assert isinstance(from_number(result.code, result.message), Corrupt) and "was written again while it was read" in result.message
    assert shared.b.runner.call(lambda: 5).result(60) == 5
