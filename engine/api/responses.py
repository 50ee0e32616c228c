"""POST /v1/responses: text in, text out. Nothing is stored: a conversation is sent whole."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import AsyncIterator
from typing import Any

from engine.api.answering import Answer
from engine.api.bodies import InputMessage, ResponseBody
from engine.api.problems import Problem
from engine.api.sampled import SEEDS
from engine.client.answers import Completion, Token
from engine.data.generation import FinishReason, GenerateRequest
from engine.data.sampling import SamplingRequest


def requests_of(body: ResponseBody, default_max_tokens: int) -> list[GenerateRequest]:
    """One. Raises InvalidInput."""
    messages = [{"role": "system", "content": body.instructions}] if body.instructions else []
    if isinstance(body.input, str):
        messages.append({"role": "user", "content": body.input})
    else:
        messages += [_message(m) for m in body.input]
    sampling = SamplingRequest(temperature=body.temperature, top_p=body.top_p, seed=secrets.randbelow(SEEDS))
    return [GenerateRequest(messages=json.dumps(messages), max_new_tokens=body.max_output_tokens or default_max_tokens, sampling=sampling)]


def _message(message: InputMessage) -> dict[str, str]:
    text = message.content if isinstance(message.content, str) else "".join(part.text for part in message.content)
    return {"role": "system" if message.role == "developer" else message.role, "content": text}


class ResponseDocuments:
    """The documents of one request's answer."""

    def __init__(self, body: ResponseBody, answer: Answer) -> None:
        self._body, self._answer = body, answer
        session_id = answer.transcripts[0].session_id
        self._item_id = f"msg_{session_id}"
        self._head = {
            "id": f"resp_{session_id}",
            "object": "response",
            "created_at": int(time.time()),
            "error": None,
            "incomplete_details": None,
            "instructions": body.instructions,
            "max_output_tokens": body.max_output_tokens,
            "metadata": body.metadata or {},
            "model": body.model,
            "parallel_tool_calls": False,
            "previous_response_id": None,
            "store": False,
            "temperature": body.temperature,
            "text": {"format": {"type": "text"}},
            "tool_choice": "none",
            "tools": [],
            "top_p": body.top_p,
            "truncation": "disabled",
            "user": body.user,
        }

    def whole(self, completions: list[Completion]) -> dict[str, Any]:
        """Of an answer that is not streamed."""
        (done,) = completions
        is_cut = done.finish_reason is FinishReason.LENGTH
        details = {"incomplete_details": {"reason": "max_output_tokens"}} if is_cut else {}
        status = "incomplete" if is_cut else "completed"
        usage = {
            "input_tokens": len(done.prompt_ids),
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": len(done.token_ids),
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": len(done.prompt_ids) + len(done.token_ids),
        }
        return {**self._head, **details, "status": status, "output": [self._item(status, done.text)], "usage": usage}

    async def chunks(self) -> AsyncIterator[dict[str, Any]]:
        """The events of a streamed answer; `type` is the name of each."""
        number = 0
        async for event in self._events():
            yield {**event, "sequence_number": number}
            number += 1

    async def _events(self) -> AsyncIterator[dict[str, Any]]:
        begun = {**self._head, "status": "in_progress", "output": [], "usage": None}
        place = {"item_id": self._item_id, "output_index": 0, "content_index": 0}
        yield {"type": "response.created", "response": begun}
        yield {"type": "response.in_progress", "response": begun}
        yield {"type": "response.output_item.added", "output_index": 0, "item": {**self._item("in_progress", ""), "content": []}}
        yield {"type": "response.content_part.added", **place, "part": _part("")}
        try:
            async for _, piece in self._answer.pieces():
                if isinstance(piece, Token):
                    if piece.text:
                        yield {"type": "response.output_text.delta", **place, "delta": piece.text, "logprobs": []}
                    continue
                whole = self.whole([piece])
                yield {"type": "response.output_text.done", **place, "text": piece.text, "logprobs": []}
                yield {"type": "response.content_part.done", **place, "part": _part(piece.text)}
                yield {"type": "response.output_item.done", "output_index": 0, "item": whole["output"][0]}
                yield {"type": f"response.{whole['status']}", "response": whole}
        except Problem as problem:
            error = {"code": problem.code or "server_error", "message": problem.message}
            yield {"type": "response.failed", "response": {**begun, "status": "failed", "error": error}}

    def _item(self, status: str, text: str) -> dict[str, Any]:
        return {"id": self._item_id, "type": "message", "role": "assistant", "status": status, "content": [_part(text)]}


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
