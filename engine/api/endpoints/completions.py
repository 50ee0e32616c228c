"""POST /v1/completions."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any

from engine.api.answering import Answer, refuse
from engine.api.bodies import MAX_CHOICES, CompletionBody
from engine.api.endpoints.sampled import FINISH, sampling_of, stop_of, text_logprobs, usage_of
from engine.client.answers import Completion, Token
from engine.data.generation import GenerateRequest

DEFAULT_MAX_TOKENS = 16  # OpenAI's
Prompt = str | list[int]


def prompts_of(body: CompletionBody) -> list[Prompt]:
    """Each is answered by itself. Raises Problem 400."""
    given = body.prompt
    if isinstance(given, str):
        return [given]
    if not given:
        refuse("prompt is an empty list: give a text or token ids", "prompt", "invalid_value")
    prompts: list[Prompt] = [list(given)] if isinstance(given[0], int) else list(given)
    if len(prompts) * body.n > MAX_CHOICES:
        refuse(f"{len(prompts)} prompts x n {body.n} are too many answers: the limit is {MAX_CHOICES}", "n", "invalid_value")
    return prompts


def requests_of(body: CompletionBody) -> list[GenerateRequest]:
    """One for each choice, those of a prompt together. Raises Problem 400, InvalidInput."""
    prompts = prompts_of(body)
    if body.stream_options is not None and not body.stream:
        refuse("stream_options needs stream: true", "stream_options", "invalid_value")
    if body.echo and body.logprobs is not None:
        refuse("echo with logprobs is not supported: the logprobs of a prompt are not computed", "echo")
    if body.echo and not all(isinstance(prompt, str) for prompt in prompts):
        refuse("echo needs a prompt that is a text", "echo")
    return [
        GenerateRequest(
            prompt=prompt if isinstance(prompt, str) else None,
            prompt_ids=() if isinstance(prompt, str) else tuple(prompt),
            max_new_tokens=body.max_tokens or DEFAULT_MAX_TOKENS,
            stop=stop_of(body),
            ignore_eos=body.ignore_eos,
            sampling=sampling_of(body, number, body.logprobs),
        )
        for prompt in prompts
        for number in range(body.n)
    ]


class CompletionDocuments:
    """The documents of one request's answer."""

    def __init__(self, body: CompletionBody, answer: Answer) -> None:
        self._body, self._answer = body, answer
        self._head = {
            "id": f"cmpl-{answer.transcripts[0].session_id}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": body.model,
        }
        self._prompts = prompts_of(body)
        self._lengths = [len(self._echo(i)) for i in range(len(answer.transcripts))]

    def whole(self, completions: list[Completion]) -> dict[str, Any]:
        """Of an answer that is not streamed."""
        choices = [
            self._choice(i, self._echo(i) + c.text, self._answer.transcripts[i].tokens, FINISH[c.finish_reason], len(self._echo(i)))
            for i, c in enumerate(completions)
        ]
        return {**self._head, "choices": choices, "usage": usage_of(completions, len(self._prompts))}

    async def chunks(self) -> AsyncIterator[dict[str, Any]]:
        """Of a streamed answer."""
        if self._body.echo:
            for index in range(len(self._answer.transcripts)):
                yield {**self._head, "choices": [self._choice(index, self._echo(index), [], None, 0)]}
        done: list[Completion] = []
        async for index, piece in self._answer.pieces():
            if isinstance(piece, Token):
                offset = self._lengths[index]
                self._lengths[index] += len(piece.text)
                if piece.text or piece.logprobs is not None:
                    yield {**self._head, "choices": [self._choice(index, piece.text, [piece], None, offset)]}
                continue
            done.append(piece)
            yield {**self._head, "choices": [self._choice(index, "", [], FINISH[piece.finish_reason], 0)]}
        if self._body.stream_options is not None and self._body.stream_options.include_usage:
            yield {**self._head, "choices": [], "usage": usage_of(done, len(self._prompts))}

    def _echo(self, index: int) -> str:
        prompt = self._prompts[index // self._body.n] if self._body.echo else ""
        return prompt if isinstance(prompt, str) else ""

    def _choice(self, index: int, text: str, tokens: list[Token], finish_reason: str | None, offset: int) -> dict[str, Any]:
        wanted = self._body.logprobs is not None and bool(tokens)
        logprobs = text_logprobs(tokens, offset) if wanted else None
        return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish_reason}
