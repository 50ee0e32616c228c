"""What a client of one session receives: tokens once each and in order, then how it ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from engine.control.commands import EmitToken
from engine.data import FinishReason, NoodleError
from engine.service import wire
from engine.service.text import TextCodec, TextStream
from protos import noodle_pb2 as pb


class SessionOutput:
    """Between the cluster's commands and one client's stream."""

    def __init__(self, session_id: str, codec: TextCodec, stop: tuple[str, ...]) -> None:
        self.session_id = session_id
        self.journal_error: NoodleError | None = None
        self._text = TextStream(codec, stop)
        self._pending_text = ""
        self._num_taken = 0
        self._chunks: asyncio.Queue[pb.TokenChunk | NoodleError | None] = asyncio.Queue()

    def take(self, index: int, token_id: int) -> bool:
        """Turn a new token into text, once; True if it completes a stop string."""
        if index != self._num_taken:
            return False
        self._num_taken += 1
        self._pending_text += self._text.push(token_id)
        return self._text.stopped

    def emit(self, command: EmitToken) -> None:
        chunk = pb.TokenChunk(session_id=self.session_id, index=command.index, token_id=command.token_id, text=self._pending_text)
        chunk.timings.extend(wire.timings_to(command.timings))
        chunk.step_s = command.step_s
        self._pending_text = ""
        self._chunks.put_nowait(chunk)

    def finish(self, reason: FinishReason, error: NoodleError | None) -> None:
        """End the stream: with the error if the session failed, else with a last chunk that says why it stopped."""
        failure = self.journal_error or (error if reason is FinishReason.ERROR else None)
        if failure is not None:
            self._chunks.put_nowait(failure)
            return
        self._chunks.put_nowait(pb.TokenChunk(session_id=self.session_id, index=-1, text=self._text.flush(), finish_reason=reason))
        self._chunks.put_nowait(None)

    async def stream(self) -> AsyncIterator[pb.TokenChunk]:
        """Every chunk until the end; raises the session's error after the tokens that came before it."""
        while (chunk := await self._chunks.get()) is not None:
            if isinstance(chunk, NoodleError):
                raise chunk
            yield chunk
