"""How long a stage should take for a step at some point: the workers' measured item times, carried there by the cost model.

The measured times fix the size (one decode token behind a short context), the cost model the shape: how a step grows with
batch, tokens and context; the stage's base stays as it is. The items of a stage are summed once, so a prediction costs two
interpolations.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from engine.control.adaptation.watching.problem import base_s, measured_s
from engine.control.adaptation.watching.view import MEASURED_AT
from engine.data.plan import Stage
from engine.planning.problem import Problem
from engine.profile.cost_model import CostModel, ItemLaw, PhaseLaws
from engine.profile.point import Point
from engine.profile.row_law import RowLaw


@dataclass(frozen=True, slots=True)
class StageLaw:
    """`measured_s` is the stage's decode time at the point where workers measure, `base_s` of it beside items; `shape` may be missing."""

    measured_s: float
    base_s: float = 0.0
    shape: CostModel | None = None  # of the whole stage as one item
    reference_s: float = 1.0  # what the shape says of the point where workers measure
    rows: RowLaw = field(default_factory=RowLaw)  # how it grows, where there is no shape

    def predict_s(self, point: Point) -> float:
        """Seconds; without a shape only rows tell a step from the measured one. 0 if nothing can be said."""
        if self.shape is None:
            return self.measured_s * self.rows.factor(point.batch)
        if point == MEASURED_AT or point.phase not in [laws.phase for laws in self.shape.phases]:
            return self.measured_s
        return self.base_s + (self.measured_s - self.base_s) * self.shape.step_s(point) / self.reference_s


def stage_law(problem: Problem, stage: Stage, cost_model: CostModel | None, rows: RowLaw | None = None) -> StageLaw:
    """The law of `stage` on its node; 0 seconds if the problem does not have the node."""
    time_s, fixed_s = measured_s(problem, stage), base_s(problem, stage.node_id)
    if cost_model is None:
        return StageLaw(time_s, fixed_s, rows=rows or RowLaw())
    shape = CostModel(tuple(_summed(laws, stage) for laws in cost_model.phases))
    has_decode = any(laws.phase == MEASURED_AT.phase for laws in shape.phases)
    reference_s = shape.step_s(MEASURED_AT) if has_decode else 0.0
    return StageLaw(time_s, fixed_s, shape, reference_s) if reference_s > 0.0 else StageLaw(time_s, fixed_s)


def _summed(laws: PhaseLaws, stage: Stage) -> PhaseLaws:
    items = laws.items[stage.start : stage.stop]
    work_s = tuple(sum(item.work_s[k] for item in items) for k in range(len(laws.num_tokens)))
    return PhaseLaws(laws.phase, laws.num_tokens, (ItemLaw(work_s, sum(item.pair_s for item in items)),))
