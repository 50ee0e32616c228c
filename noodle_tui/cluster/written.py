"""What the processes of a cluster that was joined write: asked of the coordinator, each line once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from engine.data.errors import NoodleError
from engine.data.measured_link import COORDINATOR
from noodle_tui.core.logs import LogLine

if TYPE_CHECKING:
    from noodle_tui.cluster.link import Link
    from noodle_tui.cluster.replay import ReplayLink


class Written:
    """Of one cluster; it knows up to where each process was read."""

    def __init__(self) -> None:
        self._newest: dict[str, int] = {}
        self._refusal = ""

    async def since(self, link: Link | ReplayLink, workers: Sequence[str]) -> tuple[LogLine, ...]:
        """New lines of coordinator and `workers` in the order of time. Why there are none is said once, as a line.

        Workers are asked all at once: one that stands still holds up no other. Where the coordinator refuses, none is asked.
        """
        try:
            found = await self._of(link, "")
        except NoodleError as problem:
            told, before = str(problem) or type(problem).__name__, self._refusal
            self._refusal = told
            text = f"what the cluster's processes write cannot be read: {told}"
            return () if told == before else (LogLine(0, time.time(), "WARN", "link", text),)
        self._refusal = ""
        for lines in await asyncio.gather(*(self._of(link, name) for name in workers), return_exceptions=True):
            if not isinstance(lines, BaseException):
                found += lines
            elif not isinstance(lines, NoodleError):  # one that cannot be asked now is asked again at the next look
                raise lines
        return tuple(sorted(found, key=lambda line: line.wall_s))

    async def _of(self, link: Link | ReplayLink, name: str) -> list[LogLine]:
        """The new lines of one process; the empty name is the coordinator's."""
        lines = await link.ask("lines", name, self._newest.get(name, 0))
        if lines:
            self._newest[name] = lines[-1].number
        return [LogLine(0, line.wall_s, str(line.severity), name or COORDINATOR, line.text) for line in lines]
