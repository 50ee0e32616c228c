"""What is known of the ways between workers: whom to ask, what they measured, what the planner may assume. Pure.

A joining worker measures its links to all that are ready. The first plan waits for the answers, but never long: a plan on
assumptions is better than none. A link that is broken is tried again and again, less and less often. A process that comes back, after a
partition for one, finds its links as they were: it need not measure before it may serve.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from engine.control.commands import Command, MeasureLinks, Record
from engine.control.events import LinkBroken, LinksMeasured
from engine.data import Severity
from engine.measured_link import MeasuredLink
from engine.planning.problem import Link, PairLink

WAIT_S = 1.0  # since the last question
SHORTEST_WAIT_S, LONGEST_WAIT_S = 1.0, 30.0  # between two trials of a broken link


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
        """Let a newcomer measure its links to all others that are ready; it measures both directions, so no pair is left out."""
        peer_ids = tuple(peer_id for peer_id in ready_ids if peer_id != worker_id and not self._is_good(worker_id, peer_id))
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
        alive = {*alive_ids}
        found = {(link.from_id, link.to_id): link for link in event.links if {link.from_id, link.to_id} <= alive}
        known_broken = {pair for pair in found if pair in self._links and self._links[pair].failure}
        self._links |= found
        for pair, link in found.items():
            if link.failure:
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
        there = {worker_id, *alive_ids}
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
        known = {pair: _planned(self._links[pair]) for pair in pairs if pair in self._links and not self._links[pair].failure}
        broken = {pair for pair in pairs if pair in self._links and self._links[pair].failure}
        if not known and not broken:
            return Link()
        assumed = Link()
        if known:
            assumed = Link(max(link.latency_s for link in known.values()), min(link.bandwidth_bytes_per_s for link in known.values()))
        broken |= {(b, a) for a, b in broken if (b, a) not in known}
        return tuple(PairLink(*pair, known.get(pair, assumed)) for pair in pairs if pair not in broken)


def _planned(link: MeasuredLink) -> Link:
    return Link(link.latency_s, link.bandwidth_bytes_per_s)


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
