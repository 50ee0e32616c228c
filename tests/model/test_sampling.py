"""Sampling against transformers' own processors, published Philox vectors, and the distribution it claims to draw from."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from functools import partial
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.generation.logits_process import (
    MinNewTokensLengthLogitsProcessor,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    SequenceBiasLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from engine.data.errors import Corrupt, InvalidInput
from engine.data.sampling import LEAST_LOGPROB, LogitBias, Sampling
from engine.model.running.sampling import adjusted, filtered, logprobs, philox4x32, sample, uniform

# Random123 1.14, tests/kat_vectors, lines "philox4x32 10": counter, key, answer.
KNOWN_ANSWERS = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


NUM_PROMPT = 2  # tokens of a history that the session did not generate
BIASES = st.lists(st.builds(LogitBias, st.integers(0, 399), st.floats(-100, 100)), max_size=5, unique_by=lambda b: b.token_id).map(tuple)


def words(text: str) -> tuple[int, ...]:
    return tuple(int(word, 16) for word in text.split())


def seeded_logits(seed: int, size: int, coarse: bool) -> torch.Tensor:
    logits = torch.randn(size, generator=torch.Generator().manual_seed(seed)) * 3
    return (logits * 2).round() / 2 if coarse else logits  # coarse rows are full of ties


def by_transformers(logits: torch.Tensor, params: Sampling, history: list[int]) -> torch.Tensor:
    ids, scores = torch.tensor([history]), logits[None]
    if biases := [([entry.token_id], float(entry.bias)) for entry in params.logit_bias if entry.token_id < len(logits)]:
        scores = SequenceBiasLogitsProcessor(biases)(ids, scores)
    if params.repetition_penalty != 1.0:
        inside = ids[ids < len(logits)][None]
        scores = RepetitionPenaltyLogitsProcessor(params.repetition_penalty)(inside, scores)
    scores = as_openai_penalises(scores, params, history[NUM_PROMPT:])
    if params.stop_token_ids:
        scores = MinNewTokensLengthLogitsProcessor(NUM_PROMPT, params.min_tokens, list(params.stop_token_ids), "cpu")(ids, scores)
    scores = TemperatureLogitsWarper(params.temperature)(ids, scores)
    if params.top_k:
        scores = TopKLogitsWarper(params.top_k)(ids, scores)
    if params.top_p < 1.0:
        # Which equals survive at the boundary is undefined under the processor's unstable sort: pin it to a stable one.
        with mock.patch.object(torch, "sort", partial(torch.sort, stable=True)):
            scores = TopPLogitsWarper(params.top_p)(ids, scores)
    if params.min_p:
        scores = MinPLogitsWarper(params.min_p)(ids, scores)
    return scores[0]


def as_openai_penalises(scores: torch.Tensor, params: Sampling, generated: list[int]) -> torch.Tensor:
    """mu[j] -> mu[j] - c[j] * alpha_frequency - (c[j] > 0) * alpha_presence, as their API reference says, token by token."""
    scores = scores.clone()
    for token_id, count in Counter(generated).items():
        if token_id < scores.shape[1]:
            scores[0, token_id] = scores[0, token_id] - np.float32(params.frequency_penalty) * np.float32(count)
            scores[0, token_id] = scores[0, token_id] - np.float32(params.presence_penalty)
    return scores


def filter_all(logits: torch.Tensor, params: Sampling, history: list[int]) -> torch.Tensor:
    return torch.from_numpy(filtered(adjusted(logits.numpy(), params, history, max(0, len(history) - NUM_PROMPT)), params))


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN_ANSWERS)
def test_philox_gives_the_published_answers(counter: str, key: str, answer: str) -> None:
    assert philox4x32(words(counter), words(key)) == words(answer)  # type: ignore[arg-type]


def test_every_bit_of_seed_and_index_changes_the_random_number() -> None:
    draws = [uniform(1 << bit, 0) for bit in range(63)] + [uniform(0, 1 << bit) for bit in range(64)] + [uniform(0, 0)]
    assert len(set(draws)) == len(draws)
    assert all(0.0 <= u < 1.0 for u in draws)


@settings(max_examples=300, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    size=st.integers(1, 400),
    coarse=st.booleans(),
    params=st.builds(
        Sampling,
        temperature=st.floats(0.1, 5.0),
        top_k=st.integers(0, 500),
        top_p=st.floats(0.01, 1.0),
        repetition_penalty=st.sampled_from([1.0, 0.7, 1.3]),
        seed=st.integers(0, 2**63 - 1),
        min_p=st.sampled_from([0.0, 1e-4, 0.05, 0.5, 1.0]),
        presence_penalty=st.sampled_from([0.0, 0.6, -1.7, 2.0]),
        frequency_penalty=st.sampled_from([0.0, 0.3, -0.9]),
        logit_bias=BIASES,
        min_tokens=st.integers(0, 40),
        stop_token_ids=st.lists(st.integers(1, 399), max_size=3).map(tuple),
    ),
    history=st.lists(st.integers(0, 399), min_size=NUM_PROMPT, max_size=30),
)
def test_scores_and_masks_are_those_of_transformers(seed: int, size: int, coarse: bool, params: Sampling, history: list[int]) -> None:
    logits = seeded_logits(seed, size, coarse)
    before = logits.clone()
    expected = by_transformers(logits, params, history)
    assert torch.equal(filter_all(logits, params, history), expected)
    assert expected[sample(logits, params, history, len(history) - NUM_PROMPT)] > -torch.inf
    assert torch.equal(logits, before), "the caller's logits must not change"


@pytest.mark.parametrize("coarse", [False, True])
def test_masks_agree_on_a_full_vocabulary(coarse: bool) -> None:
    logits = seeded_logits(7, 50257, coarse)
    for params in (Sampling(temperature=0.8, top_p=0.9), Sampling(temperature=1.3, top_k=50, top_p=0.5)):
        assert torch.equal(filter_all(logits, params, [0]), by_transformers(logits, params, [0]))


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 300), st.booleans(), st.integers(0, 20), st.data())
def test_log_probabilities_are_those_of_the_untouched_logits(seed: int, size: int, coarse: bool, num_top: int, data: st.DataObject) -> None:
    logits = seeded_logits(seed, size, coarse)
    token_id = data.draw(st.integers(0, size - 1))
    expected = logits.log_softmax(0)  # float32, as OpenAI's and vLLM's
    found = logprobs(logits, token_id, num_top)
    assert found.chosen.token_id == token_id and abs(found.chosen.logprob - float(expected[token_id])) < 1e-5
    slow = sorted(range(size), key=lambda i: (-float(logits[i]), i))[:num_top]
    assert [entry.token_id for entry in found.top] == slow
    assert all(abs(entry.logprob - float(expected[entry.token_id])) < 1e-5 for entry in found.top)


def test_what_can_never_come_has_a_log_probability_all_the_same() -> None:
    found = logprobs(torch.tensor([1.0, -torch.inf, 0.0]), 1, 3)
    assert found.chosen.logprob == LEAST_LOGPROB == found.top[2].logprob and [entry.token_id for entry in found.top] == [0, 2, 1]


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=50))
def test_greedy_takes_the_lowest_id_among_equals(values: list[int]) -> None:
    assert sample(torch.tensor(values, dtype=torch.float32), Sampling(), [], 0) == values.index(max(values))


def test_greedy_honours_the_repetition_penalty() -> None:
    logits = torch.tensor([3.0, 2.9, -1.0])
    assert sample(logits, Sampling(repetition_penalty=1.5), [0], 0) == 1
    assert sample(logits, Sampling(repetition_penalty=1.5), [0, 99], 0) == 1, "ids beyond the head are ignored"


def chi_square(logits: torch.Tensor, params: Sampling, num_draws: int) -> float:
    expected = filter_all(logits, params, []).double().softmax(0) * num_draws
    counts = torch.zeros_like(expected)
    for index in range(num_draws):
        counts[sample(logits, params, [], index)] += 1
    live = expected > 0
    assert counts[~live].sum() == 0
    return float(((counts - expected)[live] ** 2 / expected[live]).sum())


@pytest.mark.parametrize("seed", range(5))
def test_draws_follow_the_distribution(seed: int) -> None:
    logits = torch.tensor([0.0, 1.0, 2.0, -1.0, 0.5, 1.5, -0.5, 0.2, 1.2, -2.0])
    # 27.9 is the 0.999 quantile for 9 degrees of freedom: five fixed seeds, each far inside unless the draw is biased.
    assert chi_square(logits, Sampling(temperature=1.0, seed=seed), 4000) < 27.9
    assert chi_square(logits, Sampling(temperature=0.7, top_k=6, top_p=0.9, seed=seed), 2000) < 20.6


def test_another_process_draws_the_same_tokens() -> None:
    program = (
        "import torch; from engine.data.sampling import Sampling; from engine.model.running.sampling import sample\n"
        "x = torch.arange(1000).mul(0.37).sin().mul(4)\n"
        "print([sample(x, Sampling(temperature=0.9, top_p=0.95, seed=2**62 + 5), [], i) for i in range(40)])"
    )
    there = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    logits = torch.arange(1000).mul(0.37).sin().mul(4)
    here = [sample(logits, Sampling(temperature=0.9, top_p=0.95, seed=2**62 + 5), [], i) for i in reversed(range(40))]
    assert there.strip() == str(here[::-1])
    assert len(set(here)) > 10


@pytest.mark.parametrize("params", [Sampling(), Sampling(temperature=1.0), Sampling(temperature=1.0, top_k=1, top_p=0.5)])
@pytest.mark.parametrize("row", [[0.0, float("nan"), -float("inf")], [0.0, float("inf")], [-float("inf")] * 3])
def test_a_broken_row_is_refused(row: list[float], params: Sampling) -> None:
    with pytest.raises(Corrupt, match="largest logit"):
        sample(torch.tensor(row), params, [], 0)


def test_a_nearly_frozen_temperature_is_greedy() -> None:
    assert sample(torch.tensor([1.0, 9.0, 2.0]), Sampling(temperature=1e-38, seed=3), [], 0) == 1


@pytest.mark.parametrize("logits", [torch.zeros(0), torch.zeros(1, 4), torch.zeros(4, dtype=torch.float16)])
def test_wrong_shapes_and_types_are_refused(logits: torch.Tensor) -> None:
    with pytest.raises(InvalidInput, match="one row"):
        sample(logits, Sampling(), [], 0)
    with pytest.raises(InvalidInput, match="index -1"):
        sample(torch.zeros(4), Sampling(), [], -1)
