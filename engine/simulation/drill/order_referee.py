"""Rules about orders to the workers: who is asked for a stage, what a change of plan waits for, what is given back. Pure.

Like the referee of sessions it keeps books of its own, from the events and commands of one coordinator.
"""

from __future__ import annotations

from collections.abc import Iterable

from engine.control import commands as do
from engine.control import events as on
from engine.control.cluster import Cluster
from engine.control.moves import Transfer
from engine.control.nodes.members import capacity_tokens
from engine.data.status import Phase

StageOrder = do.LoadStage | do.PrepareStage | do.CommitStage


class OrderReferee:
    """Asked before and after every event of one incarnation; raises AssertionError."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._generations: dict[str, int] = {}  # of the newest registrations
        self._serving: dict[str, int] = {}  # worker -> plan version of the stage that it was last told to serve
        self._prepared: dict[str, int] = {}  # worker -> plan version of the stage that it was last told to prepare
        self._ready: set[tuple[str, int]] = set()  # (worker, plan version) that said to be loaded or committed
        self._prepared_ready: set[tuple[str, int]] = set()
        self._copies: dict[tuple[int, int], set[Transfer]] = {}  # (plan version, round): copies that were not answered
        self._copied: dict[tuple[int, int, str, int], int] = {}  # (plan version, round, session, epoch): tokens that were asked for
        self._num_reports = 0

    def before(self, event: on.ClusterEvent) -> None:
        self._num_reports = len(self._cluster.rebalancer.reports)

    def after(self, event: on.ClusterEvent, commands: Iterable[do.Command]) -> None:
        """Judge what the event led to."""
        match event:
            case on.WorkerRegistered():
                worker_id = event.spec.node_id
                self._generations[worker_id] = max(event.generation, self._generations.get(worker_id, 0))
            case on.StageLoaded() | on.StageCommitted():
                self._ready.add((event.worker_id, event.plan_version))
            case on.StagePrepared():
                self._prepared_ready.add((event.worker_id, event.plan_version))
            case on.KvCopied():
                self._copies.get((event.plan_version, event.round), set()).discard(event.transfer)
            case on.MoveFailed():
                self._judge_failure(event)
        for command in commands:
            self._judge(command)
            self._note(command)
        move, phase = self._cluster.rebalancer.move, self._cluster.phase
        if move is None and self._prepared:
            raise AssertionError(f"no move is under way, and {self._prepared} were not told to give back what they prepared")
        if move is None and phase is Phase.SERVING and len(self._cluster.rebalancer.reports) != self._num_reports:
            self._judge_capacity()

    def check_quiet(self) -> None:
        """Nothing is under way: every worker was told to give back what the plan does not need, and the whole KV budget is there."""
        cluster, plan = self._cluster, self._cluster.plan
        if plan is None or cluster.rebalancer.move is not None:
            return
        wanted = {s.node_id: plan.plan_version for s in plan.stages}
        if kept := {w: v for w, v in (*self._prepared.items(), *self._serving.items()) if wanted.get(w) != v}:
            raise AssertionError(f"{kept} were never told to give their stages of these plans back; plan {plan.plan_version} serves")
        self._judge_capacity()

    def _judge_capacity(self) -> None:
        cluster = self._cluster
        if cluster.card is None or cluster.plan is None:
            return
        room, used = capacity_tokens(cluster.card, cluster.plan, cluster.members), cluster.scheduler.capacity_tokens
        if room != used:
            raise AssertionError(f"sessions may use {used} tokens of KV, the plan holds {room}")

    # ------------------------------------------------------------------------------------------ books
    def _note(self, command: do.Command) -> None:
        match command:
            case do.LoadStage():
                self._serving[command.worker_id] = command.plan_version
                self._prepared.pop(command.worker_id, None)
            case do.PrepareStage():
                self._prepared[command.worker_id] = command.plan_version
            case do.CommitStage():
                self._serving[command.worker_id] = self._prepared.pop(command.worker_id, command.plan_version)
            case do.CopyKv():
                self._copies.setdefault((command.plan_version, command.round), set()).add(command.transfer)
            case do.ReleaseStage():
                for books in (self._serving, self._prepared):
                    if command.plan_version in (0, books.get(command.worker_id)):
                        books.pop(command.worker_id, None)
            case do.DropWorker():
                self._serving.pop(command.worker_id, None)
                self._prepared.pop(command.worker_id, None)

    # ------------------------------------------------------------------------------------------ rules
    def _judge(self, command: do.Command) -> None:
        match command:
            case do.LoadStage() | do.PrepareStage() | do.CommitStage():
                self._judge_order(command)
            case do.CopyKv():
                self._judge_copy(command)
            case do.SendStep():
                self._judge_step(command)
        if isinstance(command, do.CommitStage):
            self._judge_commit(command)

    def _judge_order(self, order: StageOrder) -> None:
        member = self._cluster.members.get(order.worker_id)
        if member is None or order.generation != self._generations.get(order.worker_id):
            raise AssertionError(f"generation {order.generation} of {order.worker_id} gets an order, it is {self._generations}")
        if not member.alive or (member.draining and not isinstance(order, do.CommitStage)):
            raise AssertionError(f"{order.worker_id} gets a stage of plan {order.plan_version}, though it is lost or draining")

    def _judge_copy(self, copy: do.CopyKv) -> None:
        if self._not_prepared(copy.plan_version):
            raise AssertionError(
                f"plan {copy.plan_version} copies keys and values, but {self._not_prepared(copy.plan_version)} are not ready"
            )
        for part in copy.ranges:
            before = self._copied.get((copy.plan_version, copy.round - 1, part.session_id, part.epoch), 0)
            if part.start_token != before:
                raise AssertionError(
                    f"the copy of {part.session_id} in epoch {part.epoch} begins at {part.start_token}, {before} came before"
                )
            self._copied[copy.plan_version, copy.round, part.session_id, part.epoch] = part.stop_token

    def _judge_commit(self, order: do.CommitStage) -> None:
        version = order.plan_version
        if self._not_prepared(version):
            raise AssertionError(f"plan {version} is committed, but {self._not_prepared(version)} are not ready")
        for round_ in (1, 2):
            if self._copies.get((version, round_)):
                raise AssertionError(f"plan {version} is committed before its copies of round {round_} have come")

    def _judge_step(self, step: do.SendStep) -> None:
        plan = self._cluster.plan
        stages = plan.stages if plan is not None and plan.plan_version == step.plan_version else ()
        if not stages or not {(s.node_id, step.plan_version) for s in stages} <= self._ready:
            raise AssertionError(f"step {step.step_id} of plan {step.plan_version} is sent before all its stages serve it")

    def _judge_failure(self, event: on.MoveFailed) -> None:
        reports = [*self._cluster.rebalancer.reports][self._num_reports :]
        if any(r.plan_version != event.plan_version for r in reports):
            raise AssertionError(f"what failed for plan {event.plan_version} ended the move to {reports[0].plan_version}")

    def _not_prepared(self, version: int) -> set[str]:
        return {w for w, v in self._prepared.items() if v == version and (w, version) not in self._prepared_ready}
