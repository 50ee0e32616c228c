"""What clients of one session receive: every token once and in order, from any index on, then how it ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from engine.control.commands import EmitToken
from engine.data.errors import NoodleError
from engine.data.generation import FinishReason
from engine.service import wire
from engine.service.coordinator.text import TextCodec, TextStream
from protos import noodle_pb2 as pb


class SessionOutput:
    """Between the cluster's commands and its clients' streams. All chunks are kept until the session is over, so that a
    client whose connection broke can come back for those it missed; `num_listeners` are connected now."""

    def __init__(self, session_id: str, prompt_ids: tuple[int, ...], codec: TextCodec, stop: tuple[str, ...]) -> None:
        self.session_id, self.prompt_ids = session_id, prompt_ids
        self.journal_error: NoodleError | None = None
        self.num_listeners = 0
        self._text = TextStream(codec, stop)
        self._texts: list[str] = []  # of each taken token
        self._chunks: list[pb.TokenChunk] = []
        self._end: pb.TokenChunk | NoodleError | None = None
        self._changed = asyncio.Event()

    def take(self, index: int, token_id: int) -> bool:
        """Turn a new token into text, once; True if it completes a stop string."""
        if index != len(self._texts):
            return False
        self._texts.append(self._text.push(token_id))
        return self._text.stopped

    def restore(self, token_ids: Sequence[int]) -> bool:
        """Tokens that a former coordinator journalled; clients have some of them, or all. True if they reach a stop string."""
        for index, token_id in enumerate(token_ids):
            self.take(index, token_id)
            self._add(pb.TokenChunk(session_id=self.session_id, index=index, token_id=token_id, text=self._texts[index]))
        return self._text.stopped

    def emit(self, command: EmitToken) -> None:
        chunk = pb.TokenChunk(session_id=self.session_id, index=command.index, token_id=command.token_id, text=self._texts[command.index])
        chunk.timings.extend(wire.timings_to(command.timings))
        chunk.step_s = command.step_s
        self._add(chunk)

    def finish(self, reason: FinishReason, error: NoodleError | None) -> None:
        """End the streams: with the error if the session failed, else with a last chunk that says why it stopped."""
        failure = error if reason is FinishReason.ERROR else None
        last = pb.TokenChunk(session_id=self.session_id, index=-1, text=self._text.flush(), finish_reason=reason)
        self._end = failure or last
        self._wake()

    async def stream(self, next_index: int) -> AsyncIterator[pb.TokenChunk]:
        """Every chunk from that token on, to the end; raises the session's error after the tokens that came before it."""
        while True:
            changed = self._changed
            while next_index < len(self._chunks):
                yield self._chunks[next_index]
                next_index += 1
            if self._end is None:
                await changed.wait()
            elif isinstance(self._end, NoodleError):
                raise self._end
            else:
                yield self._end
                return

    def _add(self, chunk: pb.TokenChunk) -> None:
        self._chunks.append(chunk)
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
