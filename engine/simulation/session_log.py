"""What clients of a simulation saw: when each session's tokens came."""

from __future__ import annotations

import math
from array import array

from engine.data.generation import FinishReason
from engine.simulation.arrivals import Arrival


class SessionLog:
    """Times of every session: first token after submission, then between tokens."""

    def __init__(self) -> None:
        self.ttft_s = array("d")
        self.gaps_s = array("d")  # between two tokens of one session
        self.steps_s = array("d")  # of decode steps: from sending it to reading its outcome
        self.first_token_s = math.inf  # of any session
        self.num_tokens = 0
        self.last_token_s = 0.0
        self.finished: dict[str, FinishReason] = {}
        self.generated: dict[str, int] = {}
        self._arrivals: dict[str, Arrival] = {}
        self._newest_s: dict[str, float] = {}
        self._first_s: dict[str, float] = {}
        self.rates_per_s = array("d")  # tokens after the first over the time after the first, of sessions that ended

    def submitted(self, session_id: str, arrival: Arrival) -> None:
        self._arrivals[session_id] = arrival
        self.generated[session_id] = 0

    def reserve_tokens(self, session_id: str) -> int:
        """How long the session grows: what the scheduler reserves for it."""
        arrival = self._arrivals[session_id]
        return arrival.prompt_tokens + arrival.new_tokens

    def token(self, session_id: str, now_s: float) -> None:
        newest_s = self._newest_s.get(session_id)
        if newest_s is None:
            self.ttft_s.append(now_s - self._arrivals[session_id].arrival_s)
            self.first_token_s = min(self.first_token_s, now_s)
            self._first_s[session_id] = now_s
        else:
            self.gaps_s.append(now_s - newest_s)
        self._newest_s[session_id] = self.last_token_s = now_s
        self.generated[session_id] += 1
        self.num_tokens += 1

    def finish(self, session_id: str, reason: FinishReason) -> None:
        self.finished[session_id] = reason
        first_s, newest_s = self._first_s.pop(session_id, 0.0), self._newest_s.pop(session_id, 0.0)
        if newest_s > first_s:
            self.rates_per_s.append((self.generated[session_id] - 1) / (newest_s - first_s))
