"""POST /v1/chat/completions."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any

from engine.api.answering import Answer, refuse
from engine.api.bodies import ChatBody, ChatMessage, NamedTool
from engine.api.endpoints.grammar import grammar_of
from engine.api.endpoints.sampled import FINISH, chat_logprobs, sampling_of, stop_of, usage_of
from engine.api.endpoints.tool_calls import Call, CallReader
from engine.client.answers import Completion, Token
from engine.data.generation import GenerateRequest
from engine.data.json_text import json_text


def requests_of(body: ChatBody, default_max_tokens: int) -> list[GenerateRequest]:
    """One for each choice. Raises Problem 400, InvalidInput."""
    if body.top_logprobs and not body.logprobs:
        refuse("top_logprobs needs logprobs: true", "top_logprobs", "invalid_value")
    if body.stream_options is not None and not body.stream:
        refuse("stream_options needs stream: true", "stream_options", "invalid_value")
    if body.max_tokens is not None and body.max_completion_tokens is not None and body.max_tokens != body.max_completion_tokens:
        refuse("max_tokens and max_completion_tokens name two limits: give one", "max_completion_tokens", "invalid_value")
    limit = body.max_completion_tokens or body.max_tokens or default_max_tokens
    choice = body.tool_choice.function if isinstance(body.tool_choice, NamedTool) else body.tool_choice
    grammar = grammar_of([tool.function for tool in body.tools or ()], choice, body.response_format)
    tools = [tool.model_dump(exclude_none=True) for tool in body.tools or () if body.tool_choice != "none"]
    return [
        GenerateRequest(
            messages=json_text([_message(m) for m in body.messages]),
            tools=json_text(tools) if tools else "",
            chat_template_kwargs=json_text(body.chat_template_kwargs) if body.chat_template_kwargs else "",
            add_generation_prompt=body.add_generation_prompt,
            max_new_tokens=limit,
            stop=stop_of(body),
            ignore_eos=body.ignore_eos,
            grammar=grammar,
            sampling=sampling_of(body, number, (body.top_logprobs or 0) if body.logprobs else None),
        )
        for number in range(body.n)
    ]


def _message(message: ChatMessage) -> dict[str, Any]:
    """As templates know it: text in one piece, and a developer is a system."""
    found = message.model_dump(exclude_none=True)
    if isinstance(message.content, list):
        found["content"] = "".join(part.text for part in message.content)
    elif message.content is None and message.tool_calls is None:
        refuse(f"a message of the {message.role} has no content: give it a text", "messages", "invalid_value")
    if message.role == "developer":
        found["role"] = "system"
    return found


class ChatDocuments:
    """The documents of one request's answer."""

    def __init__(self, body: ChatBody, answer: Answer) -> None:
        self._body, self._answer = body, answer
        self._head = {"id": f"chatcmpl-{answer.transcripts[0].session_id}", "created": int(time.time()), "model": body.model}
        names = [] if body.tool_choice == "none" else [tool.function.name for tool in body.tools or ()]
        self._readers = [CallReader(names) if names else None for _ in answer.transcripts]
        self._num_calls = [0 for _ in answer.transcripts]

    def whole(self, completions: list[Completion]) -> dict[str, Any]:
        """Of an answer that is not streamed."""
        choices = [self._choice(i, completion) for i, completion in enumerate(completions)]
        return {**self._head, "object": "chat.completion", "choices": choices, "usage": usage_of(completions)}

    def _choice(self, index: int, completion: Completion) -> dict[str, Any]:
        content, calls = completion.text, list[Call]()
        if (reader := self._readers[index]) is not None:
            content, calls = reader.take(completion.text)
            rest, late = reader.end()
            content, calls = content + rest, calls + late
        message: dict[str, Any] = {
            "role": "assistant",
            "content": content if content or not calls else None,
            "refusal": None,
            "annotations": [],
        }
        if calls:
            message["tool_calls"] = [call.document() for call in calls]
        tokens = self._answer.transcripts[index].tokens
        return {
            "index": index,
            "message": message,
            "logprobs": chat_logprobs(tokens) if self._body.logprobs else None,
            "finish_reason": "tool_calls" if calls else FINISH[completion.finish_reason],
        }

    async def chunks(self) -> AsyncIterator[dict[str, Any]]:
        """Of a streamed answer."""
        for index in range(len(self._answer.transcripts)):
            yield self._chunk(index, {"role": "assistant", "content": "", "refusal": None})
        done: list[Completion] = []
        async for index, piece in self._answer.pieces():
            if isinstance(piece, Token):
                if (chunk := self._delta(index, piece)) is not None:
                    yield chunk
                continue
            done.append(piece)
            for chunk in self._last(index, piece):
                yield chunk
        if self._body.stream_options is not None and self._body.stream_options.include_usage:
            yield {**self._head, "object": "chat.completion.chunk", "choices": [], "usage": usage_of(done)}

    def _delta(self, index: int, token: Token) -> dict[str, Any] | None:
        reader = self._readers[index]
        content, calls = (token.text, []) if reader is None else reader.take(token.text)
        logprobs = chat_logprobs([token]) if self._body.logprobs and token.logprobs is not None else None
        if not content and not calls and logprobs is None:
            return None
        return self._chunk(index, self._part(index, content, calls), logprobs)

    def _last(self, index: int, completion: Completion) -> list[dict[str, Any]]:
        reader = self._readers[index]
        content, calls = ("", []) if reader is None else reader.end()
        chunks = [self._chunk(index, self._part(index, content, calls))] if content or calls else []
        reason = "tool_calls" if self._num_calls[index] else FINISH[completion.finish_reason]
        return [*chunks, self._chunk(index, {}, finish_reason=reason)]

    def _part(self, index: int, content: str, calls: list[Call]) -> dict[str, Any]:
        delta: dict[str, Any] = {"content": content} if content or not calls else {}
        if calls:
            first = self._num_calls[index]
            self._num_calls[index] += len(calls)
            delta["tool_calls"] = [{"index": first + i, **call.document()} for i, call in enumerate(calls)]
        return delta

    def _chunk(
        self, index: int, delta: dict[str, Any], logprobs: dict[str, Any] | None = None, finish_reason: str | None = None
    ) -> dict[str, Any]:
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}
        return {**self._head, "object": "chat.completion.chunk", "choices": [choice]}
