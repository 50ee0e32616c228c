"""Decode steps recorded once for each of some numbers of rows, and replayed: the host gives one order instead of hundreds.

A step of other rows takes the next larger recording; the rows too many write to the scratch page. A recording is kept only if
its replay equals the same step run as usual. On a device without graphs a recording runs the step again: the same logic, for tests.

Shapes: B rows of a recording, D hidden size, V vocabulary.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from engine.model.progress import Progress
from engine.model.running.accelerator.acceleration import CaptureLimits
from engine.model.running.accelerator.attending import TOLERANCE
from engine.model.running.accelerator.paged_step import PagedStep
from engine.model.running.feeding import Arriving, Hidden
from engine.model.running.paged_kv import SCRATCH_ROW

BUCKETS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
_IN_FLIGHT = 4  # steps whose numbers may still be on their way to the device

Run = Callable[[PagedStep, torch.Tensor | None], torch.Tensor]  # (step, hidden [T, D] or None) -> [T, D], or logits [R, V]


@dataclass(frozen=True, slots=True)
class _Recording:
    numbers: torch.Tensor  # [3, B]: token ids, positions, table rows
    hidden: torch.Tensor | None  # [B, D]
    output: torch.Tensor
    picks: torch.Tensor | None  # [2, B] of logits, see `greedy_picks`
    replay: Callable[[], None]


class DecodeGraphs:
    """Recordings of `run` for steps with one token a row. `hidden_size` is None on the first stage."""

    def __init__(
        self, run: Run, *, device: str, dtype: torch.dtype, hidden_size: int | None, has_logits: bool, vocab_size: int, page_tokens: int
    ) -> None:
        self._run, self._device, self._dtype, self._hidden_size = run, device, dtype, hidden_size
        self._has_logits, self._vocab_size, self._page_tokens = has_logits, vocab_size, page_tokens
        self._recordings: dict[int, _Recording] = {}
        self._sizes: list[int] = []  # of the recordings, ascending
        self._pool = torch.cuda.graph_pool_handle() if device.startswith("cuda") else None
        staging = [torch.zeros(3 * BUCKETS[-1], dtype=torch.int64, pin_memory=self._pool is not None) for _ in range(_IN_FLIGHT)]
        self._staging = [(flat, flat.numpy(), torch.cuda.Event() if self._pool is not None else None) for flat in staging]
        self._turn = 0
        self.picks: torch.Tensor | None = None  # of the last step, [2, n]
        self.text = "no step is recorded"

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple(self._sizes)

    def record(self, limits: CaptureLimits, say: Progress | None = None) -> None:
        """Record the buckets, the largest first, until a limit is met. `text` says what came of it; nothing is raised for a model
        that cannot be recorded."""
        began_s, wanted = time.perf_counter(), [size for size in BUCKETS if size <= limits.max_rows]
        free_bytes = _free_bytes(self._device)
        stopped = ""
        for done, size in enumerate(reversed(wanted)):
            if say is not None:
                say(done / len(wanted), f"recording decode steps of {size} rows")
            try:
                self._recordings[size] = self._recorded(size)
            except Exception as error:  # a model that waits for the device within a step, or whose replay differs
                stopped = f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:160]}"
                break
            spent_s, spent_bytes = time.perf_counter() - began_s, free_bytes - _free_bytes(self._device)
            if spent_s > limits.time_s or spent_bytes > limits.memory_bytes:
                stopped = f"{spent_s:.0f} s or {spent_bytes / 2**20:.0f} MiB were reached"
                break
        self._sizes = sorted(self._recordings)
        self._say(time.perf_counter() - began_s, free_bytes - _free_bytes(self._device), stopped)

    def _say(self, spent_s: float, spent_bytes: int, stopped: str) -> None:
        if self._sizes:
            what = f"decode steps of {self._sizes[0]} to {self._sizes[-1]} rows are recorded ({len(self._sizes)} graphs"
            self.text = f"{what}, {spent_s:.1f} s, {max(0, spent_bytes) / 2**20:.0f} MiB{'; stopped: ' + stopped if stopped else ''})"
        else:
            self.text = f"no step is recorded: {stopped}"

    def _recorded(self, size: int) -> _Recording:
        numbers = torch.zeros(3, size, dtype=torch.int64, device=self._device)
        order = torch.arange(size, device=self._device) % self._page_tokens  # rows that share a slot write the same there
        numbers[0], numbers[1], numbers[2] = order % self._vocab_size, order, SCRATCH_ROW
        hidden = None
        if self._hidden_size is not None:
            generator = torch.Generator().manual_seed(1)
            few = torch.randn(self._page_tokens, self._hidden_size, generator=generator).to(self._device, self._dtype)
            hidden = few[order]
        step = PagedStep(numbers[0], numbers[1], numbers[2], size)
        if self._pool is None:
            output, picks = self._picked(step, hidden)
            recording = _Recording(numbers, hidden, output, picks, lambda: self._again(step, hidden, output, picks))
            expected = output.clone()
        else:
            expected, recording = self._captured(step, numbers, hidden)
        recording.replay()
        error = _difference(recording.output, expected)
        if not error <= TOLERANCE[self._dtype]:
            raise ArithmeticError(f"the replay of {size} rows differs by {error:.1e} from the step itself")
        return recording

    def _captured(self, step: PagedStep, numbers: torch.Tensor, hidden: torch.Tensor | None) -> tuple[torch.Tensor, _Recording]:
        """The output of the step run as usual, and its recording."""
        side = torch.cuda.Stream(self._device)
        side.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(side):
            for _ in range(2):  # the first run compiles kernels and chooses products
                expected = self._run(step, hidden).clone()
        torch.cuda.current_stream(self._device).wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        # By thread: a stage may be prepared while another thread's stage serves, whose calls must not end this recording, nor fail.
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            output, picks = self._picked(step, hidden)
        return expected, _Recording(numbers, hidden, output, picks, graph.replay)

    def _picked(self, step: PagedStep, hidden: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor | None]:
        output = self._run(step, hidden)
        return output, greedy_picks(output) if self._has_logits else None

    def _again(self, step: PagedStep, hidden: torch.Tensor | None, output: torch.Tensor, picks: torch.Tensor | None) -> None:
        """What stands for a replay where there are no graphs."""
        new_output, new_picks = self._picked(step, hidden)
        output.copy_(new_output)
        if picks is not None and new_picks is not None:
            picks.copy_(new_picks)

    def holds(self, num_rows: int) -> bool:
        """Whether there is a recording for that many rows."""
        return bool(self._sizes) and num_rows <= self._sizes[-1]

    def step(self, numbers: Sequence[Sequence[int]], hidden: Hidden) -> torch.Tensor:
        """Replay for `numbers` (token ids, positions, table rows of each row), hidden [n, D]; returns [n, D] or [n, V], a copy."""
        num_rows = len(numbers[0])
        size = self._sizes[bisect_left(self._sizes, num_rows)]
        recording = self._recordings[size]
        self._send(numbers, recording.numbers)
        if hidden is not None and recording.hidden is not None:
            target = recording.hidden[:num_rows]
            if isinstance(hidden, Arriving):
                hidden.arrive(target)
            else:
                target.copy_(hidden)
        recording.replay()
        self.picks = None if recording.picks is None else recording.picks[:, :num_rows]
        return recording.output[:num_rows].clone()

    def _send(self, numbers: Sequence[Sequence[int]], target: torch.Tensor) -> None:
        """Copy the numbers, filled up with rows that write to the scratch page, without waiting for the device."""
        self._turn = (self._turn + 1) % _IN_FLIGHT
        flat, view, sent = self._staging[self._turn]
        if sent is not None:
            sent.synchronize()
        size, num_rows = target.shape[1], len(numbers[0])
        for line, values in enumerate(numbers):
            view[line * size : line * size + num_rows] = values
            view[line * size + num_rows : (line + 1) * size] = SCRATCH_ROW if line == 2 else 0
        target.view(-1).copy_(flat[: 3 * size], non_blocking=True)
        if sent is not None:
            sent.record()


def greedy_picks(logits: torch.Tensor) -> torch.Tensor:
    """Of float32 logits [B, V] the lowest id of the largest, and whether all of the row are finite: [2, B] int64."""
    least, largest = logits.aminmax(dim=-1)  # NaN if there is one
    return torch.stack((logits.argmax(-1), (least.isfinite() & largest.isfinite()).long()))


def _free_bytes(device: str) -> int:
    return torch.cuda.mem_get_info(torch.device(device))[0] if device.startswith("cuda") else 0


def _difference(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found.float() - expected.float()).norm() / expected.float().norm())
