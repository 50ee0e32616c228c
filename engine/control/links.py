"""What is known of the ways between workers and to the coordinator: whom to ask, what they measured, what the planner may
assume. Pure.

The links of a joining worker to the coordinator and to all that are ready are measured. The first plan waits for the answers,
but never long: a plan on assumptions is better than none. Links that measuring cannot tell apart are one link to the planner:
its plans then do not follow the noise, and equal links are what it solves fastest.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from engine.control.commands import Command, MeasureLinks, Record
from engine.control.events import LinksMeasured
from engine.data import Severity
from engine.measured_link import COORDINATOR, MeasuredLink
from engine.planning.problem import CoordinatorLink, Link, PairLink

WAIT_S = 1.0  # since the last question
_NOISE_S = 2.5e-4  # of one hop, between two measurements on one busy machine
_STATES_BYTES, _TOKENS_BYTES = 2**14, 2**6  # what links carry, to compare them at: hidden states or ids of a few tokens


class LinkBook:
    """Links by (from, to), of the workers' present registrations."""

    def __init__(self) -> None:
        self._links: dict[tuple[str, str], MeasuredLink] = {}
        self._asked: dict[str, int] = {}  # worker -> generation of the question that is open
        self._asked_s = 0.0

    def __iter__(self) -> Iterator[MeasuredLink]:
        return iter(self._links[pair] for pair in sorted(self._links))

    def ask(self, worker_id: str, generation: int, ready_ids: Iterable[str], now_s: float) -> list[Command]:
        """Have a newcomer's links to the coordinator and to all others that are ready measured; both directions of each are, so
        no pair is left out."""
        peer_ids = (COORDINATOR, *(peer_id for peer_id in ready_ids if peer_id != worker_id))
        self._asked[worker_id], self._asked_s = generation, now_s
        return [MeasureLinks(worker_id, generation, peer_ids)]

    def answer(self, event: LinksMeasured, alive_ids: Iterable[str]) -> list[Command]:
        """Keep what was measured, and say it; an answer to an older question is dropped, and links to workers that left are."""
        if self._asked.get(event.worker_id) != event.generation:
            return []
        del self._asked[event.worker_id]
        alive = {COORDINATOR, *alive_ids}
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
        known = self._known(pairs, _STATES_BYTES)
        if not known:
            return Link()
        assumed = _slowest(known.values())
        broken = {pair for pair in pairs if pair in self._links and self._links[pair].failure}
        broken |= {(b, a) for a, b in broken if (b, a) not in known}
        if not broken and {*known.values()} == {assumed}:
            return assumed
        return tuple(PairLink(*pair, known.get(pair, assumed)) for pair in pairs if pair not in broken)

    def coordinator_for_planning(self, node_ids: Sequence[str]) -> tuple[CoordinatorLink, ...]:
        """These nodes' ways to the coordinator and back; where nobody could tell, the slowest known; none if nobody could at all."""
        pairs = [pair for node_id in node_ids for pair in ((COORDINATOR, node_id), (node_id, COORDINATOR))]
        known = self._known(pairs, _TOKENS_BYTES)
        if not known:
            return ()
        assumed = _slowest(known.values())
        return tuple(
            CoordinatorLink(node_id, known.get((COORDINATOR, node_id), assumed), known.get((node_id, COORDINATOR), assumed))
            for node_id in node_ids
        )

    def _known(self, pairs: Iterable[tuple[str, str]], num_bytes: int) -> dict[tuple[str, str], Link]:
        """What was measured of these pairs; links that cannot be told apart get the figures of the middle one."""
        measured = [link for pair in pairs if (link := self._links.get(pair)) and not link.failure]
        found: dict[tuple[str, str], Link] = {}
        for alike in _alike(measured, num_bytes):
            middle = alike[len(alike) // 2]
            found |= {(m.from_id, m.to_id): Link(middle.latency_s, middle.bandwidth_bytes_per_s) for m in alike}
        return found


def _alike(links: Iterable[MeasuredLink], num_bytes: int) -> list[list[MeasuredLink]]:
    """Groups whose members differ by less than measurements of one link do, and the members, from the fastest to the slowest."""
    groups: list[list[tuple[_Hop, MeasuredLink]]] = []
    hops = [(_Hop.of(link, num_bytes), link) for link in links]
    for hop, link in sorted(hops, key=lambda pair: (pair[0], pair[1].from_id, pair[1].to_id)):
        near = groups and hop.middle_s - groups[-1][0][0].middle_s <= _NOISE_S
        if groups and (near or hop.low_s <= min(other.high_s for other, _ in groups[-1])):
            groups[-1].append((hop, link))
        else:
            groups.append([(hop, link)])
    return [[link for _, link in group] for group in groups]


class _Hop(NamedTuple):
    """How long a message takes over a link, with the spread; without one where it is not known."""

    middle_s: float
    low_s: float
    high_s: float

    @staticmethod
    def of(link: MeasuredLink, num_bytes: int) -> _Hop:
        middle_s = link.latency_s + num_bytes / link.bandwidth_bytes_per_s
        if not link.bandwidth_low_bytes_per_s or not link.bandwidth_high_bytes_per_s:
            return _Hop(middle_s, middle_s, middle_s)
        low_s = link.round_trip_low_s / 2 + num_bytes / link.bandwidth_high_bytes_per_s
        return _Hop(middle_s, low_s, link.round_trip_high_s / 2 + num_bytes / link.bandwidth_low_bytes_per_s)


def _slowest(links: Iterable[Link]) -> Link:
    links = [*links]
    return Link(max(link.latency_s for link in links), min(link.bandwidth_bytes_per_s for link in links))


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
