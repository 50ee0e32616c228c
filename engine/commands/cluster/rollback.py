"""`rollback`: go back to a plan that served before, if that still fits and the plan is still the one that was seen."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import asdict

from engine.commands.cluster.operate import note_preview
from engine.commands.cluster.options import Rollback
from engine.commands.output import note, print_json, say, table
from engine.control.consent import check_seen
from engine.data.moves import MoveEstimate
from engine.data.plan import AdoptedPlan, Plan, former_plan


def rollback(options: Rollback) -> int:
    """Without a number the last plan whose stages differ from the present ones; `--list` shows which there are."""
    if options.list_plans:
        _show_plans(asyncio.run(_plans(options)), options.json)
        return 0
    plan, estimate = asyncio.run(_rollback(options))
    if options.json:
        print_json({"plan": asdict(plan), "move": asdict(estimate)})
    else:
        _show(plan, estimate)
    if options.dry_run:
        note_preview(plan)
    return 0


def _show(plan: Plan, estimate: MoveEstimate) -> None:
    stages = " | ".join(f"{s.node_id} {s.start}-{s.stop - 1}" for s in plan.stages)
    say(f"plan #{plan.plan_version}: {stages}, bottleneck {1e3 * plan.bottleneck_s:.2f} ms")
    moved = f"{estimate.num_items} items, {estimate.weight_bytes / 1e6:.1f} MB of weights, {estimate.kv_bytes / 1e6:.2f} MB of KV"
    note(f"{moved}; about {estimate.load_s + estimate.copy_s:.1f} s beside serving, then {1e3 * estimate.pause_s:.0f} ms of pause")


async def _plans(options: Rollback) -> tuple[AdoptedPlan, ...]:
    async with options.connection.client() as client:
        return await client.plans()


async def _rollback(options: Rollback) -> tuple[Plan, MoveEstimate]:
    async with options.connection.client() as client:
        status = await client.status()
        check_seen(status.plan_version, options.for_plan)
        former = former_plan(await client.plans(), status.plan_version, options.plan_version)
        estimate = await client.estimate_move(former.stages)
        if options.dry_run:
            plan = await client.plan("", former.stages)
            check_seen(plan.for_version, status.plan_version)
            return plan, estimate
        return await client.apply(status.plan_version, "", former.stages), estimate


def _show_plans(plans: Sequence[AdoptedPlan], as_json: bool) -> None:
    if as_json:
        print_json([asdict(found) for found in plans])
        return
    say(table(("PLAN", "ADOPTED", "STRATEGY", "BOTTLENECK ms", "STAGES"), [_row(found) for found in plans]))


def _row(found: AdoptedPlan) -> tuple[str, ...]:
    plan, adopted = found.plan, time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(found.wall_s))
    stages = " | ".join(f"{s.node_id} {s.start}-{s.stop - 1}" for s in plan.stages)
    return f"#{plan.plan_version}", adopted, plan.strategy, f"{1e3 * plan.bottleneck_s:.2f}", stages
