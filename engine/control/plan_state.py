"""Which plan a cluster has, how far it is carried out, and which change is due: the only place where that is written. Pure.

Whoever finds that the plan has to change returns a consequence; the cluster applies it here and to everything else it concerns.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from engine.control.moves import Wish
from engine.data.plan import Plan
from engine.data.status import Phase


@dataclass(frozen=True, slots=True)
class Interrupt:
    """The plan no longer runs; its sessions wait for the next one."""

    cause: str


@dataclass(frozen=True, slots=True)
class DropMove:
    """Give up the move that is not committed yet, if there is one and it leads `to` that node (to any, if none is named)."""

    why: str
    again: bool = False  # a little later
    to: str = ""


@dataclass(frozen=True, slots=True)
class Fail:
    """The cluster cannot serve at all."""

    why: str


@dataclass(frozen=True, slots=True)
class Replan:
    """A change of the plan that serves is due; without one there is nothing to change."""

    wish: Wish


@dataclass(frozen=True, slots=True)
class Begin:
    """Move to this plan now; its version is still to be given."""

    plan: Plan
    wish: Wish


@dataclass(frozen=True, slots=True)
class Switch:
    """This plan is the one that runs from now on."""

    plan: Plan


Consequence = Interrupt | DropMove | Fail | Replan | Begin | Switch


class PlanState:
    """`plan_version` is that of the newest plan that ran, `last_version` the newest that any was given, also by former coordinators."""

    def __init__(self, last_version: int, detail: str) -> None:
        self.phase = Phase.GATHERING
        self.detail = detail  # what the phase waits for
        self.failure = ""
        self.plan: Plan | None = None
        self.plan_version = self.last_version = last_version
        self.had_plan = False
        self.wish: Wish | None = None  # a move is due as soon as none is under way
        self._loaded: set[str] = set()
        self._infeasible_for: Hashable = ()

    @property
    def running(self) -> Plan | None:
        """The plan that steps run on."""
        return self.plan if self.phase is Phase.SERVING else None

    # ------------------------------------------------------------------------------------------ a plan comes
    def begin_loading(self, plan: Plan) -> None:
        self.phase, self.detail = Phase.LOADING, f"loading plan #{plan.plan_version}"
        self._loaded = set()

    def switch(self, plan: Plan) -> None:
        self.plan, self.plan_version, self.had_plan = plan, plan.plan_version, True
        self.last_version = max(self.last_version, plan.plan_version)
        self._infeasible_for = ()

    def stage_loaded(self, plan: Plan, worker_id: str) -> bool:
        """Whether that was the last stage of the plan: it serves from now on."""
        self._loaded.add(worker_id)
        if self._loaded != {s.node_id for s in plan.stages}:
            return False
        self.phase, self.detail = Phase.SERVING, ""
        return True

    def give_version(self, plan_version: int) -> None:
        """A plan to come has it; if the plan is given up, no other gets it."""
        self.last_version = plan_version

    # ------------------------------------------------------------------------------------------ a plan goes
    def interrupt(self, cause: str) -> None:
        self.phase, self.detail, self.wish = Phase.GATHERING, f"re-planning: {cause}", None
        self.plan, self._infeasible_for = None, ()

    def fail(self, message: str) -> None:
        self.failure = self.detail = message
        self.phase, self.plan = Phase.GATHERING, None

    def forgive(self) -> None:
        """Another worker may hold the model: what failed before is tried again."""
        self.failure = ""

    # ------------------------------------------------------------------------------------------ none fits
    def wait(self, detail: str) -> None:
        self.detail = detail

    def is_infeasible_for(self, nodes: Hashable) -> bool:
        """Whether no plan was found for these nodes before, and nothing else has changed since."""
        return nodes == self._infeasible_for

    def find_infeasible(self, nodes: Hashable, why: str) -> None:
        self._infeasible_for, self.detail = nodes, why

    def look_again(self) -> None:
        self._infeasible_for = ()

    # ------------------------------------------------------------------------------------------ a change is due
    def want(self, wish: Wish) -> None:
        self.wish = wish

    def take_wish(self) -> None:
        self.wish = None
