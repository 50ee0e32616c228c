"""After a migration: did it keep its promise? If it made things worse, back; and not there again for a long while.

A failed placement is tabu for ten minutes, then four times longer each time. What failed is usually one node that is
slower with its new stage than its measured items say (it swaps, its cache is too small): as long as the tabu lasts it is given
no more than it is known to bear, so that the planner does not try the neighbours of the failed placement one after the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from engine.control.adaptation.history import Decision
from engine.control.adaptation.watching.beliefs import Beliefs, plan_under
from engine.control.adaptation.watching.change_point import middle
from engine.control.adaptation.watching.metrics import RuntimeMetrics
from engine.control.adaptation.watching.problem import knows_all
from engine.control.adaptation.watching.view import AdaptationView
from engine.data.plan import Plan, Stage
from engine.planning.problem import Problem

TABU_S = 600.0
ABANDONED_S = 10.0  # nothing is known against the placement itself
TABU_GROWTH = 4.0
_TOO_SLOW = 0.10  # a node beyond its believed level by more than this is what failed


@dataclass(frozen=True, slots=True)
class Probation:
    """A migration that was ordered and then watched: what ran before, and what was believed when it was decided.

    `is_ahead`: it was made for where a trend is going, so most of its gain is yet to come.
    """

    decision: Decision
    before: Plan
    levels: Mapping[str, float]
    is_ahead: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """Periods in seconds, at the load of now: of the plan before, as promised, and as measured with what slowed all alike taken out.

    `levels` and `excess` say by node what was measured, and how far beyond what was believed.
    """

    before_s: float
    promised_s: float
    measured_s: float
    levels: Mapping[str, float]
    excess: Mapping[str, float]

    @property
    def gain(self) -> float:
        return 1.0 - self.measured_s / self.before_s

    @property
    def promised_gain(self) -> float:
        return 1.0 - self.promised_s / self.before_s

    @property
    def error(self) -> float:
        """How wrong the promise was, relative."""
        return abs(self.measured_s / self.promised_s - 1.0)


def examine(probation: Probation, view: AdaptationView, metrics: RuntimeMetrics, beliefs: Beliefs) -> Outcome | None:
    """Compare the first steps under the new plan with the promise; None if a node is gone or has not been measured.

    Only what slowed or sped up every node is taken for a change of the day: a migration cannot slow the node that gave.
    """
    if not knows_all(view.problem, (*probation.before.stages, *view.plan.stages)):
        return None
    levels: dict[str, float] = {}
    for stage in view.plan.stages:
        track = metrics.stage_track(stage.node_id)
        if track is None or not track.recent:
            return None
        levels[stage.node_id] = middle(track.recent)
    shifts = {node: level - probation.levels.get(node, 0.0) for node, level in levels.items()}
    common = max(0.0, min(shifts.values())) + min(0.0, max(shifts.values()))
    excess = {node: shift - common for node, shift in shifts.items()}
    after = {node: probation.levels.get(node, 0.0) + excess[node] for node in levels}

    def period_s(plan: Plan, by_node: Mapping[str, float]) -> float:
        return plan_under(plan.stages, view.problem, beliefs, by_node, view.in_flight, view.law).period_s

    return Outcome(
        period_s(probation.before, probation.levels), period_s(view.plan, probation.levels), period_s(view.plan, after), levels, excess
    )


@dataclass(slots=True)
class _Ban:
    until_s: float
    num_failures: int


@dataclass(slots=True)
class _Burnt:
    """`level` is how slow the node was with more than it bears, as far as is known until `until_s`."""

    level: float
    until_s: float


@dataclass(slots=True)
class Tabu:
    """Placements that failed, nodes that made them fail, and the largest stage that each of these bears."""

    _bans: dict[tuple[Stage, ...], _Ban] = field(default_factory=dict)
    _burnt: dict[str, _Burnt] = field(default_factory=dict)
    _bears: dict[str, Stage] = field(default_factory=dict)

    def fail(self, failed: tuple[Stage, ...], before: tuple[Stage, ...], outcome: Outcome | None, now_s: float) -> float:
        """Ban `failed`; returns for how many seconds."""
        ban = self._bans.setdefault(failed, _Ban(now_s, 0))
        seconds = (TABU_S if outcome else ABANDONED_S) * TABU_GROWTH**ban.num_failures
        ban.until_s, ban.num_failures = now_s + seconds, ban.num_failures + 1
        if outcome:
            slow = {node_id for node_id, excess in outcome.excess.items() if excess > _TOO_SLOW}
            self._burnt |= {node_id: _Burnt(outcome.levels[node_id], ban.until_s) for node_id in slow}
            for stage in (*before, *(s for s in failed if s.node_id not in slow)):
                known = self._bears.get(stage.node_id)
                if known is None or stage.num_items > known.num_items:
                    self._bears[stage.node_id] = stage
        return seconds

    def left_s(self, stages: tuple[Stage, ...], now_s: float) -> float:
        """Seconds until the placement may be tried again; 0 if it may."""
        ban = self._bans.get(stages)
        return max(0.0, ban.until_s - now_s) if ban else 0.0

    def room_bytes(self, problem: Problem, now_s: float) -> dict[str, float]:
        """Burnt nodes may hold as much as their largest stage that ran as believed."""
        rooms = {}
        for node_id, burnt in self._burnt.items():
            stage = self._bears.get(node_id)
            if now_s < burnt.until_s:
                rooms[node_id] = problem.stage_bytes(stage.start, stage.stop) if stage else 0.0
        return rooms

    def cautious(self, levels: Mapping[str, float], now_s: float) -> dict[str, float]:
        """`levels` for plans that cannot respect those rooms: burnt nodes count as slow as they were found."""
        out = dict(levels)
        for node_id, burnt in self._burnt.items():
            if now_s < burnt.until_s:
                out[node_id] = max(out.get(node_id, 0.0), burnt.level)
        return out
