"""The calls that carry the messages, and what their ends say."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio

from engine.service.options import Role
from engine.service.trust.access import Access, Metadata
from engine.service.trust.roles import METHOD_ROLES
from protos import noodle_pb2 as pb
from tests.fuzz.messages import Nouns

ANSWER_S = 0.3  # a call that may take its time has passed if it was not refused by then
HANG_S = 60.0
# Those that load, measure, generate, watch or wait for others.
SLOW = frozenset(
    {"Watch", "Generate", "Profile", "Measure", "Load", "Prepare", "Commit", "CopyKv", "ExportKv", "Unload", "MeasureLinks"}
    | {"Register", "GetManifest", "Fetch", "SetSlowdown"}
)
UNKNOWN_TOKEN = "nobody-gave-this-token-away"
_ENDED_EARLY = "Internal error from Core"  # what gRPC's client puts in the place of the server's answer
_OURS = "noodle: "  # an UNAVAILABLE without it is the transport's


@dataclass(frozen=True, slots=True)
class Caller:
    """Whose token a call shows; `role` None is nobody's."""

    name: str
    role: Role | None
    metadata: Metadata


def callers(worker_token: str, operator_token: str, viewer_token: str) -> tuple[Caller, ...]:
    """Most calls are let in: what comes from strangers is refused before it is read."""
    inside = Caller("a worker", Role.COORDINATOR, Access(worker_token).metadata)
    return (
        *[inside] * 12,
        Caller("an operator", Role.OPERATOR, Access(operator_token).metadata),
        Caller("a viewer", Role.VIEWER, Access(viewer_token).metadata),
        Caller("nobody", None, ()),
        Caller("a stranger", None, Access(UNKNOWN_TOKEN).metadata),
    )


@dataclass(frozen=True, slots=True)
class Answer:
    """How a call ended; `code` None is one that goes on."""

    code: grpc.StatusCode | None
    text: str

    @property
    def is_cut(self) -> bool:
        """Nothing is known of it: the connection broke, or the server ended the call while a message of it was on its way."""
        if self.code is grpc.StatusCode.INTERNAL:
            return self.text == _ENDED_EARLY
        return self.code is grpc.StatusCode.UNAVAILABLE and not self.text.startswith(_OURS)


def path_of(method: Any) -> str:
    return f"/{method.containing_service.full_name}/{method.name}"


async def call(channel: grpc.aio.Channel, method: Any, contents: Sequence[bytes], metadata: Metadata) -> Answer:
    """Send the messages, one unless the method takes a stream; read answers until it ends or has had its time."""
    kind = f"{'stream' if method.client_streaming else 'unary'}_{'stream' if method.server_streaming else 'unary'}"
    going = getattr(channel, kind)(path_of(method))(iter(contents) if method.client_streaming else contents[0], metadata=metadata)
    is_slow = method.name in SLOW or method.server_streaming
    try:
        async with asyncio.timeout(ANSWER_S if is_slow else HANG_S):
            if method.server_streaming:
                while await going.read() is not grpc.aio.EOF:
                    pass
            return Answer(await going.code(), await going.details() or "")
    except TimeoutError:
        going.cancel()
        return Answer(None, "")
    except grpc.aio.AioRpcError as e:
        return Answer(e.code(), e.details() or "")


def objection(method: Any, caller: Caller, answer: Answer) -> str:
    """What is wrong with the end of a call; empty if nothing."""
    code = answer.code
    needed = METHOD_ROLES.get(path_of(method))  # None: open to nobody
    if answer.is_cut:
        return ""  # a process that died is found as one
    if code in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN):
        return f"{code.name}: {answer.text}"
    if code is None:
        return "" if method.name in SLOW or method.server_streaming else f"it did not end within {HANG_S:.0f} s"
    if code is not _due_refusal(caller, needed) is not None and not _is_too_large(answer):
        return f"{caller.name} was let in: {code.name}"
    is_ours = method.containing_service.file is pb.DESCRIPTOR  # health checking is gRPC's
    if is_ours and code is not grpc.StatusCode.OK and not answer.text:
        return f"{code.name} without a reason"
    return ""


def _due_refusal(caller: Caller, needed: Role | None) -> grpc.StatusCode | None:
    """With what a call must end whatever is in it."""
    if needed is None:
        return grpc.StatusCode.PERMISSION_DENIED
    if caller.role is None:
        return grpc.StatusCode.UNAUTHENTICATED
    return grpc.StatusCode.PERMISSION_DENIED if caller.role < needed else None


def _is_too_large(answer: Answer) -> bool:
    """The transport refused its size before anybody asked who sends it."""
    return answer.code is grpc.StatusCode.RESOURCE_EXHAUSTED and "message larger than max" in answer.text


def headers(rng: random.Random, nouns: Nouns) -> Metadata:
    """That a worker sends with its stream of reports, plausible or not."""
    generation = rng.choice(("0", "1", "-1", "x", str(2**63), "9" * 30))
    return (("worker-id", rng.choice(nouns["worker_id"])), ("generation", generation))
