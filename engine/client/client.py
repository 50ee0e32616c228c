"""`Client`: a cluster from an ordinary program. An event loop in a thread of its own does the work."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from typing import Any, TypeVar, Unpack

from engine.client.answers import Completion, Token
from engine.client.asking import Asked, Message
from engine.client.async_client import DEFAULT_ADDRESS, AsyncClient, AsyncStream, Shown
from engine.data.plan import Plan, Stage
from engine.data.status import ClusterStatus

T = TypeVar("T")


class Loop:
    """A thread that runs coroutines for the others."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of `work`; what ends the wait, such as Ctrl-C, cancels it."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        """End the thread; closing twice is allowed."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()


class Stream:
    """The tokens of one session as they come: `with client.stream(...) as stream: for token in stream: ...`.

    Leaving the block before the end cancels the session. `completion` is the whole answer, once it has ended.
    """

    def __init__(self, loop: Loop, stream: AsyncStream) -> None:
        self._loop, self._stream = loop, stream

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Cancel the session if it has not ended."""
        self._loop.run(self._stream.close())

    def __iter__(self) -> Iterator[Token]:
        return self

    def __next__(self) -> Token:
        token = self._loop.run(_next(self._stream))
        if token is None:
            raise StopIteration
        return token

    @property
    def completion(self) -> Completion:
        """Raises ValueError before the end."""
        return self._stream.completion


class Client:
    """A connection to one coordinator: `with Client("127.0.0.1:7070") as client: ...`. `AsyncClient` says what the arguments are.

    A client may be used by several threads at once.
    """

    def __init__(self, address: str = DEFAULT_ADDRESS, **shown: Unpack[Shown]) -> None:
        self._loop = Loop("noodle-client")
        try:
            self._client = self._loop.run(_made(address, shown))
        except BaseException:
            self._loop.close()
            raise
        self.address = address

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Cancel the sessions that nobody read to their end, and disconnect."""
        self._loop.run(self._client.close())
        self._loop.close()

    # --- answers --------------------------------------------------------------------------------------------------
    def complete(self, prompt: str | Sequence[int], **asked: Unpack[Asked]) -> Completion:
        """Continue `prompt`, a text as it is or token ids."""
        return self._loop.run(self._client.complete(prompt, **asked))

    def chat(
        self,
        messages: str | Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] = (),
        template_values: Mapping[str, Any] | None = None,
        **asked: Unpack[Asked],
    ) -> Completion:
        """Answer the last of `messages`, or one text as a user says it, through the model's chat template."""
        return self._loop.run(self._client.chat(messages, tools=tools, template_values=template_values, **asked))

    def stream(self, prompt: str | Sequence[int], **asked: Unpack[Asked]) -> Stream:
        """As `complete`, token by token."""
        return Stream(self._loop, self._client.stream(prompt, **asked))

    def stream_chat(
        self,
        messages: str | Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] = (),
        template_values: Mapping[str, Any] | None = None,
        **asked: Unpack[Asked],
    ) -> Stream:
        """As `chat`, token by token."""
        return Stream(self._loop, self._client.stream_chat(messages, tools=tools, template_values=template_values, **asked))

    # --- the cluster ----------------------------------------------------------------------------------------------
    def status(self) -> ClusterStatus:
        """What the cluster is now: model, nodes, plan, sessions, speed."""
        return self._loop.run(self._client.status())

    def plan(self, strategy: str = "", stages: Sequence[Stage] = (), without: str | Sequence[str] = ()) -> Plan:
        """What the planner would do now, or `without` one worker or several, or what your own `stages` would; nothing is done."""
        return self._loop.run(self._client.plan(strategy, stages, without))

    def apply(self, plan: Plan) -> Plan:
        """Move to a plan that `plan` returned, while sessions go on; returns when it serves. Raises Refused as `AsyncClient.apply`."""
        return self._loop.run(self._client.apply(plan))


async def _made(address: str, shown: Shown) -> AsyncClient:
    """gRPC belongs to the loop in which it is begun."""
    return AsyncClient(address, **shown)


async def _next(stream: AsyncStream) -> Token | None:
    """None at the end: a coroutine cannot raise StopAsyncIteration to another thread."""
    return await anext(stream, None)
