"""What holds in a drill while nothing fails: nothing is sent twice, nobody who lives is given up, every move arrives. Pure.

A protocol that heals hides the loss of one of its rules: what a change of plan forgot is sent again, a worker given up by mistake
joins again, and no client sees it. While the world is kind, healing is itself the fault.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from engine.control import commands as do
from engine.control.cluster import Cluster
from engine.simulation.drill.worker import DrillWorker


class Calm:
    """Watches a coordinator; `forbids_resending` while no worker is restarted either."""

    def __init__(self, workers: Mapping[str, DrillWorker]) -> None:
        self.workers = workers
        self.is_on = self.forbids_resending = False

    def watch(self, cluster: Cluster, commands: Iterable[do.Command]) -> None:
        """Called after every event; raises AssertionError."""
        if not self.is_on:
            return
        for command in commands:
            if isinstance(command, do.DropWorker) and self._lives(command):
                raise AssertionError(f"{command.worker_id} was given up though it lives and nothing failed")
        if self.forbids_resending:
            again = [s.session_id for s in cluster.scheduler if s.num_recoveries]
            if again:
                raise AssertionError(f"{again} were sent again though nothing failed")

    def check_reuse(self, cluster: Cluster) -> None:
        """Called after some turns of a conversation."""
        if not cluster.serving.prefixes.counts.cached_tokens:
            raise AssertionError("no turn of a conversation began with what the one before it left")

    def check_moves(self, cluster: Cluster) -> None:
        """Called when a move had time enough."""
        unfinished = [r.outcome for r in cluster.rebalancer.reports if r.outcome != "done"]
        if cluster.rebalancer.move is not None or unfinished:
            raise AssertionError(f"a move did not come to its end though nothing failed: {unfinished or 'it still goes on'}")

    def check_released(self, over: Iterable[str]) -> None:
        """Called a little after these sessions ended: no stage holds keys and values of them any more."""
        for worker in self.workers.values():
            kept = {*over} & {*(worker.serving.sessions.ids() if worker.serving is not None else ())}
            if kept:
                raise AssertionError(f"{worker.worker_id} holds {sorted(kept)}, which ended")

    def _lives(self, command: do.DropWorker) -> bool:
        worker = self.workers[command.worker_id]
        return worker.is_alive and worker.generation == command.generation
