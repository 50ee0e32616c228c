"""`drain`, `undrain`, `forget`, `acknowledge`, `rebalance`, `cancel`, `slowdown` and `moves`: the commands that change a running
cluster, and what changed."""

from __future__ import annotations

import asyncio
from dataclasses import asdict

from engine.commands.cluster.options import Acknowledge, Cancel, Drain, Forget, Moves, Rebalance, Slowdown, Undrain
from engine.commands.output import note, print_json, say, table
from engine.control.consent import check_seen
from engine.data.errors import InvalidInput
from engine.data.moves import MoveReport
from engine.data.plan import Plan, Stage


def drain(options: Drain) -> int:
    """Leave workers out of plans from now on; their items move while sessions go on."""
    _show(asyncio.run(_drain(options)), options.json)
    return 0


async def _drain(options: Drain) -> Plan:
    async with options.connection.client() as client:
        return await client.drain(options.worker_ids, options.for_plan)


def undrain(options: Undrain) -> int:
    """Let plans use drained workers again; items move to them while sessions go on."""
    _show(asyncio.run(_undrain(options)), options.json)
    return 0


async def _undrain(options: Undrain) -> Plan:
    async with options.connection.client() as client:
        return await client.undrain(options.worker_ids, options.for_plan)


def forget(options: Forget) -> int:
    """Strike a lost node off the list."""
    asyncio.run(_forget(options))
    if options.json:
        print_json({"forgotten": options.worker_id})
    else:
        note(f"{options.worker_id} is not listed and not waited for any more")
    return 0


async def _forget(options: Forget) -> None:
    async with options.connection.client() as client:
        await client.forget(options.worker_id)


def acknowledge(options: Acknowledge) -> int:
    """Say that warnings and errors have been seen."""
    sequence, num_warnings = asyncio.run(_acknowledge(options))
    if options.json:
        print_json({"acknowledged_sequence": sequence, "num_warnings": num_warnings})
    else:
        note(f"{num_warnings} warning{'' if num_warnings == 1 else 's'} acknowledged, all up to event {sequence}")
    return 0


async def _acknowledge(options: Acknowledge) -> tuple[int, int]:
    async with options.connection.client() as client:
        return await client.acknowledge(options.sequence or 0)


def rebalance(options: Rebalance) -> int:
    """Plan again and move to the new plan while sessions go on."""
    plan = asyncio.run(_rebalance(options))
    _show(plan, options.json)
    if options.dry_run:
        note_preview(plan)
    return 0


async def _rebalance(options: Rebalance) -> Plan:
    async with options.connection.client() as client:
        stages = parse_stages(options.stages) if options.stages else ()
        if options.dry_run:
            plan = await client.plan(options.strategy, stages)
            check_seen(plan.for_version, options.for_plan)
            return plan
        seen = options.for_plan if options.for_plan is not None else (await client.status()).plan_version
        return await client.apply(seen, options.strategy, stages)


def note_preview(plan: Plan) -> None:
    """Nothing was done; with this number it can be done for the plan that was looked at and for no other."""
    note(f"nothing was changed: this was made for plan #{plan.for_version}, so give --for-plan {plan.for_version} when you do it")


def parse_stages(text: str) -> tuple[Stage, ...]:
    """`w1:0-4,w2:5-9`: each node's first and last item. Raises InvalidInput."""
    stages = []
    for part in text.split(","):
        node_id, _, items = part.rpartition(":")
        first, _, last = items.partition("-")
        if not node_id or not first.isdecimal() or not (last or first).isdecimal():
            raise InvalidInput(f"stage {part[:80]!r} is not allowed: give NODE:FIRST-LAST, e.g. w1:0-4,w2:5-9")
        stages.append(Stage(node_id, int(first), int(last or first) + 1))
    return tuple(stages)


def cancel(options: Cancel) -> int:
    """End a session now."""
    asyncio.run(_cancel(options))
    return 0


async def _cancel(options: Cancel) -> None:
    async with options.connection.client() as client:
        await client.cancel(options.session_id, options.for_plan)


def slowdown(options: Slowdown) -> int:
    """Let a worker play a slower machine from now on."""
    asyncio.run(_slowdown(options))
    note(f"{options.worker_id} computes {options.factor:g} times as slow as it could")
    return 0


async def _slowdown(options: Slowdown) -> None:
    async with options.connection.client() as client:
        await client.set_slowdown(options.worker_id, options.factor)


def moves(options: Moves) -> int:
    """Print what the last live changes of plan moved, oldest first."""
    found = asyncio.run(_moves(options))
    if options.json:
        print_json([asdict(m) for m in found])
    else:
        head = ("PLAN", "ITEMS", "WEIGHTS MB", "KV MB", "PREPARED s", "PAUSE ms", "OUTCOME", "CAUSE")
        say(table(head, [_row(m) for m in found]))
    return 0


async def _moves(options: Moves) -> tuple[MoveReport, ...]:
    async with options.connection.client() as client:
        return await client.moves()


def _row(m: MoveReport) -> tuple[str, ...]:
    megabytes = f"{m.weight_bytes / 1e6:.1f}", f"{m.kv_bytes / 1e6:.2f}"
    return (f"#{m.plan_version}", str(m.num_items), *megabytes, f"{m.prepare_s:.2f}", f"{1e3 * m.pause_s:.0f}", m.outcome, m.cause)


def _show(plan: Plan, as_json: bool) -> None:
    if as_json:
        print_json(asdict(plan))
        return
    rows = [(s.node_id, f"{s.start}-{s.stop - 1}", f"{1e3 * t:.2f}") for s, t in zip(plan.stages, plan.stage_s, strict=True)]
    say(f"plan #{plan.plan_version} {plan.strategy}, bottleneck {1e3 * plan.bottleneck_s:.2f} ms{_proof(plan)}")
    say(table(("NODE", "ITEMS", "PLANNED ms"), rows))


def _proof(plan: Plan) -> str:
    if plan.optimal:
        return ", optimal"
    return f", at most {100 * plan.gap:.1f} % above the best of all orders" if plan.gap else ""
