"""What an answer must be, from `response_format` and `tool_choice`, as one grammar."""

from __future__ import annotations

import json
from typing import Any

from engine.api.answering import refuse
from engine.api.bodies import ChatBody, NamedTool, Tool
from engine.data.generation import Grammar, GrammarKind


def grammar_of(body: ChatBody) -> Grammar | None:
    """None if any text will do. Raises Problem 400."""
    chosen = _called(body)
    wanted = body.response_format
    if chosen:
        if wanted is not None and wanted.type != "text":
            refuse("response_format and a tool_choice that asks for a call name two forms of an answer: give one", "response_format")
        return _of_schema({"anyOf": [_call_schema(tool) for tool in chosen]})
    if wanted is None or wanted.type == "text":
        return None
    if wanted.type == "json_object":
        return _of_schema({"type": "object"})
    if wanted.json_schema is None or wanted.json_schema.schema_ is None:
        refuse("response_format json_schema needs json_schema with a schema", "response_format.json_schema", "missing_required_parameter")
    return _of_schema(wanted.json_schema.schema_)


def _called(body: ChatBody) -> list[Tool]:
    """The tools of which one must be called."""
    tools = body.tools or []
    if isinstance(body.tool_choice, NamedTool):
        name = body.tool_choice.function.name
        found = [tool for tool in tools if tool.function.name == name]
        if not found:
            known = ", ".join(repr(tool.function.name) for tool in tools) or "none"
            refuse(f"tool_choice names {name[:64]!r}, the tools are {known}", "tool_choice", "invalid_value")
        return found
    if body.tool_choice == "required" and not tools:
        refuse("tool_choice required needs tools", "tool_choice", "invalid_value")
    return tools if body.tool_choice == "required" else []


def _call_schema(tool: Tool) -> dict[str, Any]:
    parameters = tool.function.parameters or {"type": "object"}
    properties = {"name": {"const": tool.function.name}, "arguments": parameters}
    return {"type": "object", "properties": properties, "required": ["name", "arguments"], "additionalProperties": False}


def _of_schema(schema: dict[str, Any]) -> Grammar:
    return Grammar(GrammarKind.JSON_SCHEMA, json.dumps(schema))
