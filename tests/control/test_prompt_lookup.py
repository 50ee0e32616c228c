"""Prompt lookup against a slow reference that compares every earlier place of a text with its end."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.control.sessions.guessing.prompt_lookup import MAX_MATCH, MOST_CANDIDATES, Match, PromptLookup


def slow_match(tokens: Sequence[int]) -> Match | None:
    """The longest, then the newest, of the newest `MOST_CANDIDATES` earlier places where the last two tokens stand."""
    end = len(tokens)
    places = [p for p in range(end - 1, 1, -1) if end > 2 and tuple(tokens[p - 2 : p]) == tuple(tokens[end - 2 :])][:MOST_CANDIDATES]
    best = None
    for place in places:
        length = 2
        while length < min(MAX_MATCH, place) and tokens[place - length - 1] == tokens[end - length - 1]:
            length += 1
        if best is None or length > best.length:
            best = Match(length, place)
    return best


def slow_following(tokens: Sequence[int], match: Match, num_tokens: int) -> tuple[int, ...]:
    text = [*tokens]
    for i in range(num_tokens):
        text.append(text[match.follows_at + i])
    return tuple(text[len(tokens) :])


texts = st.lists(st.integers(0, 3), max_size=60) | st.lists(st.integers(0, 1), max_size=90) | st.lists(st.integers(0, 10**9), max_size=20)


@given(texts, st.lists(st.integers(0, 3), max_size=30), st.integers(1, 20))
@settings(max_examples=300, deadline=None)
def test_it_finds_what_a_search_through_the_whole_text_finds(prompt: list[int], answer: list[int], num_tokens: int) -> None:
    lookup, text = PromptLookup(prompt), [*prompt]
    for token_id in [*answer, None]:
        assert lookup.catch_up(10**6)
        found = lookup.match()
        assert found == slow_match(text)
        if found is not None:
            assert lookup.following(found, num_tokens) == slow_following(text, found, num_tokens)
        if token_id is not None:
            lookup.add(token_id)
            text.append(token_id)
    assert len(lookup) == len(prompt) + len(answer)


def test_a_long_text_is_entered_in_parts_and_says_nothing_before_it_is() -> None:
    text = [1, 2, 3, 4, 5] * 20
    lookup = PromptLookup(text)
    assert lookup.match() is None
    num_calls = 1
    while not lookup.catch_up(7):
        assert lookup.match() is None
        num_calls += 1
    assert num_calls == (len(text) - 2) // 7  # every pair once
    assert lookup.match() == Match(MAX_MATCH, 95)
    assert lookup.following(Match(MAX_MATCH, 95), 7) == (1, 2, 3, 4, 5, 1, 2)


def test_a_question_costs_no_more_in_a_text_full_of_candidates() -> None:
    """The pair stands a thousand times: the thirty-two newest are looked at, the longest match lies before them."""
    text = [9, 8, 1, 1, 7] + [3, 1, 1] * 1000 + [9, 8, 1, 1]
    lookup = PromptLookup(text)
    assert lookup.catch_up(10**6)
    assert lookup.match() == slow_match(text) == Match(2, len(text) - 4)
