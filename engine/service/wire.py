"""Protobuf messages to frozen values and back; nothing else in the project stores a protobuf object.

Values whose fields carry the same names as their message are converted by name (a test checks that every field has its
counterpart); what travels once per token is written out by hand, because reflection would cost more than the message.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from engine.data.errors import InvalidInput
from engine.data.generation import (
    UNKNOWN,
    FinishReason,
    GenerateRequest,
    Grammar,
    GrammarKind,
    Logprobs,
    PromptMode,
    Segment,
    StageTiming,
    Taken,
    TokenChunk,
    Used,
)
from engine.data.sampling import Sampling, SamplingRequest, check_counts
from protos import noodle_pb2 as pb

T = TypeVar("T")
Options = tuple[tuple[str, int | str], ...]  # of a gRPC channel or server

MAX_MESSAGE_BYTES = 256 * 1024 * 1024  # to a worker, whose frames hold hidden states
MAX_STREAMS = 1024  # calls at once on one connection
MAX_CALLS = 4096  # on all of them
MAX_CONTROL_BYTES = 4 * 1024 * 1024  # to the coordinator
# A connection on which nothing arrived for 0.3 s is asked, and broken when 2 s later nothing has: before the lease of 3 s ends. gRPC's own
# threads answer, so neither compute nor a held interpreter lock makes a side look dead, and any byte counts, so a bulk transfer does
# not either.
_KEEPALIVE = (
    ("grpc.keepalive_time_ms", 300),
    ("grpc.keepalive_timeout_ms", 2_000),
    ("grpc.http2.ping_timeout_ms", 2_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
)
CHANNEL_OPTIONS = (
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.enable_http_proxy", 0),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 2_000),  # how long an attempt may take
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.use_local_subchannel_pool", 1),  # a new channel is a new connection, never one that a partition has silenced
    *_KEEPALIVE,
)


def server_options(max_message_bytes: int) -> Options:
    """Of a server that reads messages up to a size."""
    return (
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.so_reuseport", 0),
        ("grpc.max_concurrent_streams", MAX_STREAMS),
        ("grpc.max_connection_idle_ms", 30_000),
        ("grpc.server_handshake_timeout_ms", 10_000),  # of a connection that says nothing
        ("grpc.http2.min_ping_interval_without_data_ms", 100),
        ("grpc.http2.max_ping_strikes", 0),
        *_KEEPALIVE,
    )


# --- by name ----------------------------------------------------------------------------------------------------
def to_message(value: Any, message: Any) -> Any:
    """Fill `message` from the dataclass `value`, field by field, and return it."""
    for name in _hints(type(value)):
        item = getattr(value, name)
        if item is None or item == ():
            continue
        if dataclasses.is_dataclass(item):
            to_message(item, getattr(message, name))
        elif isinstance(item, tuple):
            _fill_repeated(getattr(message, name), item)
        else:
            setattr(message, name, str(item) if isinstance(item, enum.StrEnum) else item)
    return message


def from_message(cls: type[T], message: Any) -> T:
    """Build the dataclass `cls` from a message with fields of the same names."""
    return cls(**{name: _value(hint, message, name) for name, hint in _hints(cls).items()})


def _fill_repeated(target: Any, items: tuple[Any, ...]) -> None:
    if dataclasses.is_dataclass(items[0]):
        for item in items:
            to_message(item, target.add())
    else:
        target.extend(items)


def _value(hint: Any, message: Any, name: str) -> Any:
    raw = getattr(message, name)
    if get_origin(hint) is tuple:
        inner = get_args(hint)[0]
        return tuple(from_message(inner, m) for m in raw) if _is_value(inner) else tuple(raw)
    if type(None) in get_args(hint):
        if not message.HasField(name):
            return None
        hint = next(a for a in get_args(hint) if a is not type(None))
    if _is_value(hint):
        return from_message(hint, raw)
    return hint(raw) if isinstance(hint, type) and issubclass(hint, enum.Enum) else raw


def _is_value(hint: Any) -> bool:
    return dataclasses.is_dataclass(hint)


def _hints(cls: Any) -> dict[str, Any]:
    if cls not in _HINTS:
        hints = get_type_hints(cls)
        _HINTS[cls] = {f.name: hints[f.name] for f in dataclasses.fields(cls)}
    return _HINTS[cls]


_HINTS: dict[Any, dict[str, Any]] = {}


# --- generation ---------------------------------------------------------------------------------------------------
def request_from_message(message: pb.GenerateRequest) -> GenerateRequest:
    """Validate and convert; raises InvalidInput."""
    check_counts(len(message.sampling.logit_bias), len(message.sampling.stop_token_ids))
    if message.mode not in ("", *PromptMode):
        raise InvalidInput(f"mode {message.mode[:40]!r} is not allowed: use {', '.join(PromptMode)}")
    return GenerateRequest(
        prompt=message.prompt if message.HasField("prompt") else None,
        prompt_ids=tuple(message.prompt_ids),
        max_new_tokens=message.max_new_tokens,
        sampling=from_message(SamplingRequest, message.sampling),
        stop=tuple(message.stop),
        ignore_eos=message.ignore_eos,
        messages=message.messages,
        tools=message.tools,
        chat_template_kwargs=message.chat_template_kwargs,
        add_generation_prompt=message.add_generation_prompt or not message.HasField("add_generation_prompt"),
        mode=PromptMode(message.mode or PromptMode.RAW),
        grammar=_grammar(message.grammar) if message.HasField("grammar") else None,
    )


def _grammar(message: pb.Grammar) -> Grammar:
    if message.kind not in [*GrammarKind]:
        raise InvalidInput(f"grammar: the kind {message.kind[:40]!r} is not known: use {', '.join(GrammarKind)}")
    return Grammar(GrammarKind(message.kind), message.text)


def request_to_message(request: GenerateRequest) -> pb.GenerateRequest:
    """The message of a request, without the session that it begins. Raises InvalidInput for a number that does not fit."""
    message = pb.GenerateRequest(
        max_new_tokens=request.max_new_tokens,
        prompt_ids=_int32s(request.prompt_ids),
        stop=request.stop,
        ignore_eos=request.ignore_eos,
        messages=request.messages,
        tools=request.tools,
        chat_template_kwargs=request.chat_template_kwargs,
        add_generation_prompt=request.add_generation_prompt,
        mode=request.mode,
    )
    if request.prompt is not None:
        message.prompt = request.prompt
    if request.grammar is not None:
        message.grammar.kind, message.grammar.text = request.grammar.kind, request.grammar.text
    to_message(request.sampling, message.sampling)
    return message


def _int32s(values: tuple[int, ...]) -> tuple[int, ...]:
    wrong = next((v for v in values if not -(2**31) <= v < 2**31), None)
    if wrong is not None:
        raise InvalidInput(f"prompt token id {wrong} is not a token id: use numbers below the vocabulary size")
    return values


def chunk_from_message(message: pb.TokenChunk) -> TokenChunk:
    return TokenChunk(
        session_id=message.session_id,
        index=message.index,
        token_id=message.token_id,
        text=message.text,
        timings=timings_from(message.timings),
        finish_reason=FinishReason(message.finish_reason) if message.finish_reason else None,
        prompt_ids=tuple(message.prompt_ids),
        step_s=message.step_s,
        stand_in_tokenizer=message.stand_in_tokenizer,
        used=from_message(Used, message.used) if message.HasField("used") else None,
        logprobs=from_message(Logprobs, message.logprobs) if message.HasField("logprobs") else None,
        cached_tokens=message.cached_tokens,
        num_proposed=message.num_proposed,
        num_accepted=message.num_accepted,
    )


# --- steps, once per token ----------------------------------------------------------------------------------------
def segment_to_message(segment: Segment) -> pb.Segment:
    message = pb.Segment(
        session_id=segment.session_id,
        epoch=segment.epoch,
        position=segment.position,
        token_ids=() if segment.follows else segment.token_ids,
        sample_index=-1 if segment.sample_index is None else segment.sample_index,
        num_proposed=segment.num_proposed,
        follows=segment.follows,
    )
    if segment.sampling is not None:
        to_message(segment.sampling, message.sampling)
        message.reserve_tokens = segment.reserve_tokens
    if segment.taken is not None:
        to_message(segment.taken, message.taken)
    return message


def segment_from_message(message: pb.Segment) -> Segment:
    return Segment(
        session_id=message.session_id,
        epoch=message.epoch,
        position=message.position,
        token_ids=(*message.token_ids, UNKNOWN) if message.follows else tuple(message.token_ids),
        sample_index=None if message.sample_index < 0 else message.sample_index,
        sampling=from_message(Sampling, message.sampling) if message.HasField("sampling") else None,
        reserve_tokens=message.reserve_tokens,
        mask=message.mask,
        taken=from_message(Taken, message.taken) if message.HasField("taken") else None,
        num_proposed=message.num_proposed,
        follows=message.follows,
    )


@lru_cache(4)
def timings_to(timings: tuple[StageTiming, ...]) -> list[pb.StageTiming]:
    """All tokens of a step bring the same ones; they are only copied from here."""
    return [
        pb.StageTiming(
            worker_id=t.worker_id,
            compute_s=t.compute_s,
            queue_s=t.queue_s,
            wire_in_s=t.wire_in_s,
            wire_out_s=t.wire_out_s,
            arrived_s=t.arrived_s,
            done_s=t.done_s,
        )
        for t in timings
    ]


def timings_from(messages: Iterable[pb.StageTiming]) -> tuple[StageTiming, ...]:
    return tuple(StageTiming(m.worker_id, m.compute_s, m.queue_s, m.wire_in_s, m.wire_out_s, m.arrived_s, m.done_s) for m in messages)
