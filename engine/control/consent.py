"""An operator's request holds for the plan that the operator saw: two of them at once cannot overwrite each other. Pure."""

from __future__ import annotations

from engine.control.moves import Move
from engine.control.plan_state import PlanState
from engine.data.errors import Refused

REQUESTED = "requested by the operator"  # the cause of a move that an operator asked for


def check_seen(plan_version: int, expected_plan_version: int | None) -> None:
    """Raise Refused if the plan is not the one that the request was made for; None stands for any."""
    if expected_plan_version is not None and expected_plan_version != plan_version:
        raise Refused(f"the plan is #{plan_version} now, the request was made for #{expected_plan_version}: look again")


def check_unchanged(state: PlanState, move: Move | None, expected_plan_version: int | None) -> None:
    """The same, and Refused too while another plan is being moved to or another operator's wish waits to be."""
    if expected_plan_version is None:
        return
    check_seen(state.plan_version, expected_plan_version)
    if move is not None:
        raise Refused(f"a move to #{move.new.plan_version} is under way: wait for its end, then ask again")
    if state.wish is not None and state.wish.cause == REQUESTED:
        raise Refused("another change of plan was requested and is about to begin: wait for its end, then ask again")
