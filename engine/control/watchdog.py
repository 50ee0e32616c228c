"""Finds what heartbeats alone do not tell: a silent worker that a step waits for, broken links, steps that never return. Pure.

A lease of 3 s is right for a worker nobody waits for. Where a step waits, silence of three heartbeats is enough to go on without
the worker: a false accusation costs a pause and never a token, because every message of the accused is fenced.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.control.members import Member

if TYPE_CHECKING:
    from engine.control.cluster import Cluster

STUCK_S = 0.5


class Watchdog:
    """Asked on every tick while a plan serves."""

    def __init__(self) -> None:
        self._trouble, self._since_s = "", 0.0

    def forget(self) -> None:
        """Another plan, other links."""
        self._trouble, self._since_s = "", 0.0

    def note(self, trouble: str, now_s: float) -> None:
        """Links broke: if no lost worker explains it soon, the stages are loaded again, with new links."""
        if trouble and not self._trouble:
            self._trouble, self._since_s = trouble, now_s

    def silent(self, cluster: Cluster, now_s: float) -> list[Member]:
        """Workers to give up: suspect, in the plan, and waited for."""
        oldest_s = min((f.sent_s for f in cluster.serving.flights.values()), default=now_s)
        if now_s - oldest_s <= STUCK_S and not cluster.rebalancer.holds_steps and not self._trouble:
            return []
        return [m for m in cluster.members if m.suspect and m.alive and m.stage is not None]

    def broken(self, cluster: Cluster, now_s: float) -> str:
        """Why the present plan cannot go on although every worker beats; empty if it can."""
        if self._trouble and now_s - self._since_s > STUCK_S:
            return self._trouble
        return cluster.serving.overdue(now_s)
