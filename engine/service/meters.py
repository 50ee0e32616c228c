"""What a worker says of itself in every heartbeat and at /metrics; written by its compute and its heartbeat thread."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from engine.data.status import Gauges
from engine.service.sensors import Sensors


@dataclass(slots=True)
class Meters:
    """Plain fields: each is written by one thread, and a torn reading across fields does no harm."""

    detail: str = "starting"
    progress: float = -1.0
    kv_used_bytes: int = 0
    queue_depth: int = 0
    sensors: Sensors = field(default_factory=Sensors)
    sensed: Gauges = field(default_factory=Gauges)  # the last reading of the sensors
    num_steps: int = 0  # since the worker started, as are the sums below
    compute_s: float = 0.0
    queue_s: float = 0.0
    wire_in_s: float = 0.0
    wire_out_s: float = 0.0
    fetched_bytes: int = 0  # of weights, from other workers and the coordinator
    sent_bytes: int = 0  # of weights, to other workers

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

    def read(self) -> Gauges:
        """What a heartbeat says, with a fresh reading of the sensors; called on the heartbeat thread."""
        self.sensed = self.sensors.read()
        return self.latest()

    def latest(self) -> Gauges:
        """The last reading of the sensors, and what is counted here as it is now."""
        return replace(self.sensed, kv_used_bytes=self.kv_used_bytes, queue_depth=self.queue_depth)
