"""What an operator asks of single nodes: leave one out of plans, take it in again, forget one that is gone. Pure.

Each of them either changes something or raises why it does not: nothing is refused in silence.
"""

from __future__ import annotations

from engine.control import commands as do
from engine.control.events import DrainRequested
from engine.control.moves import Wish
from engine.control.nodes.gathering import Gathering
from engine.control.nodes.members import Members
from engine.control.plan_state import Replan
from engine.data.errors import NotFound, Refused, Stale
from engine.data.status import Severity


def drain(members: Members, event: DrainRequested, gets_a_stage: bool, out: list[do.Command]) -> Replan | None:
    """Raises NotFound for a node that is not there, Refused if it is drained already or nobody else could hold the model, Stale for
    a worker that asks for itself and is not the one that is registered."""
    worker_id = event.worker_id
    if event.generation is None:
        check_can_drain(members, worker_id)
    elif members.current(worker_id, event.generation) is None:
        raise Stale(f"registration {event.generation} of {worker_id} is not current: it cannot leave")
    if not any(m.spec.node_id != worker_id for m in members.eligible()):
        raise Refused(f"{worker_id} is the only worker that can hold the model: add another one first")
    if event.generation is None:
        member, doing = members.drain(worker_id), "draining"
        out.append(do.KeepDrained(members.drained))
    else:
        member, doing = members.named(worker_id), "leaving"
        member.leaving = True
    out.append(do.Record(Severity.INFO, "node", worker_id, f"{doing}: its items move to the other nodes"))
    return Replan(Wish(f"{worker_id} is {doing}")) if member.stage is not None or gets_a_stage else None


def undrain(members: Members, gathering: Gathering, worker_id: str, now_s: float, out: list[do.Command]) -> Replan | None:
    """Raises NotFound for a node that nobody knows, Refused if it is not drained."""
    check_can_undrain(members, worker_id)
    members.undrain(worker_id)
    out.append(do.KeepDrained(members.drained))
    out.append(do.Record(Severity.INFO, "node", worker_id, "takes part again: plans may use it"))
    member = members.get(worker_id)
    if member is None or not member.eligible:
        return None
    gathering.joined(now_s)
    return Replan(Wish(f"{worker_id} takes part again"))


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


def check_can_drain(members: Members, worker_id: str) -> None:
    """Raise what a drain of that node would raise for the node itself."""
    member = members.get(worker_id)
    if member is None or not member.alive:
        raise NotFound(f"worker {worker_id[:80]} is not in the cluster: see `noodle-engine status`")
    if member.draining:
        raise Refused(f"{worker_id} is drained already: `noodle-engine undrain {worker_id}` takes it in again")


def check_can_undrain(members: Members, worker_id: str) -> None:
    """Raise what the end of that node's drain would raise."""
    if worker_id not in members.drained:
        if members.get(worker_id) is None:
            raise NotFound(_unknown(worker_id))
        raise Refused(f"{worker_id} is not drained: there is nothing to take back")


def _unknown(worker_id: str) -> str:
    return f"no node is called {worker_id[:80]}: see `noodle-engine status`"
