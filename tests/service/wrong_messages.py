"""Messages that no peer of ours sends: fields at their extremes, numbers that are none, and bytes that are no message."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from engine.service.incoming import LEAST, SIGNED

LONG = "x" * 5000
_WRONG: dict[int, tuple[Any, ...]] = {
    FieldDescriptor.CPPTYPE_DOUBLE: (math.nan, math.inf, -math.inf, -1.0, 1e308),
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), -1, 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), -1, 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (1, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (1, 2**64 - 1),
    FieldDescriptor.CPPTYPE_BOOL: (True,),
    FieldDescriptor.CPPTYPE_STRING: ("", "..", "w1", "\x1b[2J\x00", LONG, "127.0.0.1:1"),
    FieldDescriptor.CPPTYPE_ENUM: (0, 1, 99),
}
GARBAGE = (b"\xff", b"\x00\x01\x02", b"\x0a\xff\xff\xff\xff\x0f", b"\x0a\x02\xff\xfe", bytes(range(256)))


def wrong_messages(kind: type[Message], rng: random.Random, num_random: int) -> Iterator[Message]:
    """The empty message, each field alone at each of its extremes, and `num_random` with all fields drawn."""
    yield kind()
    for field in kind.DESCRIPTOR.fields:
        for value in wrong_values(field):
            yield with_value(kind(), field, value)
    for _ in range(num_random):
        message = kind()
        for field in kind.DESCRIPTOR.fields:
            if rng.random() < 0.7:
                with_value(message, field, rng.choice(wrong_values(field)))
        yield message


def wrong_values(field: FieldDescriptor) -> list[Any]:
    """What no peer of ours puts into that field; messages come with each of their own fields at each of its extremes."""
    if field.message_type is not None:
        one = field.message_type._concrete_class()
        every = [
            with_value(field.message_type._concrete_class(), inner, value)
            for inner in field.message_type.fields
            for value in wrong_values(inner)
        ]
        return [one, *every]
    if field.type == FieldDescriptor.TYPE_BYTES:
        return [b"", b"\xff" * 33]
    return list(_WRONG[field.cpp_type])


def with_value(message: Message, field: FieldDescriptor, value: Any) -> Message:
    """The message with that value in that field, twice in one that is repeated."""
    if field.is_repeated:
        getattr(message, field.name).extend([value, value])
    elif field.message_type is not None:
        getattr(message, field.name).CopyFrom(value)
    else:
        setattr(message, field.name, value)
    return message


def wrong_numbers(kind: Descriptor) -> Iterator[tuple[Message, str]]:
    """Of each field that holds floats or signed integers, also inside other messages: one message for each number that it cannot have,
    and the words by which it is refused. Which fields there are is read from the descriptor, so a new one is among them."""
    for field in kind.fields:
        if field.message_type is not None:
            for inner, words in wrong_numbers(field.message_type):
                yield _holding(kind, field, inner), words
        elif field.cpp_type in SIGNED:
            for value in _impossible(field):
                yield _holding(kind, field, value), f"{kind.name}.{field.name} is {value}: it must be a"


def _impossible(field: FieldDescriptor) -> tuple[float, ...]:
    below = int(LEAST.get(field.name, 0)) - 1
    is_float = field.cpp_type in (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT)
    return (math.nan, math.inf, -math.inf, float(below)) if is_float else (below,)


def _holding(kind: Descriptor, field: FieldDescriptor, value: Any) -> Message:
    message = kind._concrete_class()
    if field.is_repeated:
        getattr(message, field.name).extend([value])
        return message
    return with_value(message, field, value)
