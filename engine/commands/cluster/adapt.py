"""`adapt`: whether a running cluster moves layers by itself, and what it decided so far."""

from __future__ import annotations

import asyncio
from dataclasses import asdict

from engine.commands.cluster.options import Adapt
from engine.commands.output import note, print_json, say, table
from engine.data.adaptation import AdaptationEntry, AdaptationStatus
from engine.data.errors import InvalidInput


def adapt(options: Adapt) -> int:
    """Without an action print the history, oldest first; else switch the mode or confirm a suggestion."""
    if (options.action == "confirm") != (options.decision_id is not None):
        raise InvalidInput("give the id of a suggestion with confirm, and only with it: noodle-engine adapt confirm ID")
    status = asyncio.run(_adapt(options))
    if options.json:
        print_json(asdict(status))
    elif options.action is None:
        note(f"adaptation is {status.mode}")
        say(table(("ID", "AGE s", "VERDICT", "BEFORE ms", "PROMISED ms", "REALISED ms", "WHAT"), [_row(e) for e in status.history]))
    else:
        note(f"adaptation is {status.mode}" + (f"; suggestion {options.decision_id} is being carried out" if options.decision_id else ""))
    return 0


async def _adapt(options: Adapt) -> AdaptationStatus:
    async with options.connection.client() as client:
        if options.action is None:
            return await client.adaptation()
        if options.decision_id is not None:
            return await client.set_adaptation(confirm=options.decision_id)
        return await client.set_adaptation(options.action)


def _row(e: AdaptationEntry) -> tuple[str, ...]:
    times = (_ms(e.before_s), _ms(e.predicted_s), _ms(e.realised_s or 0.0))
    return (str(e.decision_id), f"{e.age_s:.0f}", e.verdict, *times, e.sentence)


def _ms(time_s: float) -> str:
    return f"{1e3 * time_s:.1f}" if time_s else "-"
