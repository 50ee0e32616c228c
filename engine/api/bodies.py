"""What may be asked, field by field; the OpenAPI document is made from these.

What a field means is OpenAI's, and vLLM's where OpenAI has none.
"""

from __future__ import annotations

import difflib
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    WithJsonSchema,
    model_validator,
)

from engine.api.problems import Problem
from engine.data.json_text import exact_json, json_text
from engine.data.sampling import MAX_TOP_LOGPROBS

MAX_CHOICES = 16


def _whole(value: Any) -> Any:
    """1.0 is a whole number in JSON, and not in Python."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _of_json(value: dict[str, Any]) -> dict[str, Any]:
    try:
        exact_json(value)
    except ValueError:
        raise ValueError("NaN and Infinity, and numbers beyond 1e308, are not JSON") from None
    return value


AS_WHOLE = BeforeValidator(_whole)
FreeObject = Annotated[dict[str, Any], AfterValidator(_of_json)]  # what the body's own parser lets through could not be sent back
TokenId = Annotated[int, Field(ge=0, lt=2**31), AS_WHOLE]
StopText = Annotated[str, Field(min_length=1, max_length=256)]


BiasedToken = Annotated[str, Field(pattern="^[0-9]{1,9}$")]
_BIAS = {"type": "number", "minimum": -100, "maximum": 100}
BIASES = WithJsonSchema({"type": "object", "patternProperties": {"^[0-9]{1,9}$": _BIAS}, "additionalProperties": False})


class Body(BaseModel):
    """Of a request; what is not declared is an error."""

    model_config = ConfigDict(extra="forbid", strict=True)


_SAYS_NOTHING: list[JsonValue] = [{"type": "null"}, {"type": "array", "maxItems": 0}, {"type": "object", "maxProperties": 0}]


class Turn(Body):
    """A part of a conversation. Clients send back what they were given, and fields of their own that say nothing: those may be there."""

    model_config = ConfigDict(json_schema_extra={"additionalProperties": {"anyOf": _SAYS_NOTHING}})

    @model_validator(mode="before")
    @classmethod
    def _without_what_says_nothing(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        return {name: value for name, value in given.items() if name in cls.model_fields or value not in (None, [], {})}


class StreamOptions(Body):
    include_usage: bool = False


class FunctionCall(Turn):
    name: str
    arguments: str


class ToolCall(Turn):
    id: str
    type: Literal["function"] = "function"
    function: FunctionCall


class TextPart(Turn):
    type: Literal["text", "input_text", "output_text"]
    text: str


class ChatMessage(Turn):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[TextPart] | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None


class FunctionTool(Body):
    name: Annotated[str, Field(min_length=1, max_length=64, pattern="^[a-zA-Z0-9_.-]+$")]
    description: str | None = None
    parameters: FreeObject | None = None
    strict: bool | None = None


class Tool(Body):
    type: Literal["function"]
    function: FunctionTool


class JsonSchema(Body):
    name: Annotated[str, Field(min_length=1, max_length=64, pattern="^[a-zA-Z0-9_-]+$")]
    description: str | None = None
    schema_: Annotated[FreeObject | None, Field(alias="schema")] = None
    strict: bool | None = None


class ResponseFormat(Body):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class NamedFunction(Body):
    name: str


class NamedTool(Body):
    type: Literal["function"]
    function: NamedFunction


class Sampled(Body):
    """What chat and text completions have in common."""

    model: str
    stream: bool = False
    stream_options: StreamOptions | None = None
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES), AS_WHOLE] = 1
    max_tokens: Annotated[int, Field(ge=1, le=1_000_000), AS_WHOLE] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1, lt=2**31), AS_WHOLE] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    repetition_penalty: Annotated[float, Field(ge=0.001, le=100)] | None = None
    logit_bias: Annotated[dict[BiasedToken, Annotated[float, Field(ge=-100, le=100)]], BIASES] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63), AS_WHOLE] | None = None
    stop: StopText | Annotated[list[StopText], Field(max_length=16)] | None = None
    stop_token_ids: Annotated[list[TokenId], Field(max_length=64)] | None = None
    min_tokens: Annotated[int, Field(ge=0, le=1_000_000), AS_WHOLE] | None = None
    ignore_eos: bool = False
    user: str | None = None


class ChatBody(Sampled):
    """POST /v1/chat/completions"""

    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    max_completion_tokens: Annotated[int, Field(ge=1, le=1_000_000), AS_WHOLE] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS), AS_WHOLE] | None = None
    tools: Annotated[list[Tool], Field(max_length=128)] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    response_format: ResponseFormat | None = None
    parallel_tool_calls: bool | None = None
    chat_template_kwargs: FreeObject | None = None
    add_generation_prompt: bool = True
    metadata: dict[str, str] | None = None
    store: Literal[False] | None = None


class CompletionBody(Sampled):
    """POST /v1/completions"""

    prompt: str | list[TokenId] | list[str] | list[list[TokenId]]
    echo: bool = False
    logprobs: Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS), AS_WHOLE] | None = None


class InputMessage(Turn):
    type: Literal["message"] = "message"
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]
    id: str | None = None
    status: str | None = None
    phase: str | None = None


class InputCall(Turn):
    type: Literal["function_call"]
    call_id: str
    name: str
    arguments: str
    id: str | None = None
    status: str | None = None


class InputResult(Turn):
    type: Literal["function_call_output"]
    call_id: str
    output: str
    id: str | None = None
    status: str | None = None


class ResponseTool(FunctionTool):
    type: Literal["function"]


class NamedResponseTool(Body):
    type: Literal["function"]
    name: str


class TextFormat(JsonSchema):
    type: Literal["text", "json_object", "json_schema"]
    name: Annotated[str, Field(max_length=64)] = ""


class TextSettings(Body):
    format: TextFormat | None = None
    verbosity: str | None = None


class ResponseBody(Body):
    """POST /v1/responses"""

    model: str
    input: str | Annotated[list[InputMessage | InputCall | InputResult], Field(min_length=1)]
    instructions: str | None = None
    max_output_tokens: Annotated[int, Field(ge=1, le=1_000_000), AS_WHOLE] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    tools: Annotated[list[ResponseTool], Field(max_length=128)] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedResponseTool | None = None
    parallel_tool_calls: bool | None = None
    text: TextSettings | None = None
    stream: bool = False
    store: bool | None = None  # nothing is, and the answer says so
    metadata: dict[str, str] | None = None
    user: str | None = None


B = TypeVar("B", bound=Body)


_FORMS = ("str", "int", "bool", "constrained-str")


def read_body(cls: type[B], content: bytes) -> B:
    """The request in `content`; raises Problem 400 that names the field."""
    try:
        return cls.model_validate_json(content)
    except ValidationError as e:
        raise _problem(cls, e) from None
    except RecursionError:
        raise Problem(400, "the JSON is nested too deeply", code="invalid_json") from None


def _problem(cls: type[Body], error: ValidationError) -> Problem:
    """Its first fault, in words; where several forms of a value are allowed, the fault of the form that came closest."""
    faults = error.errors(include_url=False, include_context=False)
    unknown = next((f for f in faults if f["type"] == "extra_forbidden" and len(f["loc"]) == 1), None)
    fault = unknown or max(faults, key=lambda f: (len(_place(f["loc"])), not f["type"].endswith("_type")))
    name = ".".join(_place(fault["loc"]))
    if fault["type"] == "json_invalid":
        return Problem(400, f"the body is not JSON: {fault['msg']}", code="invalid_json")
    if fault["type"] == "extra_forbidden":
        known = cls.model_fields if len(fault["loc"]) == 1 else ()
        near = difflib.get_close_matches(str(fault["loc"][-1]), known, 1, 0.6)
        hint = f": did you mean {near[0]!r}?" if near else "; /docs lists what is known"
        return Problem(400, f"unknown parameter {name[:80]!r}{hint}", param=name[:80], code="unknown_parameter")
    if fault["type"] == "missing":
        return Problem(400, f"{name!r} is missing: it is required", param=name, code="missing_required_parameter")
    given = "" if fault["type"] == "model_type" else f" {_shown(fault['input'])} is not allowed"
    reason = f"{fault['msg'][:1].lower()}{fault['msg'][1:]}"
    return Problem(400, f"{name or 'the body'}{given}: {reason}", param=name or None, code="invalid_value")


def _place(loc: tuple[str | int, ...]) -> list[str]:
    """The fields on the way to a fault, without pydantic's names for the several forms of a value."""
    return [str(part) for part in loc if not (isinstance(part, str) and (part in _FORMS or "[" in part or part[:1].isupper()))]


def _shown(value: Any) -> str:
    try:
        text = json_text(value)
    except (TypeError, ValueError):
        text = str(type(value).__name__)
    return text if len(text) <= 60 else f"{text[:60]}..."
