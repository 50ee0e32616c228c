"""Carries out one live change of plan at a time; see `moves` for its steps. Pure.

It decides nothing about whether to move. Whatever goes wrong before the commit drops the move and leaves the old plan serving;
after it the cluster treats the trouble as it would any other time. What that means for the plan it returns.
"""

from __future__ import annotations

from collections import deque

from engine.control import commands as do
from engine.control import events as on
from engine.control.moves import BARRIER_LIMIT_S, RETRY_S, Carried, Move, Wish, transfers
from engine.control.nodes.members import Members, capacity_tokens
from engine.control.placement import describe
from engine.control.plan_state import Consequence, DropMove, Interrupt, Replan, Switch
from engine.control.sessions.serving import Serving
from engine.data.model import ModelCard
from engine.data.moves import MoveReport
from engine.data.plan import Plan
from engine.data.status import Severity

MAX_REPORTS = 100
MAX_ATTEMPTS = 3


class Rebalancer:
    """At most one `move` at a time; `reports` are the last ones that ended."""

    def __init__(self, members: Members, serving: Serving) -> None:
        self._members, self._serving = members, serving
        self.move: Move | None = None
        self.reports: deque[MoveReport] = deque(maxlen=MAX_REPORTS)
        self.not_before_s = 0.0
        self._num_dropped = 0  # in a row

    @property
    def holds_steps(self) -> bool:
        return self.move is not None and self.move.holds_steps

    def is_free(self, now_s: float) -> bool:
        """Another move may begin."""
        return self.move is None and now_s >= self.not_before_s and not self._members.links.is_waiting(now_s)

    def leads_to(self, worker_id: str) -> bool:
        """Whether the node gets a stage by a move that is not committed yet."""
        move = self.move
        return move is not None and not move.committed and move.new.stage_of(worker_id) is not None

    def involves(self, worker_id: str) -> bool:
        """Whether the move that is under way, if there is one, begins or ends on the node."""
        return self.move is not None and any(plan.stage_of(worker_id) is not None for plan in (self.move.old, self.move.new))

    # ------------------------------------------------------------------------------------------ start and end
    def start(self, old: Plan, plan: Plan, card: ModelCard, wish: Wish, now_s: float, out: list[do.Command]) -> Replan | None:
        """Begin to move from `old`, which serves, to `plan`; if the stages are the same, only say so."""
        if plan.stages == old.stages and plan.strategy == old.strategy:
            out.append(do.Record(Severity.INFO, "plan", f"#{old.plan_version}", f"unchanged: {wish.cause}; {describe(plan)}"))
            return None
        room, scheduler = capacity_tokens(card, plan, self._members), self._serving.scheduler
        if scheduler.reserved_tokens > room:
            return self._postpone(wish, now_s)
        scheduler.capacity_tokens = min(scheduler.capacity_tokens, room)
        nodes = {s.node_id for s in plan.stages}
        self.move = Move(old, plan, card, wish, now_s, transfers(old, plan, card), set(nodes))
        out.append(do.Record(Severity.INFO, "plan", f"#{plan.plan_version}", f"preparing: {describe(plan)}; {wish.cause}"))
        following = [s.node_id for s in plan.stages[1:]] + [None]
        for stage, next_worker_id in zip(plan.stages, following, strict=True):
            generation = self._members.named(stage.node_id).generation
            out.append(do.PrepareStage(stage.node_id, generation, plan.plan_version, stage, next_worker_id))
        return None

    def _postpone(self, wish: Wish, now_s: float) -> Replan | None:
        """Try again a little later."""
        self.not_before_s = now_s + RETRY_S
        return Replan(wish) if wish.is_retried else None

    def drop(self, why: str, now_s: float, out: list[do.Command], again: bool = False) -> Replan | None:
        """Give the move up before its commit; the old plan never stopped being the plan."""
        move, self.move = self.move, None
        if move is None:
            return None
        version = move.new.plan_version
        for stage in move.new.stages:
            member = self._members.get(stage.node_id)
            if member is not None and member.alive and not move.committed:
                out.append(do.ReleaseStage(stage.node_id, member.generation, version))
        if not move.committed:
            self._serving.scheduler.capacity_tokens = capacity_tokens(move.card, move.old, self._members)
        self.reports.append(move.report(now_s, why))
        text = f"dropped: {why}" if move.committed else f"dropped: {why}; #{move.old.plan_version} stays"
        out.append(do.Record(Severity.WARN, "plan", f"#{version}", text))
        self._num_dropped += 1
        return self._postpone(move.wish, now_s) if again and self._num_dropped < MAX_ATTEMPTS else None

    def give_up(self, why: str) -> Consequence:
        """Of trouble: before the commit the old plan serves on; after it the new one has to be loaded from scratch."""
        if self.move is not None and self.move.committed:
            return Interrupt(f"the switch to #{self.move.new.plan_version} failed: {why}")
        return DropMove(why, again=True)

    # ------------------------------------------------------------------------------------------ answers
    def prepared(self, event: on.StagePrepared) -> None:
        move = self._current(event.plan_version)
        if move is not None and event.worker_id in move.unprepared:
            move.unprepared.remove(event.worker_id)
            move.weight_bytes += event.read_bytes

    def copied(self, event: on.KvCopied) -> None:
        move = self._current(event.plan_version)
        if move is not None and event.round == move.round and event.transfer in move.uncopied:
            move.uncopied.remove(event.transfer)
            move.kv_bytes += event.num_bytes

    def committed(self, event: on.StageCommitted, now_s: float) -> None:
        move = self._current(event.plan_version)
        if move is None or event.worker_id not in move.uncommitted:
            return
        move.uncommitted.remove(event.worker_id)
        for session_id in event.missing:
            session = self._serving.scheduler.get(session_id)
            if session is not None and session.num_sent:
                self._serving.scheduler.retry(session, now_s)

    def failed(self, event: on.MoveFailed) -> Consequence | None:
        return self.give_up(f"{event.worker_id}: {event.message}") if self.is_of(event.plan_version) else None

    def is_of(self, plan_version: int) -> bool:
        """Whether that plan is the one that is being moved to."""
        return self._current(plan_version) is not None

    def _current(self, plan_version: int) -> Move | None:
        return self.move if self.move is not None and self.move.new.plan_version == plan_version else None

    # ------------------------------------------------------------------------------------------ progress
    def advance(self, now_s: float, out: list[do.Command]) -> Switch | None:
        """Do whatever the answers so far allow."""
        move = self.move
        if move is None:
            return None
        if move.round == 0 and not move.unprepared:
            move.prepared_s = now_s
            self._copy(move, out)
        if move.round == 1 and not move.uncopied and move.barrier_s is None:
            move.barrier_s = now_s
        if move.round == 1 and move.barrier_s is not None and not self._serving.flights:
            self._copy(move, out)
        if move.round == 2 and not move.uncopied and not move.committed:
            self._commit(move, out)
            return Switch(move.new)
        if move.committed and not move.uncommitted:
            self._end(move, now_s, out)
        return None

    def overdue(self, now_s: float) -> Consequence | None:
        """The barrier has been down for too long."""
        move = self.move
        is_late = move is not None and move.barrier_s is not None and now_s - move.barrier_s > BARRIER_LIMIT_S
        return self.give_up("the barrier was down for too long") if is_late else None

    def _copy(self, move: Move, out: list[do.Command]) -> None:
        ranges = move.next_round((s.session_id, s.epoch, s.num_landed) for s in self._serving.scheduler.running())
        for transfer in sorted(move.uncopied, key=lambda t: t.start):
            generation = self._members.named(transfer.target_id).generation
            out.append(do.CopyKv(transfer, generation, move.new.plan_version, move.round, ranges))

    def _commit(self, move: Move, out: list[do.Command]) -> None:
        carried = []
        for session in self._serving.scheduler.running():
            if session.num_sent:
                carried.append(Carried(session.session_id, session.epoch, session.epoch + 1, session.num_sent))
                session.epoch += 1
        move.committed, move.uncommitted = True, {s.node_id for s in move.new.stages}
        out.append(do.AdoptPlan(move.new))
        for stage in move.new.stages:
            generation = self._members.named(stage.node_id).generation
            out.append(do.CommitStage(stage.node_id, generation, move.new.plan_version, tuple(carried)))

    def _end(self, move: Move, now_s: float, out: list[do.Command]) -> None:
        self.move, self._num_dropped = None, 0
        for stage in move.old.stages:
            member = self._members.get(stage.node_id)
            if member is not None and member.alive and move.new.stage_of(stage.node_id) is None:
                out.append(do.ReleaseStage(stage.node_id, member.generation, move.old.plan_version))
        report = move.report(now_s, "done")
        self.reports.append(report)
        moved = f"{report.weight_bytes / 1e6:.1f} MB of weights read, {report.kv_bytes / 1e6:.2f} MB of KV copied"
        spent = f"prepared in {report.prepare_s:.1f} s, tokens paused for {1e3 * report.pause_s:.0f} ms"
        text = f"moved {report.num_items} items: {moved}, {spent}; {move.wish.cause}"
        out.append(do.Record(Severity.OK, "plan", f"#{move.new.plan_version}", text))
