"""What a peer sends is checked where it comes in: bytes that are no message, and numbers that no measurement gives.

Nothing that travels is below 0, but for a few fields that stand in LEAST. Behind this file every number of a message keeps to that and
every float is finite, so that nothing inside has to ask.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping
from functools import cache
from typing import Any, TypeVar

import grpc
import grpc.aio
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError, Message

from engine.data.errors import Exhausted, InvalidInput, check_name
from engine.data.plan import NodeSpec, Stage
from engine.data.sampling import LEAST_BIAS, LEAST_LOGPROB, LEAST_PENALTY
from engine.data.version import PROTOCOL_VERSION, Version
from engine.profile.hardware import DeviceType
from engine.profile.row_law import RowLaw
from engine.service import wire
from engine.service.addresses import check_address
from protos import noodle_pb2 as pb

M = TypeVar("M", bound=Message)

MAX_TEXT_CHARACTERS = 1024  # of what a worker says about itself: a name, an address, a sentence
MAX_STAGES = 1024  # of a plan that a caller writes down
MAX_DEGREES_C = 1000.0
HEARTBEAT_PERIOD_S = (0.01, 60.0)
LEAST: Mapping[str, float] = {  # by field; 0 for all others
    "progress": -1.0,  # not known
    "newest_s": -1.0,  # no step came back
    "index": -1.0,  # a chunk without a token
    "sample_index": -1.0,  # nothing to sample
    "gpu_temperature_c": -MAX_DEGREES_C,
    "cpu_temperature_c": -MAX_DEGREES_C,
    "logprob": LEAST_LOGPROB,
    "bias": LEAST_BIAS,
    "presence_penalty": LEAST_PENALTY,
    "frequency_penalty": LEAST_PENALTY,
}
MAX_PLAIN_BYTES = 32 * 1024  # of a request to the coordinator that carries no prompt; to parse and check it takes a moment
MAX_HOST_BYTES = 16 * 2**20  # of larger requests that are read at once, from one machine
MAX_READ_BYTES = 64 * 2**20  # from all
WITH_PROMPT = "/noodle.v1.Control/Generate"
_CONTROL = "/noodle.v1.Control/"
SIGNED = (
    FieldDescriptor.CPPTYPE_DOUBLE,
    FieldDescriptor.CPPTYPE_FLOAT,
    FieldDescriptor.CPPTYPE_INT32,
    FieldDescriptor.CPPTYPE_INT64,
)


class Intake:
    """The bytes of large requests that are being read, of each host and of all."""

    def __init__(self) -> None:
        self._by_host: Counter[str] = Counter()

    @contextlib.contextmanager
    def taking(self, peer: str, num_bytes: int) -> Iterator[None]:
        """While a request from `peer`, as gRPC writes it, is read. Raises Exhausted if too much is being read already."""
        host = peer.rpartition(":")[0]
        for taken, limit, whose in (
            (self._by_host[host], MAX_HOST_BYTES, "your machine's"),
            (self._by_host.total(), MAX_READ_BYTES, "all"),
        ):
            if taken + num_bytes > limit:
                raise Exhausted(
                    f"{whose} large requests have {taken + num_bytes} bytes, the limit is {limit} at once: try again in a moment"
                )
        self._by_host[host] += num_bytes
        try:
            yield
        finally:
            self._by_host[host] -= num_bytes
            if not self._by_host[host]:
                del self._by_host[host]


class Decoder(grpc.aio.ServerInterceptor):
    """Parses requests behind the interceptors that know the caller; what cannot be parsed, or cannot be, is INVALID_ARGUMENT."""

    def __init__(self) -> None:
        self._intake = Intake()

    async def intercept_service(
        self, continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]], handler_call_details: grpc.HandlerCallDetails
    ) -> Any:
        handler = await continuation(handler_call_details)
        if handler is None or handler.request_deserializer is None:
            return handler
        parse, method = handler.request_deserializer, handler_call_details.method
        if handler.request_streaming:  # parsed by the handler's own reading, where an error is the handler's
            return handler._replace(request_deserializer=lambda content: checked(parsed(parse, content, method)))
        behaviour = handler.unary_stream or handler.unary_unary
        changed = _late(behaviour, parse, method, self._intake)
        name = "unary_stream" if handler.response_streaming else "unary_unary"
        return handler._replace(request_deserializer=None, **{name: changed})


def _late(behaviour: Callable[..., Any], parse: Callable[[bytes], Any], method: str, intake: Intake) -> Callable[..., Any]:
    """The same kind of function as `behaviour`, for gRPC asks which it is."""

    async def generate(content: bytes, context: grpc.aio.ServicerContext) -> Any:
        async for message in behaviour(await _received(parse, content, method, intake, context.peer()), context):
            yield message

    async def answer(content: bytes, context: grpc.aio.ServicerContext) -> Any:
        return await behaviour(await _received(parse, content, method, intake, context.peer()), context)

    return generate if inspect.isasyncgenfunction(behaviour) else answer


async def _received(parse: Callable[[bytes], M], content: bytes, method: str, intake: Intake, peer: str) -> M:
    """The message in `content`, checked; a large one is read beside the loop. Raises InvalidInput, Exhausted."""
    if len(content) <= MAX_PLAIN_BYTES:
        return checked(parsed(parse, content, method))
    if method.startswith(_CONTROL) and method != WITH_PROMPT:
        raise InvalidInput(f"{method}: the request has {len(content)} bytes, the limit is {MAX_PLAIN_BYTES}: send less")
    with intake.taking(peer, len(content)):
        return await asyncio.to_thread(lambda: checked(parsed(parse, content, method)))


def parsed(parse: Callable[[bytes], M], content: bytes, method: str) -> M:
    """The message in `content`; raises InvalidInput."""
    try:
        return parse(content)
    except (DecodeError, ValueError) as error:  # the latter: a text that is no UTF-8
        raise InvalidInput(
            f"{method}: these {len(content)} bytes are no message of protocol {PROTOCOL_VERSION}: compare the versions of both sides"
        ) from error


def checked(message: M) -> M:
    """Return `message` if every number in it is one that its field can have; else raise InvalidInput naming field and value."""
    is_plain = _OFTEN.get(type(message))
    if is_plain is None or not is_plain(message):
        _check(message, _numbers(message.DESCRIPTOR))
    return message


def _check(message: Message, numbers: tuple[_Number, ...]) -> None:
    for name, least, inner, is_repeated in numbers:
        value = getattr(message, name)
        if inner is not None:
            for part in value if is_repeated else [value] if message.HasField(name) else []:
                _check(part, _numbers(inner))
        elif wrong := [number for number in (value if is_repeated else [value]) if not least <= number < math.inf]:
            kind = "a finite number" if isinstance(wrong[0], float) else "a number"
            raise InvalidInput(f"{message.DESCRIPTOR.name}.{name} is {wrong[0]}: it must be {kind} of at least {least:g}")


_Number = tuple[str, float, Descriptor | None, bool]  # a field, its least value, what it holds if that is messages, whether many


@cache
def _numbers(descriptor: Descriptor) -> tuple[_Number, ...]:
    """The fields that can hold a number that is none: floats, signed integers, and messages with such."""
    return tuple(
        (f.name, LEAST.get(f.name, 0.0), f.message_type, f.is_repeated)
        for f in descriptor.fields
        if f.cpp_type in SIGNED or (f.message_type is not None and _numbers(f.message_type))
    )


# --- what comes once for each token: as above, written out, because reflection would cost a tenth of a hop ------------
def _is_plain_frame(frame: pb.StepFrame) -> bool:
    is_plain = not frame.failures and not frame.kept and _are_plain(frame.timings) and min(frame.shape, default=0) >= 0
    is_plain = is_plain and min(frame.dropped, default=0) >= 0 and frame.slot.start >= 0
    for s in frame.segments:
        numbers = s.position >= 0 and s.sample_index >= -1 and s.reserve_tokens >= 0 and min(s.token_ids, default=0) >= 0
        is_plain = is_plain and numbers and s.num_proposed >= 0 and not s.HasField("sampling") and not s.HasField("taken")
    return is_plain


def _is_plain_report(report: pb.StepReport) -> bool:
    return _are_plain(report.timings) and all(
        r.sample_index >= -1 and r.token_id >= 0 and r.code >= 0 and not r.HasField("logprobs") for r in report.results
    )


def _are_plain(timings: Iterable[pb.StageTiming]) -> bool:
    most = math.inf
    return all(
        0 <= t.compute_s < most
        and 0 <= t.queue_s < most
        and 0 <= t.wire_in_s < most
        and 0 <= t.wire_out_s < most
        and 0 <= t.arrived_s < most
        and 0 <= t.done_s < most
        for t in timings
    )


_OFTEN: Mapping[type[Message], Callable[[Any], bool]] = {pb.StepFrame: _is_plain_frame, pb.StepReport: _is_plain_report}


# --- what means something only within limits ------------------------------------------------------------------------
def check_heartbeat(request: pb.HeartbeatRequest) -> pb.HeartbeatRequest:
    """Return the request if its figures can be figures of a machine; raises InvalidInput naming the first that cannot."""
    _in_range("progress", request.progress, -1.0, 1.0)
    gauges = request.gauges
    if gauges.HasField("gpu_utilisation"):
        _in_range("gpu_utilisation", gauges.gpu_utilisation, 0.0, 1.0)
    for name in ("gpu_temperature_c", "cpu_temperature_c"):
        if gauges.HasField(name):
            _in_range(name, getattr(gauges, name), -MAX_DEGREES_C, MAX_DEGREES_C)
    for name in ("busy", "stolen", "clock"):
        if gauges.machine.HasField(name):
            _in_range(name, getattr(gauges.machine, name), 0.0, 1.0)
    _short("detail", request.detail)
    _short("gpu_throttled", gauges.machine.gpu_throttled)
    return request


def check_spec(spec: NodeSpec) -> NodeSpec:
    """Return what a worker says of its node if it can be so; raises InvalidInput naming the first field that cannot."""
    check_name("worker id", spec.node_id)
    _in_range("num_threads", spec.num_threads, 1.0, math.inf)
    for name in ("address", "host", "device", "device_name", "device_type", "pool_id", "arithmetic", "metrics_address"):
        _short(name, getattr(spec, name))
    if spec.device_type not in (known := [str(kind) for kind in DeviceType]):
        text = f"device_type {spec.device_type[:40]!r} is unknown, known are {', '.join(known)}"
        raise InvalidInput(f"{text}: use the same version everywhere")
    for dtype in spec.dtypes[:64]:
        _short("dtypes", dtype)
    if spec.metrics_address:
        check_address(spec.metrics_address)
    if len(spec.dtypes) > 64:
        raise InvalidInput(f"dtypes has {len(spec.dtypes)} entries: at most 64 are allowed")
    return spec


def check_version(message: pb.VersionReply) -> Version:
    """What a worker says of its version, if it can be so; raises InvalidInput."""
    _short("package_version", message.package_version)
    return wire.from_message(Version, message)


def check_stages(stages: Collection[pb.Stage]) -> tuple[Stage, ...]:
    """The stages, if each is a range of items; raises InvalidInput naming the first that is none, or their number."""
    if len(stages) > MAX_STAGES:
        raise InvalidInput(f"there are {len(stages)} stages, the limit is {MAX_STAGES}: name fewer")
    found = tuple(wire.from_message(Stage, stage) for stage in stages)
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
    rows_of(reply)
    return reply


def rows_of(reply: pb.MeasureReply) -> RowLaw:
    """How items grow with the rows of a step; raises InvalidInput. An older worker says what a row more costs, whatever their number."""
    if not reply.rows:
        return RowLaw.of_share(min(1.0, reply.row_share))
    return RowLaw(tuple(reply.rows), tuple(reply.row_factors))


def check_profiled(message: pb.ProfileMessage) -> pb.ProfileMessage:
    """Return what a worker says of a profile if it can be so; raises InvalidInput."""
    _in_range("progress", message.progress, -1.0, 1.0)
    if message.profile_json:
        _in_range("slowdown", message.slowdown, 1.0, math.inf)
    return message


def check_registered(reply: pb.RegisterReply) -> pb.RegisterReply:
    """Return the coordinator's answer if a worker can live by it; raises InvalidInput."""
    _in_range("heartbeat_period_s", reply.heartbeat_period_s, *HEARTBEAT_PERIOD_S)
    return reply


def _in_range(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise InvalidInput(f"{name} {value} is not allowed: it must lie in [{low:g}, {high:g}]")


def _short(name: str, text: str) -> None:
    if len(text) > MAX_TEXT_CHARACTERS:
        raise InvalidInput(f"{name} has {len(text)} characters: at most {MAX_TEXT_CHARACTERS} are allowed")
