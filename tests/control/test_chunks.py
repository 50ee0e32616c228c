"""The chunk rule against laws it cannot see: it must find their chunks from steps, whatever else the steps cost."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from engine.control.sessions.chunks import MIN_TOKENS, ChunkRule, num_pairs


def warm() -> ChunkRule:
    rule = ChunkRule()
    rule.observe(64, num_pairs(64, 0), 99.0)
    return rule


def test_the_first_step_of_a_plan_teaches_nothing() -> None:
    rule = ChunkRule()
    for _ in range(2):
        rule.observe(64, num_pairs(64, 0), 6.4)  # a hundred times what it will be
        assert rule.chunk_tokens(0, 0.1, 128, 512) == 128
        rule.observe(64, num_pairs(64, 0), 0.064)
        assert 95 <= rule.chunk_tokens(0, 0.1, 128, 512) <= 105
        rule.forget()


@given(st.floats(1e-3, 1e-2), st.floats(0, 1e-5), st.floats(0.001, 0.01), st.integers(0, 500))
def test_a_chunk_takes_the_time_that_was_asked_for(token_s: float, pair_s: float, decode_s: float, context: int) -> None:
    rule = warm()
    for _ in range(5):
        rule.observe_decode(decode_s)
    cost_s = lambda n, c: token_s * n + pair_s * num_pairs(n, c)  # noqa: E731
    for tokens, seen in ((64, 0), (128, 64), (256, 300), (32, 900)):
        rule.observe(tokens, num_pairs(tokens, seen), decode_s + cost_s(tokens, seen))
    chunk = rule.chunk_tokens(context, 0.5, 77, 100_000)
    assert chunk > MIN_TOKENS and cost_s(chunk, context) <= 0.5 * 1.02 and cost_s(chunk + 2, context) >= 0.5 * 0.98


def test_small_chunks_do_not_look_dear_because_their_step_reads_the_weights() -> None:
    """Else each chunk would make the next one smaller, down to the smallest."""
    rule, size = warm(), 128
    rule.observe_decode(0.06)
    for _ in range(20):
        size = rule.chunk_tokens(0, 0.1, size, 512)
        rule.observe(size, num_pairs(size, 0), 0.06 + 0.003 * size)
    assert 30 <= size <= 34


def test_unknown_bounded_and_forgotten() -> None:
    rule = warm()
    assert rule.chunk_tokens(0, 0.1, 128, 64) == 64
    rule.observe(4, 10.0, 1.0)
    assert rule.chunk_tokens(0, 0.1, 128, 512) == 128
    rule.observe(100, num_pairs(100, 0), 10.0)
    assert rule.chunk_tokens(0, 0.1, 128, 512) == MIN_TOKENS
    rule.forget()
    assert rule.chunk_tokens(0, 0.1, 128, 512) == 128
