"""What is sent: for each number of a message the same bytes, if the cluster has the same names.

A message begins as one that a peer could send: fields filled by their names with what the cluster really has. Then one of two things
happens to it: some fields are changed to what no peer puts there, or its bytes are.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from tests.service.wrong_messages import with_value, wrong_values

OVERSIZE_BYTES = 4 * 2**20 + 1
MANY = 5000
Nouns = Mapping[str, Sequence[Any]]  # plausible values, by field

_OVERSIZE = b"\x7a\xfd\xff\xff\x01" + bytes(OVERSIZE_BYTES - 5)  # a field that no message has


def message(kind: Descriptor, kinds: Sequence[Descriptor], rng: random.Random, nouns: Nouns) -> tuple[str, bytes]:
    """What was done to it, and its bytes."""
    fine = plausible(kind, rng, nouns)
    draw = rng.random()
    if draw < 0.15:
        return "as it should be", fine.SerializeToString()
    if draw < 0.6:
        for _ in range(rng.choice((1, 1, 2, 4))):
            change_field(fine, rng)
        return "fields changed", fine.SerializeToString()
    name, change = rng.choice(_RAW)
    return name, change(fine.SerializeToString(), kinds, rng, nouns)


def plausible(kind: Descriptor, rng: random.Random, nouns: Nouns, depth: int = 0) -> Message:
    """A message as a peer could send it; now and then a field is left out."""
    made: Message = kind._concrete_class()
    chosen = {group.name: rng.choice(group.fields) for group in kind.oneofs if len(group.fields) > 1}
    for field in kind.fields:
        group = field.containing_oneof
        if (group is not None and chosen.get(group.name, field) is not field) or rng.random() < 0.1 or depth > 3:
            continue
        for _ in range(rng.choice((0, 1, 1, 2, 3)) if field.is_repeated else 1):
            _put(made, field, _plausible_value(field, rng, nouns, depth))
    return made


def _put(made: Message, field: FieldDescriptor, value: Any) -> None:
    if field.is_repeated:
        getattr(made, field.name).extend([value])
    elif field.message_type is not None:
        getattr(made, field.name).CopyFrom(value)
    else:
        setattr(made, field.name, value)


def _plausible_value(field: FieldDescriptor, rng: random.Random, nouns: Nouns, depth: int) -> Any:
    if field.message_type is not None:
        return plausible(field.message_type, rng, nouns, depth + 1)
    is_text, nouns_here = field.type == FieldDescriptor.TYPE_STRING, nouns.get(field.name, ())
    if field.enum_type is None and nouns_here and isinstance(nouns_here[0], str) == is_text:  # `stop` is a range's end, or texts
        return rng.choice(nouns_here)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return rng.randbytes(rng.choice((0, 4, 32, 64, 256)))
    return _BY_TYPE[field.cpp_type](rng)


_BY_TYPE: Mapping[int, Callable[[random.Random], Any]] = {
    FieldDescriptor.CPPTYPE_DOUBLE: lambda rng: round(rng.random(), 3),
    FieldDescriptor.CPPTYPE_INT32: lambda rng: rng.randrange(8),
    FieldDescriptor.CPPTYPE_INT64: lambda rng: rng.choice((0, 1, 8, 4096, 2**20)),
    FieldDescriptor.CPPTYPE_UINT32: lambda rng: rng.randrange(8),
    FieldDescriptor.CPPTYPE_UINT64: lambda rng: rng.randrange(8),
    FieldDescriptor.CPPTYPE_BOOL: lambda rng: rng.random() < 0.5,
    FieldDescriptor.CPPTYPE_STRING: lambda rng: rng.choice(("", "a", "ready", "cpu", "hello there", "\u00e9\U0001f35c")),
    FieldDescriptor.CPPTYPE_ENUM: lambda rng: rng.choice((0, 1, 2)),
}


def change_field(changed: Message, rng: random.Random) -> None:
    """Take a field of it, or of a message in it: clear it, make it huge, or give it a value that no peer of ours gives."""
    if not changed.DESCRIPTOR.fields:
        return
    field = rng.choice(changed.DESCRIPTOR.fields)
    inner = _messages_in(changed, field)
    if inner and rng.random() < 0.7:
        change_field(rng.choice(inner), rng)
    elif rng.random() < 0.15:
        changed.ClearField(field.name)
    elif field.is_repeated and rng.random() < 0.1:
        getattr(changed, field.name).extend([rng.choice(wrong_values(field))] * MANY)
    else:
        with_value(changed, field, rng.choice(wrong_values(field)))


def _messages_in(outer: Message, field: FieldDescriptor) -> list[Message]:
    if field.message_type is None:
        return []
    if field.is_repeated:
        return [*getattr(outer, field.name)]
    return [getattr(outer, field.name)] if outer.HasField(field.name) else []


# --- bytes --------------------------------------------------------------------------------------------------------------
def _flipped(content: bytes, _kinds: Sequence[Descriptor], rng: random.Random, _nouns: Nouns) -> bytes:
    changed = bytearray(content or b"\x00")
    for _ in range(rng.choice((1, 1, 2, 8))):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _cut(content: bytes, _kinds: Sequence[Descriptor], rng: random.Random, _nouns: Nouns) -> bytes:
    return content[: rng.randrange(len(content) + 1)]


def _spliced(content: bytes, _kinds: Sequence[Descriptor], rng: random.Random, _nouns: Nouns) -> bytes:
    at = rng.randrange(len(content) + 1)
    return content[:at] + rng.randbytes(rng.randrange(1, 40)) + content[at:]


def _noise(_content: bytes, _kinds: Sequence[Descriptor], rng: random.Random, _nouns: Nouns) -> bytes:
    return rng.randbytes(rng.choice((1, 2, 8, 40, 300, 5000)))


def _another(_content: bytes, kinds: Sequence[Descriptor], rng: random.Random, nouns: Nouns) -> bytes:
    return plausible(rng.choice(kinds), rng, nouns).SerializeToString()


def _oversize(content: bytes, kinds: Sequence[Descriptor], rng: random.Random, nouns: Nouns) -> bytes:
    return _OVERSIZE if rng.random() < 0.05 else _noise(content, kinds, rng, nouns)  # seldom: each costs milliseconds of copying


_RAW: Sequence[tuple[str, Callable[[bytes, Sequence[Descriptor], random.Random, Nouns], bytes]]] = (
    ("bits flipped", _flipped),
    ("cut short", _cut),
    ("bytes put in", _spliced),
    ("random bytes", _noise),
    ("another message", _another),
    ("oversize or random", _oversize),
)
