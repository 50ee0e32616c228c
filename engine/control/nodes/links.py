"""What is known of the ways between workers and to the coordinator: whom to ask, what they measured, what the planner may
assume. Pure.

The links of a joining worker to the coordinator and to all that are ready are measured. The first plan waits for the answers,
but never long: a plan on assumptions is better than none. Links that measuring cannot tell apart are one link to the planner:
its plans then do not follow the noise, and equal links are what it solves fastest. A link that is broken is tried again and
again, less and less often. A process that comes back, after a partition for one, finds its links as they were: it need not
measure before it may serve.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from engine.control.commands import Command, MeasureLinks, Record
from engine.control.events import LinkBroken, LinksMeasured
from engine.data.measured_link import COORDINATOR, MeasuredLink
from engine.data.status import Severity
from engine.planning.problem import CoordinatorLink, Link, PairLink

WAIT_S = 1.0  # since the last question
SHORTEST_WAIT_S, LONGEST_WAIT_S = 1.0, 30.0  # between two trials of a broken link
_NOISE_S = 2.5e-4  # of one hop, between two measurements on one busy machine
_STATES_BYTES, _TOKENS_BYTES = 2**14, 2**6  # what links carry, to compare them at: hidden states or ids of a few tokens


@dataclass(slots=True)
class Trial:
    """A broken link is tried again when it has been away for a quarter longer."""

    broke_s: float
    tried_s: float

    def is_due(self, now_s: float) -> bool:
        wait_s = (self.tried_s - self.broke_s) / 4
        return now_s - self.tried_s >= min(max(wait_s, SHORTEST_WAIT_S), LONGEST_WAIT_S)


class LinkBook:
    """Links by (from, to), of the workers' present registrations."""

    def __init__(self) -> None:
        self._links: dict[tuple[str, str], MeasuredLink] = {}
        self._former: dict[tuple[str, str], MeasuredLink] = {}  # good ones of workers that are away
        self._trials: dict[tuple[str, str], Trial] = {}  # of broken ones, by (who tries, to whom)
        self._tried: dict[str, int] = {}  # worker -> generation of the trial that is under way
        self._asked: dict[str, int] = {}  # worker -> generation of the question that is open
        self._asked_s = 0.0

    def __iter__(self) -> Iterator[MeasuredLink]:
        return iter(self._links[pair] for pair in sorted(self._links))

    def ask(self, worker_id: str, generation: int, ready_ids: Iterable[str], now_s: float) -> list[Command]:
        """Have a newcomer's links to the coordinator and to all others that are ready measured; both directions of each are, so
        no pair is left out."""
        others = (COORDINATOR, *ready_ids)
        peer_ids = tuple(peer_id for peer_id in others if peer_id != worker_id and not self._is_good(worker_id, peer_id))
        if not peer_ids:
            return []
        self._asked[worker_id], self._asked_s = generation, now_s
        return [MeasureLinks(worker_id, generation, peer_ids)]

    def answer(self, event: LinksMeasured, alive_ids: Iterable[str], now_s: float) -> list[Command]:
        """Keep what was measured, and say it; an answer to an older question is dropped, and links to workers that left are."""
        if event.generation not in (self._asked.get(event.worker_id), self._tried.get(event.worker_id)):
            return []
        for questions in (self._asked, self._tried):
            if questions.get(event.worker_id) == event.generation:
                del questions[event.worker_id]
        alive = {COORDINATOR, *alive_ids}
        found = {(link.from_id, link.to_id): link for link in event.links if {link.from_id, link.to_id} <= alive}
        known_broken = {pair for pair in found if pair in self._links and self._links[pair].failure}
        self._links |= found
        for pair, link in found.items():
            if link.failure and COORDINATOR not in pair:
                self._trials.setdefault(pair, Trial(now_s, now_s))
            else:
                self._trials.pop(pair, None)
        return [*_records(event.worker_id, [link for pair, link in found.items() if not link.failure or pair not in known_broken])]

    def broke(self, event: LinkBroken, now_s: float) -> list[Command]:
        """A stream between two workers went silent: until it is measured again neither sends to the other."""
        for pair in ((event.from_id, event.to_id), (event.to_id, event.from_id)):
            self._links[pair] = MeasuredLink(*pair, failure=event.why)
        self._trials[event.from_id, event.to_id] = Trial(now_s, now_s)
        return [Record(Severity.WARN, "node", event.from_id, f"cannot reach {event.to_id}: {event.why}")]

    def try_again(self, generations: Mapping[str, int], now_s: float) -> list[Command]:
        """Let workers measure their broken links when it is time; `generations` are those of the workers that may be asked."""
        out: list[Command] = []
        for (from_id, to_id), trial in self._trials.items():
            if not trial.is_due(now_s) or from_id in self._tried or from_id not in generations or to_id not in generations:
                continue
            trial.tried_s = now_s
            self._tried[from_id] = generations[from_id]
            out.append(MeasureLinks(from_id, generations[from_id], (to_id,)))
        return out

    @property
    def num_broken(self) -> int:
        return len(self._trials)

    def forget(self, worker_id: str) -> None:
        """The worker left: what was measured with it is kept for its return."""
        self._asked.pop(worker_id, None)
        self._tried.pop(worker_id, None)
        gone = {pair: link for pair, link in self._links.items() if worker_id in pair}
        self._former |= {pair: link for pair, link in gone.items() if not link.failure}
        self._links = {pair: link for pair, link in self._links.items() if pair not in gone}
        self._trials = {pair: trial for pair, trial in self._trials.items() if worker_id not in pair}

    def recall(self, worker_id: str, alive_ids: Iterable[str]) -> None:
        """The same process is back."""
        there = {COORDINATOR, worker_id, *alive_ids}
        back = {pair: link for pair, link in self._former.items() if worker_id in pair and {*pair} <= there}
        self._links |= back
        self._former = {pair: link for pair, link in self._former.items() if pair not in back}

    def disown(self, worker_id: str) -> None:
        """Another process took the name: what was measured with the former one is not true of it."""
        self.forget(worker_id)
        self._former = {pair: link for pair, link in self._former.items() if worker_id not in pair}

    def _is_good(self, a: str, b: str) -> bool:
        return all(pair in self._links and not self._links[pair].failure for pair in ((a, b), (b, a)))

    def is_waiting(self, now_s: float) -> bool:
        """Whether a plan made a little later would know more."""
        return bool(self._asked) and now_s - self._asked_s < WAIT_S

    def for_planning(self, node_ids: Sequence[str]) -> Link | tuple[PairLink, ...]:
        """Links between these nodes: as measured; where nobody could connect none; where nobody asked, the slowest known."""
        pairs = [(a, b) for a in node_ids for b in node_ids if a != b]
        known = self._known(pairs, _STATES_BYTES)
        broken = {pair for pair in pairs if pair in self._links and self._links[pair].failure}
        if not known and not broken:
            return Link()
        assumed = _slowest(known.values()) if known else Link()
        broken |= {(b, a) for a, b in broken if (b, a) not in known}
        if not broken and {*known.values()} == {assumed}:
            return assumed
        return tuple(PairLink(*pair, known.get(pair, assumed)) for pair in pairs if pair not in broken)

    def between(self, from_id: str, to_id: str) -> Link | None:
        """As measured, else the slowest one that is known; None if nothing is."""
        known = {pair: Link(link.latency_s, link.bandwidth_bytes_per_s) for pair, link in self._links.items() if not link.failure}
        return known.get((from_id, to_id)) or (_slowest(known.values()) if known else None)

    def coordinator_for_planning(self, node_ids: Sequence[str]) -> tuple[CoordinatorLink, ...]:
        """These nodes' ways to the coordinator and back; where nobody could tell, the slowest known."""
        pairs = [pair for node_id in node_ids for pair in ((COORDINATOR, node_id), (node_id, COORDINATOR))]
        known = self._known(pairs, _TOKENS_BYTES)
        assumed = _slowest(known.values()) if known else Link()
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


def _records(worker_id: str, links: Sequence[MeasuredLink]) -> Iterator[Record]:
    """What an operator reads of an answer: the figures in one line, each broken link in one of its own."""
    good = [link for link in links if not link.failure]
    if good:
        spent_ms = 1e3 * sum({(link.spent_s, frozenset((link.from_id, link.to_id))): link.spent_s for link in good}.values())
        figures = "; ".join(f"{link.from_id} > {link.to_id} {_figures(link)}" for link in good)
        yield Record(Severity.INFO, "node", worker_id, f"links measured in {spent_ms:.0f} ms: {figures}")
    for link in links:
        if link.failure:
            text = f"has no link to {link.to_id}: {link.failure}; plans will not send from one to the other"
            yield Record(Severity.WARN, "node", worker_id, text)


def _figures(link: MeasuredLink) -> str:
    return f"{1e3 * link.round_trip_s:.2f} ms round trip, {link.bandwidth_bytes_per_s / 1e6:.0f} MB/s"
