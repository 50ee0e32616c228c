"""From a problem to a plan with all that is said of it: the stages, the proof, what binds, what would help, how long it took."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from engine.planning.advice import advice
from engine.planning.documents.partition_plan import PartitionPlan
from engine.planning.estimating.bands import rival_of
from engine.planning.explain import binding, explain_infeasible
from engine.planning.problem import Infeasible, Problem, TooHard
from engine.planning.solution import Solution
from engine.planning.strategies import solve


@dataclass(frozen=True, slots=True)
class StaticPartitioner:
    """Plans one problem once; `noodle-engine plan` prints what it finds.

    `now_s` is the caller's clock, for the time that solving took; without one that is 0. `model` is what the plan calls the model.
    """

    problem: Problem
    model: str = ""
    now_s: Callable[[], float] = lambda: 0.0

    def partition(self, strategy: str = "auto", *, with_notes: bool = True) -> PartitionPlan:
        """The best plan. Raises InvalidInput for an unknown strategy, Infeasible with the limit that binds and its smallest cure.

        `with_notes` solves the problem again, changed, to find what would help, and where times are estimated, which plan may be as good.
        """
        began_s = self.now_s()
        found = self._solved(strategy)
        solve_ms = 1e3 * (self.now_s() - began_s)
        notes = advice(self.problem, found) if with_notes else ()
        found = replace(found, binds=binding(self.problem, found), notes=notes)
        plan = PartitionPlan.of(self.problem, found, model=self.model, solve_ms=solve_ms)
        return replace(plan, uncertain=rival_of(self.problem, strategy, found.cuts)) if with_notes else plan

    def _solved(self, strategy: str) -> Solution:
        try:
            return solve(self.problem, strategy)
        except TooHard:
            raise
        except Infeasible:
            raise explain_infeasible(self.problem) from None
