"""The plan as a document: what to run where, what it costs, how good it is, and the items that it divides.

`engine.data.plan.Plan` is what a cluster runs and the wire carries: version, ranges and predicted times. A `Solution` is what a
solver answers about one problem. A `PartitionPlan` stands by itself: it can be kept, sent, compared and drawn without either.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from engine.data.errors import InvalidInput
from engine.data.json_text import exact_json
from engine.data.model import Item
from engine.data.plan import Plan, Stage, ranges_text
from engine.planning.documents.plan_drawing import draw
from engine.planning.estimating.bands import Band, Rival, band_of
from engine.planning.problem import ADDITIVE, OVERLAPPED, Problem
from engine.planning.solution import Proof, Search, Solution, SolvedStage, evaluate

SCHEMA_VERSION = 1
CURRENT = "current"  # the strategy of a plan that runs already, whatever chose it


@dataclass(frozen=True, slots=True)
class PartitionPlan:
    """Stages in execution order, which cover `items` once and in order; raises InvalidInput if they do not.

    `plan_version` is 0 until a cluster adopted the plan. The costs are those of `engine.planning.problem`. `band` is None where every
    time was measured, `uncertain` where no other plan may be as good, or nobody looked for one.
    """

    strategy: str
    items: tuple[Item, ...]
    stages: tuple[SolvedStage, ...]
    bottleneck_s: float
    round_trip_s: float
    period_s: float
    proof: Proof
    search: Search
    in_flight: int = 1
    link_cost: str = OVERLAPPED
    plan_version: int = 0
    model: str = ""
    binds: str = ""
    notes: tuple[str, ...] = ()
    band: Band | None = None
    uncertain: Rival | None = None

    def __post_init__(self) -> None:
        bounds = [0, *(stage.stop for stage in self.stages)]
        if not self.stages or [stage.start for stage in self.stages] != bounds[:-1] or bounds[-1] != len(self.items):
            raise InvalidInput(f"the stages {self.ranges_text[:200]} do not cover the items [0, {len(self.items)}) once and in order")
        if any(stage.stop <= stage.start for stage in self.stages):
            raise InvalidInput(f"the stages {self.ranges_text[:200]} have one without items: leave its node out")
        if len({stage.node_id for stage in self.stages}) != len(self.stages):
            raise InvalidInput(f"the stages {self.ranges_text[:200]} name a node twice: give each node one range")

    @classmethod
    def of(cls, problem: Problem, solution: Solution, *, model: str = "", solve_ms: float = 0.0) -> PartitionPlan:
        """The document of a solver's answer."""
        return cls(
            strategy=solution.strategy,
            items=_in_whole_bytes(problem.items),
            stages=solution.stages,
            bottleneck_s=solution.bottleneck_s,
            round_trip_s=solution.round_trip_s,
            period_s=solution.period_s,
            proof=solution.proof,
            search=Search(solution.method, solution.route, solution.why, solve_ms),
            in_flight=problem.in_flight,
            link_cost=problem.link_cost,
            model=model,
            binds=solution.binds,
            notes=solution.notes,
            band=band_of(problem, solution.cuts),
        )

    @classmethod
    def of_running(cls, problem: Problem, stages: Sequence[Stage], plan_version: int, model: str = "") -> PartitionPlan:
        """The document of a plan that runs, at the costs that `problem` knows today; it claims nothing about better ones.

        Raises InvalidInput if it holds a node that the problem lacks, or does not cover its items.
        """
        index = {node.node_id: number for number, node in enumerate(problem.nodes)}
        missing = next((stage.node_id for stage in stages if stage.node_id not in index), None)
        if missing is not None or not stages:
            raise InvalidInput(f"the running plan has {f'node {missing!r}' if stages else 'no stage'}, which the problem does not know")
        at = 0
        for stage in stages:
            if stage.start != at or not at < stage.stop <= len(problem.items):
                break
            at = stage.stop
        if at != len(problem.items):
            raise InvalidInput(
                f"the stages of the running plan do not cover the {len(problem.items)} items of the problem once and in order"
            )
        cuts = tuple((index[stage.node_id], stage.start, stage.stop) for stage in stages)
        costs = evaluate(problem, cuts)
        return cls(
            strategy=CURRENT,
            items=_in_whole_bytes(problem.items),
            stages=costs.stages,
            bottleneck_s=costs.bottleneck_s,
            round_trip_s=costs.round_trip_s,
            period_s=costs.period_s,
            proof=Proof(costs.period_s, 0.0, optimal=False),
            search=Search(),
            in_flight=problem.in_flight,
            link_cost=problem.link_cost,
            plan_version=plan_version,
            model=model,
            band=band_of(problem, cuts),
        )

    @property
    def optimal(self) -> bool:
        return self.proof.optimal

    @property
    def gap(self) -> float:
        return self.proof.gap

    @property
    def doubts(self) -> tuple[str, ...]:
        """How far the figures can be trusted, in sentences; none where every time was measured."""
        rival = (self.uncertain.sentence(self.ranges_text),) if self.uncertain else ()
        return (self.band.sentence, *rival) if self.band else ()

    @property
    def ranges(self) -> tuple[Stage, ...]:
        """The stages as the rest of the engine knows them."""
        return tuple(Stage(stage.node_id, stage.start, stage.stop) for stage in self.stages)

    @property
    def ranges_text(self) -> str:
        return ranges_text(self.ranges)

    @property
    def bottleneck(self) -> tuple[int, bool]:
        """(stage index, whether its hop out is what takes so long rather than its computing)."""
        costs = [stage.time_s + stage.hop_s if self.link_cost == ADDITIVE else max(stage.time_s, stage.link_s) for stage in self.stages]
        index = max(range(len(costs)), key=costs.__getitem__)
        return index, self.stages[index].link_s > self.stages[index].time_s

    @property
    def fullest(self) -> SolvedStage:
        """The stage that uses the largest part of its room."""
        return max(self.stages, key=lambda stage: stage.memory_bytes / stage.room_bytes if stage.room_bytes > 0 else math.inf)

    def tokens_per_s(self, sessions: int) -> float:
        """Together, with this many sessions in flight, each in a step of its own unless the plan says how they share."""
        if sessions == self.in_flight:
            return 1.0 / self.period_s if self.period_s > 0 else math.inf
        period_s = max(self.bottleneck_s, self.round_trip_s / sessions)
        return 1.0 / period_s if period_s > 0 else math.inf

    @property
    def load_balance(self) -> float:
        """From 0 to 1: the mean of the stages' times by the longest one; 1 where all stages take equally long."""
        longest_s = max(stage.time_s for stage in self.stages)
        if longest_s <= 0:
            return 1.0
        return min(1.0, math.fsum(stage.time_s for stage in self.stages) / (len(self.stages) * longest_s))

    def visualize(self, width: int = 80) -> str:
        """The stages as ASCII text, as wide as they take; raises InvalidInput for a width below 1."""
        return draw(self, width)

    def document(self) -> dict[str, Any]:
        """What `noodle-engine plan --json` prints; `plan_json.py` reads it. A stage says `node` for its node's id."""
        fields = asdict(self)
        apart = fields.pop("proof") | fields.pop("search")
        return {
            **fields,
            **apart,
            "stages": [_stage_document(stage) for stage in self.stages],
            "band": self.band and {**fields["band"], "within": dict(self.band.within)},
            "uncertain": self.uncertain and {**fields["uncertain"], "stages": [_range_document(s) for s in self.uncertain.stages]},
            "schema_version": SCHEMA_VERSION,
            "gap": self.gap if math.isfinite(self.gap) else None,
            "load_balance": self.load_balance,
        }

    def to_json(self) -> str:
        """The document as ASCII text. Raises InvalidInput if a figure is not finite: such a plan cannot run."""
        try:
            return exact_json(self.document())
        except ValueError as error:
            raise InvalidInput(f"the plan {self.ranges_text[:200]} holds a figure that is not finite: it cannot run") from error

    def plan(self) -> Plan:
        """What a cluster would run."""
        return Plan(
            plan_version=self.plan_version,
            strategy=self.strategy,
            stages=self.ranges,
            stage_s=tuple(stage.time_s for stage in self.stages),
            bottleneck_s=self.bottleneck_s,
            round_trip_s=self.round_trip_s,
            lower_bound=self.proof.lower_bound,
            optimal=self.optimal,
            hop_s=tuple(stage.hop_s for stage in self.stages),
        )


def _stage_document(stage: SolvedStage) -> dict[str, Any]:
    """Room without a limit is null."""
    document = asdict(stage)
    room_bytes = stage.room_bytes if math.isfinite(stage.room_bytes) else None
    if stage.held_s is None:
        del document["held_s"]
    return {"node": document.pop("node_id"), **document, "room_bytes": room_bytes}


def _range_document(stage: Stage) -> dict[str, Any]:
    return {"node": stage.node_id, "start": stage.start, "stop": stage.stop}


def _in_whole_bytes(items: tuple[Item, ...]) -> tuple[Item, ...]:
    """A problem may state sizes as fractions; a plan speaks of bytes."""
    return tuple(
        Item(i.name, round(i.weight_bytes), round(i.kv_bytes_per_token), round(i.output_bytes_per_token), i.tied_to, round(i.tied_bytes))
        for i in items
    )
