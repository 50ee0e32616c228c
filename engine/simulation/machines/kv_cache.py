"""The keys and values of sessions on one stage, as byte counts over time."""

from __future__ import annotations

from engine.simulation.machines.timeline import Timeline


class VirtualKVCache:
    """A session's tokens are reserved when it opens and used as they arrive, as in the workers' KV store."""

    def __init__(self, bytes_per_token: int, budget_bytes: int) -> None:
        self.bytes_per_token, self.budget_bytes = bytes_per_token, budget_bytes
        self.used_bytes = self.reserved_bytes = self.peak_bytes = 0
        self.timeline = Timeline()
        self._tokens: dict[str, int] = {}
        self._reserved: dict[str, int] = {}

    def holds(self, session_id: str) -> bool:
        return session_id in self._tokens

    def open(self, session_id: str, reserve_tokens: int) -> None:
        """Reserve room; that it fits is the scheduler's duty, so a failure is a bug."""
        self._reserved[session_id] = reserve_tokens
        self._tokens[session_id] = 0
        self.reserved_bytes += reserve_tokens * self.bytes_per_token
        if self.reserved_bytes > self.budget_bytes:
            raise AssertionError(f"{self.reserved_bytes} bytes of KV are reserved, the budget is {self.budget_bytes}")

    def append(self, session_id: str, num_tokens: int) -> None:
        """New tokens of an open session; the caller then says when with `at`."""
        held = self._tokens[session_id] + num_tokens
        if held > self._reserved[session_id]:
            raise AssertionError(f"session {session_id} holds {held} tokens, {self._reserved[session_id]} were reserved")
        self._tokens[session_id] = held
        self.used_bytes += num_tokens * self.bytes_per_token

    def close(self, session_id: str) -> None:
        """Free a session; an unknown id is fine."""
        held = self._tokens.pop(session_id, None)
        if held is not None:
            self.used_bytes -= held * self.bytes_per_token
            self.reserved_bytes -= self._reserved.pop(session_id) * self.bytes_per_token

    def at(self, now_s: float) -> None:
        """What is used now has been used since the last change."""
        if self.used_bytes > self.peak_bytes:
            self.peak_bytes = self.used_bytes
        self.timeline.add(now_s, self.used_bytes)
