"""What was measured of the way from one worker, or the coordinator, to another: a noun of every room, like those of `engine.data`."""

from __future__ import annotations

from dataclasses import dataclass

COORDINATOR = "coordinator"  # its name as the end of a link; no worker may be called so


@dataclass(frozen=True, slots=True)
class MeasuredLink:
    """One direction. Medians, with the 10th and 90th percentile as `low` and `high`; no figures where `failure` says why."""

    from_id: str
    to_id: str
    round_trip_s: float = 0.0  # a message of no size there and back, as steps travel: a stream, this project's wire
    round_trip_low_s: float = 0.0
    round_trip_high_s: float = 0.0
    bandwidth_bytes_per_s: float = 0.0
    bandwidth_low_bytes_per_s: float = 0.0
    bandwidth_high_bytes_per_s: float = 0.0
    num_round_trips: int = 0
    num_transfers: int = 0
    moved_bytes: int = 0
    spent_s: float = 0.0  # connecting included; both directions are measured at once
    failure: str = ""

    @property
    def latency_s(self) -> float:
        """One way."""
        return self.round_trip_s / 2
