"""What the coordinator adds to a look at the cluster: how its own loop does, its disk, what another plan would gain; and what it says of
all that is wrong, in events."""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from engine.control.cluster import Cluster, ClusterConfig
from engine.control.commands import Record
from engine.control.moves import num_moved
from engine.control.nodes.load_law import LoadLaw
from engine.control.placement import law_for, plan_for
from engine.data.errors import NoodleError
from engine.data.plan import Plan
from engine.data.status import WINDOW_S, ClusterStatus, CoordinatorGauges, Outlook, Phase, Severity, Trouble
from engine.diagnosis.finding import Finding, Kind
from engine.diagnosis.standing import Standing
from engine.planning.problem import Problem
from engine.planning.solution import evaluate
from engine.service.machine_sensors import disk_free_bytes

LOOK_S, OUTLOOK_S = 1.0, 10.0
MOST_NODES = 16  # a plan for more may take long, even beside the loop
FOR_SPEED = ("auto", "balanced", "bottleneck_first", "latency_optimized")  # others may choose a slower plan, and are right
FOR_PERIOD = ("auto", "latency_optimized")
_QUIET = frozenset({Kind.PROMPT, Kind.KV, Kind.BUSY_HOST, Kind.RESTING})  # told, but nothing that somebody must acknowledge


class Lookout:
    """Belongs to one coordinator, whose journal is in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lags: deque[tuple[float, float]] = deque()  # (when it ended, how long)
        self._process = psutil.Process()
        self._gauges = CoordinatorGauges(host=socket.gethostname())
        self._outlook = Outlook()
        self._asked: Question | None = None  # of which `_outlook` is the answer
        self._standing = Standing()
        self._looked_s = self._planned_s = float("-inf")

    def lagged(self, lag_s: float, now_s: float) -> None:
        """The loop stood still until now."""
        self._lags.append((now_s, lag_s))

    def completed(self, status: ClusterStatus, now_s: float) -> ClusterStatus:
        """With what the cluster does not know of its coordinator."""
        while self._lags and now_s - self._lags[0][0] > WINDOW_S:
            self._lags.popleft()
        lag_s = max((lag_s for _, lag_s in self._lags), default=0.0)
        return replace(status, coordinator=replace(self._gauges, lag_s=lag_s), outlook=self._outlook)

    @property
    def troubles(self) -> tuple[Trouble, ...]:
        """What stands."""
        return tuple(Trouble(str(finding.kind), finding.subject) for finding in self._standing.said)

    def is_due(self, now_s: float) -> bool:
        return now_s - self._looked_s >= LOOK_S

    async def look_ahead(self, cluster: Cluster, now_s: float) -> None:
        """Find what another plan would gain, every `OUTLOOK_S` at most and only when something changed: on a thread, for a plan takes up to
        half a second, and tokens go through the loop."""
        if now_s - self._planned_s < OUTLOOK_S:
            return
        self._planned_s, asked = now_s, _question(cluster)
        if asked != self._asked:
            self._asked = asked
            self._outlook = Outlook() if asked is None else await asyncio.to_thread(outlook, asked)

    def look(self, status: ClusterStatus, now_s: float) -> Iterator[Record]:
        """Read what is slow to read, and say what is wrong now and was not, or no longer is."""
        self._looked_s = now_s
        cores = self._process.cpu_percent() / 100.0
        self._gauges = replace(self._gauges, disk_free_bytes=disk_free_bytes(self._folder), cpu_utilisation=cores)
        before = {finding.key: finding for finding in self._standing.said}
        self._standing = self._standing.after(status, now_s)
        now = {finding.key: finding for finding in self._standing.said}
        yield from (_begins(finding) for key, finding in now.items() if key not in before and finding.kind is not Kind.LOST_NODE)
        yield from (_ends(finding) for key, finding in before.items() if key not in now and finding.kind is not Kind.LOST_NODE)


@dataclass(frozen=True, slots=True)
class Question:
    """All that an outlook depends on, as it is now."""

    problem: Problem
    config: ClusterConfig
    plan: Plan
    strategy: str
    law: LoadLaw


def _question(cluster: Cluster) -> Question | None:
    """None where nothing can be said of another plan."""
    plan, strategy = cluster.plan, cluster.strategy
    if plan is None or cluster.phase is not Phase.SERVING or strategy not in FOR_SPEED or len(cluster.members) > MOST_NODES:
        return None
    try:
        law = law_for(cluster.members, cluster.serving.seen.load, plan)
        return Question(cluster.problem(), cluster.config, plan, strategy, law)
    except NoodleError:
        return None


def outlook(asked: Question) -> Outlook:
    """The plan that serves beside the one that would be made now; nothing where there is none."""
    strategy, version = asked.strategy, asked.plan.plan_version
    try:
        present = plan_for(asked.problem, asked.config, strategy, version, asked.plan.stages, False, asked.law)
        best = plan_for(asked.problem, asked.config, strategy, version, (), True, asked.law)
        loaded = asked.law.problem(asked.problem)
    except NoodleError:
        return Outlook()
    return Outlook(_objective_s(loaded, present, strategy), _objective_s(loaded, best, strategy), num_moved(asked.plan, best))


def _objective_s(loaded: Problem, plan: Plan, strategy: str) -> float:
    """Of one token, at the load that is served."""
    index = {node.node_id: u for u, node in enumerate(loaded.nodes)}
    costs = evaluate(loaded, tuple((index[s.node_id], s.start, s.stop) for s in plan.stages))
    return costs.period_s if strategy in FOR_PERIOD else costs.bottleneck_s * costs.steps.per_token


def _begins(finding: Finding) -> Record:
    severity = Severity.INFO if finding.kind in _QUIET else Severity.WARN
    return Record(severity, "why", finding.subject or "cluster", f"{finding.what}: {finding.why}")


def _ends(finding: Finding) -> Record:
    return Record(Severity.OK, "why", finding.subject or "cluster", f"over: {finding.what}")
