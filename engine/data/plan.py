"""A plan: which contiguous stage runs on which node; and the plans that a cluster once adopted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from engine.data.errors import NotFound


@dataclass(frozen=True, slots=True)
class NodeSpec:
    """A machine or device that can host layers, as its worker reports it."""

    node_id: str
    address: str
    host: str
    pid: int
    device: str  # "cpu" or "cuda:0"
    device_name: str
    num_threads: int
    memory_bytes: int  # what this worker may use for weights and KV
    kv_budget_bytes: int
    num_cores: int = 0  # of the host; 0 if the worker did not say
    device_type: str = "cpu"  # a DeviceType of the planning room
    dtypes: tuple[str, ...] = ()  # in which a product ran here and was right; () if the worker did not say
    pool_id: str = ""  # the memory that it draws from: what names the same one shares it; "" if the worker did not say
    pool_bytes: int = 0  # what that memory could give to all who share it, as this worker found it
    arithmetic: str = ""  # what the last bits of its results depend on: torch's build and the instructions used
    instance_id: str = ""  # random, of the process: host name and pid are the same in every container
    metrics_address: str = ""  # where it answers scrapes; "" if nowhere


@dataclass(frozen=True, slots=True)
class Stage:
    """A half-open item range on a node."""

    node_id: str
    start: int
    stop: int

    @property
    def num_items(self) -> int:
        return self.stop - self.start


def ranges_text(stages: Iterable[Stage]) -> str:
    """In one line, as people read them: the last item of each range is in it."""
    return " | ".join(f"{stage.node_id} {stage.start}-{stage.stop - 1}" for stage in stages)


GIVEN = "given"  # what a plan calls its strategy when its stages were


@dataclass(frozen=True, slots=True)
class Plan:
    """All stages in execution order, with what was predicted for them."""

    plan_version: int
    strategy: str
    stages: tuple[Stage, ...]
    stage_s: tuple[float, ...] = ()  # predicted decode time of each stage
    bottleneck_s: float = 0.0
    round_trip_s: float = 0.0
    lower_bound: float = 0.0
    optimal: bool = False
    gap: float = 0.0  # the most that the objective can be above the best, as a share; 0 if optimal or without a bound
    hop_s: tuple[float, ...] = ()  # predicted time from each stage to the next; 0 after the last, whose way back is in round_trip_s
    for_version: int = 0  # of the plan that it replaces, or would: what is offered for one plan lapses with it

    def stage_of(self, node_id: str) -> Stage | None:
        return next((s for s in self.stages if s.node_id == node_id), None)

    @property
    def slowest(self) -> tuple[int, bool]:
        """(index of the stage that limits the plan, whether its hop to the next one is what takes so long); (0, False) without times."""
        hops = self.hop_s or (0.0,) * len(self.stage_s)
        costs = [max(pair) for pair in zip(self.stage_s, hops, strict=True)]
        index = max(range(len(costs)), key=costs.__getitem__, default=0)
        return index, bool(costs) and hops[index] > self.stage_s[index]

    def after(self, present: Plan) -> Plan:
        """This plan as the one that would follow `present`."""
        return replace(self, plan_version=present.plan_version + 1, for_version=present.plan_version)


@dataclass(frozen=True, slots=True)
class AdoptedPlan:
    """`wall_s` is when it was adopted, in seconds since 1970."""

    wall_s: float
    plan: Plan


def former_plan(plans: Sequence[AdoptedPlan], present: int, wanted: int | None = None) -> Plan:
    """The plan of that number, or the newest one whose stages are not the present ones; raises NotFound naming those there are."""
    now = next((found.plan for found in plans if found.plan.plan_version == present), None)
    others = [found.plan for found in plans if now is None or found.plan.stages != now.stages]
    fitting = [plan for plan in others if wanted in (None, plan.plan_version)]
    if fitting:
        return fitting[-1]
    known = ", ".join(f"#{plan.plan_version}" for plan in others) or "none"
    what = f"plan #{wanted} is not one to go back to" if wanted else f"there is no plan before #{present} to go back to"
    raise NotFound(f"{what}; plans with other stages: {known}")
