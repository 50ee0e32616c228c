"""What a peer sends is checked where it comes in: bytes that are no message, and numbers that no measurement gives.

Behind this file every float of a request is finite, so that nothing inside has to ask.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Awaitable, Callable, Iterable
from functools import cache
from typing import Any, TypeVar

import grpc
import grpc.aio
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError, Message

from engine.data.errors import InvalidInput, check_name
from engine.data.plan import NodeSpec, Stage
from engine.data.version import PROTOCOL_VERSION
from protos import noodle_pb2 as pb

M = TypeVar("M", bound=Message)

MAX_TEXT_CHARACTERS = 1024  # of what a worker says about itself: a name, an address, a sentence
MAX_DEGREES_C = 1000.0
_FLOATS = (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT)


class Decoder(grpc.aio.ServerInterceptor):
    """Parses requests behind the interceptors that know the caller; what cannot be parsed or is not finite is INVALID_ARGUMENT."""

    async def intercept_service(
        self, continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]], handler_call_details: grpc.HandlerCallDetails
    ) -> Any:
        handler = await continuation(handler_call_details)
        if handler is None or handler.request_deserializer is None:
            return handler
        parse, method = handler.request_deserializer, handler_call_details.method
        if handler.request_streaming:  # parsed by the handler's own reading, where an error is the handler's
            return handler._replace(request_deserializer=lambda content: parsed(parse, content, method))
        behaviour = handler.unary_stream or handler.unary_unary
        changed = _late(behaviour, parse, method)
        name = "unary_stream" if handler.response_streaming else "unary_unary"
        return handler._replace(request_deserializer=None, **{name: changed})


def _late(behaviour: Callable[..., Any], parse: Callable[[bytes], Any], method: str) -> Callable[..., Any]:
    """The same kind of function as `behaviour`, for gRPC asks which it is."""

    async def generate(content: bytes, context: grpc.aio.ServicerContext) -> Any:
        async for message in behaviour(finite(parsed(parse, content, method)), context):
            yield message

    async def answer(content: bytes, context: grpc.aio.ServicerContext) -> Any:
        return await behaviour(finite(parsed(parse, content, method)), context)

    return generate if inspect.isasyncgenfunction(behaviour) else answer


def parsed(parse: Callable[[bytes], M], content: bytes, method: str) -> M:
    """The message in `content`; raises InvalidInput."""
    try:
        return parse(content)
    except (DecodeError, ValueError) as error:  # the latter: a text that is no UTF-8
        raise InvalidInput(
            f"{method}: these {len(content)} bytes are no message of protocol {PROTOCOL_VERSION}: compare the versions of both sides"
        ) from error


def finite(message: M) -> M:
    """Return `message` if every float in it is finite; else raise InvalidInput naming the field."""
    for field in _fields_with_floats(message.DESCRIPTOR):
        value = getattr(message, field.name)
        values = value if field.is_repeated else [value] if not field.has_presence or message.HasField(field.name) else []
        if field.cpp_type not in _FLOATS:
            for inner in values:
                finite(inner)
        elif wrong := [number for number in values if not math.isfinite(number)]:
            raise InvalidInput(f"{message.DESCRIPTOR.name}.{field.name} is {wrong[0]}: it must be a finite number")
    return message


@cache
def _fields_with_floats(descriptor: Descriptor) -> tuple[FieldDescriptor, ...]:
    """The fields that are floats or hold messages with floats."""
    return tuple(
        f for f in descriptor.fields if f.cpp_type in _FLOATS or (f.message_type is not None and _fields_with_floats(f.message_type))
    )


# --- what means something only within limits ------------------------------------------------------------------------
def check_heartbeat(request: pb.HeartbeatRequest) -> pb.HeartbeatRequest:
    """Return the request if its figures can be figures of a machine; raises InvalidInput naming the first that cannot."""
    _in_range("progress", request.progress, -1.0, 1.0)
    for name in ("resident_bytes", "kv_used_bytes", "cpu_utilisation", "queue_depth"):
        _in_range(name, getattr(request, name), 0.0, math.inf)
    if request.HasField("gpu_utilisation"):
        _in_range("gpu_utilisation", request.gpu_utilisation, 0.0, 1.0)
    for name in ("gpu_temperature_c", "cpu_temperature_c"):
        if request.HasField(name):
            _in_range(name, getattr(request, name), -MAX_DEGREES_C, MAX_DEGREES_C)
    _short("detail", request.detail)
    return request


def check_spec(spec: NodeSpec) -> NodeSpec:
    """Return what a worker says of its node if it can be so; raises InvalidInput naming the first field that cannot."""
    check_name("worker id", spec.node_id)
    for name in ("pid", "memory_bytes", "kv_budget_bytes", "num_cores", "pool_bytes"):
        _in_range(name, getattr(spec, name), 0.0, math.inf)
    _in_range("num_threads", spec.num_threads, 1.0, math.inf)
    for name in ("address", "host", "device", "device_name", "device_type", "pool_id"):
        _short(name, getattr(spec, name))
    for dtype in spec.dtypes[:64]:
        _short("dtypes", dtype)
    if len(spec.dtypes) > 64:
        raise InvalidInput(f"dtypes has {len(spec.dtypes)} entries: at most 64 are allowed")
    return spec


def check_stages(stages: Iterable[Stage]) -> tuple[Stage, ...]:
    """Return the stages if each is a range of items; raises InvalidInput naming the first that is none."""
    found = tuple(stages)
    for stage in found:
        if not 0 <= stage.start < stage.stop:
            raise InvalidInput(
                f"stage {stage.node_id[:80]}:{stage.start}-{stage.stop} is no range of items: give START and STOP with 0 <= START < STOP"
            )
    return found


def check_measured(reply: pb.MeasureReply, num_items: int) -> pb.MeasureReply:
    """Return the reply if it has a time for each item; raises InvalidInput."""
    if len(reply.decode_s) != num_items:
        raise InvalidInput(
            f"{len(reply.decode_s)} times were measured, the model has {num_items} items: compare the versions of both sides"
        )
    for time_s in (*reply.decode_s, reply.base_s):
        _in_range("a measured time", time_s, 0.0, math.inf)
    return reply


def check_timings(report: pb.StepReport) -> pb.StepReport:
    """As `finite`, written out: it comes once for each token."""
    total_s = sum(t.compute_s + t.queue_s + t.wire_in_s + t.wire_out_s for t in report.timings)
    return report if math.isfinite(total_s) else finite(report)


def _in_range(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise InvalidInput(f"{name} {value} is not allowed: it must lie in [{low:g}, {high:g}]")


def _short(name: str, text: str) -> None:
    if len(text) > MAX_TEXT_CHARACTERS:
        raise InvalidInput(f"{name} has {len(text)} characters: at most {MAX_TEXT_CHARACTERS} are allowed")
