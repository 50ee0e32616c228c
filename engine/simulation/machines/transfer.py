"""Tensors on their way between two nodes."""

from __future__ import annotations

from engine.simulation.scenario import LinkModel


class SimulatedTensorTransfer:
    """One direction of a link: messages leave one after the other, in the order of their sending."""

    def __init__(self, sender: str, receiver: str, model: LinkModel) -> None:
        self.sender, self.receiver, self.model = sender, receiver, model
        self.num_messages = self.num_bytes = 0
        self.busy_s = 0.0
        self._free_s = 0.0

    def send(self, now_s: float, num_bytes: int) -> float:
        """When a message that is ready at `now_s` has arrived whole."""
        self.num_messages += 1
        self.num_bytes += num_bytes
        holds_s = num_bytes / self.model.bytes_per_s
        self.busy_s += holds_s
        self._free_s = max(now_s, self._free_s) + holds_s
        return self._free_s + self.model.latency_s
