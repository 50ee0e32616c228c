"""One-line faults of the protocol: each removes a single rule. A drill that does not notice them proves nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from engine.control import commands as do
from engine.control import events as on
from engine.control import rebalance
from engine.control.cluster import Cluster
from engine.control.moves import Move
from engine.control.nodes.attendance import Attendance
from engine.control.nodes.claims import Claim, name_taken
from engine.control.nodes.members import Member, Members
from engine.control.rebalance import Rebalancer
from engine.control.sessions import serving
from engine.control.sessions.batching import Flight
from engine.control.sessions.reuse.prefix_cache import PrefixCache
from engine.control.sessions.scheduler import Scheduler
from engine.control.sessions.serving import Serving
from engine.control.sessions.session import Session, SessionState
from engine.control.sessions.stage_sessions import Append, Replay, StageSession, StageSessions
from engine.data.generation import Kept, Segment, Taken
from engine.data.sampling import Sampling
from engine.data.status import Phase
from engine.simulation.drill import coordinator as drill_coordinator
from engine.simulation.drill import worker as drill_worker
from engine.simulation.drill.coordinator import DrillCoordinator
from engine.simulation.drill.model import sample
from engine.simulation.drill.worker import DrillWorker, Held
from tests.control import test_fences, test_stage_sessions
from tests.simulation import test_drill_worker

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


def any_kept_tokens_will_do(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(StageSessions, "_taken", lambda self, segment, taken: self._kept.get(taken.kept_id, [])[: taken.num_tokens])


def what_any_epoch_left_is_kept(patch: pytest.MonkeyPatch) -> None:
    keep = StageSessions.keep

    def mutant(self: StageSessions, kept: Kept) -> bool:
        session = self.find(kept.session_id)
        return keep(self, kept if session is None else replace(kept, epoch=session.epoch))

    patch.setattr(StageSessions, "keep", mutant)


def a_running_session_of_any_epoch_will_do(patch: pytest.MonkeyPatch) -> None:
    taken_of = StageSessions._taken

    def mutant(self: StageSessions, segment: Segment, taken: Taken) -> list[int]:
        running = self.find(taken.session_id)
        return taken_of(self, segment, taken if running is None else replace(taken, epoch=running.epoch))

    patch.setattr(StageSessions, "_taken", mutant)


def what_is_kept_outlives_its_plan(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(PrefixCache, "forget", lambda self: None)


def callers_share(patch: pytest.MonkeyPatch) -> None:
    keys = PrefixCache._keys
    patch.setattr(PrefixCache, "_keys", lambda self, caller, token_ids, known=(): keys(self, b"anybody", token_ids, known))


def what_is_kept_stays_in_the_way(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(PrefixCache, "fit", lambda self, room_tokens: None)


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


def proposals_that_did_not_hold_stay(patch: pytest.MonkeyPatch) -> None:
    """A stage appends behind what was proposed and did not come."""
    admit = StageSessions.admit

    def mutant(self: StageSessions, segment: Segment) -> Append | Replay:
        decision = admit(self, segment)
        return replace(decision, cuts=False) if isinstance(decision, Append) else decision

    patch.setattr(StageSessions, "admit", mutant)


def what_held_may_be_cut_off(patch: pytest.MonkeyPatch) -> None:
    """A step that comes late begins again where it once began."""
    patch.setattr(StageSession, "may_end_at", lambda self, num_tokens: num_tokens <= len(self.token_ids))


def a_move_takes_proposals_for_tokens(patch: pytest.MonkeyPatch) -> None:
    """A stage that holds proposals which did not come is taken for one that is not where the others are."""
    carry, may_end_at = StageSessions.carry, StageSession.may_end_at

    def mutant(self: StageSessions, *arguments: Any) -> Any:
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(StageSession, "may_end_at", lambda self, num_tokens: num_tokens == len(self.token_ids))
            return carry(self, *arguments)

    patch.setattr(StageSessions, "carry", mutant)
    assert StageSession.may_end_at is may_end_at


def proposals_that_did_not_hold_have_landed(patch: pytest.MonkeyPatch) -> None:
    """The coordinator takes all that a step carried for held, whatever came of it."""
    landed = Session.landed
    patch.setattr(Session, "landed", lambda self, segment, num_sampled: landed(self, segment, 1 + segment.num_proposed))


def what_a_report_says_behind_a_wrong_proposal_counts(patch: pytest.MonkeyPatch) -> None:
    """A stage goes on behind a proposal that did not come, and the coordinator believes it."""

    def sampled(segment: Segment, outputs: Any, seed: int) -> tuple[int, ...]:
        first, places = segment.sample_index, outputs[segment.num_known - 1 :]
        return () if first is None else tuple(sample(hidden, seed, first + i) for i, hidden in enumerate(places))

    def held(segment: Segment, answers: Any) -> list[Any]:
        keys = [(segment.session_id, segment.epoch, (segment.sample_index or 0) + i) for i in range(1, 1 + segment.num_proposed)]
        return [answers[key] for key in keys if key in answers]

    patch.setattr(drill_worker, "_sampled", sampled)
    patch.setattr(serving, "held_proposals", held)


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
    patch.setattr(drill_coordinator, "Cluster", lambda config, now_s, last_plan_version, **rest: cluster(config, now_s, 0, **rest))


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

    def mutant(self: Rebalancer, now_s: float, out: list[do.Command]) -> Any:
        flights = self._serving.flights
        if self.move is not None and self.move.round == 1 and self.move.barrier_s is not None:
            self._serving.flights = {}
        switch = advance(self, now_s, out)
        if not self._serving.flights and self.move is not None and not self.move.committed:
            self._serving.flights = flights
        return switch

    patch.setattr(Rebalancer, "advance", mutant)


def steps_go_on_behind_the_barrier(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Rebalancer, "holds_steps", property(lambda self: False))


def lost_workers_stay_in_the_plan(patch: pytest.MonkeyPatch) -> None:
    """A worker that is lost does not interrupt what ran through it."""
    patch.setattr(Attendance, "lose", lambda self, member, reason, out: None)


def any_generation_may_speak(patch: pytest.MonkeyPatch) -> None:
    def mutant(self: Members, worker_id: str, generation: int) -> Any:
        member = self.get(worker_id)
        return member if member and member.alive else None

    patch.setattr(Members, "current", mutant)


def a_living_worker_loses_its_name(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Members, "holder", lambda self, spec: None)


def a_name_is_refused_without_proof_of_life(patch: pytest.MonkeyPatch) -> None:
    """Whoever had the name and was not said to be lost yet keeps it, dead or alive."""

    def mutant(self: Claim) -> bool:
        holder = self._members.holder(self._spec)
        if holder is not None:
            raise name_taken(holder)
        return True

    patch.setattr(Claim, "is_free", mutant)


def a_drain_ends_with_its_process(patch: pytest.MonkeyPatch) -> None:
    register = Members.register

    def mutant(self: Members, *rest: Any) -> Any:
        member = register(self, *rest)
        member.draining = False
        return member

    patch.setattr(Members, "register", mutant)


def a_drain_ends_with_its_coordinator(patch: pytest.MonkeyPatch) -> None:
    cluster = drill_coordinator.Cluster
    patch.setattr(drill_coordinator, "Cluster", lambda *rest, drained: cluster(*rest))


def queue_forgets_what_was_reserved(patch: pytest.MonkeyPatch) -> None:
    interrupt = Scheduler.interrupt_all

    def mutant(self: Scheduler, now_s: float) -> list[Session]:
        reserved = self.reserved_tokens
        found = interrupt(self, now_s)
        self.reserved_tokens = reserved
        return found

    patch.setattr(Scheduler, "interrupt_all", mutant)


def step_of_any_epoch_counts(patch: pytest.MonkeyPatch) -> None:
    """What a report says, or a step that was not delivered, counts though its session was sent again since."""
    patch.setattr(Serving, "_in_epoch", lambda self, segment: self.scheduler.get(segment.session_id))


def cuts_are_forgotten(patch: pytest.MonkeyPatch) -> None:
    """A prompt that travels again is cut as the present budget says."""
    patch.setattr(Session, "takes_whole_chunk", lambda self: False)
    patch.setattr(Session, "next_cut", lambda self: len(self.prompt_ids) if self.num_sent < len(self.prompt_ids) else self.prefix_tokens)


def recoveries_are_never_forgiven(patch: pytest.MonkeyPatch) -> None:
    """A session that was interrupted too often in all is given up, though it got on each time."""
    accept = Scheduler.accept_token

    def mutant(self: Scheduler, session: Session, token_id: int, now_s: float) -> None:
        num_recoveries = session.num_recoveries
        accept(self, session, token_id, now_s)
        session.num_recoveries = num_recoveries

    patch.setattr(Scheduler, "accept_token", mutant)


def memory_of_any_epoch_goes_on(patch: pytest.MonkeyPatch) -> None:
    """A stage carries a session on from what it holds of an earlier replay."""
    patch.setattr(StageSessions, "carry", lambda self, version, carried, imported: _carry(self, version, carried, imported, any_epoch=True))


def memory_of_any_length_goes_on(patch: pytest.MonkeyPatch) -> None:
    """A stage carries a session on whatever it holds of it; nobody looks a second time."""
    patch.setattr(
        StageSessions, "carry", lambda self, version, carried, imported: _carry(self, version, carried, imported, any_length=True)
    )
    commit_takes_what_is_there(patch)


def _carry(
    self: StageSessions, version: int, carried: Any, imported: StageSessions, any_epoch: bool = False, any_length: bool = False
) -> tuple[StageSessions, tuple[str, ...]]:
    following, missing = StageSessions(version), []
    for one in carried:
        known = [s for s in (self.find(one.session_id), imported.find(one.session_id)) if s is not None]
        fit = [s for s in known if (any_epoch or s.epoch == one.epoch) and (any_length or s.may_end_at(one.num_tokens))]
        if fit:
            held = fit[0]
            following.replace(
                one.session_id, StageSession(one.new_epoch, held.sampling, held.token_ids[: one.num_tokens], held.reserve_tokens)
            )
        else:
            missing.append(one.session_id)
    return following, tuple(missing)


def copies_of_any_round_count(patch: pytest.MonkeyPatch) -> None:
    """The answer to a copy of the first round is taken for one to the delta."""
    copied = Rebalancer.copied

    def mutant(self: Rebalancer, event: on.KvCopied) -> None:
        copied(self, replace(event, round=self.move.round) if self.move is not None else event)

    patch.setattr(Rebalancer, "copied", mutant)


def sample_index_is_not_checked(patch: pytest.MonkeyPatch) -> None:
    """The token that a report names for another index is taken."""
    report = Serving.report

    def mutant(self: Serving, event: on.StepReported, *rest: Any) -> str:
        flight = self.flights.get(event.step_id)
        asked = {(s.session_id, s.epoch): s.sample_index for s in (flight.segments if flight else ())}
        outcomes = tuple(replace(o, sample_index=asked.get((o.session_id, o.epoch))) for o in event.outcomes)
        return report(self, replace(event, outcomes=outcomes), *rest)

    patch.setattr(Serving, "report", mutant)


def silent_segment_is_forgotten(patch: pytest.MonkeyPatch) -> None:
    """A report that says nothing of a session ends what is known of its step."""
    refused = Serving._refused

    def mutant(self: Serving, session: Session, error: Any, *rest: Any) -> str:
        return "" if "came back without it" in str(error) else refused(self, session, error, *rest)

    patch.setattr(Serving, "_refused", mutant)


def only_the_first_failure_counts(patch: pytest.MonkeyPatch) -> None:
    """Where a step failed for several sessions, the first broken link that it tells of hides the others."""
    refused, report, told = Serving._refused, Serving.report, [""]

    def first(self: Serving, session: Session, error: Any, *rest: Any) -> str:
        told[0] = told[0] or refused(self, session, error, *rest)
        return told[0]

    def mutant(self: Serving, *rest: Any) -> str:
        told[0] = ""
        return report(self, *rest)

    patch.setattr(Serving, "_refused", first)
    patch.setattr(Serving, "report", mutant)


def careful_session_does_not_wait(patch: pytest.MonkeyPatch) -> None:
    """A session of which a step failed has several chunks in flight, and one may overtake the other."""
    runs = lambda s: s.state is not SessionState.QUEUED  # noqa: E731
    patch.setattr(Session, "wants_prefix", property(lambda self: runs(self) and self.num_sent < self.prefix_tokens))


def one_loaded_stage_is_enough(patch: pytest.MonkeyPatch) -> None:
    _before(patch, on.StageLoaded, lambda cluster, event: cluster.state._loaded.update(s.node_id for s in cluster.plan.stages) or event)


def loaded_stage_of_any_plan_counts(patch: pytest.MonkeyPatch) -> None:
    _before(patch, on.StageLoaded, lambda cluster, event: replace(event, plan_version=cluster.plan_version))


def failure_of_any_move_counts(patch: pytest.MonkeyPatch) -> None:
    _before(patch, on.MoveFailed, lambda cluster, event: replace(event, plan_version=cluster.rebalancer.move.new.plan_version))


def _before(patch: pytest.MonkeyPatch, kind: type, change: Callable[[Any, Any], Any]) -> None:
    """Events of that kind reach the cluster changed, while a plan loads or a move is under way."""
    handle = Cluster.handle

    def mutant(self: Cluster, event: Any, now_s: float) -> list[do.Command]:
        is_open = self.rebalancer.move is not None if kind is on.MoveFailed else self.phase is Phase.LOADING
        return handle(self, change(self, event) if isinstance(event, kind) and is_open else event, now_s)

    patch.setattr(Cluster, "handle", mutant)


def answer_to_any_move_counts(patch: pytest.MonkeyPatch) -> None:
    """A stage that was prepared or committed for a former move counts for the present one."""
    patch.setattr(Rebalancer, "_current", lambda self, plan_version: self.move)


def commit_is_not_waited_for(patch: pytest.MonkeyPatch) -> None:
    """Steps go out though not every stage has switched."""
    commit = Rebalancer._commit

    def mutant(self: Rebalancer, move: Move, out: list[do.Command]) -> None:
        commit(self, move, out)
        move.uncommitted.clear()

    patch.setattr(Rebalancer, "_commit", mutant)


def delta_starts_at_the_copy_of_another_epoch(patch: pytest.MonkeyPatch) -> None:
    """What was copied of a session before it was sent again is taken for copied."""
    following = Move.next_round

    def mutant(self: Move, landed: Any) -> Any:
        landed = [*landed]
        before = {session_id: stop for (session_id, _), stop in self.copied.items()}
        self.copied |= {(session_id, epoch): before[session_id] for session_id, epoch, _ in landed if session_id in before}
        return following(self, landed)

    patch.setattr(Move, "next_round", mutant)


def dropped_move_keeps_its_stages(patch: pytest.MonkeyPatch) -> None:
    _without(patch, Rebalancer, "drop", do.ReleaseStage)


def left_stage_is_kept(patch: pytest.MonkeyPatch) -> None:
    """A node that is not in the new plan goes on holding its stage of the old one."""
    _without(patch, Rebalancer, "_end", do.ReleaseStage)


def _without(patch: pytest.MonkeyPatch, owner: type, name: str, kind: type) -> None:
    """A method that asks for everything but that."""
    method = getattr(owner, name)

    def mutant(self: Any, *arguments: Any, **options: Any) -> Any:
        out = next(a for a in arguments if isinstance(a, list))
        num_before = len(out)
        result = method(self, *arguments, **options)
        out[num_before:] = [command for command in out[num_before:] if not isinstance(command, kind)]
        return result

    patch.setattr(owner, name, mutant)


def dropped_move_keeps_the_smaller_room(patch: pytest.MonkeyPatch) -> None:
    """What a plan to come can hold bounds the sessions for ever."""
    drop = Rebalancer.drop

    def mutant(self: Rebalancer, *arguments: Any, **options: Any) -> Any:
        capacity = self._serving.scheduler.capacity_tokens
        again = drop(self, *arguments, **options)
        self._serving.scheduler.capacity_tokens = capacity
        return again

    patch.setattr(Rebalancer, "drop", mutant)


def plan_need_not_hold_the_sessions(patch: pytest.MonkeyPatch) -> None:
    """A move begins though the running sessions do not fit into the new plan."""
    patch.setattr(rebalance, "capacity_tokens", lambda card, plan, members: 2**62)


def more_sessions_run_than_fit(patch: pytest.MonkeyPatch) -> None:
    admit = Scheduler.admit_next

    def mutant(self: Scheduler, now_s: float) -> Session | None:
        capacity, self.capacity_tokens = self.capacity_tokens, 2**62
        session = admit(self, now_s)
        self.capacity_tokens = capacity
        return session

    patch.setattr(Scheduler, "admit_next", mutant)


def ended_sessions_stay_on_the_stages(patch: pytest.MonkeyPatch) -> None:
    finish = Serving.finish

    def mutant(self: Serving, session: Session, *rest: Any) -> None:
        finish(self, session, *rest)
        self._releases.clear()
        self.prefixes._kept.clear()

    patch.setattr(Serving, "finish", mutant)


def draining_nodes_get_layers(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Member, "eligible", Member.can_hold)
    patch.setattr(Members, "eligible", lambda self, supposed=None: [member for member in self if member.can_hold])


def lost_steps_are_waited_for(patch: pytest.MonkeyPatch) -> None:
    """A step that never comes back is not taken for lost."""
    patch.setattr(Serving, "overdue", lambda self, now_s: "")


def late_order_brings_an_old_plan_back(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(StageSessions, "check_newer", lambda self, plan_version: None)
    patch.setattr(DrillWorker, "begin_order", lambda self, plan_version: None)
    patch.setattr(DrillWorker, "_check_ordered", lambda self, plan_version: None)


def restored_session_starts_again(patch: pytest.MonkeyPatch) -> None:
    """A new coordinator does not go on behind the tokens that its former self had given out."""
    restore = Serving.restore
    patch.setattr(Serving, "restore", lambda self, event, *rest: restore(self, replace(event, generated=()), *rest))


def restored_session_does_not_end(patch: pytest.MonkeyPatch) -> None:
    """A session of which all but its end had been journalled goes on."""
    restore, reason = Serving.restore, Scheduler.finish_reason

    def mutant(self: Serving, *rest: Any) -> None:
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(Scheduler, "finish_reason", lambda self, *rest: None)
            restore(self, *rest)
        assert Scheduler.finish_reason is reason

    patch.setattr(Serving, "restore", mutant)


def a_step_runs_ahead_of_several_stages(patch: pytest.MonkeyPatch) -> None:
    start_plan = Serving.start_plan

    def mutant(self: Serving, *rest: Any) -> None:
        start_plan(self, *rest)
        self.runs_ahead = True

    patch.setattr(Serving, "start_plan", mutant)


def a_step_runs_ahead_of_a_mask(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Session, "may_follow", property(lambda self: not self.is_careful))


def a_step_runs_ahead_of_a_careful_session(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Session, "may_follow", property(lambda self: self.request.grammar is None))


def a_step_runs_ahead_of_proposals(patch: pytest.MonkeyPatch) -> None:
    """Nobody knows how far they hold, and so not what follows."""
    patch.setattr(Flight, "proposes", property(lambda self: False))


def a_step_runs_ahead_of_the_end(patch: pytest.MonkeyPatch) -> None:
    """A session that is to have its last token has room for no other one."""
    patch.setattr(Session, "ends_next", property(lambda self: False))


def a_token_counts_before_the_one_ahead_of_it(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Session, "awaits", lambda self, segment: True)


def what_follows_takes_any_token(patch: pytest.MonkeyPatch) -> None:
    """A stage feeds back what it chose last, whatever is asked to follow what."""
    known = StageSessions.known

    def mutant(self: StageSessions, segment: Segment) -> Segment | None:
        session = self.find(segment.session_id)
        if session is None or session.next_token is None:
            return known(self, segment)
        return replace(segment, epoch=session.epoch, position=len(session.token_ids), token_ids=(session.next_token,), follows=False)

    patch.setattr(StageSessions, "known", mutant)


def what_follows_a_dead_epoch_counts(patch: pytest.MonkeyPatch) -> None:
    known = StageSessions.known

    def mutant(self: StageSessions, segment: Segment) -> Segment | None:
        session = self.find(segment.session_id)
        return known(self, segment if session is None else replace(segment, epoch=session.epoch))

    patch.setattr(StageSessions, "known", mutant)


FREQUENT_SEEDS = 250
FREQUENT: list[Mutate] = [
    answer_to_any_move_counts,
    no_deduplication, no_gap_check, a_later_opening_is_taken, reply_matched_by_step_only, recovery_keeps_the_epoch,
    recovery_does_not_rewind, recovery_samples_again, emit_before_journal, restart_does_not_outrank, commit_before_copy,
    barrier_does_not_wait, steps_go_on_behind_the_barrier, lost_workers_stay_in_the_plan, any_generation_may_speak,
    queue_forgets_what_was_reserved, step_of_any_epoch_counts, cuts_are_forgotten, recoveries_are_never_forgiven,
    sample_index_is_not_checked, silent_segment_is_forgotten, careful_session_does_not_wait,
    one_loaded_stage_is_enough, failure_of_any_move_counts, commit_is_not_waited_for, dropped_move_keeps_its_stages, left_stage_is_kept,
    plan_need_not_hold_the_sessions, more_sessions_run_than_fit, ended_sessions_stay_on_the_stages, draining_nodes_get_layers,
    lost_steps_are_waited_for, late_order_brings_an_old_plan_back, restored_session_starts_again, restored_session_does_not_end,
    dropped_move_keeps_the_smaller_room, reply_of_a_former_coordinator_counts,
    a_living_worker_loses_its_name, a_name_is_refused_without_proof_of_life, a_drain_ends_with_its_process,
    a_drain_ends_with_its_coordinator, what_is_kept_outlives_its_plan, callers_share, what_is_kept_stays_in_the_way,
    proposals_that_did_not_hold_stay, what_held_may_be_cut_off, a_move_takes_proposals_for_tokens,
    a_step_runs_ahead_of_several_stages, a_step_runs_ahead_of_a_mask, a_step_runs_ahead_of_a_careful_session,
    a_step_runs_ahead_of_proposals, a_step_runs_ahead_of_the_end, a_token_counts_before_the_one_ahead_of_it, what_follows_takes_any_token,
    proposals_that_did_not_hold_have_landed, what_a_report_says_behind_a_wrong_proposal_counts,
]  # fmt: skip
"""Noticed within `FREQUENT_SEEDS` seeds of the drill."""
DIRECTED: dict[Mutate, Callable[[], None]] = {
    no_epoch_fence: test_stage_sessions.test_a_higher_epoch_starts_afresh_and_the_stage_of_another_plan_is_not_here,
    no_plan_fence: test_stage_sessions.test_a_higher_epoch_starts_afresh_and_the_stage_of_another_plan_is_not_here,
    any_kept_tokens_will_do: test_stage_sessions.test_a_session_begins_only_with_what_is_kept_here_whole_and_the_same,
    a_running_session_of_any_epoch_will_do: test_stage_sessions.test_a_session_begins_only_with_what_a_running_one_has_in_that_epoch,
    what_any_epoch_left_is_kept: test_stage_sessions.test_nothing_is_kept_of_another_epoch_or_of_fewer_tokens,
    what_follows_a_dead_epoch_counts: test_stage_sessions.test_what_follows_goes_on_only_behind_what_was_chosen_here_in_its_epoch,
    memory_of_any_epoch_goes_on: test_fences.test_a_stage_carries_on_only_what_is_of_the_epoch_and_whole,
    memory_of_any_length_goes_on: test_fences.test_a_stage_carries_on_only_what_is_of_the_epoch_and_whole,
    commit_takes_what_is_there: test_drill_worker.test_a_session_goes_on_only_with_the_memory_of_every_item_and_token,
    copies_of_any_round_count: test_fences.test_an_answer_to_the_first_copy_is_none_to_the_delta,
    delta_starts_at_the_copy_of_another_epoch: test_fences.test_the_delta_of_a_session_that_was_sent_again_begins_at_its_first_token,
    only_the_first_failure_counts: test_fences.test_every_failure_of_a_report_counts_and_not_only_the_first,
    loaded_stage_of_any_plan_counts: test_fences.test_a_stage_that_loaded_for_another_plan_is_not_loaded_for_this_one,
}
"""Noticed by a test that is written for them, whether or not a seed ever does."""
MUTANTS = [*FREQUENT, *DIRECTED]
