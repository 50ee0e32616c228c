"""How long the journal remembers: sessions that are over, with their prompts and answers, and what happened meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from engine.service.coordinator.options import Keep

PERIOD_S = 60.0
PAUSE_S = 0.05  # between two portions, so that tokens do not wait for all of them


async def prune_forever(prune: Callable[[float, Keep], int], limit: Keep) -> None:
    """Call `prune`, which forgets a portion and says how much that was, until nothing is left to forget; again and again."""
    while True:
        pause_s = PAUSE_S if prune(time.time(), limit) > 0 else PERIOD_S
        await asyncio.sleep(pause_s)
