"""The matrix of kills: `kill -9` of every worker and of the coordinator at every token, three stages, a tiny model.

Run it whole with `python -m tests.service.matrix`, and random moves under load with `--moves 100`; the tests run a sample. Each
case generates on a cluster of real processes, kills one of them as soon as the client has the token, and compares the whole
answer with that of single-process `generate()`. The answers are of three tokens and repeat themselves, and the cluster proposes
whatever repeats: most steps carry guesses, some of which come. Then the victim is replaced, and the next case begins once three
stages serve again.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from engine.commands.cluster.generate import Transcript, transcribe
from engine.data.errors import Refused, Unavailable
from engine.data.generation import GenerateRequest
from engine.data.moves import MoveReport
from engine.data.plan import Stage
from engine.data.sampling import LogitBias, Sampling, SamplingRequest
from engine.data.status import ClusterStatus, Phase
from engine.service.client import Client
from tests.service.nursery import Nursery
from tests.service.reference import reference, sampled_reference

MODEL = "llama:tiny"
PROMPT = (5, 6, 7, 8)
PROMPTS = [(1, 2, 3), (9,), tuple(range(4, 40)), (7, 7, 7, 7), (5, 1), (8, 8), (1,), (2, 2, 2)]
NUM_TOKENS = 64
FEW = tuple(LogitBias(token_id, 60.0) for token_id in (65, 66, 67))
NUM_ITEMS = 6
WORKERS = ("w1", "w2", "w3")
DEADLINE_S = 60.0


@dataclass
class Case:
    victim: str
    token: int
    is_identical: bool
    pause_s: float  # from the kill to the next token, or to the end of the answer


@dataclass
class Matrix:
    """One cluster of forked processes that is killed piece by piece."""

    nursery: Nursery
    cases: list[Case] = field(default_factory=list)
    pids: dict[str, int] = field(default_factory=dict)
    address: str = "127.0.0.1:0"
    devices: dict[str, str] = field(default_factory=dict)  # by worker; the CPU if left out
    prepare: str = ""  # for the nursery
    coordinator_arguments: tuple[str, ...] = ("--speculate", "always")
    model: str = MODEL
    workers: tuple[str, ...] = WORKERS
    num_threads: int = 1
    memory: tuple[str, str] = ("500M", "50M")  # of a worker, and of that for KV

    def start(self) -> None:
        self.start_coordinator()
        for worker_id in self.workers:
            self.start_worker(worker_id)

    def start_coordinator(self) -> None:
        folder = Path(self.nursery.folder) / "state"
        arguments = ["--model", self.model, *([] if Path(self.model).is_dir() else ["--random-weights", "0"])]
        arguments += ["--workers", str(len(self.workers)), "--strategy", "balanced", "--listen", self.address, "--state-dir", str(folder)]
        arguments += [*self.coordinator_arguments, "--log-level", "WARNING"]
        self.pids["coordinator"], said = self.nursery.start("coordinator", *arguments, prepare=self.prepare)
        self.address = str(said["address"])

    def start_worker(self, worker_id: str) -> None:
        arguments = ["--join", self.address, "--id", worker_id, "--threads", str(self.num_threads)]
        arguments += ["--memory", self.memory[0], "--kv-memory", self.memory[1]]
        arguments += ["--device", self.devices.get(worker_id, "cpu")]
        self.pids[worker_id], _ = self.nursery.start("worker", *arguments, "--log-level", "WARNING", prepare=self.prepare)

    async def run(self, victim: str, token: int, client: Client) -> Case:
        await self.ready(client)
        got: list[int] = []
        killed_s, next_s = 0.0, 0.0
        sampling = SamplingRequest(logit_bias=FEW)
        request = GenerateRequest(prompt_ids=PROMPT, max_new_tokens=NUM_TOKENS, sampling=sampling, ignore_eos=True)
        async for chunk in client.generate(request):
            if killed_s and not next_s:
                next_s = time.monotonic()
            if chunk.index >= 0:
                got.append(chunk.token_id)
            if chunk.index == token:
                self.nursery.kill(self.pids[victim])
                killed_s = time.monotonic()
                if victim == "coordinator":
                    await asyncio.to_thread(self.start_coordinator)
        case = Case(victim, token, got == expected(), next_s - killed_s)
        self.cases.append(case)
        if victim != "coordinator":
            await asyncio.to_thread(self.start_worker, victim)
        return case

    async def ready(self, client: Client) -> ClusterStatus:
        """Every worker has a stage that serves, and no session of an earlier case is left."""
        started_s = time.monotonic()
        while True:
            try:
                status = await client.status()
                if status.phase is Phase.SERVING and len(status.stages) == len(self.workers) and not status.sessions:
                    return status
            except Unavailable:
                status = None
            if time.monotonic() - started_s > DEADLINE_S:
                raise AssertionError(f"{len(self.workers)} stages do not serve: {status}")
            await asyncio.sleep(0.02)


@cache
def expected() -> list[int]:
    """The answer of every case."""
    return sampled_reference(MODEL, PROMPT, NUM_TOKENS, Sampling(logit_bias=FEW))


async def moves_under_load(client: Client, num_moves: int) -> tuple[MoveReport, ...]:
    """Eight clients generate all the time while the stages change again and again, at random; every answer is checked."""
    choose, going = random.Random(5), True

    async def keep_busy(prompt: tuple[int, ...]) -> int:
        count = 0
        while going:
            request = GenerateRequest(prompt_ids=prompt, max_new_tokens=NUM_TOKENS, ignore_eos=True)
            assert ids(await transcribe(client, request)) == reference(MODEL, prompt, NUM_TOKENS)
            count += 1
        return count

    load = [asyncio.create_task(keep_busy(p)) for p in PROMPTS]
    num_ended = 0
    while num_ended < num_moves:
        status = await client.status()
        stages = random_stages(choose, [Stage(s.worker_id, s.start, s.stop) for s in status.stages], NUM_ITEMS)
        with contextlib.suppress(Refused):  # a worker that was given up on a busy machine and came back moves things as well
            await client.apply(status.plan_version, "", stages)
        num_ended = len(await moved(client, num_ended + 1))
    going = False
    assert min(await asyncio.gather(*load)) >= 1
    return await client.moves()


def random_stages(choose: random.Random, present: list[Stage], num_items: int) -> list[Stage]:
    """Any order of two or three workers, any cuts, but not the present ones."""
    while True:
        names = choose.sample(WORKERS, choose.choice((2, 3, 3)))
        cuts = [0, *sorted(choose.sample(range(1, num_items), len(names) - 1)), num_items]
        stages = [Stage(n, a, b) for n, (a, b) in zip(names, itertools.pairwise(cuts), strict=True)]
        if stages != present:
            return stages


async def moved(client: Client, num_moves: int) -> tuple[MoveReport, ...]:
    """The reports, once there are that many."""
    async with contextlib.aclosing(client.watch(min_interval_s=0.1)) as frames:
        async for _ in frames:
            if len(reports := await client.moves()) >= num_moves:
                return reports
    raise AssertionError("the watch ended")


async def until(client: Client, condition: Callable[[ClusterStatus], bool]) -> ClusterStatus:
    """The first status of which that is true."""
    async with contextlib.aclosing(client.watch(min_interval_s=0.1)) as frames:
        async for frame in frames:
            if condition(frame.status):
                return frame.status
    raise AssertionError("the watch ended")


def ids(transcript: Transcript) -> list[int]:
    return [c.token_id for c in transcript.chunks if c.index >= 0]


async def run_cases(matrix: Matrix, tokens: range, victims: tuple[str, ...], say: bool = False) -> list[Case]:
    async with Client(matrix.address) as client:
        for token in tokens:
            for victim in victims:
                case = await matrix.run(victim, token, client)
                if say:
                    print(f"{victim} at {token}: {'identical' if case.is_identical else 'DIFFERENT'}, {case.pause_s:.2f} s", flush=True)
    return matrix.cases


async def _moves(matrix: Matrix, num_moves: int) -> int:
    async with Client(matrix.address) as client:
        await matrix.ready(client)
        reports = await moves_under_load(client, num_moves)
        failed = (await client.status()).ended.num_failed
    pauses = sorted(r.pause_s for r in reports)
    done = sum(r.outcome == "done" for r in reports)
    for report in reports:
        if report.outcome != "done":
            print(report)
    pause = f"pause median {pauses[len(pauses) // 2]:.3f} s, longest {pauses[-1]:.3f} s"
    print(f"{done} of {num_moves} moves done, {failed} sessions failed; {pause}")
    return 0 if done == num_moves and not failed else 1


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--moves", type=int, default=0, help="so many random changes of plan under load instead")
    parser.add_argument("--speculate", choices=("always", "auto", "off"), default="always")
    parser.add_argument("--victims", default=",".join((*WORKERS, "coordinator")))
    options = parser.parse_args()
    nursery = Nursery()
    try:
        matrix = Matrix(nursery, coordinator_arguments=("--speculate", options.speculate))
        matrix.start()
        if options.moves:
            return asyncio.run(_moves(matrix, options.moves))
        cases = asyncio.run(run_cases(matrix, range(options.first, NUM_TOKENS, options.every), tuple(options.victims.split(",")), say=True))
    finally:
        nursery.close()
    good = sum(c.is_identical for c in cases)
    pauses = sorted(c.pause_s for c in cases)
    print(f"{good} of {len(cases)} identical; pause median {pauses[len(pauses) // 2]:.2f} s, longest {pauses[-1]:.2f} s")
    return 0 if good == len(cases) else 1


if __name__ == "__main__":
    raise SystemExit(main())
