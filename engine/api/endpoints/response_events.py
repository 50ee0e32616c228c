"""The documents of one answer to POST /v1/responses: whole, or as the events that tell how it came about."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

from engine.api.answering import Answer
from engine.api.bodies import ResponseBody
from engine.api.endpoints.responses import head_of
from engine.api.endpoints.tool_calls import Call, CallReader
from engine.api.problems import Problem
from engine.client.answers import Completion, Token
from engine.data.generation import FinishReason


class ResponseDocuments:
    """Output items are a message, if there is text, and a call for each tool that is called."""

    def __init__(self, body: ResponseBody, answer: Answer) -> None:
        self._answer = answer
        transcript = answer.transcripts[0]
        used = None if transcript.used is None else transcript.used.sampling
        self._head = head_of(body, transcript.session_id, used.temperature if used else 0.0, used.top_p if used else 1.0)
        names = [] if body.tool_choice == "none" else [tool.name for tool in body.tools or ()]
        self._reader = CallReader(names)
        self._items: list[dict[str, Any]] = []
        self._text: str | None = None  # of the message that is open

    def whole(self, completions: list[Completion]) -> dict[str, Any]:
        """Of an answer that is not streamed."""
        (done,) = completions
        for _ in self._take(*self._reader.take(done.text)):
            continue
        return self._end(done)[-1]["response"]

    async def chunks(self) -> AsyncIterator[dict[str, Any]]:
        """The events of a streamed answer; `type` is the name of each."""
        number = 0
        async for event in self._events():
            yield {**event, "sequence_number": number}
            number += 1

    async def _events(self) -> AsyncIterator[dict[str, Any]]:
        begun = {**self._head, "status": "in_progress", "output": [], "usage": None}
        yield {"type": "response.created", "response": begun}
        yield {"type": "response.in_progress", "response": begun}
        try:
            async for _, piece in self._answer.pieces():
                for event in self._take(*self._reader.take(piece.text)) if isinstance(piece, Token) else self._end(piece):
                    yield event
        except Problem as problem:
            error = {"code": problem.code or "server_error", "message": problem.message}
            yield {"type": "response.failed", "response": {**begun, "status": "failed", "error": error}}

    # --- items ----------------------------------------------------------------------------------------------------
    def _take(self, content: str, calls: list[Call]) -> Iterator[dict[str, Any]]:
        if content:
            if self._text is None:
                yield from self._open()
            self._text = (self._text or "") + content
            yield {"type": "response.output_text.delta", **self._place(), "content_index": 0, "delta": content, "logprobs": []}
        for call in calls:
            yield from self._close("completed")
            yield from self._call(call)

    def _end(self, done: Completion) -> list[dict[str, Any]]:
        """What is left, and the response as a whole."""
        events = list(self._take(*self._reader.end()))
        if not self._items:
            events += self._open()
        is_cut = done.finish_reason is FinishReason.LENGTH
        status = "incomplete" if is_cut else "completed"
        events += self._close(status)
        usage = {
            "input_tokens": len(done.prompt_ids),
            "input_tokens_details": {"cached_tokens": done.cached_tokens},
            "output_tokens": len(done.token_ids),
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": len(done.prompt_ids) + len(done.token_ids),
        }
        details = {"reason": "max_output_tokens"} if is_cut else None
        ended = {"status": status, "completed_at": None if is_cut else int(time.time()), "incomplete_details": details}
        return [*events, {"type": f"response.{status}", "response": {**self._head, **ended, "output": self._items, "usage": usage}}]

    def _place(self) -> dict[str, Any]:
        return {"item_id": self._items[-1]["id"], "output_index": len(self._items) - 1}

    def _open(self) -> Iterator[dict[str, Any]]:
        self._text = ""
        item_id = f"msg_{self._head['id'].removeprefix('resp_')}_{len(self._items)}"
        self._items.append({"id": item_id, "type": "message", "role": "assistant", "status": "in_progress", "content": []})
        yield {"type": "response.output_item.added", "output_index": len(self._items) - 1, "item": dict(self._items[-1])}
        yield {"type": "response.content_part.added", **self._place(), "content_index": 0, "part": _part("")}

    def _close(self, status: str) -> Iterator[dict[str, Any]]:
        """End the message that is open, if there is one."""
        if self._text is None:
            return
        text, self._text = self._text, None
        self._items[-1] |= {"status": status, "content": [_part(text)]}
        yield {"type": "response.output_text.done", **self._place(), "content_index": 0, "text": text, "logprobs": []}
        yield {"type": "response.content_part.done", **self._place(), "content_index": 0, "part": _part(text)}
        yield {"type": "response.output_item.done", "output_index": len(self._items) - 1, "item": self._items[-1]}

    def _call(self, call: Call) -> Iterator[dict[str, Any]]:
        item = {"id": f"fc_{call.call_id}", "type": "function_call", "call_id": call.call_id, "name": call.name}
        self._items.append({**item, "arguments": call.arguments, "status": "completed"})
        begun = {**item, "arguments": "", "status": "in_progress"}
        yield {"type": "response.output_item.added", "output_index": len(self._items) - 1, "item": begun}
        yield {"type": "response.function_call_arguments.delta", **self._place(), "delta": call.arguments}
        yield {"type": "response.function_call_arguments.done", **self._place(), "name": call.name, "arguments": call.arguments}
        yield {"type": "response.output_item.done", "output_index": len(self._items) - 1, "item": self._items[-1]}


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
