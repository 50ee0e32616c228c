"""The open question of the moment: the best other plan, and the regret of not being there yet."""

from __future__ import annotations

from engine.control.adaptation.history import Verdict
from engine.control.adaptation.proposal import Proposal


class Case:
    """At most one proposal at a time. Regret outlives a proposal: it shrinks only while no better placement is known."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Another plan runs: nothing is owed to it yet."""
        self.proposal: Proposal | None = None
        self.owed_s = 0.0
        self._saved_s = 0.0  # per step, by the last proposal that saved anything
        self._steps_seen = 0
        self._said: set[tuple[Verdict, str]] = set()

    def accrue(self, num_decode_steps: int) -> None:
        """`num_decode_steps` have been seen since the plan began."""
        steps, self._steps_seen = num_decode_steps - self._steps_seen, num_decode_steps
        saved_s = self._saving(self.proposal)
        self.owed_s = max(0.0, self.owed_s + steps * (saved_s if saved_s > 0.0 else -self._saved_s))

    def take(self, proposal: Proposal | None) -> None:
        """A new proposal; the steps between the change and its discovery count too."""
        before_s, saved_s = self._saving(self.proposal), self._saving(proposal)
        self.proposal = proposal
        self._said.clear()
        if proposal and saved_s > 0.0:
            self._saved_s = saved_s
            self.owed_s += max(0.0, saved_s - before_s) * proposal.trigger.num_steps

    def is_news(self, verdict: Verdict, rule: str) -> bool:
        """True once per proposal and rule, so that a standing verdict is recorded once."""
        new = (verdict, rule) not in self._said
        self._said.add((verdict, rule))
        return new

    def repeat(self) -> None:
        """Say everything again: mode or orders have changed."""
        self._said.clear()

    @staticmethod
    def _saving(proposal: Proposal | None) -> float:
        return max(0.0, proposal.saved_s) if proposal and proposal.changes else 0.0
