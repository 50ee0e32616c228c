"""What is known of the ways between workers: whom to ask, what they measured, what the planner may assume. Pure.

A joining worker measures its links to all that are ready. The first plan waits for the answers, but never long: a plan on
assumptions is better than none.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from engine.control.commands import Command, MeasureLinks, Record
from engine.control.events import LinksMeasured
from engine.data import Severity
from engine.measured_link import MeasuredLink
from engine.planning.problem import Link, PairLink

WAIT_S = 1.0  # since the last question


class LinkBook:
    """Links by (from, to), of the workers' present registrations."""

    def __init__(self) -> None:
        self._links: dict[tuple[str, str], MeasuredLink] = {}
        self._asked: dict[str, int] = {}  # worker -> generation of the question that is open
        self._asked_s = 0.0

    def __iter__(self) -> Iterator[MeasuredLink]:
        return iter(self._links[pair] for pair in sorted(self._links))

    def ask(self, worker_id: str, generation: int, ready_ids: Iterable[str], now_s: float) -> list[Command]:
        """Let a newcomer measure its links to all others that are ready; it measures both directions, so no pair is left out."""
        peer_ids = tuple(peer_id for peer_id in ready_ids if peer_id != worker_id)
        if not peer_ids:
            return []
        self._asked[worker_id], self._asked_s = generation, now_s
        return [MeasureLinks(worker_id, generation, peer_ids)]

    def answer(self, event: LinksMeasured, alive_ids: Iterable[str]) -> list[Command]:
        """Keep what was measured, and say it; an answer to an older question is dropped, and links to workers that left are."""
        if self._asked.get(event.worker_id) != event.generation:
            return []
        del self._asked[event.worker_id]
        alive = {*alive_ids}
        self._links |= {(link.from_id, link.to_id): link for link in event.links if {link.from_id, link.to_id} <= alive}
        return [*_records(event)]

    def forget(self, worker_id: str) -> None:
        """The worker left or registered again: what was measured with it is not true of its successor."""
        self._asked.pop(worker_id, None)
        self._links = {pair: link for pair, link in self._links.items() if worker_id not in pair}

    def is_waiting(self, now_s: float) -> bool:
        """Whether a plan made a little later would know more."""
        return bool(self._asked) and now_s - self._asked_s < WAIT_S

    def for_planning(self, node_ids: Sequence[str]) -> Link | tuple[PairLink, ...]:
        """Links between these nodes: as measured; where nobody could connect none; where nobody asked, the slowest known."""
        pairs = [(a, b) for a in node_ids for b in node_ids if a != b]
        known = {pair: _planned(self._links[pair]) for pair in pairs if pair in self._links and not self._links[pair].failure}
        if not known:
            return Link()
        assumed = Link(max(link.latency_s for link in known.values()), min(link.bandwidth_bytes_per_s for link in known.values()))
        broken = {pair for pair in pairs if pair in self._links and self._links[pair].failure}
        broken |= {(b, a) for a, b in broken if (b, a) not in known}
        return tuple(PairLink(*pair, known.get(pair, assumed)) for pair in pairs if pair not in broken)


def _planned(link: MeasuredLink) -> Link:
    return Link(link.latency_s, link.bandwidth_bytes_per_s)


def _records(event: LinksMeasured) -> Iterator[Record]:
    """What an operator reads of an answer: the figures in one line, each broken link in one of its own."""
    good = [link for link in event.links if not link.failure]
    if good:
        spent_ms = 1e3 * sum({(link.spent_s, frozenset((link.from_id, link.to_id))): link.spent_s for link in good}.values())
        figures = "; ".join(f"{link.from_id} > {link.to_id} {_figures(link)}" for link in good)
        yield Record(Severity.INFO, "node", event.worker_id, f"links measured in {spent_ms:.0f} ms: {figures}")
    for link in event.links:
        if link.failure:
            text = f"has no link to {link.to_id}: {link.failure}; plans will not send from one to the other"
            yield Record(Severity.WARN, "node", event.worker_id, text)


def _figures(link: MeasuredLink) -> str:
    return f"{1e3 * link.round_trip_s:.2f} ms round trip, {link.bandwidth_bytes_per_s / 1e6:.0f} MB/s"
