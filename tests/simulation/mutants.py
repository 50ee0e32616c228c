"""One-line faults of the protocol: each removes a single rule. A drill that does not notice them proves nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from engine.control import commands as do
from engine.control import events as on
from engine.control.attendance import Attendance
from engine.control.cluster import Cluster
from engine.control.members import Members
from engine.control.moves import Move
from engine.control.rebalance import Rebalancer
from engine.control.scheduler import Scheduler
from engine.control.serving import Serving
from engine.control.session import Session
from engine.control.stage_sessions import Append, Replay, StageSession, StageSessions
from engine.data.generation import Sampling, Segment
from engine.simulation import drill_coordinator
from engine.simulation.drill_coordinator import DrillCoordinator
from engine.simulation.drill_worker import DrillWorker, Held

Mutate = Callable[[pytest.MonkeyPatch], None]


def no_plan_fence(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(StageSessions, "check_plan", lambda self, plan_version: None)


def no_epoch_fence(patch: pytest.MonkeyPatch) -> None:
    """An old epoch's segment is taken for one of the present epoch."""
    admit = StageSessions.admit

    def mutant(self: StageSessions, segment: Segment) -> Append | Replay:
        known = self.find(segment.session_id)
        return admit(self, replace(segment, epoch=known.epoch) if known is not None and segment.epoch < known.epoch else segment)

    patch.setattr(StageSessions, "admit", mutant)


def no_deduplication(patch: pytest.MonkeyPatch) -> None:
    admit = StageSessions.admit

    def mutant(self: StageSessions, segment: Segment) -> Append | Replay:
        decision = admit(self, segment)
        known = self.find(segment.session_id)
        return Append(known, opens=False) if isinstance(decision, Replay) and known is not None else decision

    patch.setattr(StageSessions, "admit", mutant)


def no_gap_check(patch: pytest.MonkeyPatch) -> None:
    admit = StageSessions.admit

    def mutant(self: StageSessions, segment: Segment) -> Append | Replay:
        known = self.find(segment.session_id)
        if known is not None and known.epoch == segment.epoch and segment.position > len(known.token_ids):
            return Append(known, opens=False)
        return admit(self, segment)

    patch.setattr(StageSessions, "admit", mutant)


def a_later_opening_is_taken(patch: pytest.MonkeyPatch) -> None:
    """A session may begin in its middle."""
    patch.setattr(
        StageSessions, "_admit_opening", lambda self, s, known: Append(StageSession(s.epoch, s.sampling or Sampling()), opens=True)
    )


def reply_matched_by_step_only(patch: pytest.MonkeyPatch) -> None:
    """The parts of a report are taken for the parts of the step in their order, whatever session and epoch they name."""
    report = Serving.report

    def mutant(self: Serving, event: on.StepReported, *rest: Any) -> str:
        flight = self.flights.get(event.step_id)
        pairs = zip(event.outcomes, flight.segments if flight else (), strict=False)
        named = tuple(replace(o, session_id=s.session_id, epoch=s.epoch, sample_index=s.sample_index) for o, s in pairs)
        return report(self, replace(event, outcomes=named), *rest)

    patch.setattr(Serving, "report", mutant)


def reply_of_a_former_coordinator_counts(patch: pytest.MonkeyPatch) -> None:
    """A report counts whatever plan it speaks for: step ids begin again with every coordinator."""
    handle = Cluster.handle

    def mutant(self: Cluster, event: Any, now_s: float) -> list[do.Command]:
        if isinstance(event, on.StepReported):
            outcomes = tuple(self_epoch(self, o) for o in event.outcomes)
            event = replace(event, plan_version=self.plan_version, outcomes=outcomes)
        return handle(self, event, now_s)

    patch.setattr(Cluster, "handle", mutant)


def self_epoch(cluster: Any, outcome: Any) -> Any:
    session = cluster.scheduler.get(outcome.session_id)
    if session is None:
        return outcome
    return replace(outcome, epoch=session.epoch, sample_index=len(session.generated) if outcome.sample_index is not None else None)


def recovery_keeps_the_epoch(patch: pytest.MonkeyPatch) -> None:
    def mutant(self: Session) -> None:
        self.num_sent = self.num_landed = 0

    patch.setattr(Session, "rewind", mutant)


def recovery_does_not_rewind(patch: pytest.MonkeyPatch) -> None:
    def mutant(self: Session) -> None:
        self.epoch += 1

    patch.setattr(Session, "rewind", mutant)


def recovery_samples_again(patch: pytest.MonkeyPatch) -> None:
    """An interrupted session generates its last token once more, as a new one."""
    interrupt = Scheduler.interrupt_all

    def mutant(self: Scheduler, now_s: float) -> list[Session]:
        for session in self.running():
            if len(session.generated) > 1:
                session.generated.pop()
        return interrupt(self, now_s)

    patch.setattr(Scheduler, "interrupt_all", mutant)


def emit_before_journal(patch: pytest.MonkeyPatch) -> None:
    perform = DrillCoordinator._perform

    def mutant(self: DrillCoordinator, command: do.Command) -> None:
        if isinstance(command, do.EmitToken):
            self._deliver(command.session_id, command.index, command.token_id)
        perform(self, command)

    patch.setattr(DrillCoordinator, "_perform", mutant)


def restart_does_not_outrank(patch: pytest.MonkeyPatch) -> None:
    cluster = drill_coordinator.Cluster
    patch.setattr(drill_coordinator, "Cluster", lambda config, now_s, last_plan_version: cluster(config, now_s, 0))


def commit_before_copy(patch: pytest.MonkeyPatch) -> None:
    """The delta is not waited for."""
    copy = Rebalancer._copy

    def mutant(self: Rebalancer, move: Move, out: list[do.Command]) -> None:
        copy(self, move, out)
        if move.round == 2:
            move.uncopied.clear()

    patch.setattr(Rebalancer, "_copy", mutant)


def commit_takes_what_is_there(patch: pytest.MonkeyPatch) -> None:
    """A stage does not look whether the keys and values of a session are complete."""
    patch.setattr(DrillWorker, "_joined", _joined_unchecked)


def _joined_unchecked(self: DrillWorker, one: Any, old: Held | None, held: Held) -> dict[int, list[int]]:
    memory = {}
    for item in range(held.stage.start, held.stage.stop):
        source = old if old is not None and old.stage.start <= item < old.stage.stop else held
        memory[item] = source.memory.get(one.session_id, {}).get(item, [])[: one.num_tokens]
    return memory


def barrier_does_not_wait(patch: pytest.MonkeyPatch) -> None:
    """Steps are still in flight when the delta is taken and the stages switch."""
    advance = Rebalancer.advance

    def mutant(self: Rebalancer, now_s: float, out: list[do.Command]) -> None:
        flights = self._cluster.serving.flights
        if self.move is not None and self.move.round == 1 and self.move.barrier_s is not None:
            self._cluster.serving.flights = {}
        advance(self, now_s, out)
        if not self._cluster.serving.flights and self.move is not None and not self.move.committed:
            self._cluster.serving.flights = flights

    patch.setattr(Rebalancer, "advance", mutant)


def steps_go_on_behind_the_barrier(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Rebalancer, "holds_steps", property(lambda self: False))


def lost_workers_stay_in_the_plan(patch: pytest.MonkeyPatch) -> None:
    """A worker that is lost does not interrupt what ran through it."""
    patch.setattr(Attendance, "lose", lambda self, member, reason, now_s, out: None)


def any_generation_may_speak(patch: pytest.MonkeyPatch) -> None:
    def mutant(self: Members, worker_id: str, generation: int) -> Any:
        member = self.get(worker_id)
        return member if member and member.alive else None

    patch.setattr(Members, "current", mutant)


def queue_forgets_what_was_reserved(patch: pytest.MonkeyPatch) -> None:
    interrupt = Scheduler.interrupt_all

    def mutant(self: Scheduler, now_s: float) -> list[Session]:
        reserved = self.reserved_tokens
        found = interrupt(self, now_s)
        self.reserved_tokens = reserved
        return found

    patch.setattr(Scheduler, "interrupt_all", mutant)


FREQUENT: list[Mutate] = [
    no_epoch_fence, no_deduplication, no_gap_check, a_later_opening_is_taken, reply_matched_by_step_only, recovery_keeps_the_epoch,
    recovery_does_not_rewind, recovery_samples_again, emit_before_journal, restart_does_not_outrank, commit_before_copy,
    barrier_does_not_wait, steps_go_on_behind_the_barrier, lost_workers_stay_in_the_plan,
    any_generation_may_speak, queue_forgets_what_was_reserved,
]  # fmt: skip
RARE: list[Mutate] = [
    no_plan_fence,
    commit_takes_what_is_there,
    reply_of_a_former_coordinator_counts,
]  # hundreds of seeds may pass before one notices
MUTANTS = FREQUENT + RARE
