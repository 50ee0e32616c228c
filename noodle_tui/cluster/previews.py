"""What a preview asks of the coordinator before `y` may be pressed: the plan it would lead to, and what that move takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from engine.data.errors import NoodleError, NotFound, Unavailable
from engine.data.plan import Plan, Stage, former_plan
from noodle_tui.core.messages import CandidateArrived, PreviewArrived, SuggestionArrived
from noodle_tui.core.pages import Preview
from noodle_tui.state import Suggestion

if TYPE_CHECKING:
    from engine.data.moves import MoveEstimate
    from engine.data.plan import AdoptedPlan
    from noodle_tui.cluster.link import Link
    from noodle_tui.cluster.replay import ReplayLink


async def filled(link: Link | ReplayLink, preview: Preview, suggestion: Suggestion | None, now: Sequence[Stage]) -> PreviewArrived:
    """The coordinator's answer, or its refusal, to a preview, beside what it says of the stages that serve `now`; never raises."""
    target, about = preview.target, preview.about
    try:
        if preview.action == "cluster.rollback":
            wanted = int(preview.target) if preview.target.isdecimal() else None
            former = await _former(link, preview.plan_version, wanted)
            about = f"the stages of plan #{former.plan_version} ({former.strategy}), with the times that hold now"
            plan = await link.plan("", former.stages)
        elif preview.action == "cluster.confirm":
            if suggestion is None:
                raise NotFound("the suggestion has lapsed: see Events")
            plan = await link.plan("", suggestion.entry.stages)
        elif preview.action == "cluster.drain":
            plan = await link.plan("", without=preview.names)
        elif preview.action == "cluster.undrain":
            plan = await link.plan("", including=preview.names)
        else:
            plan = await link.plan(preview.target if preview.action == "cluster.apply" else "")
    except NoodleError as problem:
        return PreviewArrived(preview.action, target, error=str(problem) or type(problem).__name__, about=about)
    except Exception as problem:  # a defect must be read on screen, not end the console
        return PreviewArrived(preview.action, target, error=f"unexpected {type(problem).__name__}: {problem}", about=about)
    if plan.for_version != preview.plan_version:
        lapsed = f"the plan moved from #{preview.plan_version} to #{plan.for_version} while the coordinator was asked: look again"
        return PreviewArrived(preview.action, target, lapsed=lapsed, about=about)
    present = await priced(link, now)
    if present is not None and present.for_version != plan.for_version:
        present = None
    return PreviewArrived(preview.action, target, plan, present, move=await _move(link, plan), about=about)


async def priced(link: Link | ReplayLink, stages: Sequence[Stage]) -> Plan | None:
    """The coordinator's figures of the stages that serve, by the times that it plans with now; None where it cannot say."""
    if not stages:
        return None
    try:
        return await link.plan("", stages)
    except Exception:
        return None


async def candidate(link: Link | ReplayLink, strategy: str) -> tuple[CandidateArrived, NoodleError | None]:
    """What a strategy would do; beside it the refusal itself, which may name the strategies that there are."""
    try:
        plan = await link.plan(strategy)
    except NoodleError as problem:
        return CandidateArrived(strategy, None, str(problem) or type(problem).__name__), problem
    except Exception as problem:
        error = Unavailable(f"unexpected {type(problem).__name__}: {problem}")
        return CandidateArrived(strategy, None, str(error)), error
    return CandidateArrived(strategy, plan, move=await _move(link, plan)), None


async def suggestion_of(link: Link | ReplayLink, decision_id: int) -> SuggestionArrived | None:
    """What adaptation's open suggestion says and would do; None if it cannot be learnt."""
    try:
        status = await link.ask("adaptation")
        entry = next((e for e in status.history if e.decision_id == decision_id), None)
        if entry is None:
            return None
        plan: Plan | None = await link.plan("", entry.stages) if entry.stages else None
    except Exception:  # the next frame asks again
        return None
    if plan is not None and plan.for_version != entry.for_version:
        return None
    return SuggestionArrived(entry, plan, await _move(link, plan) if plan else None)


async def _former(link: Link | ReplayLink, present: int, wanted: int | None) -> Plan:
    plans: Sequence[AdoptedPlan] = await link.ask("plans")
    return former_plan(plans, present, wanted)


async def _move(link: Link | ReplayLink, plan: Plan) -> MoveEstimate | None:
    """None where there is nothing to move from, nobody can say, or another plan serves meanwhile."""
    try:
        told: MoveEstimate = await link.ask("estimate_move", plan.stages)
    except Exception:
        return None
    return told if told.plan_version == plan.for_version else None
