"""From a request's fields to what the cluster is asked, and from what it answers to the parts that all answers have."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

from engine.api.bodies import Sampled
from engine.client.answers import Completion, Token
from engine.data.generation import FinishReason, TokenLogprob
from engine.data.sampling import LogitBias, SamplingRequest

SEEDS = 2**63
FINISH = {FinishReason.STOP: "stop", FinishReason.LENGTH: "length"}


def sampling_of(body: Sampled, number: int, top_logprobs: int | None) -> SamplingRequest:
    """Of choice `number` of a request: choices differ in their seed, which is random unless the request names one."""
    seed = secrets.randbelow(SEEDS) if body.seed is None else (body.seed + number) % SEEDS
    return SamplingRequest(
        temperature=body.temperature,
        top_k=0 if body.top_k == -1 else body.top_k,
        top_p=body.top_p,
        min_p=body.min_p,
        repetition_penalty=body.repetition_penalty,
        presence_penalty=body.presence_penalty,
        frequency_penalty=body.frequency_penalty,
        logit_bias=tuple(LogitBias(int(token), bias) for token, bias in (body.logit_bias or {}).items()),
        seed=seed,
        min_tokens=body.min_tokens,
        stop_token_ids=tuple(body.stop_token_ids or ()),
        logprobs=None if top_logprobs is None else True,
        top_logprobs=top_logprobs,
    )


def stop_of(body: Sampled) -> tuple[str, ...]:
    return (body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ())


def usage_of(completions: Sequence[Completion], num_prompts: int = 1) -> dict[str, Any]:
    """Tokens; choices of one prompt share it."""
    share = max(1, len(completions) // num_prompts)
    prompt = sum(len(c.prompt_ids) for c in completions[::share])
    answer = sum(len(c.token_ids) for c in completions)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": answer,
        "total_tokens": prompt + answer,
        "prompt_tokens_details": {"cached_tokens": sum(c.cached_tokens for c in completions[::share])},
    }


def chat_logprobs(tokens: Sequence[Token]) -> dict[str, Any]:
    """As chat completions have them."""
    rows = [t.logprobs for t in tokens if t.logprobs is not None]
    return {"content": [{**_entry(row.chosen), "top_logprobs": [_entry(other) for other in row.top]} for row in rows], "refusal": None}


def text_logprobs(tokens: Sequence[Token], offset: int) -> dict[str, Any]:
    """As text completions have them; `offset` is where the first of `tokens` begins in the text."""
    rows = [(t, t.logprobs) for t in tokens if t.logprobs is not None]
    offsets = []
    for token in tokens:
        if token.logprobs is not None:
            offsets.append(offset)
        offset += len(token.text)
    return {
        "tokens": [_spelled(row.chosen) for _, row in rows],
        "token_logprobs": [row.chosen.logprob for _, row in rows],
        "top_logprobs": [{_spelled(other): other.logprob for other in row.top} for _, row in rows],
        "text_offset": offsets,
    }


def _entry(found: TokenLogprob) -> dict[str, Any]:
    return {"token": _spelled(found), "logprob": found.logprob, "bytes": list(found.spelling)}


def _spelled(found: TokenLogprob) -> str:
    return found.spelling.decode(errors="replace")
