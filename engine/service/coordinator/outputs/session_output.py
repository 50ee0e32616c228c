"""What clients of one session receive: every token once and in order, from any index on, then how it ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from engine.control.commands import EmitToken
from engine.data.errors import NoodleError
from engine.data.generation import FinishReason
from engine.service import wire
from engine.service.coordinator.text.codec import TextCodec, TextStream
from protos import noodle_pb2 as pb


class SessionOutput:
    """Between the cluster's commands and its clients' streams. All chunks are kept until the session is over, so that a
    client whose connection broke can come back for those it missed; `num_listeners` are connected now."""

    def __init__(self, session_id: str, prompt_ids: tuple[int, ...], codec: TextCodec, stop: tuple[str, ...]) -> None:
        self.session_id, self.prompt_ids, self.stand_in_tokenizer = session_id, prompt_ids, codec.stand_in
        self.fault: NoodleError | None = None  # why it ends with an error, whatever the cluster says
        self.num_listeners = 0
        self._text = TextStream(codec, stop)
        self._chunks: list[pb.TokenChunk] = []
        self._end: pb.TokenChunk | NoodleError | None = None
        self._changed = asyncio.Event()

    def would_stop(self, token_id: int) -> bool:
        """Whether this token, if it is the next one, completes a stop string."""
        return self._text.would_stop(token_id)

    def restore(self, token_ids: Sequence[int]) -> bool:
        """Tokens that a former coordinator journalled; clients have some of them, or all. True if they reach a stop string."""
        for index, token_id in enumerate(token_ids):
            self._add(index, token_id)
        return self._text.stopped

    def emit(self, command: EmitToken) -> None:
        chunk = self._add(command.index, command.token_id)
        chunk.timings.extend(wire.timings_to(command.timings))
        chunk.step_s = command.step_s
        self._wake()

    def fail(self, error: NoodleError) -> None:
        """Nothing more is taken; the first error is the one that clients see."""
        self.fault = self.fault or error

    def finish(self, reason: FinishReason, error: NoodleError | None) -> None:
        """End the streams: with the error if the session failed, else with a last chunk that says why it stopped."""
        failure = error if reason is FinishReason.ERROR else None
        self._end = failure or pb.TokenChunk(session_id=self.session_id, index=-1, text=self._text.flush(), finish_reason=reason)
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

    def _add(self, index: int, token_id: int) -> pb.TokenChunk:
        """The next token with its text."""
        if index != len(self._chunks):
            raise AssertionError(f"token {index} of {self.session_id} follows {len(self._chunks)} others")
        chunk = pb.TokenChunk(session_id=self.session_id, index=index, token_id=token_id, text=self._text.push(token_id))
        self._chunks.append(chunk)
        return chunk

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
