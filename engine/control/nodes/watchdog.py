"""Finds what heartbeats alone do not tell: a silent worker that a step waits for, broken links, steps that never return. Pure.

A lease of 3 s is right for a worker nobody waits for. Where a step waits, silence of three heartbeats is enough to go on without
the worker: a false accusation costs a pause and never a token, because every message of the accused is fenced.
"""

from __future__ import annotations

from engine.control.nodes.members import Member, Members
from engine.control.plan_state import Interrupt
from engine.control.sessions.serving import Serving

STUCK_S = 0.5


class Watchdog:
    """Asked on every tick while a plan serves."""

    def __init__(self) -> None:
        self._trouble, self._since_s = "", 0.0

    def forget(self) -> None:
        """Another plan, other links."""
        self._trouble, self._since_s = "", 0.0

    def note(self, trouble: str, now_s: float) -> None:
        """Links broke: if no lost worker explains it soon, the stages are loaded again, with new links."""
        if trouble and not self._trouble:
            self._trouble, self._since_s = trouble, now_s

    def silent(self, members: Members, serving: Serving, holds_steps: bool, now_s: float) -> list[Member]:
        """Workers to give up: suspect, in the plan, and waited for by a step or by what holds all steps."""
        oldest_s = min((f.sent_s for f in serving.flights.values()), default=now_s)
        if now_s - oldest_s <= STUCK_S and not holds_steps and not self._trouble:
            return []
        return [m for m in members if m.suspect and m.alive and m.stage is not None]

    def broken(self, serving: Serving, now_s: float) -> Interrupt | None:
        """The present plan cannot go on although every worker beats; None if it can."""
        lasts = self._trouble and now_s - self._since_s > STUCK_S
        why = self._trouble if lasts else serving.overdue(now_s)
        return Interrupt(why) if why else None
