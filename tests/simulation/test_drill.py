"""The protocol in a world where everything fails, and proof that the drill would notice a fault in it."""

from __future__ import annotations

import random

import pytest

from engine.simulation.drill import Drill, DrillFailure, DrillResult
from engine.simulation.drill_model import undisturbed
from tests.simulation.mutants import DEFENDED_TWICE, MUTANTS, Mutate

SEEDS_PER_TEST = 250


def drill(seed: int) -> DrillResult:
    return Drill(seed, random.Random(seed)).run()


@pytest.mark.parametrize("first", range(0, 2000, SEEDS_PER_TEST))
def test_no_seed_shows_a_wrong_missing_or_repeated_token(first: int) -> None:
    results = [drill(seed) for seed in range(first, first + SEEDS_PER_TEST)]
    assert sum(r.num_tokens for r in results) > 20 * SEEDS_PER_TEST and sum(r.num_moves for r in results) > SEEDS_PER_TEST
    assert sum(r.num_failed for r in results) <= 0.05 * sum(r.num_sessions for r in results)  # their disk failed


def test_a_seed_replays_bit_for_bit_and_another_one_differs() -> None:
    assert drill(11) == drill(11)
    assert drill(11).trace != drill(12).trace


@pytest.mark.parametrize("mutate", MUTANTS, ids=lambda m: m.__name__)
def test_a_fault_in_the_protocol_is_noticed(mutate: Mutate, monkeypatch: pytest.MonkeyPatch) -> None:
    mutate(monkeypatch)
    with pytest.raises(DrillFailure, match=r"seed \d+ at"):
        for seed in range(300):
            drill(seed)


@pytest.mark.parametrize("mutate", DEFENDED_TWICE, ids=lambda m: m.__name__)
def test_a_rule_with_a_second_one_behind_it_may_fail_alone(mutate: Mutate, monkeypatch: pytest.MonkeyPatch) -> None:
    mutate(monkeypatch)
    for seed in range(30):
        drill(seed)


def test_the_model_tells_every_difference_in_memory() -> None:
    whole = undisturbed((1, 2, 3), 0, 5, 6)
    others = [((1, 3, 2), 0), ((1, 2, 2, 3), 0), ((1, 2, 3), 1)]
    assert all(undisturbed(prompt, seed, 5, 6) != whole for prompt, seed in others)
