"""What a session may say next, guessed from what stands in it already: prompt lookup. Pure.

The end of the text is looked up in the text before it, and what followed there is proposed (A. Saxena, "Prompt lookup decoding", 2023).
Candidates are the `MOST_CANDIDATES` newest earlier places of the last two tokens, found as LZ77 coders find them: a table of the newest
place of each pair, and for each place the one before it. The longest match wins, up to `MAX_MATCH` tokens, and the newest of
equals. A token costs one step of the table, a question a bounded number of comparisons, whatever the length of the text.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import dataclass

MIN_MATCH, MAX_MATCH = 2, 16
MOST_CANDIDATES = 32
NOWHERE = -1


@dataclass(frozen=True, slots=True)
class Match:
    """The last `length` tokens stand earlier too; `follows_at` is where the token behind them stands."""

    length: int
    follows_at: int


class PromptLookup:
    """The tokens of one session, prompt and answer; the newest is always looked up, never part of the table."""

    def __init__(self, token_ids: Iterable[int] = ()) -> None:
        self._tokens = array("q", token_ids)
        self._newest: dict[tuple[int, int], int] = {}  # pair -> where the token behind its newest place stands
        self._earlier = array("q", [NOWHERE, NOWHERE])  # by such a place: the one before it, of the same pair

    def __len__(self) -> int:
        return len(self._tokens)

    def add(self, token_id: int) -> None:
        """One more token. Enters nothing into the table, see `catch_up`."""
        self._tokens.append(token_id)

    def catch_up(self, most: int) -> bool:
        """Enter up to `most` pairs that are not in the table yet; True if it knows all that it may."""
        tokens, earlier, newest = self._tokens, self._earlier, self._newest
        stop = min(len(tokens), len(earlier) + most)
        for place in range(len(earlier), stop):
            pair = tokens[place - 2], tokens[place - 1]
            earlier.append(newest.get(pair, NOWHERE))
            newest[pair] = place
        return stop >= len(tokens)

    def match(self) -> Match | None:
        """The longest earlier place of the end of the text; None if there is none, or if the table is behind."""
        tokens = self._tokens
        end = len(tokens)
        if end < MIN_MATCH or len(self._earlier) < end:
            return None
        best, place = None, self._newest.get((tokens[end - 2], tokens[end - 1]), NOWHERE)
        for _ in range(MOST_CANDIDATES):
            if place == NOWHERE:
                break
            length = self._length_at(place)
            if best is None or length > best.length:
                best = Match(length, place)
            if length == MAX_MATCH:
                break
            place = self._earlier[place]
        return best

    def _length_at(self, place: int) -> int:
        """How many tokens before `place` are those at the end of the text; the last two are."""
        tokens, end, length = self._tokens, len(self._tokens), MIN_MATCH
        while length < min(MAX_MATCH, place) and tokens[place - length - 1] == tokens[end - length - 1]:
            length += 1
        return length

    def following(self, match: Match, num_tokens: int) -> tuple[int, ...]:
        """The `num_tokens` tokens that would come if the text went on as it did there; past its end it goes on with these themselves."""
        period = len(self._tokens) - match.follows_at
        return tuple(self._tokens[match.follows_at + i % period] for i in range(num_tokens))
