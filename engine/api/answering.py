"""The sessions behind one HTTP request: begun together, read as they come, ended when the caller goes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import NoReturn

from starlette.requests import Request

from engine.api.problems import Problem, problem_of
from engine.client.answers import Completion, Token, Transcript
from engine.data.errors import Cancelled, NoodleError
from engine.data.generation import FinishReason, GenerateRequest
from engine.service.client import Client

MAX_AHEAD = 64  # tokens that wait for a slow reader, before the coordinator waits for it


class Answer:
    """One or more sessions. Each runs in a task of its own: the server cancels what it awaits again and again when a caller is gone, and
    the cluster must hear of the end all the same."""

    def __init__(self, client: Client, requests: Sequence[GenerateRequest]) -> None:
        self.transcripts = [Transcript() for _ in requests]
        self._begun: list[asyncio.Future[None]] = []
        self._pieces: asyncio.Queue[tuple[int, Token | NoodleError | None]] = asyncio.Queue(MAX_AHEAD)
        loop = asyncio.get_running_loop()
        for _ in requests:
            self._begun.append(loop.create_future())
        self._tasks = [asyncio.create_task(self._read(i, client, request)) for i, request in enumerate(requests)]
        _RUNNING.update(self._tasks)
        for task in self._tasks:
            task.add_done_callback(_RUNNING.discard)

    async def begin(self) -> None:
        """Return once the cluster has taken all sessions; raises what it says against the first that it refused."""
        try:
            await asyncio.gather(*self._begun)
        except NoodleError:
            self.close()
            raise

    def close(self) -> None:
        """End what still runs; the cluster is told meanwhile."""
        for task in self._tasks:
            task.cancel()

    async def pieces(self) -> AsyncIterator[tuple[int, Token | Completion]]:
        """(number of the session, its next token), and the whole at the end of each; raises Problem if one fails."""
        num_left = len(self._tasks)
        while num_left:
            index, piece = await self._pieces.get()
            if isinstance(piece, NoodleError):
                raise problem_of(piece)
            if piece is not None:
                yield index, piece
                continue
            completion = self.transcripts[index].completion()
            if completion.finish_reason is FinishReason.CANCELLED:
                raise problem_of(Cancelled("an operator cancelled this session"))
            num_left -= 1
            yield index, completion

    async def completions(self) -> list[Completion]:
        """All of them, whole."""
        found = {index: piece async for index, piece in self.pieces() if isinstance(piece, Completion)}
        return [found[i] for i in range(len(self._tasks))]

    async def _read(self, index: int, client: Client, request: GenerateRequest) -> None:
        begun, transcript = self._begun[index], self.transcripts[index]
        chunks = client.generate(request)
        try:
            async for chunk in chunks:
                token = transcript.take(chunk)
                if not begun.done():
                    begun.set_result(None)
                if token is not None:
                    await self._pieces.put((index, token))
            await self._pieces.put((index, None))
        except NoodleError as e:
            if begun.done():
                await self._pieces.put((index, e))
            else:
                begun.set_exception(e)
                begun.exception()  # seen: `begin` may have raised another's already
        finally:
            await chunks.aclose()


_RUNNING: set[asyncio.Task[None]] = set()  # a task that nobody holds may be collected while it runs


async def unless_gone(request: Request, answer: Answer) -> list[Completion]:
    """All completions; ends the sessions if the caller goes before."""
    work = asyncio.ensure_future(answer.completions())
    gone = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            raise Problem(499, "the caller went away")
        return await work
    finally:
        answer.close()
        work.cancel()
        gone.cancel()


async def _gone(request: Request) -> None:
    """Return when the caller's connection is closed; its body has been read."""
    while (await request.receive())["type"] != "http.disconnect":
        continue


def refuse(message: str, param: str, code: str = "unsupported") -> NoReturn:
    raise Problem(400, message, param=param, code=code)
