"""The sessions under the current plan: steps out, tokens in, recovery of what was lost. Pure.

It knows sessions, steps and the order of stages; it does not know how plans come about. A step belongs to a plan version and
each of its segments to an epoch: whatever arrives with an old one is dropped.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from engine.control import commands as do
from engine.control import events as on
from engine.control.faults import survived
from engine.control.sessions.batching import Batcher, Flight, num_lanes
from engine.control.sessions.guessing.speculation import Speculation, why_not
from engine.control.sessions.hops import planned_hops
from engine.control.sessions.metrics import PipelineMetrics
from engine.control.sessions.past_sessions import FAILED, PastSessions
from engine.control.sessions.reuse.prefix_cache import PrefixCache, PrefixSettings
from engine.control.sessions.scheduler import Scheduler, SchedulerLimits
from engine.control.sessions.served_load import ServedLoad
from engine.control.sessions.session import Session, SessionState
from engine.control.sessions.session_status import ended, with_error
from engine.data.errors import Cancelled, Corrupt, Exhausted, Gap, NoodleError, NotFound, Stale, Unavailable
from engine.data.generation import FinishReason, Segment
from engine.data.model import ModelCard
from engine.data.plan import NodeSpec, Plan
from engine.data.status import Severity

RETRIED = (Unavailable, Gap, NotFound, Stale, Corrupt)  # what sending the session again may mend
SLOW_STEP_FACTOR = 20.0


class Serving:
    """Owns the scheduler, the steps in flight and the figures of the current plan."""

    def __init__(self, limits: SchedulerLimits, past: PastSessions, speculate: str, prefixes: PrefixSettings | None = None) -> None:
        self.scheduler = Scheduler(limits)
        self.prefixes = PrefixCache(prefixes or PrefixSettings())
        self.speculation = Speculation(speculate)
        self.batcher = Batcher(limits, self.speculation)
        self.metrics = PipelineMetrics()
        self.seen = ServedLoad()
        self.flights: dict[int, Flight] = {}
        self.num_lanes = 1
        self.runs_ahead = False  # one step more than lanes is in flight
        self.past = past
        self._releases: list[str] = []  # sessions that ended and that the stages still hold
        self._next_step_id = 1
        self._came_s = 0.0  # when the last step came back

    def start_plan(self, plan: Plan, card: ModelCard, capacity_tokens: int, specs: Sequence[NodeSpec]) -> None:
        """Steps run on the stages of `plan` from now on, on these nodes."""
        self.flights.clear()
        self.prefixes.start_plan(plan, card)
        self.metrics.start_plan(planned_hops(plan.round_trip_s, plan.stage_s, plan.hop_s))
        self.batcher.rule.forget()
        self.speculation.start_plan(why_not(card.identity_on(specs), card.ref.dtype, {spec.device_type for spec in specs}))
        self.scheduler.capacity_tokens, self.num_lanes = capacity_tokens, num_lanes(specs)
        self.runs_ahead = self.speculation.runs_ahead = len(plan.stages) == 1

    # ------------------------------------------------------------------------------------------ out
    def fill(self, plan: Plan, now_s: float, out: list[do.Command]) -> None:
        """Admit what fits and keep the pipeline full."""
        for session in self.scheduler.hopeless():
            self.finish(session, FinishReason.ERROR, self.scheduler.too_large(session), now_s, out)
        while admitted := self.scheduler.admit_next(now_s):
            self.prefixes.admitted(admitted, self.scheduler.free_tokens)
        self.prefixes.fit(self.scheduler.free_tokens)
        kept, dropped = self.prefixes.take_orders()
        if self._releases or kept or dropped:
            first, releases = plan.stages[0].node_id, tuple(self._releases)
            out.append(do.SendStep(plan.plan_version, self._step_id(), first, (), releases, kept, dropped))
            self._releases.clear()
        while segments := self._next_segments(now_s):
            step_id = self._step_id()
            self.flights[step_id] = Flight(segments, now_s)
            self.scheduler.note_sampling(segments, now_s)
            out.append(do.SendStep(plan.plan_version, step_id, plan.stages[0].node_id, segments))

    def _next_segments(self, now_s: float) -> tuple[Segment, ...]:
        if len(self.flights) < self.num_lanes:
            return self.batcher.pack(self.scheduler, self.num_lanes, now_s)
        if not self.runs_ahead or len(self.flights) > self.num_lanes or any(flight.proposes for flight in self.flights.values()):
            return ()
        return self.batcher.pack_ahead(self.scheduler, now_s)

    def finish(self, session: Session, reason: FinishReason, error: NoodleError | None, now_s: float, out: list[do.Command]) -> None:
        """End a session; the stages are told as soon as steps may be sent."""
        was_running = session.state is not SessionState.QUEUED
        self.scheduler.remove(session)
        if was_running and not self.prefixes.ended(session, is_sound=reason is not FinishReason.ERROR):
            self._releases.append(session.session_id)
        self._say_end(session, reason, error, now_s, out)
        self._remember(session, reason, error, now_s, out)

    def _say_end(self, session: Session, reason: FinishReason, error: NoodleError | None, now_s: float, out: list[do.Command]) -> None:
        failed = reason is FinishReason.ERROR
        text = f"{reason}: {len(session.generated)} tokens in {now_s - session.submitted_s:.1f} s"
        if error is not None and failed:
            text += f": {error}"
        out.append(do.Record(Severity.ERROR if failed else Severity.INFO, "session", session.session_id, text))

    def _remember(self, session: Session, reason: FinishReason, error: NoodleError | None, now_s: float, out: list[do.Command]) -> None:
        status = ended(session, reason, error, now_s, self.speculation.forget(session.session_id))
        self.past = self.past.followed_by(status)
        out.append(do.FinishSession(session.session_id, reason, error, status))

    def _end_unbegun(self, session: Session, error: NoodleError, now_s: float, out: list[do.Command]) -> None:
        """It never ran here, and has failed all the same."""
        self._say_end(session, FinishReason.ERROR, error, now_s, out)
        self._remember(session, FinishReason.ERROR, error, now_s, out)

    def cancel(self, session_id: str, reason: str, now_s: float, out: list[do.Command]) -> None:
        session = self.scheduler.get(session_id)
        if session is None:
            raise NotFound(f"session {session_id} is not running: it ended, or the id is wrong")
        self.finish(session, FinishReason.CANCELLED, Cancelled(reason), now_s, out)

    def fail(self, event: on.SessionFailed, now_s: float, out: list[do.Command]) -> None:
        """A session's output could not be handled; one that the cluster took for done, or that never began, has failed all the same."""
        session_id, error = event.session_id, event.error
        if session := self.scheduler.get(session_id):
            self.finish(session, FinishReason.ERROR, error, now_s, out)
        elif event.submitted is not None:
            self._end_unbegun(_unbegun(event.submitted, now_s), error, now_s, out)
        elif past := next((s for s in self.past.latest if s.session_id == session_id and s.state != FAILED), None):
            self.past = self.past.corrected(with_error(past, error))
            out.append(do.Record(Severity.ERROR, "session", session_id, f"failed after its last token: {error}"))

    def fail_all(self, error: NoodleError, now_s: float, out: list[do.Command]) -> None:
        """The cluster cannot serve at all."""
        out.append(do.Record(Severity.ERROR, "cluster", "model", str(error)))
        self.flights.clear()
        self.prefixes.forget()
        for session in list(self.scheduler):
            self.scheduler.remove(session)
            self._remember(session, FinishReason.ERROR, error, now_s, out)

    def interrupt(self, cause: str, now_s: float, out: list[do.Command]) -> None:
        """The plan no longer runs: its sessions wait for the next one, which starts them again from their known tokens."""
        self.flights.clear()
        self._releases.clear()
        self.prefixes.forget()
        running = self.scheduler.running()
        given_up = self.scheduler.interrupt_all(now_s)
        for session in running:
            text = f"interrupted after {len(session.generated)} tokens: {cause}"
            out.append(do.Record(Severity.WARN, "session", session.session_id, text))
        for session in given_up:
            error = Unavailable(f"{cause}; it was interrupted {session.num_recoveries} times without a new token: send the prompt again")
            self.finish(session, FinishReason.ERROR, error, now_s, out)

    def submit(self, event: on.SessionSubmitted, card: ModelCard, has_plan: bool, now_s: float) -> None:
        """Queue a session; raises InvalidInput or Exhausted if it can never run, or not under the present plan."""
        session = self.scheduler.submit(event, card.context_tokens, now_s)
        session.reuse.caller = event.caller
        if has_plan and session.reserve_tokens > self.scheduler.capacity_tokens:
            self.scheduler.remove(session)
            raise self.scheduler.too_large(session)

    def restore(self, event: on.SessionRestored, card: ModelCard | None, now_s: float, out: list[do.Command]) -> None:
        """Take over a session that a former coordinator had journalled; one that cannot go on here ends."""
        if card is None:
            raise AssertionError("sessions are restored once the model is known")
        try:
            session = self.scheduler.submit(event, card.context_tokens, now_s)
        except NoodleError as error:
            session = _unbegun(event, now_s)
            _inherit(session, event, now_s)
            self._end_unbegun(session, error, now_s, out)
            return
        _inherit(session, event, now_s)
        if event.generated and (reason := self.scheduler.finish_reason(session, card.eos_token_ids, event.stopped)):
            self.finish(session, reason, None, now_s, out)  # all but its end had been journalled
            return
        text = f"taken over from the former coordinator after {len(event.generated)} tokens"
        out.append(do.Record(Severity.INFO, "session", event.session_id, text))

    # ------------------------------------------------------------------------------------------ in
    def report(self, event: on.StepReported, card: ModelCard, now_s: float, out: list[do.Command]) -> str:
        """Take a step's outcome; returns why the pipeline itself is broken, empty if it is not."""
        flight = self.flights.pop(event.step_id, None)
        if flight is None:
            return ""
        step_s, waited_s = now_s - flight.sent_s, max(0.0, self._came_s - flight.sent_s) if self.runs_ahead else 0.0
        self._came_s = now_s
        answers = {(o.session_id, o.epoch, o.sample_index): o for o in event.outcomes}
        trouble = ""
        for segment in flight.segments:
            session = self._in_epoch(segment)
            if session is None:
                continue
            outcome = answers.get((segment.session_id, segment.epoch, segment.sample_index))
            if segment.taken is not None and (outcome is None or outcome.error is not None):
                self.prefixes.refused(segment.taken)
            with survived(out, session.session_id):
                if outcome is None:  # whatever the report says of others, this one is sent again
                    self._refused(session, Gap(f"step {event.step_id} came back without it"), now_s, out)
                elif not session.awaits(segment):
                    self._refused(session, Gap(f"step {event.step_id} came back before the one ahead of it"), now_s, out)
                elif outcome.error is not None:
                    trouble = self._refused(session, outcome.error, now_s, out) or trouble
                else:
                    held = [outcome, *held_proposals(segment, answers)]
                    self._landed(session, segment, held, event, step_s, card, now_s, out)
        if not any(o.error for o in event.outcomes):  # figures come last: whatever fails in them costs no session its token
            self.batcher.observe(flight, event.timings)
            if num_rows := flight.decodes_one:
                self.speculation.price.observe(num_rows, event.timings, step_s)
            if flight.is_decode:
                self.metrics.add_step(event.timings, flight.load, flight.sent_s, now_s, waited_s)
            elif not flight.proposes:
                self.metrics.add_prompt_step(event.timings, flight.load, now_s)
        return trouble

    def undelivered(self, event: on.StepUndelivered, now_s: float, out: list[do.Command]) -> str:
        """The first stage could not be reached; returns why the pipeline is broken."""
        flight = self.flights.pop(event.step_id, None)
        if flight is None:
            return ""
        for segment in flight.segments:
            if segment.taken is not None:
                self.prefixes.refused(segment.taken)
            if session := self._in_epoch(segment):
                with survived(out, session.session_id):
                    self._refused(session, Unavailable(event.message), now_s, out)
        return event.message

    def _in_epoch(self, segment: Segment) -> Session | None:
        """The session that a segment was sent for, unless it ended or was sent again since."""
        session = self.scheduler.get(segment.session_id)
        return session if session is not None and session.epoch == segment.epoch else None

    def overdue(self, now_s: float) -> str:
        """Why a step must be taken for lost although every worker beats; empty if none must."""
        if not self.flights:
            return ""
        limit_s = max(self.scheduler.limits.step_timeout_s, SLOW_STEP_FACTOR * self.metrics.slow_step_s())
        age_s = now_s - min(f.sent_s for f in self.flights.values())
        return f"a step did not come back for {age_s:.0f} s" if age_s > limit_s else ""

    def _landed(
        self,
        session: Session,
        segment: Segment,
        outcomes: Sequence[on.SegmentOutcome],
        event: on.StepReported,
        step_s: float,
        card: ModelCard,
        now_s: float,
        out: list[do.Command],
    ) -> None:
        session.landed(segment, len(outcomes))
        if segment.sample_index is None:
            return
        if not session.generated:
            self.prefixes.answered(session)
        reason, first = None, len(session.generated)
        for index, outcome in enumerate(outcomes, segment.sample_index):
            self.speculation.came(session, outcome.token_id)
            self.scheduler.accept_token(session, outcome.token_id, now_s)
            self.metrics.add_token(now_s)
            out.append(do.EmitToken(session.session_id, index, outcome.token_id, event.timings, step_s, outcome.logprobs))
            if reason := self.scheduler.finish_reason(session, card.eos_token_ids, outcome.stopped):
                break  # what was proposed behind the end is nobody's
        self.speculation.answered(session, segment, len(session.generated) - first)
        if reason is not None:
            self.finish(session, reason, None, now_s, out)

    def _refused(self, session: Session, error: NoodleError, now_s: float, out: list[do.Command]) -> str:
        """A stage did not run a segment: send the session again if that may help; returns why, if the pipeline is broken."""
        if not isinstance(error, RETRIED) or not self.scheduler.retry(session, now_s):
            self.finish(session, FinishReason.ERROR, error, now_s, out)
            return ""
        text = f"sent again from its first token after {len(session.generated)} tokens: {error}"
        out.append(do.Record(Severity.WARN, "session", session.session_id, text))
        return str(error) if isinstance(error, Unavailable) else ""

    def tick(self, now_s: float) -> None:
        """Time passes: what is known of late, and of the load."""
        self.metrics.tick(now_s)
        self.seen.look(self.scheduler.running(), now_s)

    def time_out_queue(self, why: str, now_s: float, out: list[do.Command]) -> None:
        """Waiting is bounded and says what it waited for."""
        for session in self.scheduler.overdue(now_s):
            waited = f"waited {now_s - session.waiting_since_s:.0f} s in the queue: {why or 'the KV budget is taken by other sessions'}"
            self.finish(session, FinishReason.ERROR, Exhausted(f"{waited}; try again later"), now_s, out)

    def _step_id(self) -> int:
        step_id, self._next_step_id = self._next_step_id, self._next_step_id + 1
        return step_id


def held_proposals(segment: Segment, answers: Mapping[tuple[str, int, int | None], on.SegmentOutcome]) -> Iterator[on.SegmentOutcome]:
    """What was sampled behind each proposal that came true, by the answers to (session, epoch, index).

    A token behind one that was not the proposed one was computed from a text that never was, whatever a report says.
    """
    if segment.sample_index is None:
        return
    before = answers[segment.session_id, segment.epoch, segment.sample_index]
    for index, proposed in enumerate(segment.token_ids[segment.num_known :], segment.sample_index + 1):
        following = answers.get((segment.session_id, segment.epoch, index))
        if before.token_id != proposed or following is None or following.error is not None:
            return
        yield following
        before = following


def _unbegun(event: on.SessionSubmitted | on.SessionRestored, now_s: float) -> Session:
    """One that the scheduler never had."""
    return Session(event.session_id, event.prompt_ids, event.request, now_s, event.request.max_new_tokens, event.sampling)


def _inherit(session: Session, event: on.SessionRestored, now_s: float) -> None:
    session.generated, session.times.num_inherited = list(event.generated), len(event.generated)
    session.epoch, session.was_admitted, session.submitted_s = event.epoch, True, now_s - event.age_s
