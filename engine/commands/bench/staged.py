"""`noodle-engine bench staged`: single-process `generate()` against pipelines on this machine, simulated and measured.

Real coordinators and workers run every plan with 1 and with 4 sessions, in interleaved rounds. The simulator gets a
profile taken in the same environment, what the measurements of one session on one and on two workers tell of the program's
own costs (`simulate_rows`), and the sessions that the real cluster had served before; the other rows are predictions.
"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from engine.commands.bench.options import Bench
from engine.commands.bench.staged_measure import (
    ATTEMPTS,
    PROMPT_TOKENS,
    QUIET_SHARE,
    ForeignLoad,
    Measured,
    measure,
    quiet,
    visit_runs,
    warm_up_runs,
)
from engine.commands.bench.staged_text import staged_text
from engine.commands.machine.profile import read_profile
from engine.commands.output import note, print_json, say
from engine.data.errors import NoodleError
from engine.data.model import ModelRef
from engine.data.plan import GIVEN, Plan, Stage
from engine.profile.profile import Profile
from engine.report.staged import Figures, StagedRow, staged_document
from engine.service.local import child_environment
from engine.simulation.arrivals import at_once
from engine.simulation.calibration import Calibration, Observation, calibrate
from engine.simulation.cost import ProfileCosts
from engine.simulation.inputs import items_of
from engine.simulation.result import SimulationResult
from engine.simulation.scenario import NodeSetup, Scenario, VirtualHost
from engine.simulation.simulator import StagedSimulator

SESSIONS = (1, 4)
_HOST = "here"
_LEAST_CORES = 0.1


def bench_staged(options: Bench) -> int:
    """Measure, simulate, print both."""
    from engine.model.hardware.limits import num_cores
    from engine.model.sources.source import default_ref

    ref: ModelRef = default_ref()
    threads, num_tokens = num_cores(), min(options.tokens, 32)
    profile = _quiet_profile(ref, threads)
    profile.check_usable()
    plans = plans_of(len(profile.items))
    native, measured = asyncio.run(measure(ref, plans, SESSIONS, threads, num_tokens, options.rounds))
    rows, calibration = simulate_rows(profile, measured, threads, num_cores(), num_tokens)
    about = {
        "model": ref.label,
        "prompt_tokens": PROMPT_TOKENS,
        "num_tokens": num_tokens,
        "rounds": options.rounds,
        "num_threads": threads,
        "foreign_share": statistics.median(share for case in measured for share in case.foreign_share),
        "calibration": calibration,
    }
    document = staged_document(rows, native, about)
    if options.json:
        print_json(document)
    else:
        say(staged_text(rows, native, document))
    return 0


def plans_of(num_items: int) -> tuple[tuple[int, ...], ...]:
    """For 1, 2 and 3 workers: equal numbers of items, and numbers that rise from stage to stage."""
    return ((num_items,), *(split for n in (2, 3) for split in (_split(num_items, (1,) * n), _split(num_items, tuple(range(1, n + 1))))))


def _split(num_items: int, shares: tuple[int, ...]) -> tuple[int, ...]:
    ends = [round(num_items * sum(shares[: k + 1]) / sum(shares)) for k in range(len(shares))]
    return tuple(stop - start for start, stop in zip([0, *ends], ends, strict=False))


def _quiet_profile(ref: ModelRef, threads: int) -> Profile:
    """The one of a few profiles during which other programs used the least of the machine."""
    taken: list[tuple[float, Profile]] = []
    for _ in range(ATTEMPTS):
        foreign = ForeignLoad()
        profile = _profile(ref, threads)
        taken.append((foreign.share(), profile))
        if taken[-1][0] < QUIET_SHARE:
            break
    return min(taken, key=lambda pair: pair[0])[1]


def _profile(ref: ModelRef, threads: int) -> Profile:
    """A profile from a process of its own, in the environment of the workers."""
    note("profiling the model as the workers run it")
    arguments = ["profile", ref.model, "--depth", "item", "--threads", str(threads), "--dtype", ref.dtype, "--json"]
    if ref.random_weights is not None:
        arguments += ["--random-weights", str(ref.random_weights)]
    with tempfile.TemporaryDirectory(prefix="noodle-") as folder:
        done = subprocess.run(
            [sys.executable, "-m", "engine", *arguments, "--out", folder], env=child_environment(), capture_output=True, text=True
        )
        if done.returncode != 0:
            raise NoodleError(f"the profile failed: {done.stderr.strip().splitlines()[-1] if done.stderr.strip() else 'no reason given'}")
        return read_profile(Path(folder))


# ---------------------------------------------------------------------------------------------- simulating
@dataclass(frozen=True, slots=True)
class _Bench:
    """What all simulations of one benchmark share."""

    profile: Profile
    costs: ProfileCosts
    calibration: Calibration
    prompt_cores: float
    threads: int
    cores: int
    num_tokens: int
    sessions: tuple[int, ...]  # of the visits to a plan, in their order

    def simulate(self, case: Measured) -> SimulationResult:
        return StagedSimulator(self._scenario(case)).run()

    def _scenario(self, case: Measured) -> Scenario:
        names = [f"w{k + 1}" for k in range(len(case.layers))]
        starts = [sum(case.layers[:k]) for k in range(len(case.layers))]
        stages = tuple(Stage(name, start, start + n) for name, start, n in zip(names, starts, case.layers, strict=True))
        found = self.calibration
        one = NodeSetup(
            names[0],
            slowdown=found.slowdown,
            prompt_slowdown=found.prompt_slowdown,
            host_id=_HOST,
            num_threads=self.threads,
            busy_cores=found.busy_cores,
            prompt_busy_cores=self.prompt_cores,
        )
        return Scenario(
            items=items_of(self.profile),
            costs=self.costs,
            nodes=tuple(replace(one, node_id=name) for name in names),
            arrivals=at_once(case.sessions, PROMPT_TOKENS, self.num_tokens),
            plan=Plan(1, GIVEN, stages),
            hosts=(VirtualHost(_HOST, self.cores),),
            coordinator_host=_HOST,
            software=found.software,
            earlier=tuple(
                at_once(sessions, PROMPT_TOKENS, n) for sessions, n in earlier_runs(self.sessions, case.sessions, self.num_tokens)
            ),
        )


def earlier_runs(visits: Sequence[int], sessions: int, num_tokens: int) -> list[tuple[int, int]]:
    """(sessions, tokens) of what the real cluster ran before the last run of a visit with so many `sessions`: to warm up, a round
    of `visits`, then those of its own round and its own short runs."""
    before = (*visits, *visits[: visits.index(sessions)])
    rounds = [run for m in before for run in visit_runs(m, num_tokens)]
    return [*warm_up_runs(num_tokens), *rounds, *visit_runs(sessions, num_tokens)[:-1]]


def simulate_rows(
    profile: Profile, measured: Sequence[Measured], threads: int, cores: int, num_tokens: int
) -> tuple[list[StagedRow], dict[str, float]]:
    """Every measured case simulated, and the costs that were fitted.

    The plans of one and of two stages with one session each give the costs of software and the slowdowns.
    """
    if profile.cost_model is None:
        raise NoodleError("the profile has no cost model: the machine is too busy to take one; try again")
    costs = ProfileCosts(profile.cost_model)
    one, *two = (m for n in (1, 2) for m in measured if m.sessions == 1 and len(m.layers) == n)
    seen = _observation([one], num_tokens), _observation(two, num_tokens)
    sessions = tuple(dict.fromkeys(case.sessions for case in measured))
    calibration = calibrate(costs, *seen, PROMPT_TOKENS)
    bench = _Bench(profile, costs, calibration, _cores(one.prompt_cpu_per_compute), threads, cores, num_tokens, sessions)
    rows = []
    for case in measured:
        result = bench.simulate(case)
        simulated = Figures(result.step_s.mean, result.decode_tokens_per_s, result.ttft_s.mean)
        rows.append(StagedRow(case.layers, case.sessions, case.figures(), simulated, calibrated=case in (one, *two)))
    found = calibration
    return rows, {
        "slowdown": found.slowdown,
        "prompt_slowdown": found.prompt_slowdown,
        "busy_cores": found.busy_cores,
        "prompt_busy_cores": bench.prompt_cores,
        "hop_s": found.software.hop_s,
        "neighbour_share": found.software.neighbour_share,
        "open_s": found.software.open_s,
    }


def _observation(measured: Sequence[Measured], num_tokens: int) -> Observation:
    """The mean over plans of one length: a single plan's figures are as uncertain as what a further stage costs is large."""
    return Observation(
        num_stages=len(measured[0].layers),
        context_tokens=PROMPT_TOKENS + num_tokens / 2,
        step_s=statistics.fmean(quiet(m.step_s) for m in measured),
        compute_s=statistics.fmean(quiet(m.compute_s) for m in measured),
        cpu_per_compute=statistics.fmean(_cores(m.cpu_per_compute) for m in measured),
        prompt_compute_s=statistics.fmean(quiet(m.prompt_compute_s) for m in measured),
        open_s=statistics.fmean(quiet(m.open_s) for m in measured),
    )


def _cores(cpu_per_compute: Sequence[float]) -> float:
    """CPU time comes in ticks of 10 ms, so the mean of many ratios says more than their median, and short steps may show none."""
    return max(_LEAST_CORES, statistics.fmean(cpu_per_compute))
