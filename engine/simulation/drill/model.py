"""A model small enough to check every key and value: numbers instead of tensors, and one wrong one changes all that follows. Pure.

Each item leaves one number per token as its "keys and values". What it hands on depends on all of them and on their order, so a
token that was skipped, doubled, swapped or computed from another session's memory shows in the answer.
"""

from __future__ import annotations

from collections.abc import Sequence

from engine.data.model import Item, ModelCard, ModelRef

MODULUS = (1 << 61) - 1
VOCABULARY = 9_973
NUM_ITEMS = 6
CYCLE = 5
FICKLE_SEEDS = 1_000  # sessions with a seed from here on never repeat themselves

Memory = dict[int, list[int]]  # per item, one number per token


def embed(token_id: int) -> int:
    return token_id * 7_919 % MODULUS


def run_items(memory: Memory, start: int, stop: int, hidden: int) -> int:
    """One token through items [start, stop); appends to their memory."""
    for item in range(start, stop):
        kept = memory.setdefault(item, [])
        kept.append((hidden * 31 + item * 104_729) % MODULUS)
        seen = 0
        for value in kept:
            seen = (seen * 65_599 + value) % MODULUS
        hidden = (hidden * 17 + seen) % MODULUS
    return hidden


def sample(hidden: int, seed: int, index: int) -> int:
    """The token at `index`: a function of the last hidden state, the seed and the index, and of nothing else.

    Most of the time it is the next of a cycle, so that texts repeat themselves and proposals come true, but not for long.
    """
    drawn = (hidden + seed * 1_299_709 + index * 15_485_863) % MODULUS
    return (seed + index) % CYCLE if drawn % 16 < 13 and seed < FICKLE_SEEDS else drawn % VOCABULARY


def undisturbed(prompt: Sequence[int], seed: int, num_tokens: int, num_items: int) -> list[int]:
    """What a session generates where nothing ever goes wrong."""
    memory: Memory = {}
    tokens: list[int] = []
    hidden = 0
    for token_id in prompt:
        hidden = run_items(memory, 0, num_items, embed(token_id))
    for index in range(num_tokens):
        tokens.append(sample(hidden, seed, index))
        hidden = run_items(memory, 0, num_items, embed(tokens[-1]))
    return tokens


def card() -> ModelCard:
    """What a cluster knows of it."""
    items = tuple(Item(f"h.{i}", 100, 8, 8) for i in range(NUM_ITEMS))
    return ModelCard(ModelRef("drill", 0), "/drill", "f" * 64, "Drill", items, 8, VOCABULARY, 256, (), None, 1)
