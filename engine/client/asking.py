"""The keywords of a request, and the request they make."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict, Unpack

from engine.data.errors import InvalidInput
from engine.data.generation import GenerateRequest, Grammar, GrammarKind, PromptMode
from engine.data.json_text import json_text
from engine.data.sampling import LogitBias, SamplingRequest

Message = Mapping[str, Any]  # as in OpenAI's chat completions: {"role": "user", "content": "..."}


class Asked(TypedDict, total=False):
    """How tokens are picked and when to stop. What is left out is the model's own recommendation, or greedy."""

    max_new_tokens: int
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    repetition_penalty: float
    presence_penalty: float
    frequency_penalty: float
    logit_bias: Mapping[int, float]
    seed: int
    stop: Sequence[str]
    stop_token_ids: Sequence[int]
    min_tokens: int
    ignore_eos: bool
    logprobs: bool
    top_logprobs: int
    json_schema: Mapping[str, Any]  # the answer is JSON of this schema
    regex: str  # or all of it matches this


def completion_request(prompt: str | Sequence[int], **asked: Unpack[Asked]) -> GenerateRequest:
    """Continue `prompt`, a text as it is or token ids. Raises InvalidInput naming what is wrong."""
    if isinstance(prompt, str):
        return GenerateRequest(prompt=prompt, mode=PromptMode.RAW, **_fields(asked))
    return GenerateRequest(prompt_ids=tuple(prompt), **_fields(asked))


def chat_request(
    messages: str | Sequence[Message],
    *,
    tools: Sequence[Mapping[str, Any]] = (),
    template_values: Mapping[str, Any] | None = None,
    **asked: Unpack[Asked],
) -> GenerateRequest:
    """Answer the last of `messages`, or one text as a user says it, through the model's chat template.

    Raises InvalidInput naming what is wrong.
    """
    conversation = [{"role": "user", "content": messages}] if isinstance(messages, str) else list(messages)
    return GenerateRequest(
        messages=json_text(conversation),
        tools=json_text(list(tools)) if tools else "",
        chat_template_kwargs=json_text(dict(template_values)) if template_values else "",
        **_fields(asked),
    )


def _fields(asked: Asked) -> dict[str, Any]:
    """Of a request; the rest of the keywords are its sampling's."""
    values: dict[str, Any] = dict(asked)
    fields: dict[str, Any] = {name: values.pop(name) for name in ("max_new_tokens", "ignore_eos") if name in values}
    if (schema := values.pop("json_schema", None)) is not None:
        fields["grammar"] = Grammar(GrammarKind.JSON_SCHEMA, json_text(dict(schema)))
    if (regex := values.pop("regex", None)) is not None:
        if "grammar" in fields:
            raise InvalidInput("json_schema and regex name two forms of an answer: give one")
        fields["grammar"] = Grammar(GrammarKind.REGEX, regex)
    stop = tuple(values.pop("stop", ()))
    biases = tuple(LogitBias(int(token), float(bias)) for token, bias in dict(values.pop("logit_bias", {})).items())
    ids = tuple(values.pop("stop_token_ids", ()))
    return {**fields, "stop": stop, "sampling": SamplingRequest(**values, logit_bias=biases, stop_token_ids=ids)}
