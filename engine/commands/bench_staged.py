"""`noodle-engine bench staged`: single-process `generate()` against pipelines on this machine, simulated and measured.

Real coordinators and workers run every plan with 1 and with 4 sessions, in interleaved rounds. The simulator gets a
profile taken in the same environment and what two of these measurements tell of the program's own costs (`calibration`);
the other rows are predictions.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import psutil

from engine.commands.generate import Transcript, transcribe
from engine.commands.output import note, print_json, printable
from engine.commands.profile import read_profile
from engine.commands.serve import wait_until_serving
from engine.commands.staged_text import staged_text
from engine.data import GenerateRequest, ModelRef, NoodleError, Plan, Stage
from engine.planning.given import GIVEN
from engine.planning.profile import Profile
from engine.report.staged import Figures, StagedRow, staged_document
from engine.service.client import Client
from engine.service.local import LocalCluster, LocalOptions, child_environment
from engine.simulation.arrivals import at_once
from engine.simulation.calibration import Calibration, Observation, calibrate
from engine.simulation.cost import ProfileCosts
from engine.simulation.inputs import items_of
from engine.simulation.result import SimulationResult
from engine.simulation.scenario import NodeSetup, Scenario, VirtualHost
from engine.simulation.simulator import StagedSimulator

PROMPT_TOKENS = 16
SESSIONS = (1, 4)
_SHORT_RUNS = 3  # of one token, each round and plan: the time to the first token varies more than the others
_ATTEMPTS, _QUIET_SHARE = 3, 0.03  # a visit is repeated while other programs use more of the machine
_HOST = "here"


@dataclass(slots=True)
class Measured:
    """What one plan did with so many sessions at once: in one visit, or in all of them joined."""

    layers: tuple[int, ...]
    sessions: int
    tokens_per_s: list[float] = field(default_factory=list)  # one per visit, as are the next three
    ttft_s: list[float] = field(default_factory=list)
    cpu_per_compute: list[float] = field(default_factory=list)
    foreign_share: list[float] = field(default_factory=list)  # of the machine, used by other programs meanwhile
    step_s: list[float] = field(default_factory=list)  # one per decode step, as is the next
    compute_s: list[float] = field(default_factory=list)
    prompt_cpu_per_compute: list[float] = field(default_factory=list)

    def figures(self) -> Figures:
        return Figures(*(statistics.median(values) for values in (self.step_s, self.tokens_per_s, self.ttft_s)))

    def join(self, visit: Measured) -> None:
        for name in ("tokens_per_s", "ttft_s", "cpu_per_compute", "foreign_share", "step_s", "compute_s", "prompt_cpu_per_compute"):
            getattr(self, name).extend(getattr(visit, name))


class ForeignLoad:
    """How much of the machine other programs use between two looks at it."""

    def __init__(self, pids: Sequence[int]) -> None:
        self._processes = [psutil.Process(pid) for pid in (os.getpid(), *pids)]
        self._before = self._now()

    def share(self) -> float:
        """0..1 of all cores since the last look."""
        (busy, total, own), self._before = self._before, self._now()
        spent_s = self._before[1] - total
        return max(0.0, (self._before[0] - busy) - (self._before[2] - own)) / spent_s if spent_s > 0 else 0.0

    def _now(self) -> tuple[float, float, float]:
        """CPU seconds: in use, all, and those of our processes."""
        times = psutil.cpu_times()
        total = sum(times[:8])  # guest times stand in the others already
        return total - times.idle - getattr(times, "iowait", 0.0), total, sum(sum(p.cpu_times()[:2]) for p in self._processes)


@dataclass(slots=True)
class Side:
    """A running cluster with one plan."""

    layers: tuple[int, ...]
    cluster: LocalCluster
    client: Client

    def workers_cpu_s(self) -> float:
        pids = [pid for name, pid in self.cluster.pids().items() if name != "coordinator"]
        return sum(sum(psutil.Process(pid).cpu_times()[:2]) for pid in pids)


def run(options: argparse.Namespace) -> int:
    """Measure, simulate, print both."""
    from engine.model.hardware import num_cores
    from engine.model.source import default_ref

    ref: ModelRef = default_ref()
    threads, num_tokens = num_cores(), min(options.tokens, 32)
    profile = _profile(ref, threads)
    plans = plans_of(len(profile.items))
    native, measured = asyncio.run(_measure(ref, plans, threads, num_tokens, options.rounds))
    rows, calibration = simulate_rows(profile, measured, threads, num_cores(), num_tokens)
    about = {
        "model": ref.label,
        "prompt_tokens": PROMPT_TOKENS,
        "num_tokens": num_tokens,
        "rounds": options.rounds,
        "num_threads": threads,
        "foreign_share": statistics.median(share for case in measured for share in case.foreign_share),
        "calibration": {
            "slowdown": calibration.slowdown,
            "hop_s": calibration.software.hop_s,
            "stage_s": calibration.software.stage_s,
            "open_s": calibration.software.open_s,
            "busy_cores": calibration.busy_cores,
        },
    }
    document = staged_document(rows, native, about)
    if options.json:
        print_json(document)
    else:
        print(printable(staged_text(rows, native, document)))
    return 0


def plans_of(num_items: int) -> tuple[tuple[int, ...], ...]:
    """For 1, 2 and 3 workers: equal numbers of items, and numbers that rise from stage to stage."""
    return ((num_items,), *(split for n in (2, 3) for split in (_split(num_items, (1,) * n), _split(num_items, tuple(range(1, n + 1))))))


def _split(num_items: int, shares: tuple[int, ...]) -> tuple[int, ...]:
    ends = [round(num_items * sum(shares[: k + 1]) / sum(shares)) for k in range(len(shares))]
    return tuple(stop - start for start, stop in zip([0, *ends], ends, strict=False))


def _profile(ref: ModelRef, threads: int) -> Profile:
    """A profile from a process of its own, in the environment of the workers."""
    note("profiling the model as the workers run it")
    arguments = ["profile", ref.model, "--depth", "item", "--quick", "--threads", str(threads), "--dtype", ref.dtype, "--json"]
    if ref.random_weights is not None:
        arguments += ["--random-weights", str(ref.random_weights)]
    with tempfile.TemporaryDirectory(prefix="noodle-") as folder:
        done = subprocess.run(
            [sys.executable, "-m", "engine", *arguments, "--out", folder], env=child_environment(), capture_output=True, text=True
        )
        if done.returncode != 0:
            raise NoodleError(f"the profile failed: {done.stderr.strip().splitlines()[-1] if done.stderr.strip() else 'no reason given'}")
        return read_profile(Path(folder))


# ---------------------------------------------------------------------------------------------- measuring
async def _measure(
    ref: ModelRef, plans: Sequence[tuple[int, ...]], threads: int, num_tokens: int, rounds: int
) -> tuple[Figures, list[Measured]]:
    from engine.model.card import prepare
    from engine.model.native import native_generator
    from engine.model.source import default_cache_dir

    generate = native_generator(Path(prepare(ref, default_cache_dir()).folder), dtype=ref.dtype, num_threads=threads)
    native: list[tuple[float, float]] = []
    found = {(layers, m): Measured(layers, m) for layers in plans for m in SESSIONS}
    async with AsyncExitStack() as stack:
        note(f"starting {len(plans)} clusters with {sum(map(len, plans))} workers")
        sides = await asyncio.gather(*(_start(stack, ref, layers, threads) for layers in plans))
        foreign = ForeignLoad([pid for side in sides for pid in side.cluster.pids().values()])
        for number in range(rounds):
            note(f"round {number + 1} of {rounds}")
            native.append(await _native_visit(generate, num_tokens, foreign))
            for side in sides:
                for m in SESSIONS:
                    found[side.layers, m].join(await _quietest(side, m, num_tokens, foreign))
    ttft_s, all_s = (statistics.median(values) for values in zip(*native, strict=True))
    step_s = (all_s - ttft_s) / (num_tokens - 1)
    return Figures(step_s, 1.0 / step_s, ttft_s), list(found.values())


async def _native_visit(
    generate: Callable[[Sequence[int], int], tuple[list[int], float]], num_tokens: int, foreign: ForeignLoad
) -> tuple[float, float]:
    """Seconds of one token and of all tokens, from the quietest of a few attempts."""
    visits = []
    for _ in range(_ATTEMPTS):
        foreign.share()
        first_s, all_s = [(await asyncio.to_thread(generate, _prompt(0), n))[1] for n in (1, num_tokens)]
        visits.append((foreign.share(), first_s, all_s))
        if visits[-1][0] < _QUIET_SHARE:
            break
    return min(visits)[1:]


async def _start(stack: AsyncExitStack, ref: ModelRef, layers: tuple[int, ...], threads: int) -> Side:
    options = LocalOptions(ref.model, ref.random_weights, len(layers), ref.dtype, threads, kv_memory_bytes=2**29, layers=layers)
    cluster = LocalCluster(options)
    stack.push_async_callback(cluster.stop)
    await cluster.start()
    await wait_until_serving(cluster)
    side = Side(layers, cluster, await stack.enter_async_context(Client(cluster.address)))
    await _generate(side, 1, 8)
    return side


async def _quietest(side: Side, sessions: int, num_tokens: int, foreign: ForeignLoad) -> Measured:
    """One visit during which other programs left the machine alone, or the best of a few."""
    visits = []
    for _ in range(_ATTEMPTS):
        foreign.share()
        visits.append(await _visit(side, sessions, num_tokens))
        visits[-1].foreign_share.append(foreign.share())
        if visits[-1].foreign_share[0] < _QUIET_SHARE:
            break
    return min(visits, key=lambda visit: visit.foreign_share[0])


async def _visit(side: Side, sessions: int, num_tokens: int) -> Measured:
    """One round of one plan with so many sessions."""
    into = Measured(side.layers, sessions)
    if sessions == 1:
        for _ in range(_SHORT_RUNS):
            transcripts, cpu_s = await _generate(side, 1, 1)
            into.ttft_s.append(transcripts[0].ttft_s)
            into.prompt_cpu_per_compute.append(cpu_s / _compute_s(transcripts))
    transcripts, cpu_s = await _generate(side, into.sessions, num_tokens)
    into.ttft_s.append(statistics.fmean(t.ttft_s for t in transcripts))
    began_s = min(t.arrived_s[0] for t in transcripts)
    into.tokens_per_s.append(sum(len(t.arrived_s) - 1 for t in transcripts) / (max(t.arrived_s[-1] for t in transcripts) - began_s))
    into.cpu_per_compute.append(cpu_s / _compute_s(transcripts))
    for transcript in transcripts:
        for chunk in [c for c in transcript.chunks if c.index > 0]:
            into.step_s.append(chunk.step_s)
            into.compute_s.append(sum(t.compute_s for t in chunk.timings))
    return into


async def _generate(side: Side, sessions: int, num_tokens: int) -> tuple[list[Transcript], float]:
    """So many sessions at once, and the CPU seconds of the workers meanwhile."""
    requests = [GenerateRequest(prompt_ids=_prompt(k), max_new_tokens=num_tokens, ignore_eos=True) for k in range(sessions)]
    before_s = side.workers_cpu_s()
    transcripts = await asyncio.gather(*(transcribe(side.client, request) for request in requests))
    return transcripts, side.workers_cpu_s() - before_s


def _compute_s(transcripts: Sequence[Transcript]) -> float:
    """All computing that the sessions' steps report; a step of several sessions reports it to each, so it is counted once."""
    steps = {(chunk.timings, chunk.step_s) for t in transcripts for chunk in t.chunks if chunk.index >= 0}
    return sum(timing.compute_s for timings, _ in steps for timing in timings)


def _prompt(number: int) -> tuple[int, ...]:
    return tuple(range(1 + number, 1 + number + PROMPT_TOKENS))


# ---------------------------------------------------------------------------------------------- simulating
def simulate_rows(
    profile: Profile, measured: Sequence[Measured], threads: int, cores: int, num_tokens: int
) -> tuple[list[StagedRow], Calibration]:
    """Every measured case, simulated with costs that the plans of one and of two stages gave, one session each."""
    if profile.cost_model is None:
        raise NoodleError("the profile has no cost model: the machine is too busy to take one; try again")
    costs = ProfileCosts(profile.cost_model)
    one, two = (next(m for m in measured if m.sessions == 1 and len(m.layers) == n) for n in (1, 2))
    calibration = calibrate(costs, _observation(one, num_tokens), _observation(two, num_tokens))
    prompt_cores = statistics.median(one.prompt_cpu_per_compute)

    def simulate(case: Measured) -> SimulationResult:
        return StagedSimulator(_scenario(profile, costs, calibration, case, threads, cores, prompt_cores, num_tokens)).run()

    open_s = max(0.0, one.figures().ttft_s - simulate(one).ttft_s.mean)
    calibration = replace(calibration, software=replace(calibration.software, open_s=open_s))
    rows = []
    for case in measured:
        result = simulate(case)
        simulated = Figures(result.step_s.p50, result.decode_tokens_per_s, result.ttft_s.mean)
        rows.append(StagedRow(case.layers, case.sessions, case.figures(), simulated, calibrated=case in (one, two)))
    return rows, calibration


def _observation(measured: Measured, num_tokens: int) -> Observation:
    return Observation(
        num_stages=len(measured.layers),
        context_tokens=PROMPT_TOKENS + num_tokens / 2,
        step_s=statistics.median(measured.step_s),
        compute_s=statistics.median(measured.compute_s),
        cpu_per_compute=statistics.median(measured.cpu_per_compute),
    )


def _scenario(
    profile: Profile,
    costs: ProfileCosts,
    calibration: Calibration,
    case: Measured,
    threads: int,
    cores: int,
    prompt_cores: float,
    num_tokens: int,
) -> Scenario:
    names = [f"w{k + 1}" for k in range(len(case.layers))]
    starts = [sum(case.layers[:k]) for k in range(len(case.layers))]
    stages = tuple(Stage(name, start, start + n) for name, start, n in zip(names, starts, case.layers, strict=True))
    nodes = [
        NodeSetup(
            name,
            slowdown=calibration.slowdown,
            host_id=_HOST,
            num_threads=threads,
            busy_cores=calibration.busy_cores,
            prompt_busy_cores=prompt_cores,
        )
        for name in names
    ]
    return Scenario(
        items=items_of(profile),
        costs=costs,
        nodes=tuple(nodes),
        arrivals=at_once(case.sessions, PROMPT_TOKENS, num_tokens),
        plan=Plan(1, GIVEN, stages),
        hosts=(VirtualHost(_HOST, cores),),
        coordinator_host=_HOST,
        software=calibration.software,
    )
