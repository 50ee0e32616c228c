"""What a worker says of itself in every heartbeat; written by its compute thread, read by its heartbeat thread."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Gauges:
    """Plain fields: each is written by one thread, and a torn reading across fields does no harm."""

    detail: str = "starting"
    progress: float = -1.0
    kv_used_bytes: int = 0
    queue_depth: int = 0

    def say(self, detail: str, progress: float) -> None:
        """What the worker is doing, for people; progress in 0..1, -1 when unknown."""
        self.detail, self.progress = detail, progress
