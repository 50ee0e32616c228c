"""Which tensor a worker asks whom for next, when several others hold copies. Pure; time is an argument.

Every source sends one tensor at a time and takes the next when it is done, so whoever is faster sends more. What few hold goes
first, and large before small, so that the end comes for all at about the same time. A slow source gives way at the end: it takes
no tensor that the faster ones would have sent sooner. Sources that fail rest for a while, then are given up.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

MAX_FAILURES = 5  # of a source in a row, before it is given up
FIRST_REST_S = 0.5  # after a failure; doubled with each more


@dataclass(slots=True)
class FetchSource:
    """What is known of one source. `rate_bytes_per_s` is 0 while nobody knows it."""

    source_id: str
    holds: frozenset[str]
    rate_bytes_per_s: float = 0.0
    order: list[str] = field(default_factory=list)
    cursor: int = 0  # nothing before it in `order` is waiting
    fetching: str = ""
    refused: set[str] = field(default_factory=set)
    num_failures: int = 0
    rests_until_s: float = 0.0
    sent_bytes: int = 0
    spent_s: float = 0.0

    @property
    def is_given_up(self) -> bool:
        return self.num_failures >= MAX_FAILURES

    def may_send(self, key: str) -> bool:
        return not self.is_given_up and key in self.holds and key not in self.refused


class FetchQueue:
    """`sizes` are the bytes of what is wanted, by key; `holdings` the keys that each source holds."""

    def __init__(self, sizes: Mapping[str, int], holdings: Mapping[str, Collection[str]], rates: Mapping[str, float] | None = None) -> None:
        self._sizes = dict(sizes)
        self._waiting = set(sizes)
        self._waiting_bytes = sum(sizes.values())
        rates = rates or {}
        self._sources = {name: FetchSource(name, frozenset(held) & self._waiting, rates.get(name, 0.0)) for name, held in holdings.items()}
        num_holders = {key: sum(key in s.holds for s in self._sources.values()) for key in sizes}
        for source in self._sources.values():
            source.order = sorted(source.holds, key=lambda key: (num_holders[key], -self._sizes[key], key))

    @property
    def is_done(self) -> bool:
        return not self._waiting and not any(s.fetching for s in self._sources.values())

    def lost(self) -> list[str]:
        """Keys that nobody is sending and no source may still send."""
        return sorted(key for key in self._waiting if not any(s.may_send(key) for s in self._sources.values()))

    def is_useless(self, source_id: str) -> bool:
        """Whether the source can never send anything more, even if all others fail."""
        source = self._sources[source_id]
        others = {s.fetching for s in self._sources.values() if s.fetching}
        return source.is_given_up or not any(source.may_send(key) for key in self._waiting | others)

    def take(self, source_id: str, now_s: float) -> str | None:
        """The next key for this source, which is idle; None if it has to wait, or nothing is left for it."""
        source = self._sources[source_id]
        if source.fetching or source.is_given_up or now_s < source.rests_until_s:
            return None
        while source.cursor < len(source.order):
            key = source.order[source.cursor]
            if key in self._waiting and source.may_send(key):
                if self._others_are_sooner(source, key, now_s):
                    return None
                self._waiting.remove(key)
                self._waiting_bytes -= self._sizes[key]
                source.fetching = key
                return key
            source.cursor += 1
        return None

    def arrived(self, source_id: str, num_bytes: int, spent_s: float) -> None:
        """The source sent what it was asked for."""
        source = self._sources[source_id]
        source.fetching, source.num_failures = "", 0
        self._learn(source, num_bytes, spent_s)

    def failed(self, source_id: str, num_bytes: int, spent_s: float, now_s: float) -> None:
        """It broke off after so many bytes; somebody has to send the rest, perhaps the same source a little later."""
        source = self._sources[source_id]
        source.num_failures = 1 if num_bytes else source.num_failures + 1
        source.rests_until_s = now_s + FIRST_REST_S * 2.0 ** (source.num_failures - 1)
        self._learn(source, num_bytes, spent_s)
        self._give_back(source)

    def refused(self, source_id: str) -> None:
        """It does not have the tensor, or has something else under its name: never ask it for this one again."""
        source = self._sources[source_id]
        source.refused.add(source.fetching)
        self._give_back(source)

    def put_back(self, source_id: str) -> None:
        """What arrived is of no use, but it is not clear whose fault that is."""
        self._give_back(self._sources[source_id])

    def _give_back(self, source: FetchSource) -> None:
        key, source.fetching = source.fetching, ""
        self._waiting.add(key)
        self._waiting_bytes += self._sizes[key]
        for other in self._sources.values():
            other.cursor = 0

    def _learn(self, source: FetchSource, num_bytes: int, spent_s: float) -> None:
        source.sent_bytes += num_bytes
        source.spent_s += spent_s
        if source.sent_bytes and source.spent_s > 0:
            source.rate_bytes_per_s = source.sent_bytes / source.spent_s

    def _others_are_sooner(self, source: FetchSource, key: str, now_s: float) -> bool:
        """Whether the faster sources would have sent all that waits, this tensor too, before this source had sent it."""
        if not source.rate_bytes_per_s:
            return False
        faster = [s for s in self._sources.values() if s.rate_bytes_per_s > source.rate_bytes_per_s]
        faster = [s for s in faster if s.may_send(key) and now_s >= s.rests_until_s]
        if not faster:
            return False
        queued_bytes = self._waiting_bytes + sum(self._sizes[s.fetching] for s in faster if s.fetching)
        return self._sizes[key] / source.rate_bytes_per_s > queued_bytes / sum(s.rate_bytes_per_s for s in faster)
