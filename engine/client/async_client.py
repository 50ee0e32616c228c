"""`AsyncClient`: a cluster from a program that has an event loop."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack

from engine.client.answers import Completion, Token, Transcript
from engine.client.asking import Asked, Message, chat_request, completion_request
from engine.data.errors import Refused, Unavailable
from engine.data.generation import GenerateRequest
from engine.data.plan import GIVEN, Plan, Stage
from engine.data.status import ClusterStatus
from engine.service.client import Client as WireClient
from engine.service.trust.access import access_of_client
from engine.service.trust.options import AccessOptions

MOVE_INTERVAL_S = 0.1
DEFAULT_ADDRESS = "127.0.0.1:7070"


class Shown(TypedDict, total=False):
    """What a client shows the coordinator, and whom it trusts."""

    token: str
    token_file: str | Path
    tls: bool
    tls_ca: str | Path
    tls_cert: str | Path
    tls_key: str | Path


_FILES: tuple[Literal["token_file", "tls_ca", "tls_cert", "tls_key"], ...] = ("token_file", "tls_ca", "tls_cert", "tls_key")


class AsyncStream:
    """The tokens of one session as they come: `async with client.stream(...) as stream: async for token in stream: ...`.

    Leaving the block before the end cancels the session. `completion` is the whole answer, once it has ended.
    """

    def __init__(self, wire: WireClient, request: GenerateRequest) -> None:
        self._chunks = wire.generate(request)
        self._transcript = Transcript()

    async def __aenter__(self) -> AsyncStream:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Cancel the session if it has not ended."""
        await self._chunks.aclose()

    def __aiter__(self) -> AsyncIterator[Token]:
        return self

    async def __anext__(self) -> Token:
        async for chunk in self._chunks:
            if (token := self._transcript.take(chunk)) is not None:
                return token
        raise StopAsyncIteration

    @property
    def completion(self) -> Completion:
        """Raises ValueError before the end."""
        return self._transcript.completion()


class AsyncClient:
    """A connection to one coordinator: `async with AsyncClient("127.0.0.1:7070") as client: ...`.

    Whoever started the cluster on this machine needs no token. Elsewhere the token is given, or read from `token_file`; `tls` trusts the
    system's authorities, `tls_ca` one of your own, and `tls_cert` with `tls_key` show a certificate. Every method raises
    `engine.data.errors.NoodleError`: the message says what is wrong and the way out.
    """

    def __init__(self, address: str = DEFAULT_ADDRESS, **shown: Unpack[Shown]) -> None:
        paths = {name: Path(given) for name in _FILES if (given := shown.get(name)) is not None}
        options = AccessOptions(token=shown.get("token"), tls=shown.get("tls", False), **paths)
        self.address = address
        self._wire = WireClient(address, access_of_client(options, address))

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Cancel the sessions that nobody read to their end, and disconnect."""
        await self._wire.close()

    # --- answers --------------------------------------------------------------------------------------------------
    async def complete(self, prompt: str | Sequence[int], **asked: Unpack[Asked]) -> Completion:
        """Continue `prompt`, a text as it is or token ids."""
        return await _whole(self.stream(prompt, **asked))

    async def chat(
        self,
        messages: str | Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] = (),
        template_values: Mapping[str, Any] | None = None,
        **asked: Unpack[Asked],
    ) -> Completion:
        """Answer the last of `messages`, or one text as a user says it, through the model's chat template."""
        return await _whole(self.stream_chat(messages, tools=tools, template_values=template_values, **asked))

    def stream(self, prompt: str | Sequence[int], **asked: Unpack[Asked]) -> AsyncStream:
        """As `complete`, token by token."""
        return AsyncStream(self._wire, completion_request(prompt, **asked))

    def stream_chat(
        self,
        messages: str | Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] = (),
        template_values: Mapping[str, Any] | None = None,
        **asked: Unpack[Asked],
    ) -> AsyncStream:
        """As `chat`, token by token."""
        return AsyncStream(self._wire, chat_request(messages, tools=tools, template_values=template_values, **asked))

    # --- the cluster ----------------------------------------------------------------------------------------------
    async def status(self) -> ClusterStatus:
        """What the cluster is now: model, nodes, plan, sessions, speed."""
        return await self._wire.status()

    async def watch(self, min_interval_s: float = 0.5) -> AsyncGenerator[ClusterStatus, None]:
        """The status again and again, at least once a second."""
        async with contextlib.aclosing(self._wire.watch(min_interval_s=min_interval_s)) as frames:
            async for frame in frames:
                yield frame.status

    async def plan(self, strategy: str = "", stages: Sequence[Stage] = (), without: str | Sequence[str] = ()) -> Plan:
        """What the planner would do now, or `without` one worker or several, or what your own `stages` would; nothing is done."""
        return await self._wire.plan(strategy, stages, without)

    async def apply(self, plan: Plan) -> Plan:
        """Move to a plan that `plan` returned, while sessions go on; returns when it serves.

        Raises Refused if the cluster has another plan by now, or if the move was dropped: the old plan serves then.
        """
        begun = await self._wire.apply(plan.for_version, "" if plan.strategy == GIVEN else plan.strategy, plan.stages)
        async with contextlib.aclosing(self.watch(min_interval_s=MOVE_INTERVAL_S)) as states:
            async for state in states:
                if state.plan_version >= begun.plan_version:
                    return begun
                for report in await self._wire.moves():
                    if report.plan_version == begun.plan_version and report.outcome != "done":
                        raise Refused(f"the move to plan #{begun.plan_version} was dropped: {report.outcome}")
        raise Unavailable("the coordinator ended the watch: ask for the status to see which plan serves")


async def _whole(stream: AsyncStream) -> Completion:
    async with stream:
        async for _ in stream:
            pass
        return stream.completion
