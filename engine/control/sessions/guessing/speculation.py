"""Speculation: which tokens a session proposes with its next step, and what became of them. Pure.

One step carries a session's newest token and proposals behind it; the last stage draws the token at each place and keeps going
while it is the proposed one. Draws depend on (seed, index) alone, so nothing but the number of steps changes. This file decides
how much to propose. Every token of an answer tells whether `prompt_lookup` would have guessed it, also while nothing is
proposed, so the chance of a guess behind a match of each length is known before it costs anything; `step_price` knows what rows cost.
Proposed is the number with the most tokens per second, if that is clearly more than without.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from enum import StrEnum

from engine.control.sessions.guessing.prompt_lookup import MAX_MATCH, Match, PromptLookup
from engine.control.sessions.guessing.step_price import StepPrice
from engine.control.sessions.session import Session
from engine.data.generation import Segment
from engine.data.precision import Identity

MOST_PROPOSED = 15
MIN_GAIN = 1.05  # in tokens per second, for anything to be proposed
MOST_ENTERED = 8192  # pairs of a prompt that are entered at once, about 5 ms
PLAIN_EVERY = 16  # steps: one without proposals says what those cost now, and is what adaptation compares with its plan
MEMORY = 0.95  # what an older guess counts beside the next one of its length
DOUBT = 2.0  # guesses that the first belief counts for


class Speculate(StrEnum):
    """What may be proposed."""

    OFF = "off"
    AUTO = "auto"  # what pays, where answers stay the same
    ALWAYS = "always"  # whatever repeats, for tests and comparisons


@dataclass(slots=True)
class Chances:
    """How often the token behind a match of each length was the one that came."""

    hits: list[float] = field(default_factory=lambda: [0.0] * (MAX_MATCH + 1))
    trials: list[float] = field(default_factory=lambda: [0.0] * (MAX_MATCH + 1))

    def note(self, length: int, is_hit: bool) -> None:
        self.hits[length] = MEMORY * self.hits[length] + is_hit
        self.trials[length] = MEMORY * self.trials[length] + 1

    def of(self, length: int) -> float:
        """At first little is believed of short matches: 0.1 for two tokens, 0.55 for four, 0.87 for sixteen."""
        belief = 1.0 - 1.8 / length
        return (self.hits[length] + DOUBT * belief) / (self.trials[length] + DOUBT)

    def expected(self, length: int, most: int) -> list[float]:
        """How many of 0, 1, ... `most` proposals behind a match are expected to be accepted; each that is makes the match longer."""
        found, chance = [0.0], 1.0
        for ahead in range(most):
            chance *= self.of(min(length + ahead, MAX_MATCH))
            found.append(found[-1] + chance)
        return found


@dataclass(slots=True)
class Drafting:
    """One session's text, and what was proposed for it."""

    lookup: PromptLookup
    chances: Chances = field(default_factory=Chances)
    num_proposed: int = 0
    num_accepted: int = 0
    num_since_plain: int = 0  # steps


def why_not(grade: Identity, dtype: str, device_types: Collection[str]) -> str:
    """Why answers might change if steps carried proposals there; empty if they do not.

    More rows are other shapes, and other last bits. Where a plan promises the tokens of a single process they weigh as little as
    company in a step does, and where 8 bits are exact nothing; else a proposal may decide which of two close tokens comes.
    """
    if grade not in (Identity.SAME_TOKENS, Identity.EXACT):
        return f"answers in {dtype} on {', '.join(sorted(device_types))} depend on what shares a step, and so would on proposals"
    return "" if set(device_types) == {"cpu"} else "accelerators run recorded steps of one row a session faster"


class Speculation:
    """Owns what is known of each session that decodes; sessions ask with their next step, and say which tokens came."""

    def __init__(self, mode: str) -> None:
        self.mode = Speculate(mode)
        self.why_not = ""  # why nothing is proposed under the present plan, whatever the mode
        self.runs_ahead = False  # steps without proposals hide what the wires take
        self.price = StepPrice()
        self.num_proposed = self.num_accepted = 0
        self._drafting: dict[str, Drafting] = {}

    def start_plan(self, why_not: str) -> None:
        """Other stages run from now on."""
        self.price.forget()
        self.why_not = "" if self.mode is Speculate.ALWAYS else why_not

    def forget(self, session_id: str) -> tuple[int, int]:
        """It is over; returns its `counts`."""
        counts = self.counts(session_id)
        self._drafting.pop(session_id, None)
        return counts

    def counts(self, session_id: str) -> tuple[int, int]:
        """How many tokens were proposed for a session, and how many of them accepted."""
        drafting = self._drafting.get(session_id)
        return (drafting.num_proposed, drafting.num_accepted) if drafting else (0, 0)

    def proposals(self, session: Session, num_in_flight: int) -> tuple[int, ...]:
        """What the next step of a decoding session carries behind its newest token, with so many steps in flight."""
        if self._is_off(session):
            return ()
        drafting = self._known(session)
        match = drafting.lookup.match() if drafting.lookup.catch_up(MOST_ENTERED) else None
        most = min(MOST_PROPOSED, session.max_new_tokens - len(session.generated) - 1)
        if match is None or most < 1:
            return ()
        return drafting.lookup.following(match, self._num_worth(drafting, match, most, num_in_flight))

    def came(self, session: Session, token_id: int) -> None:
        """The next token of the session, which is not in `session.generated` yet: would it have been guessed?"""
        if self._is_off(session):
            return
        drafting = self._known(session)
        match = drafting.lookup.match() if drafting.lookup.catch_up(MOST_ENTERED) else None
        if match is not None:
            drafting.chances.note(match.length, drafting.lookup.following(match, 1)[0] == token_id)
        drafting.lookup.add(token_id)

    def answered(self, session: Session, segment: Segment, num_tokens: int) -> None:
        """A step of the session came back, and so many tokens of the answer with it."""
        drafting = self._drafting.get(session.session_id)
        if drafting is None:
            return
        drafting.num_since_plain = drafting.num_since_plain + 1 if segment.num_proposed else 0
        num_accepted = max(0, num_tokens - 1)
        drafting.num_proposed += segment.num_proposed
        drafting.num_accepted += num_accepted
        self.num_proposed += segment.num_proposed
        self.num_accepted += num_accepted

    def _num_worth(self, drafting: Drafting, match: Match, most: int, num_in_flight: int) -> int:
        """The number of proposals that makes the most of a second."""
        if self.mode is Speculate.ALWAYS:
            return most
        periods_s = self.price.periods_s(1 + most, num_in_flight)
        if self.runs_ahead and periods_s:
            periods_s[0] = self.price.periods_s(1, num_in_flight + 1)[0]
        if not periods_s or drafting.num_since_plain >= PLAIN_EVERY:
            return 0
        rates = [(1.0 + e) / p for e, p in zip(drafting.chances.expected(match.length, most), periods_s, strict=True)]
        best = max(range(len(rates)), key=rates.__getitem__)
        return best if rates[best] >= MIN_GAIN * rates[0] else 0

    def _is_off(self, session: Session) -> bool:
        """A grammar says after each token what the next may be, and only here: such a session goes token by token."""
        return self.mode is Speculate.OFF or bool(self.why_not) or session.request.grammar is not None

    def _known(self, session: Session) -> Drafting:
        drafting = self._drafting.get(session.session_id)
        if drafting is None:
            drafting = self._drafting[session.session_id] = Drafting(PromptLookup())
        if len(drafting.lookup) != session.num_tokens:  # it is new, or tokens came under a plan that proposes nothing
            drafting.lookup = PromptLookup((*session.prompt_ids, *session.generated))
        return drafting
