"""Every decision with its numbers, the declined ones too, and a sentence an operator understands."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from engine.control.adaptation.cost import MigrationCost
from engine.control.adaptation.watching.gates import AdaptationTrigger
from engine.data.errors import NotFound
from engine.data.plan import Plan

HISTORY_LENGTH = 1000
REPEATS_S = 60.0  # what comes again within so long is the same decision once more


class Verdict(StrEnum):
    MIGRATE = "migrate"  # move now
    ROLLBACK = "rollback"  # move back now: the last migration did not keep its promise
    SUGGEST = "suggest"  # the operator has to confirm
    WAIT = "wait"  # worth it if it lasts, or when the cooldown is over
    DECLINE = "decline"
    KEEP = "keep"  # probation passed
    NOTE = "note"  # mode or strategy changed, or the plan changed by other hands


LOAD = "load"  # the rule of a note that the load has another shape


@dataclass(frozen=True, slots=True)
class Decision:
    """One entry of the adaptation history. Times are seconds per step of the pipeline unless they say otherwise."""

    decision_id: int
    at_s: float
    verdict: Verdict
    trigger: AdaptationTrigger | None
    reason: str
    plan: Plan | None = None  # what to migrate to; its version follows the running plan's
    cost: MigrationCost | None = None
    before_s: float = 0.0  # the running plan's period, as believed at the time
    predicted_s: float = 0.0  # the candidate's
    regret_s: float = 0.0  # what keeping the running plan had cost by then
    outcome: str = ""  # done, abandoned, expired; empty while it is open
    realised_s: float | None = None  # the candidate's period as measured afterwards
    realised_pause_s: float | None = None
    rule: str = ""  # by which it was decided
    num_times: int = 1  # that it was, with the newest evidence
    last_s: float = 0.0  # when it last was

    @property
    def is_routine(self) -> bool:
        """Nothing follows from it, however often it comes: on a busy machine that is each second."""
        return self.verdict in (Verdict.DECLINE, Verdict.WAIT) or self.rule == LOAD

    @property
    def is_news(self) -> bool:
        """The first time, and then the more seldom the longer it goes on: at the 2nd, 4th, 8th time and so on."""
        return self.num_times & (self.num_times - 1) == 0

    @property
    def orders_migration(self) -> bool:
        return self.verdict in (Verdict.MIGRATE, Verdict.ROLLBACK)

    @property
    def gain(self) -> float:
        """Predicted saving as a share of the period."""
        return 1.0 - self.predicted_s / self.before_s if self.before_s > 0.0 else 0.0

    @property
    def sentence(self) -> str:
        """For people: the evidence, the offer, the verdict, and what became of it."""
        parts = [self.trigger.text] if self.trigger else []
        if self.cost is not None and self.cost.moves:
            parts.append(self._offer(self.cost))
        text = "; ".join(parts)
        verdict = f"{self.verdict}: {self.reason}" if self.reason else str(self.verdict)
        text = f"{text}: {verdict}" if text else verdict
        if self.outcome:
            text += f"; {self.outcome}"
        if self.num_times > 1:
            text = f"{self.num_times} times in {self.last_s - self.at_s:.0f} s: {text}"
        if self.realised_s is not None:
            saved_s = self.before_s - self.realised_s
            text += (
                f", really {'saved' if saved_s >= 0 else 'lost'} {1e3 * abs(saved_s):.1f} ms ({100 * abs(saved_s) / self.before_s:.0f} %)"
            )
        return text

    def _offer(self, cost: MigrationCost) -> str:
        moves = ", ".join(str(m) for m in cost.moves[:4]) + (f" and {len(cost.moves) - 4} more" if len(cost.moves) > 4 else "")
        saved_s = self.before_s - self.predicted_s
        word = "saves" if saved_s >= 0.0 else "adds"
        return f"moving {moves} {word} {1e3 * abs(saved_s):.1f} ms ({100 * abs(self.gain):.0f} %) per step and costs {cost.cost_s:.1f} s"


class History:
    """The last thousand decisions, oldest first. Entries are replaced, never changed."""

    def __init__(self) -> None:
        self._decisions: deque[Decision] = deque(maxlen=HISTORY_LENGTH)
        self._next_id = 1

    def __iter__(self) -> Iterator[Decision]:
        return iter(tuple(self._decisions))

    @property
    def last_id(self) -> int:
        """Of the newest decision; 0 before the first."""
        return self._next_id - 1

    def __len__(self) -> int:
        return len(self._decisions)

    def add(self, at_s: float, verdict: Verdict, trigger: AdaptationTrigger | None, reason: str, **figures: Any) -> Decision:
        """A new entry; what is decided once more, with nothing but routine since, is counted where it stands."""
        new = Decision(self._next_id, at_s, verdict, trigger, reason, last_s=at_s, **figures)
        for index in reversed(range(len(self._decisions))):
            known = self._decisions[index]
            if not (new.is_routine and known.is_routine):
                break
            if (known.verdict, known.rule) == (verdict, new.rule) and at_s - known.last_s < REPEATS_S:
                same = replace(new, decision_id=known.decision_id, at_s=known.at_s, num_times=known.num_times + 1)
                self._decisions[index] = same
                return same
        self._next_id += 1
        self._decisions.append(new)
        return new

    def repeat(self, decision: Decision, at_s: float, verdict: Verdict, reason: str) -> Decision:
        """The same offer as a new entry, with another verdict."""
        again = replace(decision, decision_id=self._next_id, at_s=at_s, last_s=at_s, verdict=verdict, reason=reason, outcome="")
        self._next_id += 1
        self._decisions.append(again)
        return again

    def get(self, decision_id: int) -> Decision:
        """Raises NotFound if it never was or is forgotten."""
        for decision in self._decisions:
            if decision.decision_id == decision_id:
                return decision
        raise NotFound(f"decision {decision_id} is not in the history of the last {HISTORY_LENGTH}: look at the list again")

    def update(self, decision_id: int, **figures: Any) -> Decision:
        """What became of a decision."""
        for index, decision in enumerate(self._decisions):
            if decision.decision_id == decision_id:
                self._decisions[index] = replace(decision, **figures)
                return self._decisions[index]
        raise NotFound(f"decision {decision_id} is not in the history of the last {HISTORY_LENGTH}: look at the list again")
