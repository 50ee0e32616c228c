"""Follows a change of plan that was accepted until it is done or dropped, and says what came of its prediction."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from engine.data.errors import NoodleError
from noodle_tui.text.figures import size

if TYPE_CHECKING:
    from engine.data.moves import MoveEstimate, MoveReport
    from noodle_tui.cluster.link import Link
    from noodle_tui.cluster.replay import ReplayLink

POLL_S = 0.5
LIMIT_S = 180.0
DONE = "done"


async def followed(link: Link | ReplayLink, plan_version: int, told: MoveEstimate | None, say: Callable[[str], None]) -> tuple[bool, str]:
    """Whether the move to a plan was done, and a sentence with its figures; `say` is called while it runs."""
    waited_s, before = 0.0, ""
    while waited_s < LIMIT_S:
        report = await _report(link, plan_version)
        if report is not None:
            return report.outcome == DONE, sentence(report, told)
        text = f"moving to plan #{plan_version}, {waited_s:.0f}s{_promised(told)}"
        if text != before:
            say(text)
        before = text
        await asyncio.sleep(POLL_S)
        waited_s += POLL_S
    return True, f"the move to plan #{plan_version} is still under way: Events tells its end"


async def _report(link: Link | ReplayLink, plan_version: int) -> MoveReport | None:
    """None while it runs, or while the coordinator cannot be asked: it goes on without this console."""
    try:
        reports: Sequence[MoveReport] = await link.ask("moves")
    except NoodleError:
        return None
    return next((report for report in reversed(reports) if report.plan_version == plan_version), None)


def sentence(report: MoveReport, told: MoveEstimate | None) -> str:
    """What it moved and took, beside what was predicted."""
    if report.outcome != DONE:
        return f"plan #{report.plan_version} was dropped: {report.outcome}"
    prepared = f"{report.prepare_s:.1f}s" + (f" (predicted {told.load_s:.1f})" if told else "")
    paused = f"{1e3 * report.pause_s:.0f}ms" + (f" (predicted {1e3 * told.pause_s:.0f})" if told else "")
    moved = f"{report.num_items} item{'s' if report.num_items != 1 else ''}, {size(report.weight_bytes)} + {size(report.kv_bytes)} KV"
    return f"plan #{report.plan_version} serves: prepared {prepared}, pause {paused}, {moved}"


def _promised(told: MoveEstimate | None) -> str:
    return f" of about {told.load_s + told.copy_s + told.pause_s:.1f}s" if told else ""
