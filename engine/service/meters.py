"""What a worker says of itself in every heartbeat and at /metrics; written by its compute and its heartbeat thread."""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass, field, replace

from engine.data.status import Gauges
from engine.service.sensors import Sensors

FRESH_S = 5.0


@dataclass(slots=True)
class Meters:
    """Plain fields: each is written by one thread, and a torn reading across fields does no harm."""

    detail: str = "starting"
    progress: float = -1.0
    kv_used_bytes: int = 0
    queue_depth: int = 0
    sensors: Sensors = field(default_factory=Sensors)
    sensed: Gauges = field(default_factory=Gauges)  # the last reading of the sensors
    sensed_at_s: float = -math.inf
    sensing: threading.Lock = field(default_factory=threading.Lock)
    num_steps: int = 0  # since the worker started, as are the sums below
    compute_s: float = 0.0
    queue_s: float = 0.0
    wire_in_s: float = 0.0
    wire_out_s: float = 0.0
    fetched_bytes: int = 0  # of weights, from other workers and the coordinator
    sent_bytes: int = 0  # of weights, to other workers
    link_bytes: dict[tuple[str, str, str], int] = field(default_factory=dict)  # by source, target and what travelled

    def say(self, detail: str, progress: float) -> None:
        """What the worker is doing, for people; progress in 0..1, -1 when unknown."""
        self.detail, self.progress = detail, progress

    def add_step(self, compute_s: float, queue_s: float, wire_in_s: float, wire_out_s: float) -> None:
        """One step was computed; called on the compute thread."""
        self.num_steps += 1
        self.compute_s += compute_s
        self.queue_s += queue_s
        self.wire_in_s += wire_in_s
        self.wire_out_s += wire_out_s

    def add_sent(self, num_bytes: int) -> None:
        """Weights went to another worker; called on the event loop."""
        self.sent_bytes += num_bytes

    def add_link(self, source_id: str, target_id: str, kind: str, num_bytes: int) -> None:
        """Something travelled between two nodes, one of which is this one; called on the event loop."""
        link = source_id, target_id, kind
        self.link_bytes[link] = self.link_bytes.get(link, 0) + num_bytes

    def read(self) -> Gauges:
        """What a heartbeat says, with a fresh reading of the sensors; called on the heartbeat thread, or for a scrape."""
        with self.sensing:
            self.sensed, self.sensed_at_s = self.sensors.read(), time.monotonic()
        return self.latest()

    def fresh(self) -> Gauges:
        """For a scrape: nobody beats while there is no coordinator, and an old reading is none."""
        return self.latest() if time.monotonic() - self.sensed_at_s < FRESH_S else self.read()

    def latest(self) -> Gauges:
        """The last reading of the sensors, and what is counted here as it is now."""
        return replace(self.sensed, kv_used_bytes=self.kv_used_bytes, queue_depth=self.queue_depth)
