"""Tokens chosen in batch are those that `sample` chooses row by row, whatever the parameters."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.data.errors import Corrupt
from engine.data.sampling import LogitBias, Sampling
from engine.model.running.accelerator import device_sampling
from engine.model.running.accelerator.device_sampling import Draw, sample_rows, sample_together, uniforms
from engine.model.running.sampling import allowed, sample, uniform

params = st.builds(
    Sampling,
    temperature=st.sampled_from((0.0, 1e-7, 0.3, 1.0, 1.7)),
    top_k=st.sampled_from((0, 1, 2, 7, 40, 10**6)),
    top_p=st.sampled_from((1.0, 0.95, 0.5, 0.1, 1e-6)),
    repetition_penalty=st.sampled_from((1.0, 0.7, 1.3)),
    seed=st.integers(0, 2**63 - 1),
    stop_token_ids=st.sampled_from(((), (1, 9))),
    logprobs=st.booleans(),
    min_p=st.sampled_from((0.0, 0.0, 0.2)),
    presence_penalty=st.sampled_from((0.0, 0.0, 1.5)),
    logit_bias=st.sampled_from(((), (), (LogitBias(1, 9.0),))),
    min_tokens=st.sampled_from((0, 0, 3)),
)
histories, indices = st.lists(st.integers(0, 99), max_size=12), st.one_of(st.integers(0, 5), st.integers(0, 2**64 - 1))
draws = st.builds(Draw, params, histories, indices, st.sampled_from((b"", b"", b"\x8b\x01")))


def rows(seed: int, count: int, size: int, spread: float, dtype: torch.dtype) -> torch.Tensor:
    """Logits [count, size]; those of a smaller dtype have many equals."""
    return (torch.randn(count, size, generator=torch.Generator().manual_seed(seed)) * spread).to(dtype).float()


@settings(max_examples=300, deadline=None)
@given(
    st.lists(draws, min_size=1, max_size=6), st.integers(0, 2**20), st.sampled_from((2, 50, 3000)), st.sampled_from((0.01, 1.0, 6.0)),
    st.sampled_from((torch.float32, torch.bfloat16)),
)  # fmt: skip
def test_choices_in_batch_are_those_of_each_row(asked: list[Draw], seed: int, size: int, spread: float, dtype: torch.dtype) -> None:
    logits = rows(seed, len(asked), size, spread, dtype)
    kept = logits.clone()
    pairs = list(zip(logits, asked, strict=True))
    expected = [sample(allowed(row, draw.mask), draw.params, draw.history, draw.index) for row, draw in pairs]
    assert sample_together(logits, asked, "here") == expected == sample_rows(logits, asked, "here")
    assert torch.equal(logits, kept)


def test_nearly_every_choice_is_made_in_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    alone: list[int] = []
    monkeypatch.setattr(device_sampling, "sample", lambda row, p, history, index: alone.append(index) or sample(row, p, history, index))
    ends = {"stop_token_ids": (2,), "logprobs": True}  # they have no say in the choice
    asked = [
        Draw(Sampling(temperature=0.8, top_k=k, top_p=p, seed=3, **ends), (), i) for i in range(100) for k in (0, 50) for p in (0.9, 1.0)
    ]
    logits = rows(1, len(asked), 4000, 3.0, torch.float32)
    found = sample_together(logits, asked, "here")
    assert found == [sample(row, draw.params, (), draw.index) for row, draw in zip(logits, asked, strict=True)]
    assert len(alone) <= len(asked) // 20


def test_a_choice_that_rounding_could_change_is_made_alone() -> None:
    """Four equal tokens and half of the mass: the cumulative sum meets the limit exactly, so only the reference knows."""
    logits = torch.zeros(1, 4)
    asked = Draw(Sampling(temperature=1.0, top_p=0.5, seed=1), (), 0)
    values, is_sure = device_sampling._nucleus(logits, [0.5])
    assert not bool(is_sure) and values.shape == (1, 4)
    assert sample_together(logits, [asked], "here") == [sample(logits[0], asked.params, (), 0)]


@given(st.lists(st.tuples(st.integers(0, 2**63 - 1), st.integers(0, 2**64 - 1)), min_size=1, max_size=20))
def test_random_numbers_are_those_of_one_at_a_time(pairs: list[tuple[int, int]]) -> None:
    seeds, indices = zip(*pairs, strict=True)
    assert uniforms(seeds, indices).tolist() == [uniform(seed, index) for seed, index in pairs]


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_logits_that_are_not_finite_fail_the_step(bad: float) -> None:
    logits = torch.zeros(2, 5)
    logits[1, 3] = bad
    for way in (sample_rows, sample_together):
        with pytest.raises(Corrupt, match="here produced non-finite"):
            way(logits, [Draw(Sampling(), (), 0)] * 2, "here")


def test_what_a_step_picked_already_is_taken_where_the_largest_is_asked_for() -> None:
    logits = rows(3, 2, 50, 1.0, torch.float32)
    picks = torch.tensor([[7, 8], [1, 1]])
    greedy, drawn = Draw(Sampling(), (), 0), Draw(Sampling(temperature=1.0, seed=5), (), 0)
    assert sample_rows(logits, [greedy, greedy], "here", picks) == [7, 8]
    assert sample_rows(logits, [greedy, drawn], "here", picks) == [
        sample(logits[i], d.params, (), 0) for i, d in enumerate((greedy, drawn))
    ]
    penalised = Draw(Sampling(repetition_penalty=2.0), (int(logits[0].argmax()),), 0)
    assert sample_rows(logits, [penalised, greedy], "here", picks)[0] == sample(logits[0], penalised.params, penalised.history, 0) != 7
    with pytest.raises(Corrupt):
        sample_rows(logits, [greedy, greedy], "here", torch.tensor([[7, 8], [1, 0]]))


def test_parameters_that_are_not_known_are_left_to_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_sampling, "_is_known", lambda p: p.seed != 7)
    monkeypatch.setattr(device_sampling, "sample", lambda *_: 42)
    logits = rows(2, 2, 50, 1.0, torch.float32)
    assert sample_together(logits, [Draw(Sampling(), (), 0), Draw(Sampling(seed=7), (), 0)], "here") == [int(logits[0].argmax()), 42]
