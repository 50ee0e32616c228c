"""What an operator asks of nodes: leave them out of plans, take them in again, forget one that is gone. Pure.

Each of them either changes something or raises why it does not: nothing is refused in silence.
"""

from __future__ import annotations

from collections.abc import Callable

from engine.control import commands as do
from engine.control.events import LeaveRequested
from engine.control.moves import Wish
from engine.control.nodes.gathering import Gathering
from engine.control.nodes.members import Members, Supposed
from engine.control.plan_state import Replan
from engine.data.errors import NotFound, Refused, Stale
from engine.data.status import Severity

MOVE_AWAY = "its items move to the other nodes"


def drain(members: Members, worker_ids: tuple[str, ...], gets_a_stage: Callable[[str], bool], out: list[do.Command]) -> Replan | None:
    """All of them or none. Raises NotFound for a node that is not there, Refused if one is drained already or nobody else could hold
    the model."""
    check_can_drain(members, worker_ids)
    _check_others_can_hold(members, worker_ids)
    is_used = any(members.named(name).stage is not None or gets_a_stage(name) for name in worker_ids)
    for name in worker_ids:
        members.drain(name)
        out.append(do.Record(Severity.INFO, "node", name, f"draining: {MOVE_AWAY}"))
    out.append(do.KeepDrained(members.drained))
    return Replan(Wish(f"{_are(worker_ids)} draining")) if is_used else None


def leave(members: Members, event: LeaveRequested, gets_a_stage: Callable[[str], bool], out: list[do.Command]) -> Replan | None:
    """Raises Refused if nobody else could hold the model, Stale for a worker that is not the one that is registered."""
    worker_id, member = event.worker_id, members.current(event.worker_id, event.generation)
    if member is None:
        raise Stale(f"registration {event.generation} of {worker_id} is not current: it cannot leave")
    _check_others_can_hold(members, (worker_id,))
    member.leaving = True
    out.append(do.Record(Severity.INFO, "node", worker_id, f"leaving: {MOVE_AWAY}"))
    return Replan(Wish(f"{worker_id} is leaving")) if member.stage is not None or gets_a_stage(worker_id) else None


def undrain(members: Members, gathering: Gathering, worker_ids: tuple[str, ...], now_s: float, out: list[do.Command]) -> Replan | None:
    """All of them or none. Raises NotFound for a node that nobody knows, Refused if one is not drained."""
    check_can_undrain(members, worker_ids)
    for name in worker_ids:
        members.undrain(name)
        out.append(do.Record(Severity.INFO, "node", name, "takes part again: plans may use it"))
    out.append(do.KeepDrained(members.drained))
    if not any((member := members.get(name)) is not None and member.eligible for name in worker_ids):
        return None
    gathering.joined(now_s)
    return Replan(Wish(f"{', '.join(worker_ids)} take{'' if worker_ids[1:] else 's'} part again"))


def forget(members: Members, gathering: Gathering, worker_id: str, out: list[do.Command]) -> None:
    """Raises NotFound for a node that nobody knows, Refused for one that is alive."""
    member, was_drained = members.get(worker_id), worker_id in members.drained
    if member is None and not was_drained:
        raise NotFound(_unknown(worker_id))
    if member is not None and member.alive:
        raise Refused(f"{worker_id} is alive ({member.shown_state()}): stop its worker first, or drain it to leave it out of plans")
    members.forget(worker_id)
    if member is not None:
        gathering.forgotten(len(members))
    if was_drained:
        out.append(do.KeepDrained(members.drained))
    out.append(do.Record(Severity.INFO, "node", worker_id, "forgotten: it is not waited for any more"))


def check_can_drain(members: Members, worker_ids: tuple[str, ...]) -> None:
    """Raise what a drain of these nodes would raise for one of them itself."""
    for name in worker_ids:
        member = members.get(name)
        if member is None or not member.alive:
            raise NotFound(f"worker {name[:80]} is not in the cluster: see `noodle-engine status`")
        if member.draining:
            raise Refused(f"{name} is drained already: `noodle-engine undrain {name}` takes it in again")


def check_can_undrain(members: Members, worker_ids: tuple[str, ...]) -> None:
    """Raise what the end of these nodes' drains would raise."""
    for name in worker_ids:
        if name not in members.drained:
            if members.get(name) is None:
                raise NotFound(_unknown(name))
            raise Refused(f"{name} is not drained: there is nothing to take back")


def _check_others_can_hold(members: Members, worker_ids: tuple[str, ...]) -> None:
    if not members.eligible(Supposed(drained=worker_ids)):
        only = "the only workers" if worker_ids[1:] else "the only worker"
        raise Refused(f"{_are(worker_ids)} {only} that can hold the model: add another one first")


def _are(names: tuple[str, ...]) -> str:
    return f"{', '.join(names)} {'are' if names[1:] else 'is'}"


def _unknown(worker_id: str) -> str:
    return f"no node is called {worker_id[:80]}: see `noodle-engine status`"
