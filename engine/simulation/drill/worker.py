"""A worker of a drill: the real `StageSessions` around the small model, behind a network that lies. Pure.

It mirrors what the worker process does, in the same order: plan, epoch and position are checked where memory is appended. Pausing
it keeps what arrives until it wakes, as a stopped process does.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from engine.control.events import SegmentOutcome, StepReported
from engine.control.moves import Carried, KvRange
from engine.control.sessions.stage_sessions import Append, StageSession, StageSessions
from engine.data.errors import NoodleError, Stale, Unavailable
from engine.data.generation import Kept, Segment
from engine.data.plan import Stage
from engine.simulation.drill.model import Memory, embed, run_items, sample

Origin = tuple[str, int]  # of memory: the session and the epoch that computed it


@dataclass(frozen=True, slots=True)
class Frame:
    """A step on its way; `hidden` is per session, one number per token, None before the first stage."""

    plan_version: int
    step_id: int
    segments: tuple[Segment, ...]
    hidden: dict[str, tuple[int, ...]] | None = None
    origins: dict[str, Origin] = field(default_factory=dict)  # per session: where the memory behind `hidden` was begun
    releases: tuple[str, ...] = ()
    kept: tuple[Kept, ...] = ()
    dropped: tuple[int, ...] = ()
    failures: tuple[SegmentOutcome, ...] = ()


@dataclass
class Held:
    """A stage and its sessions: the one that serves, or the one that is being prepared."""

    stage: Stage
    next_id: str | None
    sessions: StageSessions
    memory: dict[str, Memory] = field(default_factory=dict)
    origins: dict[str, Origin] = field(default_factory=dict)  # of each session's memory
    kept: dict[int, tuple[Memory, Origin]] = field(default_factory=dict)  # of sessions that ended, by id


@dataclass(frozen=True, slots=True)
class Copy:
    """A range of one session's memory on its way to another worker."""

    header: StageSession
    origin: Origin
    memory: Memory


class DrillWorker:
    """One process; killing it and starting another makes a new one of these."""

    def __init__(self, worker_id: str, num_items: int, pid: int) -> None:
        self.worker_id, self.num_items, self.pid = worker_id, num_items, pid
        self.generation = 0
        self.is_alive = True
        self.is_paused = False
        self.serving: Held | None = None
        self.prepared: Held | None = None
        self._newest_plan = 0  # that a stage was ordered for
        self._inbox: list[Callable[[], None]] = []

    # ------------------------------------------------------------------------------------------ life
    def receive(self, work: Callable[[], None]) -> None:
        """Do it now, or when the process goes on; never if it is dead."""
        if self.is_paused:
            self._inbox.append(work)
        elif self.is_alive:
            work()

    def wake(self) -> None:
        self.is_paused = False
        inbox, self._inbox = self._inbox, []
        for work in inbox:
            self.receive(work)

    def end(self) -> None:
        """The coordinator has refused it for good."""
        self.is_alive = False

    def forget(self) -> None:
        """The coordinator is gone or does not know us any more."""
        self.serving = self.prepared = None
        self._newest_plan = 0

    # ------------------------------------------------------------------------------------------ stages
    def load(self, plan_version: int, stage: Stage, next_id: str | None) -> None:
        self._check_ordered(plan_version)
        if self.serving is not None:
            self.serving.sessions.check_newer(plan_version)
        self._serve(Held(stage, next_id, StageSessions(plan_version)))

    def prepare(self, plan_version: int, stage: Stage, next_id: str | None) -> None:
        self._check_ordered(plan_version)
        self.prepared = Held(stage, next_id, StageSessions(plan_version))

    def begin_order(self, plan_version: int) -> None:
        """An order for a stage takes the place of earlier ones that are still under way; raises Stale if a later one came before it."""
        if plan_version < self._newest_plan:
            raise Stale(f"plan {plan_version} came too late: a stage of plan {self._newest_plan} was ordered already")
        self._newest_plan, self.prepared = plan_version, None

    def _check_ordered(self, plan_version: int) -> None:
        if plan_version != self._newest_plan:
            raise Stale(f"plan {plan_version} was given up while its stage was loading")

    def _serve(self, held: Held) -> None:
        before = self.serving.sessions.plan_version if self.serving is not None else 0
        if held.sessions.plan_version < before:
            raise AssertionError(f"{self.worker_id} goes back from plan {before} to plan {held.sessions.plan_version}")
        self.serving, self.prepared = held, None

    def release(self, plan_version: int) -> None:
        if plan_version in (0, self._newest_plan):
            self._newest_plan = 0
        if self.prepared is not None and plan_version in (0, self.prepared.sessions.plan_version):
            self.prepared = None
        if self.serving is not None and plan_version in (0, self.serving.sessions.plan_version):
            self.serving = None

    def export(self, part: KvRange) -> Copy:
        """A session's header and its memory in the range; raises what `StageSessions` says against it."""
        if self.serving is None:
            raise Stale("no stage")
        session = self.serving.sessions.get(part.session_id, part.epoch)
        memory = self.serving.memory[part.session_id]
        header = StageSession(session.epoch, session.sampling, session.token_ids[: part.stop_token], session.reserve_tokens)
        found = {item: kept[part.start_token : part.stop_token] for item, kept in memory.items()}
        return Copy(header, self.serving.origins[part.session_id], found)

    def take(self, plan_version: int, part: KvRange, copied: Copy) -> None:
        """Put a copied range behind what was copied before."""
        if self.prepared is None or self.prepared.sessions.plan_version != plan_version:
            raise Stale(f"no stage of plan {plan_version} is prepared")
        held = self.prepared
        known = held.sessions.find(part.session_id)
        if known is None or known.epoch != copied.header.epoch:
            held.memory[part.session_id], held.origins[part.session_id] = {}, copied.origin
        held.sessions.replace(part.session_id, copy.deepcopy(copied.header))
        for item, numbers in copied.memory.items():
            if held.stage.start <= item < held.stage.stop and (self.serving is None or not _holds(self.serving, item)):
                kept = held.memory[part.session_id].setdefault(item, [])
                if len(kept) < part.start_token:
                    raise Stale("a range is missing before this one")
                kept[part.start_token :] = numbers

    def commit(self, plan_version: int, carried: tuple[Carried, ...]) -> tuple[str, ...]:
        """Switch to the prepared stage; returns the sessions that are not complete here."""
        held, old = self.prepared, self.serving
        if held is None or held.sessions.plan_version != plan_version:
            raise Stale(f"no stage of plan {plan_version} is prepared")
        table = old.sessions if old is not None else StageSessions(0)
        going_on, missing = table.carry(plan_version, carried, held.sessions)
        for one in carried:
            if going_on.find(one.session_id) is None:
                continue
            memory = self._joined(one, old, held)
            if memory is None:
                going_on.release(one.session_id)
                missing += (one.session_id,)
            else:
                held.memory[one.session_id] = memory
        held.memory = {k: v for k, v in held.memory.items() if going_on.find(k)}
        origins = {k: _origin(k, old, held) for k in held.memory}
        self._serve(Held(held.stage, held.next_id, going_on, held.memory, origins))
        return missing

    def _joined(self, one: Carried, old: Held | None, held: Held) -> Memory | None:
        memory: Memory = {}
        for item in range(held.stage.start, held.stage.stop):
            source = old if old is not None and _holds(old, item) else held
            kept = source.memory.get(one.session_id, {}).get(item, [])
            if len(kept) < one.num_tokens:
                return None
            memory[item] = kept[: one.num_tokens]
        return memory

    # ------------------------------------------------------------------------------------------ steps
    def step(self, frame: Frame) -> Frame | StepReported | None:
        """Run a step; the message that follows, None if nobody needs one."""
        try:
            held = self._current(frame)
        except NoodleError as e:
            return self._report(frame, tuple(SegmentOutcome(s.session_id, s.epoch, s.sample_index, 0, e) for s in frame.segments))
        for session_id in frame.releases:
            held.sessions.release(session_id)
            held.memory.pop(session_id, None)
        for kept in frame.kept:
            memory = held.memory.pop(kept.session_id, {})
            if held.sessions.keep(kept):
                held.kept[kept.kept_id] = _beginning(memory, kept.num_tokens), held.origins[kept.session_id]
        for kept_id in frame.dropped:
            held.sessions.drop(kept_id)
            held.kept.pop(kept_id, None)
        outcomes, hidden, going = list(frame.failures), {}, []
        for asked in frame.segments:
            segment = held.sessions.known(asked) if asked.follows else asked
            if segment is None:
                continue
            try:
                reply = self._append(held, segment, frame)
            except NoodleError as e:
                outcomes.append(SegmentOutcome(segment.session_id, segment.epoch, segment.sample_index, 0, e))
                continue
            going.append(segment)
            if held.stage.stop < self.num_items:
                hidden[segment.session_id] = reply
            elif segment.sample_index is None:
                outcomes.append(SegmentOutcome(segment.session_id, segment.epoch, None, 0))
            else:
                for index, token_id in enumerate(reply, segment.sample_index):
                    outcomes.append(SegmentOutcome(segment.session_id, segment.epoch, index, token_id))
        if held.stage.stop == self.num_items:
            return self._report(frame, tuple(outcomes)) if frame.segments or outcomes else None
        origins = {s.session_id: held.origins[s.session_id] for s in going}
        return replace(frame, segments=tuple(going), hidden=hidden, origins=origins, failures=tuple(outcomes))

    def _current(self, frame: Frame) -> Held:
        held = self.serving
        if held is None:
            raise Unavailable("no stage")
        held.sessions.check_plan(frame.plan_version)
        return held

    def _append(self, held: Held, segment: Segment, frame: Frame) -> tuple[int, ...]:
        decision = held.sessions.admit(segment)
        if not isinstance(decision, Append):
            return tuple(decision.reply)
        if decision.opens:
            held.memory[segment.session_id], held.origins[segment.session_id] = self._begun(held, segment)
        memory, session = held.memory[segment.session_id], decision.session
        if decision.cuts:
            session.cut(segment.position)
            for numbers in memory.values():
                del numbers[segment.position :]
        if session.epoch != segment.epoch:
            raise AssertionError(f"{segment.session_id}: what epoch {segment.epoch} sent was appended in epoch {session.epoch}")
        origin = held.origins[segment.session_id]
        if frame.origins.get(segment.session_id, origin) != origin:  # their last bits differ
            raise AssertionError(f"{segment.session_id} has memory of {origin} here and another one on the stage before")
        inputs = frame.hidden[segment.session_id] if frame.hidden is not None else tuple(embed(t) for t in segment.token_ids)
        outputs = tuple(run_items(memory, held.stage.start, held.stage.stop, h) for h in inputs)
        reply = outputs
        if held.stage.stop == self.num_items:
            reply = _sampled(segment, outputs, session.sampling.seed)
        is_last = held.stage.stop == self.num_items
        held.sessions.commit(segment, session, reply, reply if is_last else ())
        return reply

    def _begun(self, held: Held, segment: Segment) -> tuple[Memory, Origin]:
        """The memory that a session begins with: none, what was kept of another one, or what another one has."""
        taken = segment.taken
        if taken is None:
            return {}, (segment.session_id, segment.epoch)
        if taken.session_id:
            return _beginning(held.memory[taken.session_id], taken.num_tokens), held.origins[taken.session_id]
        memory, origin = held.kept.pop(taken.kept_id) if taken.moves else held.kept[taken.kept_id]
        return _beginning(memory, taken.num_tokens), origin

    def _report(self, frame: Frame, outcomes: tuple[SegmentOutcome, ...]) -> StepReported:
        return StepReported(self.worker_id, frame.plan_version, frame.step_id, outcomes, ())


def _beginning(memory: Memory, num_tokens: int) -> Memory:
    return {item: numbers[:num_tokens] for item, numbers in memory.items()}


def _sampled(segment: Segment, outputs: Sequence[int], seed: int) -> tuple[int, ...]:
    """The token behind the known ones, and one behind each proposal as far as they hold."""
    if segment.sample_index is None:
        return ()
    found = list[int]()
    proposed = (*segment.token_ids[segment.num_known :], None)
    for index, (hidden, following) in enumerate(zip(outputs[segment.num_known - 1 :], proposed, strict=True), segment.sample_index):
        found.append(sample(hidden, seed, index))
        if found[-1] != following:
            break
    return tuple(found)


def _origin(session_id: str, old: Held | None, held: Held) -> Origin:
    """Where the joined memory of a session comes from: what stays here and what was copied must be of one replay."""
    stays = old is not None and any(_holds(old, item) for item in range(held.stage.start, held.stage.stop))
    comes = old is None or not all(_holds(old, item) for item in range(held.stage.start, held.stage.stop))
    origins = {h.origins.get(session_id, ("", 0)) for h, is_used in ((old, stays), (held, comes)) if h is not None and is_used}
    if len(origins) != 1:
        raise AssertionError(f"{session_id} is joined from memory of {sorted(origins)}")
    return origins.pop()


def _holds(held: Held, item: int) -> bool:
    return held.stage.start <= item < held.stage.stop
