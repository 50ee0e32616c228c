"""What an answer must be, from the form and the call that are asked for, as one grammar."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from engine.api.answering import refuse
from engine.api.bodies import FunctionTool, NamedFunction, ResponseFormat
from engine.data.generation import Grammar, GrammarKind
from engine.data.json_text import json_text

Choice = Literal["none", "auto", "required"] | NamedFunction | None


def grammar_of(tools: Sequence[FunctionTool], choice: Choice, wanted: ResponseFormat | None) -> Grammar | None:
    """None if any text will do. Raises Problem 400."""
    chosen = _called(tools, choice)
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


def _called(tools: Sequence[FunctionTool], choice: Choice) -> Sequence[FunctionTool]:
    """The tools of which one must be called."""
    if isinstance(choice, NamedFunction):
        found = [tool for tool in tools if tool.name == choice.name]
        if not found:
            known = ", ".join(repr(tool.name) for tool in tools) or "none"
            refuse(f"tool_choice names {choice.name[:64]!r}, the tools are {known}", "tool_choice", "invalid_value")
        return found
    if choice == "required" and not tools:
        refuse("tool_choice required needs tools", "tool_choice", "invalid_value")
    return tools if choice == "required" else []


def _call_schema(tool: FunctionTool) -> dict[str, Any]:
    parameters = tool.parameters or {"type": "object"}
    properties = {"name": {"const": tool.name}, "arguments": parameters}
    return {"type": "object", "properties": properties, "required": ["name", "arguments"], "additionalProperties": False}


def _of_schema(schema: dict[str, Any]) -> Grammar:
    return Grammar(GrammarKind.JSON_SCHEMA, json_text(schema))
