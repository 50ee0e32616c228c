"""What pipelines on this machine do, measured while other programs leave it alone: the other half of `bench staged`.

Clusters run side by side and are visited in interleaved rounds, so that a machine that gets slower meanwhile does so for all.
"""

from __future__ import annotations

import asyncio
import os
import statistics
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from engine.client.local_cluster import wait_until_serving
from engine.commands.cluster.generate import Transcript, transcribe
from engine.commands.output import note
from engine.data.generation import GenerateRequest, StageTiming
from engine.data.model import ModelRef
from engine.report.staged import Figures
from engine.service.client import Client
from engine.service.local import LocalCluster
from engine.service.local_options import local_options

PROMPT_TOKENS = 16
ATTEMPTS, QUIET_SHARE = 3, 0.03  # a visit is repeated while other programs use more of the machine
_SHORT_RUNS = 3  # of one token, each round and plan: the time to the first token varies more than the others
_SERIES = (
    "tokens_per_s",
    "step_s",
    "compute_s",
    "cpu_per_compute",
    "foreign_share",
    "ttft_s",
    "prompt_compute_s",
    "open_s",
    "prompt_cpu_per_compute",
)


@dataclass(slots=True)
class Measured:
    """What one plan did with so many sessions at once: in one visit, or in several of them joined.

    Steps and computing are means within a visit, over steps without a prompt: tokens per second follow the mean. Over visits
    the quieter quartile counts: whatever else happens on a machine only ever lengthens a time, and on one with two cores it
    happens in stretches that are as long as a visit.
    """

    layers: tuple[int, ...]
    sessions: int
    tokens_per_s: list[float] = field(default_factory=list)  # one per visit, as are all series up to `open_s`
    step_s: list[float] = field(default_factory=list)
    compute_s: list[float] = field(default_factory=list)
    cpu_per_compute: list[float] = field(default_factory=list)
    foreign_share: list[float] = field(default_factory=list)  # of the machine, used by other programs meanwhile
    ttft_s: list[float] = field(default_factory=list)  # of all runs of a visit the median, as are the next two of its short runs
    prompt_compute_s: list[float] = field(default_factory=list)
    open_s: list[float] = field(default_factory=list)  # what the first token took beyond its step
    prompt_cpu_per_compute: list[float] = field(default_factory=list)  # one per short run

    def figures(self) -> Figures:
        return Figures(quiet(self.step_s), 1.0 / quiet([1.0 / rate for rate in self.tokens_per_s]), quiet(self.ttft_s))


def quiet(times_s: Sequence[float]) -> float:
    """The lower quartile."""
    return sorted(times_s)[len(times_s) // 4]


def joined(visits: Sequence[Measured]) -> Measured:
    """The quiet visits of one case as one; where none was quiet, the quietest."""
    quiet = [v for v in visits if v.foreign_share[0] < QUIET_SHARE] or [min(visits, key=lambda v: v.foreign_share[0])]
    found = Measured(visits[0].layers, visits[0].sessions)
    for visit in quiet:
        for name in _SERIES:
            getattr(found, name).extend(getattr(visit, name))
    return found


class ForeignLoad:
    """How much of the machine other programs use between two looks at it."""

    def __init__(self, pids: Sequence[int] = ()) -> None:
        self._own, self._others = psutil.Process(os.getpid()), [psutil.Process(pid) for pid in pids]
        self._before = self._now()

    def share(self) -> float:
        """0..1 of all cores since the last look."""
        (busy, total, own), self._before = self._before, self._now()
        spent_s = self._before[1] - total
        return max(0.0, (self._before[0] - busy) - (self._before[2] - own)) / spent_s if spent_s > 0 else 0.0

    def _now(self) -> tuple[float, float, float]:
        """CPU seconds: in use, all, and those of our processes, ended children included."""
        times = psutil.cpu_times()
        total = sum(times[:8])  # guest times stand in the others already
        ours = sum(self._own.cpu_times()[:4]) + sum(sum(p.cpu_times()[:2]) for p in self._others)
        return total - times.idle - getattr(times, "iowait", 0.0), total, ours


@dataclass(slots=True)
class Side:
    """A running cluster with one plan."""

    layers: tuple[int, ...]
    cluster: LocalCluster
    client: Client

    def workers_cpu_s(self) -> float:
        pids = [pid for name, pid in self.cluster.pids().items() if name != "coordinator"]
        return sum(sum(psutil.Process(pid).cpu_times()[:2]) for pid in pids)


async def measure(
    ref: ModelRef, plans: Sequence[tuple[int, ...]], sessions: Sequence[int], threads: int, num_tokens: int, rounds: int
) -> tuple[Figures, list[Measured]]:
    """Native, and every plan with every number of sessions, in that order."""
    from engine.folders import cache_folder
    from engine.model.profiling.native import native_generator
    from engine.model.sources.card import prepare

    generate = native_generator(Path(prepare(ref, cache_folder()).folder), dtype=ref.dtype, num_threads=threads)
    native: list[tuple[float, float]] = []
    visits: dict[tuple[tuple[int, ...], int], list[Measured]] = {(layers, m): [] for layers in plans for m in sessions}
    async with AsyncExitStack() as stack:
        note(f"starting {len(plans)} clusters with {sum(map(len, plans))} workers")
        sides = await asyncio.gather(*(_start(stack, ref, layers, threads) for layers in plans))
        foreign = ForeignLoad([pid for side in sides for pid in side.cluster.pids().values()])
        for side in sides:
            for run in warm_up_runs(num_tokens):
                await _generate(side, *run)
        for number in range(rounds):
            note(f"round {number + 1} of {rounds}")
            native.append(await _native_visit(generate, num_tokens, foreign))
            for side in sides:
                for m in sessions:
                    await _until_quiet(side, m, num_tokens, foreign, visits[side.layers, m])
    ttft_s, all_s = (quiet(values) for values in zip(*native, strict=True))
    step_s = (all_s - ttft_s) / (num_tokens - 1)
    return Figures(step_s, 1.0 / step_s, ttft_s), [joined(found) for found in visits.values()]


async def _native_visit(
    generate: Callable[[Sequence[int], int], tuple[list[int], float]], num_tokens: int, foreign: ForeignLoad
) -> tuple[float, float]:
    """Seconds of one token and of all tokens, from the quietest of a few attempts."""
    visits = []
    for _ in range(ATTEMPTS):
        foreign.share()
        first_s, all_s = [(await asyncio.to_thread(generate, _prompt(0), n))[1] for n in (1, num_tokens)]
        visits.append((foreign.share(), first_s, all_s))
        if visits[-1][0] < QUIET_SHARE:
            break
    return min(visits)[1:]


async def _start(stack: AsyncExitStack, ref: ModelRef, layers: tuple[int, ...], threads: int) -> Side:
    options = local_options(
        speculate="off",  # a step is to be what the simulator takes it for
        adapt="off",
        model=ref.model,
        random_weights=ref.random_weights,
        num_workers=len(layers),
        dtype=ref.dtype,
        num_threads=threads,
        kv_memory_bytes=2**29,
        layers=layers,
    )
    cluster = LocalCluster(options)
    stack.push_async_callback(cluster.stop)
    await cluster.start()
    await wait_until_serving(cluster)
    return Side(layers, cluster, await stack.enter_async_context(Client(cluster.address)))


def warm_up_runs(num_tokens: int) -> list[tuple[int, int]]:
    """(sessions, tokens) before any visit, on one cluster at a time: the first steps of a stage take many times what later ones do."""
    return [(1, num_tokens)]


def visit_runs(sessions: int, num_tokens: int) -> list[tuple[int, int]]:
    """(sessions, tokens) of one visit, in their order; the last is the one that counts for steps and tokens per second."""
    return [*((1, 1),) * (_SHORT_RUNS if sessions == 1 else 0), (sessions, num_tokens)]


async def _until_quiet(side: Side, sessions: int, num_tokens: int, foreign: ForeignLoad, visits: list[Measured]) -> None:
    """Visit until other programs left the machine alone meanwhile, a few times at most."""
    for _ in range(ATTEMPTS):
        foreign.share()
        visits.append(await _visit(side, sessions, num_tokens))
        visits[-1].foreign_share.append(foreign.share())
        if visits[-1].foreign_share[0] < QUIET_SHARE:
            return


async def _visit(side: Side, sessions: int, num_tokens: int) -> Measured:
    """One round of one plan with so many sessions."""
    into = Measured(side.layers, sessions)
    *short, last = visit_runs(sessions, num_tokens)
    found = [await _generate(side, *run) for run in short]
    transcripts, cpu_s = await _generate(side, *last)
    add_first_tokens(into, found, transcripts)
    began_s = min(t.arrived_s[0] for t in transcripts)
    into.tokens_per_s.append(sum(len(t.arrived_s) - 1 for t in transcripts) / (max(t.arrived_s[-1] for t in transcripts) - began_s))
    into.cpu_per_compute.append(cpu_s / _compute_s(transcripts))
    decode = _steps(transcripts, first=False) - _steps(transcripts, first=True)
    into.step_s.append(statistics.fmean(step_s for _, step_s in decode))
    into.compute_s.append(statistics.fmean(sum(t.compute_s for t in timings) for timings, _ in decode))
    return into


def add_first_tokens(into: Measured, short: Sequence[tuple[list[Transcript], float]], last: Sequence[Transcript]) -> None:
    """What a visit's runs of one token (and the workers' CPU seconds), and its last run, tell of first tokens.

    Runs of one visit share the machine's mood of that minute: a visit is one value, or the quieter quartile would pick runs
    from a visit that the other series do not count.
    """
    into.ttft_s.append(statistics.median([*(runs[0].ttft_s for runs, _ in short), statistics.fmean(t.ttft_s for t in last)]))
    if short:
        computed_s = [_compute_s(runs) for runs, _ in short]
        into.prompt_compute_s.append(statistics.median(computed_s))
        into.open_s.append(statistics.median(runs[0].ttft_s - _first_step_s(runs[0]) for runs, _ in short))
        into.prompt_cpu_per_compute.extend(cpu_s / spent_s for (_, cpu_s), spent_s in zip(short, computed_s, strict=True))


def _first_step_s(transcript: Transcript) -> float:
    return next(chunk.step_s for chunk in transcript.chunks if chunk.index == 0)


async def _generate(side: Side, sessions: int, num_tokens: int) -> tuple[list[Transcript], float]:
    """So many sessions at once, and the CPU seconds of the workers meanwhile."""
    requests = [GenerateRequest(prompt_ids=_prompt(k), max_new_tokens=num_tokens, ignore_eos=True) for k in range(sessions)]
    before_s = side.workers_cpu_s()
    transcripts = await asyncio.gather(*(transcribe(side.client, request) for request in requests))
    return transcripts, side.workers_cpu_s() - before_s


def _compute_s(transcripts: Sequence[Transcript]) -> float:
    """All computing that the sessions' steps report; a step of several sessions reports it to each, so it is counted once."""
    steps = _steps(transcripts, first=True) | _steps(transcripts, first=False)
    return sum(timing.compute_s for timings, _ in steps for timing in timings)


def _steps(transcripts: Sequence[Transcript], *, first: bool) -> set[tuple[tuple[StageTiming, ...], float]]:
    """Steps that gave some session its first token, or another one; a step may have done both."""
    chunks = [chunk for transcript in transcripts for chunk in transcript.chunks]
    return {(chunk.timings, chunk.step_s) for chunk in chunks if (chunk.index == 0 if first else chunk.index > 0)}


def _prompt(number: int) -> tuple[int, ...]:
    return tuple(range(1 + number, 1 + number + PROMPT_TOKENS))
