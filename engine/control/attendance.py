"""Workers come, are measured, are left out and are lost: what that means for the plan. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.control import commands as do
from engine.control import events as on
from engine.control.claims import name_taken
from engine.control.eligibility import refusal
from engine.control.members import Member
from engine.control.moves import Wish
from engine.data.status import NodeState, Phase, Severity

if TYPE_CHECKING:
    from engine.control.cluster import Cluster


class Attendance:
    """Owns nothing but the way from what a worker does to what the cluster has to do."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def registered(self, event: on.WorkerRegistered, now_s: float, out: list[do.Command]) -> None:
        """A worker joins, is ready by now, or comes back. Raises Refused while another living process has its name."""
        members, worker_id = self._cluster.members, event.spec.node_id
        before = members.get(worker_id)
        if before and event.generation <= before.generation:
            return
        if holder := members.holder(event.spec):
            raise name_taken(holder)
        promoted = before is not None and before.alive and before.stage is None
        if before and before.alive and not promoted:
            self.lose(before, "it registered again", now_s, out)
        member = members.register(event.spec, event.generation, event.ready, now_s)
        if not promoted:
            out.append(do.Record(Severity.INFO, "node", worker_id, f"joined from {event.spec.host}, pid {event.spec.pid}"))
        if event.ready:
            self.measure(member, now_s, out)

    def beat(self, event: on.HeartbeatArrived, now_s: float, out: list[do.Command]) -> None:
        member = self._cluster.members.current(event.worker_id, event.generation)
        if member is None:
            return
        if member.suspect:
            out.append(do.Record(Severity.OK, "node", event.worker_id, f"heartbeat back after {now_s - member.seen_s:.1f} s"))
        member.beat(event, now_s)
        self._cluster.adapting.observe_memory(event, now_s)

    def measure(self, member: Member, now_s: float, out: list[do.Command]) -> None:
        """Have a worker that may hold layers measured, once it is ready and the model is known."""
        cluster = self._cluster
        if cluster.card is None or not member.ready or not member.alive or member.decode_s or member.failure:
            return
        if reason := refusal(cluster.card, member.spec, cluster.config.rules):
            self.leave_out(member, reason, now_s, out)
            return
        member.state = NodeState.MEASURING
        out.append(do.MeasureWorker(member.spec.node_id, member.generation))

    def measured(self, event: on.WorkerMeasured, now_s: float, out: list[do.Command]) -> None:
        """A worker can be planned with from now on."""
        cluster, members = self._cluster, self._cluster.members
        member = members.current(event.worker_id, event.generation)
        if member is None:
            return
        member.decode_s, member.base_s, member.state = event.decode_s, event.base_s, NodeState.OK
        cluster.failure = ""
        text = f"measured: all items take {1e3 * sum(event.decode_s):.1f} ms per token here, a stage {1e3 * event.base_s:.1f} ms more"
        out.append(do.Record(Severity.INFO, "node", event.worker_id, text))
        out += members.links.ask(event.worker_id, event.generation, (m.spec.node_id for m in members.eligible()), now_s)
        cluster.gathering.joined(now_s)
        if member.eligible and cluster.had_plan and cluster.phase is not Phase.GATHERING:
            cluster.wish = Wish(f"{event.worker_id} joined")

    def profiled(self, event: on.WorkerProfiled, out: list[do.Command]) -> None:
        member, card = self._cluster.members.current(event.worker_id, event.generation), self._cluster.card
        if member is not None and card is not None and event.profile.fingerprint == card.fingerprint:
            out.append(do.Record(Severity.INFO, "node", event.worker_id, member.profiled(event)))

    def leave_out(self, member: Member, reason: str, now_s: float, out: list[do.Command]) -> None:
        """Plan without it until it registers again."""
        cluster, worker_id = self._cluster, member.spec.node_id
        stage, member.stage = member.stage, None
        member.failure, member.state = reason, NodeState.OK
        out.append(do.Record(Severity.ERROR, "node", worker_id, f"left out: {reason}"))
        if not cluster.members.eligible() and not cluster.members.still_preparing():
            cluster.fail(reason, now_s, out)
        elif stage is not None and cluster.phase is not Phase.GATHERING:
            cluster.interrupt(f"{worker_id} could not load its stage", now_s, out)
        elif cluster.is_moving_to(worker_id):
            cluster.rebalancer.drop(f"{worker_id} could not load its stage", now_s, out, again=True)

    def lose(self, member: Member, reason: str, now_s: float, out: list[do.Command]) -> None:
        """A worker is gone; what it held has to be planned anew."""
        cluster, worker_id, stage = self._cluster, member.spec.node_id, member.stage
        member.state, member.suspect, member.stage, member.detail = NodeState.LOST, False, None, reason
        cluster.members.links.forget(worker_id)
        out.append(do.Record(Severity.ERROR, "node", worker_id, f"lost: {reason}"))
        out.append(do.DropWorker(worker_id, member.generation))
        cluster.gathering.lost(cluster.members)
        if stage is not None and cluster.phase is not Phase.GATHERING:
            cluster.interrupt(f"{worker_id} was lost ({reason})", now_s, out)
        elif cluster.is_moving_to(worker_id):
            cluster.rebalancer.drop(f"{worker_id} was lost ({reason})", now_s, out)
