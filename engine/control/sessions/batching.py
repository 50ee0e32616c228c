"""Packs steps: newest tokens of many sessions beside chunks of prompts. Pure.

A step takes the sessions that waited longest. With `num_lanes` steps in flight the decoding sessions spread over them
evenly: no step takes more than its share, so a crowded step splits when it comes back and a thin one fills up. Prompts take
turns chunk by chunk, and all chunks of a step together cost at most `chunk_s`: that is the most a long prompt adds to
the time between two tokens of the others.

Where one stage holds the whole model, one step more is sent ahead of those that are under way, so that the stage never waits for
its coordinator: each session in it goes on behind the token that the step before will choose. That is done only while every session
that decodes can go along, for one that cannot would get a token with every other step.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from engine.control.sessions.chunks import ChunkRule, num_pairs
from engine.control.sessions.guessing.speculation import Speculation
from engine.control.sessions.metrics import StepLoad
from engine.control.sessions.scheduler import SchedulerLimits
from engine.control.sessions.session import Session
from engine.data.generation import Segment, StageTiming
from engine.data.plan import NodeSpec


@dataclass(frozen=True, slots=True)
class Flight:
    """A step that was sent and not yet reported."""

    segments: tuple[Segment, ...]
    sent_s: float

    @property
    def is_decode(self) -> bool:
        """It carries one token of each session; a step with proposals is neither this nor one of prompts."""
        return all(_is_row(s) for s in self.segments)

    @property
    def load(self) -> StepLoad:
        """What it carries."""
        rows = [s for s in self.segments if _is_row(s)]
        prompt_tokens = sum(len(s.token_ids) for s in self.segments if not _is_row(s) and not s.num_proposed)
        return StepLoad(len(rows), sum(s.position for s in rows) // max(1, len(rows)), prompt_tokens)

    @property
    def proposes(self) -> bool:
        return any(s.num_proposed for s in self.segments)

    @property
    def decodes_one(self) -> int:
        """The rows of a step in which one session decodes, and nothing else is; 0 for another step."""
        first = self.segments[0]
        return len(first.token_ids) if len(self.segments) == 1 and first.sample_index and first.num_known == 1 else 0


class Batcher:
    """Decides what the next step holds; the caller sends it."""

    def __init__(self, limits: SchedulerLimits, speculation: Speculation) -> None:
        self.limits, self._speculation = limits, speculation
        self.rule = ChunkRule()
        self._next_turn = 1

    def pack(self, sessions: Iterable[Session], num_lanes: int, now_s: float) -> tuple[Segment, ...]:
        """The segments of the next step, none if nothing waits; marks their tokens as sent."""
        ready = sorted((s for s in sessions if now_s >= s.not_before_s), key=lambda s: s.turn)
        num_decoding = sum(s.is_decoding for s in ready)
        share = -(-num_decoding // num_lanes)
        rows = [s for s in ready if s.wants_decode][: min(max(1, share), self.limits.max_rows)]
        for session in rows:
            self._serve(session)
        waiting = [s for s in ready if s.wants_prefix]
        may_propose = share == 1 and not waiting  # else other sessions have a use for the rows
        segments = [s.next_token(self._speculation.proposals(s, num_decoding) if may_propose else ()) for s in rows]
        least = 0 if num_decoding else self.limits.prompt_chunk_tokens // num_lanes  # nobody is delayed
        return (*segments, *self._chunks(waiting, self._places_beside(rows), least))

    def pack_ahead(self, sessions: Iterable[Session], now_s: float) -> tuple[Segment, ...]:
        """The segments of a step behind the one in flight, of whose tokens nobody knows yet; none if not all sessions can go along."""
        ready = sorted((s for s in sessions if now_s >= s.not_before_s), key=lambda s: s.turn)
        going = [s for s in ready if s.wants_decode or (s.is_awaited and not s.ends_next)]
        waiting = [s for s in ready if s.wants_prefix]
        is_alone = len(going) == 1 and not waiting
        if not all(s.wants_decode or s.may_follow for s in going) or (is_alone and self._speculation.proposals(going[0], 1)):
            return ()
        rows = going[: self.limits.max_rows]
        for session in rows:
            self._serve(session)
        segments = [s.next_token() if s.wants_decode else s.follow() for s in rows]
        return (*segments, *self._chunks(waiting, self._places_beside(rows), 0 if rows else self.limits.prompt_chunk_tokens))

    def observe(self, flight: Flight, timings: tuple[StageTiming, ...]) -> None:
        """Learn what prompt tokens cost from a step that came back."""
        spent_s = sum(t.compute_s for t in timings)
        if flight.is_decode:
            self.rule.observe_decode(spent_s)
        if flight.is_decode or flight.proposes:
            return
        chunks = [s for s in flight.segments if len(s.token_ids) > 1 or not s.sample_index]
        pairs = sum(num_pairs(len(s.token_ids), s.position) for s in chunks)
        self.rule.observe(sum(len(s.token_ids) for s in chunks), pairs, spent_s)

    def _places_beside(self, rows: Sequence[Session]) -> int:
        """For chunks of prompts: one at least, or a prompt would wait until sessions that decode have ended."""
        return max(1, self.limits.max_rows - len(rows))

    def _chunks(self, waiting: list[Session], max_rows: int, least_tokens: int) -> list[Segment]:
        segments: list[Segment] = []
        spent = 0.0  # of the step's time for prompts, as a fraction
        for session in waiting[:max_rows]:
            fits = max(self._chunk_tokens(session.next_start), least_tokens)
            wanted = session.next_cut() - session.next_start
            size = wanted if session.takes_whole_chunk() else min(wanted, int(fits * (1.0 - spent) + 1e-9))
            if size < 1 or (segments and spent + size / fits > 1.0 + 1e-9):
                continue
            spent += size / fits
            self._serve(session)
            segments.append(session.cut_chunk(size))
        return segments

    def _chunk_tokens(self, context: int) -> int:
        limits = self.limits
        return self.rule.chunk_tokens(context, limits.chunk_s, limits.unknown_chunk_tokens, limits.prompt_chunk_tokens)

    def _serve(self, session: Session) -> None:
        session.turn, self._next_turn = self._next_turn, self._next_turn + 1


def num_lanes(specs: Iterable[NodeSpec]) -> int:
    """How many steps are worth having in flight: as many as stages can compute at the same time, and one on the wires.

    Stages on one host share its cores. Where they could only take turns, one step of all sessions reads the weights once
    for all of them, and splitting it would read them again for each part.
    """
    by_host: dict[str, list[NodeSpec]] = {}
    for spec in specs:
        by_host.setdefault(spec.host, []).append(spec)
    busy = sum(min(len(on_host), stages_at_once(on_host)) for on_host in by_host.values())
    return busy + (len(by_host) > 1)


def stages_at_once(specs: list[NodeSpec]) -> int:
    """Stages of one host that compute side by side: each GPU, and as many CPU stages as their threads leave cores for."""
    devices = {s.device for s in specs if s.device != "cpu"}
    on_cpu = [s for s in specs if s.device == "cpu"]
    if not on_cpu:
        return max(1, len(devices))
    cores, threads = max(s.num_cores for s in on_cpu), max(s.num_threads for s in on_cpu)
    return len(devices) + max(1, cores // max(1, threads))


def _is_row(segment: Segment) -> bool:
    """The newest token of a decoding session."""
    return bool(segment.sample_index) and len(segment.token_ids) == 1
