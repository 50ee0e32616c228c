"""POST /v1/responses: nothing is stored, so that a conversation is sent whole."""

from __future__ import annotations

import secrets
import time
from typing import Any

from engine.api.bodies import (
    InputCall,
    InputMessage,
    InputResult,
    JsonSchema,
    NamedFunction,
    NamedResponseTool,
    ResponseBody,
    ResponseFormat,
)
from engine.api.endpoints.grammar import grammar_of
from engine.api.endpoints.sampled import SEEDS
from engine.data.generation import GenerateRequest
from engine.data.json_text import json_text
from engine.data.sampling import SamplingRequest


def requests_of(body: ResponseBody, default_max_tokens: int) -> list[GenerateRequest]:
    """One. Raises Problem 400, InvalidInput."""
    messages = [{"role": "system", "content": body.instructions}] if body.instructions else []
    if isinstance(body.input, str):
        messages.append({"role": "user", "content": body.input})
    else:
        messages += [_message(item) for item in body.input]
    tools = [] if body.tool_choice == "none" else body.tools or []
    choice = NamedFunction(name=body.tool_choice.name) if isinstance(body.tool_choice, NamedResponseTool) else body.tool_choice
    known = [{"type": "function", "function": tool.model_dump(exclude_none=True, exclude={"type"})} for tool in tools]
    sampling = SamplingRequest(
        temperature=body.temperature,
        top_p=body.top_p,
        presence_penalty=body.presence_penalty,
        frequency_penalty=body.frequency_penalty,
        seed=secrets.randbelow(SEEDS),
    )
    return [
        GenerateRequest(
            messages=json_text(messages),
            tools=json_text(known) if known else "",
            max_new_tokens=body.max_output_tokens or default_max_tokens,
            sampling=sampling,
            grammar=grammar_of(body.tools or [], choice, _form(body)),
        )
    ]


def _form(body: ResponseBody) -> ResponseFormat | None:
    """As chat completions name it."""
    wanted = None if body.text is None else body.text.format
    if wanted is None:
        return None
    return ResponseFormat(
        type=wanted.type, json_schema=JsonSchema.model_validate({"name": wanted.name or "answer", "schema": wanted.schema_})
    )


def _message(item: InputMessage | InputCall | InputResult) -> dict[str, Any]:
    if isinstance(item, InputCall):
        call = {"id": item.call_id, "type": "function", "function": {"name": item.name, "arguments": item.arguments}}
        return {"role": "assistant", "content": "", "tool_calls": [call]}
    if isinstance(item, InputResult):
        return {"role": "tool", "content": item.output, "tool_call_id": item.call_id}
    text = item.content if isinstance(item.content, str) else "".join(part.text for part in item.content)
    return {"role": "system" if item.role == "developer" else item.role, "content": text}


def head_of(body: ResponseBody, session_id: str, temperature: float, top_p: float) -> dict[str, Any]:
    """What a response says of its request; `temperature` and `top_p` are those that were used."""
    return {
        "id": f"resp_{session_id}",
        "object": "response",
        "created_at": int(time.time()),
        "completed_at": None,
        "background": False,
        "error": None,
        "frequency_penalty": body.frequency_penalty or 0.0,
        "incomplete_details": None,
        "instructions": body.instructions,
        "max_output_tokens": body.max_output_tokens,
        "max_tool_calls": None,
        "metadata": body.metadata or {},
        "model": body.model,
        "parallel_tool_calls": True,
        "presence_penalty": body.presence_penalty or 0.0,
        "previous_response_id": None,
        "prompt_cache_key": None,
        "reasoning": None,
        "safety_identifier": None,
        "service_tier": "default",
        "store": False,
        "temperature": temperature,
        "text": {"format": _format(body)},
        "tool_choice": body.tool_choice.model_dump() if isinstance(body.tool_choice, NamedResponseTool) else body.tool_choice or "auto",
        "tools": [{"description": None, "parameters": None, "strict": None, **tool.model_dump()} for tool in body.tools or ()],
        "top_logprobs": 0,
        "top_p": top_p,
        "truncation": "disabled",
        "user": body.user,
    }


def _format(body: ResponseBody) -> dict[str, Any]:
    wanted = None if body.text is None else body.text.format
    if wanted is None or wanted.type != "json_schema":
        return {"type": "text" if wanted is None else wanted.type}
    schema = {"name": wanted.name, "description": wanted.description, "schema": wanted.schema_, "strict": bool(wanted.strict)}
    return {"type": "json_schema", **schema}
