"""The protocol in a world where everything fails, and proof that the drill would notice a fault in it."""

from __future__ import annotations

import random

import pytest

from engine.simulation.drill.drill import Drill
from engine.simulation.drill.model import FICKLE_SEEDS, undisturbed
from engine.simulation.drill.result import DrillFailure, DrillResult, too_many_given_up
from engine.simulation.drill.world import Hostility
from tests.simulation.mutant_table import first_noticed, main, noticed_by_test
from tests.simulation.mutants import DIRECTED, FREQUENT, FREQUENT_SEEDS, Mutate, emit_before_journal

SEEDS_PER_TEST = 100  # about 12 s on a quiet machine


def drill(seed: int) -> DrillResult:
    return Drill(seed, random.Random(seed)).run()


@pytest.mark.parametrize("first", range(0, 5 * SEEDS_PER_TEST, SEEDS_PER_TEST))
def test_no_seed_shows_a_wrong_missing_or_repeated_token(first: int) -> None:
    """Three times as many seeds as any known fault needs that seeds can reach (FREQUENT_SEEDS); `noodle-engine drill` looks further."""
    results = [drill(seed) for seed in range(first, first + SEEDS_PER_TEST)]
    assert sum(r.num_tokens for r in results) > 20 * SEEDS_PER_TEST and sum(r.num_moves for r in results) > SEEDS_PER_TEST
    num_sessions = sum(r.num_sessions for r in results)
    assert not too_many_given_up(sum(r.num_given_up for r in results), num_sessions)
    assert sum(r.num_failed for r in results) <= 0.05 * num_sessions  # of most of them the disk failed


def test_a_seed_replays_bit_for_bit_and_another_one_differs() -> None:
    assert drill(11) == drill(11)
    assert drill(11).trace != drill(12).trace


@pytest.mark.parametrize("mutate", FREQUENT, ids=lambda m: m.__name__)
def test_a_fault_in_the_protocol_is_noticed(mutate: Mutate) -> None:
    """`python -m tests.simulation.mutant_table` prints the first seed for each."""
    found = first_noticed(mutate, range(FREQUENT_SEEDS))
    assert found is not None and f"seed {found[0]} at" in found[1]


@pytest.mark.parametrize("mutate", DIRECTED, ids=lambda m: m.__name__)
def test_a_fault_that_seeds_hardly_reach_is_noticed_by_a_test_of_its_own(mutate: Mutate) -> None:
    DIRECTED[mutate]()
    assert noticed_by_test(mutate)


def test_the_table_names_the_seed_or_says_that_there_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seeds", "3", "emit_before_journal"]) == 0
    assert capsys.readouterr().out.split()[:2] == ["emit_before_journal", "0"]
    assert main(["--seeds", "0", "memory_of_any_epoch_goes_on"]) == 0
    assert "test_a_stage_carries_on_only_what_is_of_the_epoch_and_whole" in capsys.readouterr().out
    assert main(["--seeds", "1", "dropped_move_keeps_the_smaller_room"]) == 1
    assert "not noticed in 1 seeds" in capsys.readouterr().out


def test_what_was_patched_for_a_fault_is_as_before() -> None:
    before = drill(0)
    assert first_noticed(emit_before_journal, range(5)) is not None
    assert drill(0) == before


def test_the_calm_phase_knows_a_world_that_is_not_calm() -> None:
    """A message that is lost is healed by sending again: in the calm phase that has to be noticed."""
    with pytest.raises(DrillFailure, match="though nothing failed"):
        for seed in range(20):
            unlucky = Drill(seed, random.Random(seed))
            unlucky.world.hostility = Hostility(drop=0.05, keeps_order=True)
            unlucky.run()


def test_the_model_tells_every_difference_in_memory() -> None:
    seed = FICKLE_SEEDS
    whole = undisturbed((1, 2, 3), seed, 5, 6)
    others = [((1, 3, 2), seed), ((1, 2, 2, 3), seed), ((1, 2, 3), seed + 1)]
    assert all(undisturbed(prompt, seed, 5, 6) != whole for prompt, seed in others)
