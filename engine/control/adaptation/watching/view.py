"""What the cluster tells the adaptive planner: steps, memory, and the state it has to judge. Values only."""

from __future__ import annotations

import math
from dataclasses import dataclass

from engine.control.nodes.load_law import LoadLaw
from engine.data.errors import InvalidInput
from engine.data.generation import StageTiming
from engine.data.plan import Plan
from engine.planning.problem import Problem
from engine.profile.cost_model import CostModel
from engine.profile.point import DECODE, Point
from engine.profile.row_law import RowLaw

MEASURED_AT = Point(DECODE, 1, 16, 1)  # the point that workers' item times stand for (engine/model/profiling/measure.py)


@dataclass(frozen=True, slots=True)
class StepSample:
    """One finished step. A step that carries any prompt token is a prefill step of all its new tokens.

    `hop_s[k]` is the time from stage k to the next one, the last from the last stage back to the coordinator; empty
    when it was not measured. See `even_hops` for what a coordinator without synchronised clocks can know.
    """

    plan_version: int
    point: Point
    timings: tuple[StageTiming, ...]
    hop_s: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class MemorySample:
    """One node's memory, from its heartbeat. `cap_bytes` is what it may use in all, runtime included."""

    node_id: str
    used_bytes: int
    cap_bytes: int
    kv_used_bytes: int = 0
    kv_budget_bytes: int = 0


@dataclass(frozen=True, slots=True)
class AdaptationView:
    """The cluster at one moment. `problem` holds every eligible node with its item times as its worker measured them.

    `in_flight` steps share the pipeline, or as many as the `law` of the load that is served says; `kv_tokens` is how many tokens of KV
    the running sessions hold together.
    """

    plan: Plan
    problem: Problem
    strategy: str
    in_flight: int = 1
    kv_tokens: int = 0
    cost_model: CostModel | None = None
    law: LoadLaw | None = None

    def planned(self, problem: Problem) -> Problem:
        """`problem`, which is for one row, as it is to be solved: for the load that is served."""
        return problem if self.law is None else self.law.problem(problem)

    @property
    def home(self) -> dict[str, str]:
        """By node, the host whose cores it shares with other nodes."""
        return dict(self.law.same_cores) if self.law is not None else {}

    def rows_of(self, node_id: str) -> RowLaw:
        """How items grow there with the rows of a step."""
        return next((law for name, law in self.law.rows_of if name == node_id), RowLaw()) if self.law is not None else RowLaw()

    def __post_init__(self) -> None:
        if self.in_flight < 1 or self.kv_tokens < 0:
            raise InvalidInput(f"in_flight {self.in_flight} and kv_tokens {self.kv_tokens} are not possible: at least 1 and 0")
        if not self.plan.stages:
            raise InvalidInput("the view's plan has no stages: there is nothing to adapt before the first plan")


def even_hops(timings: tuple[StageTiming, ...], step_s: float) -> tuple[float, ...]:
    """What is neither compute nor queue of a step, shared evenly by its hops; seconds per hop."""
    spent_s = math.fsum(t.compute_s + t.queue_s for t in timings)
    return (max(0.0, step_s - spent_s) / (len(timings) + 1),) * len(timings)
