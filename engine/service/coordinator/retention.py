"""How long the journal remembers: sessions that are over, with their prompts and answers, and what happened meanwhile."""

from __future__ import annotations

import argparse
import asyncio
import math
import re
import time
from collections.abc import Callable
from dataclasses import dataclass

_UNITS_S = {"m": 60.0, "h": 3600.0, "d": 86400.0}
PERIOD_S = 60.0
PAUSE_S = 0.05  # between two portions, so that tokens do not wait for all of them


@dataclass(frozen=True)
class Keep:
    """Sessions younger than `age_s` are kept, but for those beyond the newest `num_sessions`."""

    age_s: float = 30 * 86400.0
    num_sessions: int = 10_000

    def __str__(self) -> str:
        number = str(self.num_sessions)
        return number if math.isinf(self.age_s) else f"{round(self.age_s / 60)}m,{number}"


def keep(text: str) -> Keep:
    """`30d`, `12h,500` or `500`: an age, a number of sessions, or both."""
    match = re.fullmatch(r"(?:([0-9]{1,9})([mhd]))?,?([0-9]{1,9})?", text)
    if match is None or not text or text in (",",) or (match[1] and match[3] and "," not in text):
        raise argparse.ArgumentTypeError(f"{text[:80]!r} is not allowed: give an age, a number of sessions or both, e.g. 30d,10000")
    age_s = float(match[1]) * _UNITS_S[match[2]] if match[1] else math.inf
    return Keep(age_s, int(match[3]) if match[3] else 10**9)


async def prune_forever(prune: Callable[[float, Keep], int], limit: Keep) -> None:
    """Call `prune`, which forgets a portion and says how much that was, until nothing is left to forget; again and again."""
    while True:
        pause_s = PAUSE_S if prune(time.time(), limit) > 0 else PERIOD_S
        await asyncio.sleep(pause_s)
