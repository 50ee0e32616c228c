"""The nodes of a cluster: who registered, who is alive, what each measured. Pure; time is an argument."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from engine.control.events import HeartbeatArrived, WorkerProfiled
from engine.control.nodes.links import LinkBook
from engine.data.model import ModelCard
from engine.data.plan import NodeSpec, Plan, Stage
from engine.data.status import NodeState
from engine.planning.problem import PlanningNode
from engine.profile.cost_model import CostModel
from engine.profile.point import DECODE
from engine.profile.row_law import RowLaw

NO_HEARTBEAT = HeartbeatArrived("", 0, "", -1.0)
CONTEXT_TOKENS = 16  # where workers measure when they join: nodes are compared at one point


MAX_LOST = 64  # nodes
REMEMBERED_S = 60.0  # a worker that was away for longer measures its links again


@dataclass(frozen=True, slots=True)
class LeaseRules:
    """When silence counts: suspect after 3 missed heartbeats, dead when the lease has run out.

    A worker that is still starting gets more time: importing torch holds the interpreter lock for seconds.
    """

    heartbeat_period_s: float = 0.25
    suspect_s: float = 0.75
    lease_s: float = 3.0
    starting_lease_s: float = 30.0


@dataclass(slots=True)
class Member:
    """One registration of a worker and what is known of it."""

    spec: NodeSpec
    generation: int
    ready: bool
    seen_s: float
    state: NodeState = NodeState.STARTING
    detail: str = ""
    progress: float = -1.0
    decode_s: tuple[float, ...] = ()
    base_s: float = 0.0  # of a stage, beside its items
    rows: RowLaw = field(default_factory=RowLaw)  # how its items grow with the rows of a step
    runtime_bytes: int = 0  # what it took when it last had no stage
    cost_model: CostModel | None = None  # from a full profile; None until an operator had one taken
    stage: Stage | None = None
    draining: bool = False
    leaving: bool = False  # its process is to end, and hands over what it holds
    suspect: bool = False
    num_beats: int = 0
    failure: str = ""  # why it is left out of plans until it registers again
    heartbeat: HeartbeatArrived = NO_HEARTBEAT  # the newest

    @property
    def alive(self) -> bool:
        return self.state is not NodeState.LOST

    @property
    def eligible(self) -> bool:
        """May hold a stage of the next plan."""
        return self.can_hold and not self.draining

    @property
    def can_hold(self) -> bool:
        """Could hold a stage, whether an operator lets it or not."""
        return self.alive and bool(self.decode_s) and not self.failure and not self.leaving

    def profiled(self, event: WorkerProfiled) -> str:
        """Take over what a full profile found, unless it was taken amid so much noise that the first measurement is better."""
        found, doubt = event.profile, event.profile.honesty.doubt
        self.cost_model = found.cost_model
        point, bottleneck = found.reference_point(DECODE), found.bottleneck(DECODE)
        text = f"profiled: {point.label} takes {1e3 * found.step(point).plain_p50_s:.1f} ms"
        if found.cost_model is None or doubt:
            return f"{text}; too noisy to use ({doubt or 'no cost model'}), so plans keep the times measured at the start"
        text += f", {bottleneck.layer.name} {100 * bottleneck.share:.0f} % of it"
        law = found.cost_model
        if found.served:
            self.base_s = 0.0  # its items have it
        self.decode_s = tuple(event.slowdown * law.time_s(item, DECODE, 1, CONTEXT_TOKENS, 1) for item in range(law.num_items))
        return f"{text}; the next plan uses its item times, {1e3 * sum(self.decode_s):.1f} ms in all"

    @property
    def weight_room_bytes(self) -> int:
        """What is left for weights beside the KV budget."""
        return self.spec.memory_bytes - self.spec.kv_budget_bytes

    def beat(self, event: HeartbeatArrived, now_s: float) -> None:
        """It lives, and this is what it says of itself."""
        self.seen_s, self.suspect, self.num_beats = now_s, False, self.num_beats + 1
        self.detail, self.progress, self.heartbeat = event.detail, event.progress, event
        if self.stage is None:
            self.runtime_bytes = event.gauges.resident_bytes

    def shown_state(self) -> NodeState:
        """The state word for people: the most important thing that is true of it."""
        if not self.alive:
            return NodeState.LOST
        if self.suspect:
            return NodeState.SUSPECT
        if self.failure:
            return NodeState.WARN
        return NodeState.DRAINING if self.draining or self.leaving else self.state


@dataclass(frozen=True, slots=True)
class Supposed:
    """Drains for a plan that is only asked about: as if these nodes were drained, and those were not."""

    drained: tuple[str, ...] = ()
    undrained: tuple[str, ...] = ()

    def drains(self, member: Member) -> bool:
        name = member.spec.node_id
        return name in self.drained or (member.draining and name not in self.undrained)


NOTHING = Supposed()


class Members:
    """Every node ever registered here, by id, the lost ones included until they come back or are forgotten."""

    def __init__(self, rules: LeaseRules, drained: Iterable[str] = ()) -> None:
        self.rules = rules
        self._members: dict[str, Member] = {}
        self._drained = set(drained)  # by name: a drain outlives the process that it was asked for
        self.links = LinkBook()

    def __iter__(self) -> Iterator[Member]:
        return iter(sorted(self._members.values(), key=lambda m: m.spec.node_id))

    def __len__(self) -> int:
        return len(self._members)

    def get(self, worker_id: str) -> Member | None:
        return self._members.get(worker_id)

    def named(self, worker_id: str) -> Member:
        """The member of that name; a plan names nobody else."""
        member = self._members.get(worker_id)
        if member is None:
            raise AssertionError(f"the plan names {worker_id}, which never registered")
        return member

    def current(self, worker_id: str, generation: int) -> Member | None:
        """The live registration that a message speaks for, or None if the message is stale."""
        member = self._members.get(worker_id)
        return member if member and member.alive and member.generation == generation else None

    def holder(self, spec: NodeSpec) -> Member | None:
        """The live worker that has the name which another process asks for."""
        member = self._members.get(spec.node_id)
        return member if member is not None and member.alive and not is_same_process(member.spec, spec) else None

    def register(self, spec: NodeSpec, generation: int, ready: bool, now_s: float) -> Member:
        member, before = Member(spec, generation, ready, seen_s=now_s), self._members.get(spec.node_id)
        member.draining = spec.node_id in self._drained
        is_back = before is not None and is_same_process(before.spec, spec) and before.spec.address == spec.address
        if before is not None and is_back and now_s - before.seen_s < REMEMBERED_S:
            self.links.forget(spec.node_id)
            self.links.recall(spec.node_id, [m.spec.node_id for m in self if m.alive])
        else:
            self.links.disown(spec.node_id)
        self._members[spec.node_id] = member
        return member

    def take_stages(self, plan: Plan | None) -> None:
        """Everybody holds from now on what the plan gives them."""
        for member in self._members.values():
            member.stage = plan.stage_of(member.spec.node_id) if plan is not None else None

    # ------------------------------------------------------------------------------------------ left out by an operator
    @property
    def drained(self) -> tuple[str, ...]:
        """Names whose nodes are left out of plans, those of absent nodes too."""
        return tuple(sorted(self._drained))

    def drain(self, worker_id: str) -> None:
        self._drained.add(worker_id)
        self._members[worker_id].draining = True

    def undrain(self, worker_id: str) -> None:
        self._drained.discard(worker_id)
        if member := self._members.get(worker_id):
            member.draining = False

    def forget(self, worker_id: str) -> None:
        """As if a node of that name had never been here."""
        self._drained.discard(worker_id)
        self._members.pop(worker_id, None)
        self.links.disown(worker_id)

    def forget_oldest_lost(self) -> None:
        """Of lost nodes the last ones stay on the list: a worker that nobody gave a name has another one after every start."""
        lost = sorted((m for m in self if not m.alive and not m.draining), key=lambda m: m.seen_s)
        for member in lost[:-MAX_LOST]:
            self.forget(member.spec.node_id)

    # ------------------------------------------------------------------------------------------ who counts
    def num_alive(self) -> int:
        return sum(m.alive for m in self._members.values())

    def eligible(self, supposed: Supposed = NOTHING) -> list[Member]:
        """Those that may hold layers, or might with these drains."""
        return [m for m in self if m.can_hold and not supposed.drains(m)]

    def still_preparing(self) -> bool:
        """A live worker that may yet become eligible is starting or measuring."""
        return any(m.alive and not m.failure and not m.draining and not m.leaving and not m.decode_s for m in self)

    def all_accounted_for(self, num_expected: int) -> bool:
        """All expected workers are known, some of them failed or drained: nobody else comes, go on with the rest."""
        counted = sum(m.eligible or bool(m.failure) or (m.alive and (m.draining or m.leaving)) for m in self)
        return counted >= num_expected and not self.still_preparing()

    def widen_leases(self, lag_s: float) -> None:
        for member in self._members.values():
            member.seen_s += lag_s

    def newly_suspect(self, now_s: float) -> list[Member]:
        """Mark members whose heartbeats are late and return those that were not late before."""
        late = [m for m in self if m.alive and m.ready and not m.suspect and now_s - m.seen_s > self.rules.suspect_s]
        for member in late:
            member.suspect = True
        return late

    def expired(self, now_s: float) -> list[Member]:
        rules = self.rules
        return [m for m in self if m.alive and now_s - m.seen_s > (rules.lease_s if m.ready else rules.starting_lease_s)]


def is_same_process(before: NodeSpec, now: NodeSpec) -> bool:
    """Host and pid alone do not tell: containers are often called alike, and each of them begins with pid 1."""
    return (before.host, before.pid, before.instance_id) == (now.host, now.pid, now.instance_id)


def planning_node(member: Member) -> PlanningNode:
    return PlanningNode(member.spec.node_id, float(max(0, member.weight_room_bytes)), member.decode_s, base_s=member.base_s)


def capacity_tokens(card: ModelCard, plan: Plan, members: Members) -> int:
    """Tokens of KV that every stage can hold within its node's budget."""
    room = []
    for stage in plan.stages:
        per_token = sum(i.kv_bytes_per_token for i in card.items[stage.start : stage.stop])
        member = members.get(stage.node_id)
        if per_token and member is not None:
            room.append(member.spec.kv_budget_bytes // per_token)
    return min(room, default=2**62)
