"""What the cluster was told to do, whether it did, and whether that kept its promise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engine.control.adaptation.cost import ItemMove, item_moves
from engine.control.adaptation.history import Decision, Verdict
from engine.control.adaptation.probation import Outcome, Probation, Tabu, examine
from engine.control.adaptation.rules import AdaptationSettings
from engine.control.adaptation.watching.beliefs import Beliefs
from engine.control.adaptation.watching.gates import TriggerKind
from engine.control.adaptation.watching.view import AdaptationView
from engine.control.adaptation.watching.watch import Watch
from engine.data.plan import Plan, Stage

_MODEL_ERROR = 0.02  # of a predicted period, until migrations have shown a better figure
_MAX_MODEL_ERROR = 0.10  # one wild miss must not forbid everything: that is what the tabu is for
_LEARN = 0.25
_WORSE = 0.02  # a period longer by this much is taken back
_PLAIN_STEPS = 16
_PLAIN_LOSS = 0.10
_NO_CHOICE = (TriggerKind.LOST, TriggerKind.STRATEGY, TriggerKind.MEMORY)


@dataclass(frozen=True, slots=True)
class Finding:
    """The end of a probation; `back` is the plan to return to, if it should."""

    decision: Decision
    verdict: Verdict
    reason: str
    before_s: float
    measured_s: float
    back: Plan | None = None


class Orders:
    """At most one migration is under way, and at most one on probation."""

    def __init__(self, settings: AdaptationSettings) -> None:
        self.settings = settings
        self.pending: Probation | None = None
        self.probation: Probation | None = None
        self.tabu = Tabu()
        self.model_error = _MODEL_ERROR
        self._recent: list[tuple[float, Plan]] = []  # when a migration was done, and what ran before it

    def give(self, decision: Decision, running: Plan, beliefs: Beliefs, *, is_ahead: bool = False) -> None:
        self.pending, self.probation = Probation(decision, running, dict(beliefs.levels), is_ahead), None

    def carried_out(self, plan: Plan, now_s: float) -> bool:
        """`plan` runs now; True if that is what was ordered. Its probation begins, unless it was a way back."""
        order, self.pending, self.probation = self.pending, None, None
        if order is None or order.decision.plan is None or order.decision.plan.stages != plan.stages:
            return False
        self._recent.append((now_s, order.before))
        if order.decision.verdict is Verdict.MIGRATE:
            self.probation = order
        return True

    def give_up(self, decision_id: int, now_s: float) -> bool:
        order = self.pending
        if order is None or order.decision.decision_id != decision_id:
            return False
        if order.decision.plan:
            self.tabu.fail(order.decision.plan.stages, order.before.stages, None, now_s)
        self.pending = None
        return True

    def num_recent(self, running: Sequence[Stage], wanted: Sequence[Stage], now_s: float) -> int:
        """Migrations that still make the next one harder: all recent ones if it takes an item back to where one of them took it from.

        A move on new ground makes nobody go to and fro, however many went before it.
        """
        self._recent = [(at_s, before) for at_s, before in self._recent if now_s - at_s < self.settings.recent_s]
        moves = item_moves(running, wanted)
        returns = any(_holds(before.stages, move) for _, before in self._recent for move in moves)
        return len(self._recent) if returns else 0

    def since_migration_s(self, now_s: float) -> float:
        return now_s - self._recent[-1][0] if self._recent else float("inf")

    def examine(self, view: AdaptationView, watch: Watch, now_s: float) -> Finding | None:
        """None while there is no probation or too few steps were seen; a plain failure needs fewer."""
        probation, steps = self.probation, watch.metrics.num_decode_steps
        if probation is None or steps < _PLAIN_STEPS:
            return None
        outcome = examine(probation, view, watch.metrics, watch.beliefs)
        if steps < self.settings.probation_steps and not (outcome and outcome.gain < -_PLAIN_LOSS and not _no_choice(probation.decision)):
            return None
        self.probation = None
        if outcome is None:
            return None
        self.model_error += _LEARN * (min(outcome.error, _MAX_MODEL_ERROR) - self.model_error)
        return self._judge(probation, outcome, view, now_s)

    def _judge(self, probation: Probation, outcome: Outcome, view: AdaptationView, now_s: float) -> Finding:
        decision, stages = probation.decision, view.plan.stages
        figures = (
            f"{1e3 * outcome.measured_s:.1f} ms per step, promised {1e3 * outcome.promised_s:.1f}, before {1e3 * outcome.before_s:.1f}"
        )
        least_gain = -_WORSE if probation.is_ahead else min(self.settings.min_gain, outcome.promised_gain) / 2.0
        if _no_choice(decision) or outcome.gain >= least_gain:
            return Finding(decision, Verdict.KEEP, f"probation passed: {figures}", outcome.before_s, outcome.measured_s)
        tabu_s = self.tabu.fail(stages, probation.before.stages, outcome, now_s)
        if outcome.gain >= -_WORSE:
            reason = f"it did not pay: {figures}; not done again for {tabu_s:.0f} s"
            return Finding(decision, Verdict.KEEP, reason, outcome.before_s, outcome.measured_s)
        back = probation.before.after(view.plan)
        reason = f"going back: {figures}; not done again for {tabu_s:.0f} s"
        return Finding(decision, Verdict.ROLLBACK, reason, outcome.before_s, outcome.measured_s, back)


def _holds(stages: Sequence[Stage], move: ItemMove) -> bool:
    """Whether the node that is to get the items had one of them in `stages`."""
    return any(s.node_id == move.target and s.start < move.stop and move.start < s.stop for s in stages)


def _no_choice(decision: Decision) -> bool:
    return decision.trigger is not None and decision.trigger.kind in _NO_CHOICE
