"""`python -m tests.soak [--minutes 10]`: a real cluster of three workers under everything that happens to one, for as long as you like.

Clients ask all the time: short and long prompts, greedy and sampled; some read slowly, some leave in the middle. Meanwhile workers are
killed and come back, the stages move, and the wall clock of all processes jumps back and forth (if libfaketime is installed).
Every answer is compared with single-process `generate()`, token by token and index by index.
The coordinator and one worker live on: their memory, threads and descriptors, and the size of the journal, are sampled, and the last
third of the time is compared with the first. It ends with 1 if a token was wrong, missing or doubled, a session failed, or a figure grew.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import random
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from engine.data.errors import NoodleError
from engine.data.generation import GenerateRequest
from engine.data.plan import Stage
from engine.data.sampling import SamplingRequest, resolved
from engine.data.status import Phase
from engine.service.client import Client
from tests.service.false_clock import FalseClock, false_clock
from tests.service.matrix import Matrix, random_stages
from tests.service.nursery import Nursery
from tests.service.process_figures import MOST_GROWTH, ProcessFigures, figures_of, growth
from tests.service.reference import sampled_reference

MODEL = "gpt2:tiny"
NUM_CLIENTS = 8
NUM_REQUESTS = 24
KEPT_SESSIONS = 300  # by the journal, so that it has a size to be flat at
KILLED = ("w1", "w2")
SPARED = "w3"
KILL_PERIOD_S = 10.0
MOVE_PERIOD_S = 4.0
JUMP_PERIOD_S = 5.0
JUMPS_S = (0.0, 1.0, -1.0, 90.0, -90.0, 7200.0, -7200.0, -86400.0)
SAMPLE_PERIOD_S = 1.0
SAY_PERIOD_S = 15.0
WARM_UP = 0.1  # of the time, which counts for no figure
STANDSTILL_S = 60.0
ROUNDING = 3e-6  # of a logit
SLACK_JOURNAL_BYTES = 2**20


def requests(choose: random.Random) -> dict[GenerateRequest, list[int]]:
    """Of every kind, with their tokens. A draw that rounding alone decides would not be the same on every plan, and is left out."""
    made: dict[GenerateRequest, list[int]] = {}
    for number in itertools.count():
        if len(made) == NUM_REQUESTS:
            break
        length = choose.randrange(1, 9) if number % 3 else choose.randrange(150, 400)
        prompt_ids, num_tokens = tuple(choose.randrange(1, 500) for _ in range(length)), choose.randrange(8, 64)
        sampling = SamplingRequest()
        if number % 2:
            top_k, penalty = choose.choice((0, 40)), choose.choice((1.0, 1.2))
            sampling = SamplingRequest(temperature=1.0, top_k=top_k, repetition_penalty=penalty, seed=number)
        request = GenerateRequest(prompt_ids=prompt_ids, max_new_tokens=num_tokens, sampling=sampling, ignore_eos=True)
        drawn = resolved(sampling, SamplingRequest())[0]
        by = sampled_reference(MODEL, prompt_ids, num_tokens, drawn)
        if all(sampled_reference(MODEL, prompt_ids, num_tokens, drawn, noise=ROUNDING, noise_seed=seed) == by for seed in range(4)):
            made[request] = by
    return made


@dataclass
class Sample:
    at_s: float
    processes: dict[str, ProcessFigures]
    journal_bytes: int


@dataclass
class Soak:
    """One run on one cluster."""

    matrix: Matrix
    expected: Mapping[GenerateRequest, list[int]]
    choose: random.Random
    until_s: float
    clock: FalseClock | None
    say: Callable[[str], None]
    findings: list[str] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    num_answers: int = 0
    num_left: int = 0
    num_tokens: int = 0
    num_kills: int = 0
    num_moves: int = 0
    num_jumps: int = 0
    began_s: float = field(default_factory=time.monotonic)

    @property
    def is_going(self) -> bool:
        return time.monotonic() < self.until_s

    def find(self, text: str) -> None:
        self.findings.append(text)
        self.say(f"FINDING {text}")

    # ------------------------------------------------------------------------------------------ what happens
    async def run(self) -> None:
        async with contextlib.AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(Client(self.matrix.address)) for _ in range(NUM_CLIENTS)]
            await self.matrix.ready(clients[0])
            self.began_s = time.monotonic()
            asking = [asyncio.create_task(self._ask_on(client)) for client in clients]
            around = [
                asyncio.create_task(work) for work in (self._kill(), self._move(clients[0]), self._jump(), self._sample(), self._report())
            ]
            try:
                await asyncio.gather(*asking)
            finally:
                for task in around:
                    task.cancel()
                for error in await asyncio.gather(*around, return_exceptions=True):
                    if error is not None and not isinstance(error, asyncio.CancelledError):
                        self.find(f"what happens around the clients broke off: {error!r}")
            moves = await clients[0].moves()
            self.say(f"the last {len(moves)} moves: {sum(m.outcome == 'done' for m in moves)} done")

    async def _ask_on(self, client: Client) -> None:
        while self.is_going:
            request = self.choose.choice([*self.expected])
            how = self.choose.random()
            pause_s = self.choose.uniform(0.02, 0.2) if how < 0.2 else 0.0
            leaves_after = self.choose.randrange(request.max_new_tokens) if how > 0.8 else None
            try:
                async with asyncio.timeout(STANDSTILL_S + pause_s * request.max_new_tokens):
                    await self._ask(client, request, pause_s, leaves_after)
            except TimeoutError:
                self.find(f"no end of {len(request.prompt_ids)} + {request.max_new_tokens} tokens within {STANDSTILL_S:.0f} s")
            except NoodleError as e:
                self.find(f"a session failed: {e}")
                await asyncio.sleep(0.5)

    async def _ask(self, client: Client, request: GenerateRequest, pause_s: float, leaves_after: int | None) -> None:
        got: list[int] = []
        expected = self.expected[request]
        async with contextlib.aclosing(client.generate(request)) as chunks:
            async for chunk in chunks:
                if chunk.index < 0:
                    continue
                if chunk.index != len(got):
                    self.find(f"token {chunk.index} came where {len(got)} was due")
                got.append(chunk.token_id)
                if leaves_after is not None and len(got) > leaves_after:
                    break
                if pause_s:
                    await asyncio.sleep(pause_s)
        self.num_tokens += len(got)
        if got != expected[: len(got)]:
            self.find(f"{got} for {request}, expected {expected}")
        if leaves_after is not None:
            self.num_left += 1
            return
        self.num_answers += 1
        if len(got) != len(expected):
            self.find(f"{len(got)} tokens instead of {len(expected)}")

    async def _kill(self) -> None:
        for worker_id in itertools.cycle(KILLED):
            await asyncio.sleep(KILL_PERIOD_S * self.choose.uniform(0.5, 1.5))
            await asyncio.to_thread(self.matrix.nursery.kill, self.matrix.pids[worker_id])
            await asyncio.to_thread(self.matrix.start_worker, worker_id)
            self.num_kills += 1

    async def _move(self, client: Client) -> None:
        while True:
            await asyncio.sleep(MOVE_PERIOD_S * self.choose.uniform(0.5, 1.5))
            with contextlib.suppress(NoodleError):  # a worker that was killed changes the plan as well
                status = await client.status()
                if status.phase is Phase.SERVING:
                    present = [Stage(s.worker_id, s.start, s.stop) for s in status.stages]
                    stages = random_stages(self.choose, present, status.model.num_items)
                    await client.apply(status.plan_version, "", stages)
                    self.num_moves += 1

    async def _jump(self) -> None:
        while self.clock is not None:
            await asyncio.sleep(JUMP_PERIOD_S * self.choose.uniform(0.5, 1.5))
            self.clock.jump(self.choose.choice(JUMPS_S))
            self.num_jumps += 1

    # ------------------------------------------------------------------------------------------ figures
    async def _sample(self) -> None:
        pids = {name: self.matrix.pids[name] for name in ("coordinator", SPARED)}
        folder = Path(self.matrix.nursery.folder) / "state"
        while True:
            size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
            self.samples.append(Sample(time.monotonic(), figures_of(pids), size))
            await asyncio.sleep(SAMPLE_PERIOD_S)

    async def _report(self) -> None:
        num_tokens = 0
        while True:
            await asyncio.sleep(SAY_PERIOD_S)
            last = self.samples[-1]
            held = "; ".join(f"{name} {figures}" for name, figures in last.processes.items())
            done = f"{self.num_answers} answers, {self.num_left} left, {self.num_kills} kills, {self.num_moves} moves"
            self.say(f"{time.monotonic() - self.began_s:.0f} s: {done}; {held}; journal {last.journal_bytes / 1024:.0f} KiB")
            if self.num_tokens == num_tokens:
                self.find(f"no token for {SAY_PERIOD_S:.0f} s")
            num_tokens = self.num_tokens

    def judge(self) -> None:
        """Compare the last third of the time with the first, by medians, without the time it took to warm up."""
        begin_s, end_s = self.samples[0].at_s, self.samples[-1].at_s
        begin_s += WARM_UP * (end_s - begin_s)
        third_s = (end_s - begin_s) / 3
        first = [s for s in self.samples if begin_s <= s.at_s <= begin_s + third_s]
        last = [s for s in self.samples if s.at_s >= end_s - third_s]
        if not first or not last:
            return
        before, after = medians(first), medians(last)
        for name, figures in before.items():
            self.say(f"{name}: median of the first third {figures}; of the last {after.get(name)}")
        for text in growth(before, after):
            self.find(text)
        was, now = (statistics.median(s.journal_bytes for s in part) for part in (first, last))
        self.say(f"journal: {was / 1024:.0f} KiB; {now / 1024:.0f} KiB")
        if now > was * (1 + MOST_GROWTH) + SLACK_JOURNAL_BYTES:
            self.find(f"the journal grew from {was:.0f} to {now:.0f} bytes")


def medians(samples: Iterable[Sample]) -> dict[str, ProcessFigures]:
    by_name: dict[str, list[ProcessFigures]] = {}
    for sample in samples:
        for name, figures in sample.processes.items():
            by_name.setdefault(name, []).append(figures)
    return {
        name: ProcessFigures(
            int(statistics.median(f.resident_bytes for f in found)),
            int(statistics.median(f.num_threads for f in found)),
            int(statistics.median(f.num_descriptors for f in found)),
        )
        for name, found in by_name.items()
    }


def run(minutes: float, seed: int, say: Callable[[str], None]) -> list[str]:
    """One run on a cluster of its own; returns what was wrong."""
    choose = random.Random(seed)
    expected = requests(choose)
    nursery = Nursery()
    with contextlib.ExitStack() as stack:
        stack.callback(nursery.close)
        clock = stack.enter_context(false_clock(nursery.folder / "clock"))
        if clock is None:
            say("libfaketime is not installed: the clock does not jump")
        matrix = Matrix(nursery, model=MODEL, coordinator_arguments=("--keep", f"1h,{KEPT_SESSIONS}"))
        matrix.start()
        soak = Soak(matrix, expected, choose, time.monotonic() + 60 * minutes, clock, say)
        asyncio.run(soak.run())
        soak.judge()
        for path in sorted(nursery.folder.glob("*.err")):
            if "Traceback" in (text := path.read_text()) or "incident" in text:
                soak.find(f"a log: {text[-2000:]}")
        say(
            f"{soak.num_answers} answers compared, {soak.num_left} left in the middle, {soak.num_tokens} tokens; {soak.num_kills} kills, "
            f"{soak.num_moves} moves asked for, {soak.num_jumps} jumps of the clock, "
            f"in {time.monotonic() - soak.began_s:.0f} s of seed {seed}"
        )
        return soak.findings


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    findings = run(options.minutes, options.seed, lambda text: print(text, flush=True))
    print(f"{len(findings)} findings" if findings else "nothing was found")
    return 1 if findings else 0


if __name__ == "__main__":
    raise SystemExit(main())
