"""`why`: what the console's first line says, with the evidence and the command that helps."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import asdict
from typing import Any

from engine.commands.cluster.options import Why
from engine.commands.output import print_json, say
from engine.data.status import ClusterStatus
from engine.diagnosis.finding import Finding, Remedy
from engine.diagnosis.standing import SAID_AFTER_S, Standing
from engine.printable import one_line

LOOKS_FOR_S = SAID_AFTER_S + 1.0
INTERVAL_S = 0.25
COMMANDS = {
    Remedy.COMPARE: "noodle-engine rebalance --dry-run",
    Remedy.WITHOUT: "noodle-engine drain {node}",
    Remedy.FORGET: "noodle-engine forget {node}",
    Remedy.REPLAN: "noodle-engine rebalance",
    Remedy.SESSIONS: "noodle-engine status, then noodle-engine cancel SESSION",
    Remedy.NODE: "noodle-engine status",
    Remedy.LOGS: "noodle-engine events",
}


def why(options: Why) -> int:
    """Watch for a moment and print what stands."""
    found, status = asyncio.run(_look(options))
    if options.json:
        print_json({"findings": [_document(finding) for finding in found]})
    elif found:
        say("\n".join(row for finding in found for row in _rows(finding)))
    else:
        say(_nothing(status))
    return 0


async def _look(options: Why) -> tuple[tuple[Finding, ...], ClusterStatus]:
    """A moment's noise is no finding: those that stand after `LOOKS_FOR_S`."""
    standing, began_s = Standing(), time.monotonic()
    async with options.connection.client() as client, contextlib.aclosing(client.watch(min_interval_s=INTERVAL_S)) as frames:
        async for frame in frames:
            now_s = time.monotonic()
            standing = standing.after(frame.status, now_s)
            if now_s - began_s >= LOOKS_FOR_S:
                break
        return standing.said, frame.status


def _document(finding: Finding) -> dict[str, Any]:
    return asdict(finding) | {"command": command(finding)}


def command(finding: Finding) -> str:
    """What helps, as it is typed."""
    return COMMANDS[finding.do].format(node=finding.node)


def _rows(finding: Finding) -> list[str]:
    return [one_line(f"{finding.what}: {finding.why}"), one_line(f"    {finding.evidence}"), one_line(f"    {command(finding)}")]


def _nothing(status: ClusterStatus) -> str:
    speed = status.speed
    does = f"{speed.tokens_per_s:.1f} tokens/s, a step takes {1e3 * speed.step_p50_s:.1f} ms" if speed.step_p50_s > 0 else "no session runs"
    return one_line(f"nothing stands out: {status.phase}, {does}")
