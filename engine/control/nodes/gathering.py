"""Whether the workers that are here are enough to plan with, or more will come in a moment. Pure."""

from __future__ import annotations

from engine.control.nodes.members import Members

REUNION_S = 3.0  # how long a restarted coordinator waits for the workers of its former self
SETTLE_S = 0.25  # after all workers were lost and the first is back: the others come within that time if the network was away


class Gathering:
    """A first plan waits for the workers that are expected; a later one only if all were lost at once."""

    def __init__(self, num_expected: int, is_restart: bool, now_s: float) -> None:
        self.num_expected, self.is_restart = num_expected, is_restart
        self._first_s: float | None = None  # when a worker could first hold layers
        self._lost_all, self._settled_s = False, now_s

    def joined(self, now_s: float) -> None:
        """A worker may hold layers from now on."""
        self._first_s = now_s if self._first_s is None else self._first_s
        if self._lost_all:
            self._lost_all, self._settled_s = False, now_s + SETTLE_S

    def lost(self, members: Members) -> None:
        """A worker was lost; `members` are those that remain."""
        self._lost_all = self._lost_all or not members.eligible()

    def forgotten(self, num_known: int) -> None:
        """An operator struck a lost node off the list, on which `num_known` remain: one that was expected does not come any more."""
        if num_known < self.num_expected:
            self.num_expected = max(1, self.num_expected - 1)

    def wanted(self) -> str:
        """What a cluster without a plan is waiting for."""
        return f"waiting for {self.num_expected} workers"

    def is_complete(self, members: Members) -> bool:
        """Nobody else comes: not one of those that a former coordinator had either."""
        return not self.is_restart and members.all_accounted_for(self.num_expected)

    def is_over(self, members: Members, had_plan: bool, now_s: float) -> bool:
        num_eligible = len(members.eligible())
        if not num_eligible:
            return False
        if had_plan:
            return now_s >= self._settled_s or num_eligible >= self.num_expected
        if num_eligible >= self.num_expected or members.all_accounted_for(self.num_expected):
            return True
        return self.is_restart and self._first_s is not None and now_s - self._first_s > REUNION_S
