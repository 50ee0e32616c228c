"""Sampling as it is asked for, recommended and resolved: what is left open is filled, what is said stays, what cannot be is refused."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

from engine.data.errors import InvalidInput
from engine.data.generation import GenerateRequest, PromptMode
from engine.data.sampling import LogitBias, Sampling, SamplingRequest, recommended_sampling, resolved

LLAMA = {"do_sample": True, "temperature": 0.6, "top_p": 0.9, "eos_token_id": [1, 2], "transformers_version": "5"}


def test_a_request_leaves_open_what_a_decided_sampling_has() -> None:
    assert [f.name for f in dataclasses.fields(SamplingRequest)] == [f.name for f in dataclasses.fields(Sampling)]
    assert SamplingRequest().said() == {}


def test_nothing_said_by_anybody_is_greedy() -> None:
    assert resolved(SamplingRequest(), recommended_sampling({"eos_token_id": 2})) == (Sampling(), ())


def test_the_model_fills_what_the_request_leaves_open_and_nothing_else() -> None:
    sampling, from_model = resolved(SamplingRequest(top_p=0.5, seed=7), recommended_sampling(LLAMA), (2, 9))
    assert sampling == Sampling(temperature=0.6, top_p=0.5, seed=7, stop_token_ids=(2, 9)) and from_model == ("temperature",)


def test_a_request_for_greedy_stays_greedy_whatever_the_model_recommends() -> None:
    sampling, from_model = resolved(SamplingRequest(temperature=0.0), recommended_sampling(LLAMA))
    assert (sampling.temperature, from_model) == (0.0, ("top_p",))


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({"do_sample": True}, SamplingRequest(temperature=1.0)),
        ({"temperature": 0.6, "top_k": 20}, SamplingRequest(top_k=20)),  # generate() draws nothing without do_sample
        ({"do_sample": False, "temperature": 0.6, "repetition_penalty": 1.1}, SamplingRequest(repetition_penalty=1.1)),
        ({"do_sample": True, "temperature": "hot", "top_k": -1, "top_p": None, "min_p": math.nan}, SamplingRequest(temperature=1.0)),
        ({"do_sample": True, "temperature": True, "top_k": 2.5}, SamplingRequest(temperature=1.0)),
        ({"do_sample": True, "temperature": 0, "top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}, SamplingRequest()),
        ({"do_sample": True, "temperature": 0.7, "min_p": 0.1, "top_k": 40}, SamplingRequest(0.7, 40, min_p=0.1)),
    ],
)
def test_what_a_generation_config_recommends(document: dict[str, Any], expected: SamplingRequest) -> None:
    assert recommended_sampling(document) == expected


def test_the_ids_that_end_an_answer_are_the_callers_then_the_models_each_once() -> None:
    assert resolved(SamplingRequest(stop_token_ids=(7, 2)), SamplingRequest(), (2, 1))[0].stop_token_ids == (7, 2, 1)


@pytest.mark.parametrize("kind", [Sampling, SamplingRequest])
@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("temperature", -0.1, r"temperature -0.1 is not allowed: it must lie in \[0, 100\]"),
        ("temperature", math.nan, "temperature nan"),
        ("min_p", 1.5, r"min_p 1.5 is not allowed: it must lie in \[0, 1\] \(0 turns it off\)"),
        ("min_p", math.inf, "min_p inf"),
        ("presence_penalty", 2.5, r"presence_penalty 2.5 .* \[-2, 2\]"),
        ("frequency_penalty", -math.inf, "frequency_penalty -inf"),
        ("min_tokens", -1, "min_tokens -1"),
        ("top_logprobs", 21, r"top_logprobs 21 .* \[0, 20\]"),
        ("top_logprobs", 3, "top_logprobs 3 is not allowed without logprobs"),
        ("stop_token_ids", (-1,), "stop_token_ids: token id -1"),
        ("stop_token_ids", tuple(range(65)), "stop_token_ids has 65 ids, the limit is 64"),
        ("logit_bias", tuple(LogitBias(i, 1.0) for i in range(1025)), "logit_bias has 1025 entries, the limit is 1024"),
        ("logit_bias", (LogitBias(3, 1.0), LogitBias(4, 1.0), LogitBias(3, 2.0)), "logit_bias names token 3 more than once"),
    ],
)
def test_what_cannot_be_is_refused_with_its_limit(kind: type, name: str, value: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        kind(**{name: value})


def test_a_bias_is_bounded_and_of_a_token() -> None:
    with pytest.raises(InvalidInput, match=r"logit_bias of token 5: 100.5 is not allowed: it must lie in \[-100, 100\]"):
        LogitBias(5, 100.5)
    with pytest.raises(InvalidInput, match="logit_bias: token id -5"):
        LogitBias(-5, 1.0)


def test_a_request_has_one_prompt_and_tools_need_a_conversation() -> None:
    with pytest.raises(InvalidInput, match="one of them, and only one"):
        GenerateRequest("x", messages="[]")
    with pytest.raises(InvalidInput, match="for the chat template"):
        GenerateRequest("x", tools="[]")
    assert GenerateRequest("x", tools="[]", mode=PromptMode.AUTO).is_chat and not GenerateRequest("x").is_chat
    with pytest.raises(InvalidInput, match=r"min_tokens 9 is not allowed: it must lie in \[0, 8\]"):
        GenerateRequest("x", max_new_tokens=8, sampling=SamplingRequest(min_tokens=9))
