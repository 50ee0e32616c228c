"""The comparison of adaptation policies: every trace, every policy, several seeds. Pure; generators come from outside."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from engine.control.adaptation.watching.change_point import middle
from engine.simulation.adaptation.oracle import clairvoyant
from engine.simulation.adaptation.policies import Adaptive, Autoscaler, BareRule, Never, Periodic, SmoothedRule
from engine.simulation.adaptation.run import Generator, Loss, Policy, Run
from engine.simulation.adaptation.traces import Trace

POLICIES: dict[str, Callable[[], Policy]] = {
    "ours": Adaptive,
    "none": Never,
    "bare 15 %": BareRule,
    "EWMA 15 %, 30 s": SmoothedRule,
    "autoscaler 10 %, 300 s": Autoscaler,
    "every 10 s": Periodic,
}


@dataclass(frozen=True, slots=True)
class Cell:
    """One policy on one trace: medians over the seeds, the worst where it says so."""

    policy: str
    regret_s: float
    migrations: float
    alarms: float
    useless: int  # most of any seed
    useless_again: int  # most of any seed
    deaths: int  # most of any seed
    noticed_after: float | None  # steps


@dataclass(frozen=True, slots=True)
class Row:
    """One trace. `regret_s` of the clairvoyant is the least that is possible."""

    trace: str
    change: str
    num_steps: int
    oracle_s: float
    oracle_migrations: int
    cells: tuple[Cell, ...]


def compare(traces: Iterable[Trace], generators: Callable[[int], Generator], num_seeds: int) -> Iterable[Row]:
    """Rows in the order of `traces`; `generators(seed)` makes a fresh seeded generator."""
    for trace in traces:
        oracle = clairvoyant(trace)
        cells = []
        for name, policy in POLICIES.items():
            cells.append(_cell(name, [Run(trace, policy(), generators(seed)).finish() for seed in range(num_seeds)]))
        yield Row(trace.name, trace.change, trace.num_steps, oracle.regret_s, oracle.num_migrations, tuple(cells))


def _cell(name: str, losses: Sequence[Loss]) -> Cell:
    noticed = [loss.noticed_after for loss in losses if loss.noticed_after is not None]
    return Cell(
        name,
        middle(loss.regret_s for loss in losses),
        middle(loss.num_migrations for loss in losses),
        middle(loss.num_alarms for loss in losses),
        max(loss.num_useless for loss in losses),
        max(loss.num_useless_again for loss in losses),
        max(loss.num_deaths for loss in losses),
        middle(noticed) if noticed else None,
    )
