"""Workers come, are measured, are left out and are lost: what that means for the plan. Pure."""

from __future__ import annotations

from engine.control import commands as do
from engine.control import events as on
from engine.control.nodes.claims import name_taken
from engine.control.nodes.dtype_choice import chosen
from engine.control.nodes.eligibility import refusal
from engine.control.nodes.gathering import Gathering
from engine.control.nodes.members import Member, Members
from engine.control.plan_state import Consequence, DropMove, Fail, Interrupt
from engine.data.model import ModelCard
from engine.data.status import NodeState, Severity
from engine.planning.capability import MatchRules


class Attendance:
    """Knows the members and who else is waited for; what a change among them means for the plan it returns."""

    def __init__(self, members: Members, gathering: Gathering, rules: MatchRules) -> None:
        self._members, self._gathering, self._rules = members, gathering, rules
        self._choices: tuple[ModelCard, ...] = ()  # of which one is chosen once enough workers are known

    # ------------------------------------------------------------------------------------------ come
    def is_newer(self, event: on.WorkerRegistered) -> bool:
        """Whether that registration counts. Raises Refused while another living process has the name."""
        before = self._members.get(event.spec.node_id)
        if before and event.generation <= before.generation:
            return False
        if holder := self._members.holder(event.spec):
            raise name_taken(holder)
        return True

    def replaced(self, event: on.WorkerRegistered) -> Member | None:
        """The former registration that has to be given up first, because it holds a stage."""
        before = self._members.get(event.spec.node_id)
        return before if before is not None and before.alive and before.stage is not None else None

    def register(self, event: on.WorkerRegistered, card: ModelCard | None, now_s: float, out: list[do.Command]) -> Consequence | None:
        """A worker joins, is ready by now, or comes back."""
        before = self._members.get(event.spec.node_id)
        member = self._members.register(event.spec, event.generation, event.ready, now_s)
        if before is None or not before.alive:
            out.append(do.Record(Severity.INFO, "node", event.spec.node_id, f"joined from {event.spec.host}, pid {event.spec.pid}"))
        return self.measure(member, card, out)

    def beat(self, event: on.HeartbeatArrived, now_s: float, out: list[do.Command]) -> Member | None:
        """Returns who lives; None for a heartbeat of a former registration."""
        member = self._members.current(event.worker_id, event.generation)
        if member is None:
            return None
        if member.suspect:
            out.append(do.Record(Severity.OK, "node", event.worker_id, f"heartbeat back after {now_s - member.seen_s:.1f} s"))
        member.beat(event, now_s)
        return member

    # ------------------------------------------------------------------------------------------ are measured
    @property
    def is_undecided(self) -> bool:
        """The model's dtype is not chosen yet, so nobody is measured."""
        return bool(self._choices)

    def choose_from(self, cards: tuple[ModelCard, ...]) -> None:
        """The model as it may run; of one there is nothing to choose."""
        self._choices = cards if len(cards) > 1 else ()

    def choice(self, out: list[do.Command]) -> ModelCard | None:
        """The card that was chosen just now, because all workers that are waited for have said what they are."""
        if not self._choices:
            return None
        known = [m for m in self._members if m.alive and m.ready]
        if not known or len(known) + sum(bool(m.failure) and not m.ready for m in self._members) < self._gathering.num_expected:
            return None
        found = chosen(self._choices, [m.spec for m in known])
        self._choices = ()
        out.append(do.Record(Severity.INFO, "model", found.card.ref.model, f"--dtype auto is {found.card.ref.dtype}: {found.why}"))
        out.append(do.KeepDtype(found.card.ref.dtype))
        return found.card

    def measure(self, member: Member, card: ModelCard | None, out: list[do.Command]) -> Consequence | None:
        """Have a worker that may hold layers measured, once it is ready and the model is known."""
        if card is None or self.is_undecided or not member.ready or not member.alive or member.decode_s or member.failure:
            return None
        if reason := refusal(card, member.spec, self._rules):
            return self.leave_out(member, reason, out)
        member.state = NodeState.MEASURING
        out.append(do.MeasureWorker(member.spec.node_id, member.generation))
        return None

    def measured(self, event: on.WorkerMeasured, now_s: float, out: list[do.Command]) -> Member | None:
        """A worker can be planned with from now on; None if a former registration was measured."""
        members, member = self._members, self._members.current(event.worker_id, event.generation)
        if member is None:
            return None
        member.decode_s, member.base_s, member.rows, member.state = event.decode_s, event.base_s, event.rows, NodeState.OK
        text = f"measured: all items take {1e3 * sum(event.decode_s):.1f} ms per token here, a stage {1e3 * event.base_s:.1f} ms more"
        out.append(do.Record(Severity.INFO, "node", event.worker_id, text))
        out += members.links.ask(event.worker_id, event.generation, (m.spec.node_id for m in members.eligible()), now_s)
        self._gathering.joined(now_s)
        return member

    def profiled(self, event: on.WorkerProfiled, card: ModelCard | None, out: list[do.Command]) -> None:
        member = self._members.current(event.worker_id, event.generation)
        if member is not None and card is not None and event.profile.fingerprint == card.fingerprint:
            out.append(do.Record(Severity.INFO, "node", event.worker_id, member.profiled(event)))

    def loaded(self, event: on.StageLoaded, out: list[do.Command]) -> None:
        self._members.named(event.worker_id).state = NodeState.OK
        memory = f"memory rose by {event.peak_growth_bytes / 1e6:.3g} MB at most"
        text = f"loaded {event.weight_bytes / 1e6:.3g} MB in {event.load_s:.1f} s, {memory}"
        out.append(do.Record(Severity.INFO, "node", event.worker_id, text))

    # ------------------------------------------------------------------------------------------ go
    def expired(self, now_s: float, out: list[do.Command]) -> list[Member]:
        """Who was silent for too long; of others whose heartbeats are late it is said once."""
        for member in self._members.newly_suspect(now_s):
            out.append(do.Record(Severity.WARN, "node", member.spec.node_id, f"heartbeat late by {now_s - member.seen_s:.1f} s"))
        return self._members.expired(now_s)

    def leave_out(self, member: Member, reason: str, out: list[do.Command]) -> Consequence:
        """Plan without it until it registers again."""
        worker_id, stage = member.spec.node_id, member.stage
        member.stage, member.failure, member.state = None, reason, NodeState.OK
        out.append(do.Record(Severity.ERROR, "node", worker_id, f"left out: {reason}"))
        if not self._members.eligible() and not self._members.still_preparing():
            return Fail(reason)
        why = f"{worker_id} could not load its stage"
        return Interrupt(why) if stage is not None else DropMove(why, again=True, to=worker_id)

    def lose(self, member: Member, reason: str, out: list[do.Command]) -> Consequence:
        """A worker is gone; what it held has to be planned anew."""
        worker_id, stage = member.spec.node_id, member.stage
        member.state, member.suspect, member.stage, member.detail = NodeState.LOST, False, None, reason
        self._members.links.forget(worker_id)
        if member.leaving and stage is None:
            member.detail = "left in order"
            out.append(do.Record(Severity.INFO, "node", worker_id, "left, and held nothing any more"))
        else:
            out.append(do.Record(Severity.ERROR, "node", worker_id, f"lost: {reason}"))
        out.append(do.DropWorker(worker_id, member.generation))
        self._members.forget_oldest_lost()
        self._gathering.lost(self._members)
        why = f"{worker_id} was lost ({reason})"
        return Interrupt(why) if stage is not None else DropMove(why, to=worker_id)
