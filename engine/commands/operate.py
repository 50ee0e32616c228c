"""`drain`, `rebalance` and `cancel`: the commands that change a running cluster."""

from __future__ import annotations

import argparse
import asyncio
from dataclasses import asdict

from engine.commands.output import print_json, table
from engine.data import Plan
from engine.service.client import Client


def drain(options: argparse.Namespace) -> int:
    """Leave a worker out of plans from now on."""
    _show(asyncio.run(_drain(options)), options.json)
    return 0


async def _drain(options: argparse.Namespace) -> Plan:
    async with Client(options.connect, options.token, options.tls_ca) as client:
        return await client.drain(options.worker_id)


def rebalance(options: argparse.Namespace) -> int:
    """Plan again; the new plan takes effect when the running sessions have ended."""
    _show(asyncio.run(_rebalance(options)), options.json)
    return 0


async def _rebalance(options: argparse.Namespace) -> Plan:
    async with Client(options.connect, options.token, options.tls_ca) as client:
        if options.dry_run:
            return await client.plan()
        status = await client.status()
        return await client.apply(status.plan_version)


def cancel(options: argparse.Namespace) -> int:
    """End a session now."""
    asyncio.run(_cancel(options))
    return 0


async def _cancel(options: argparse.Namespace) -> None:
    async with Client(options.connect, options.token, options.tls_ca) as client:
        await client.cancel(options.session_id)


def _show(plan: Plan, as_json: bool) -> None:
    if as_json:
        print_json(asdict(plan))
        return
    rows = [(s.node_id, f"{s.start}-{s.stop - 1}", f"{1e3 * t:.2f}") for s, t in zip(plan.stages, plan.stage_s, strict=True)]
    print(f"plan #{plan.plan_version} {plan.strategy}, bottleneck {1e3 * plan.bottleneck_s:.2f} ms{', optimal' if plan.optimal else ''}")
    print(table(("NODE", "ITEMS", "PLANNED ms"), rows))
