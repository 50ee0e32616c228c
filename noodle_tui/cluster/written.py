"""What the processes of a cluster that was joined write: asked of the coordinator, each line once."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from engine.data.errors import NoodleError
from noodle_tui.core.logs import LogLine

if TYPE_CHECKING:
    from noodle_tui.cluster.link import Link
    from noodle_tui.cluster.replay import ReplayLink

COORDINATOR = "coordinator"


class Written:
    """Of one cluster; it knows up to where each process was read."""

    def __init__(self) -> None:
        self._newest: dict[str, int] = {}
        self._refusal = ""

    async def since(self, link: Link | ReplayLink, workers: Sequence[str]) -> tuple[LogLine, ...]:
        """New lines of coordinator and `workers` in the order of time. Why there are none is said once, as a line."""
        found, failures = list[LogLine](), list[str]()
        for name in ("", *workers):
            try:
                lines = await link.ask("lines", name, self._newest.get(name, 0))
            except NoodleError as problem:
                failures.append(str(problem) or type(problem).__name__)
                continue
            if lines:
                self._newest[name] = lines[-1].number
            found += [LogLine(0, line.wall_s, str(line.severity), name or COORDINATOR, line.text) for line in lines]
        told = failures[0] if len(failures) == len(workers) + 1 else ""
        if told and told != self._refusal:
            found.append(LogLine(0, time.time(), "WARN", "link", f"what the cluster's processes write cannot be read: {told}"))
        self._refusal = told
        return tuple(sorted(found, key=lambda line: line.wall_s))
