"""What clients of one session receive: every token once and in order, from any index on, then how it ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

from engine.control.commands import EmitToken
from engine.data.errors import NoodleError
from engine.data.generation import FinishReason, Logprobs
from engine.data.status import SessionStatus
from engine.service import wire
from engine.service.coordinator.journal.journal import JournalledToken
from engine.service.coordinator.text.codec import TextCodec, TextStream
from engine.service.coordinator.text.prompts import Prepared
from protos import noodle_pb2 as pb


class SessionOutput:
    """Between the cluster's commands and its clients' streams. All chunks are kept until the session is over, so that a
    client whose connection broke can come back for those it missed; `num_listeners` are connected now."""

    def __init__(self, session_id: str, prepared: Prepared, codec: TextCodec, stop: tuple[str, ...]) -> None:
        self.session_id, self._prepared, self._codec = session_id, prepared, codec
        self.fault: NoodleError | None = None  # why it ends with an error, whatever the cluster says
        self.num_listeners = 0
        self.constraint = prepared.constraint
        self._text = TextStream(codec, stop, prepared.used.sampling.min_tokens)
        self._chunks: list[pb.TokenChunk] = []
        self._end: pb.TokenChunk | NoodleError | None = None
        self._waiting: list[asyncio.Future[None]] = []  # streams that have all there is

    def head(self) -> pb.TokenChunk:
        """The first chunk: what became of the request."""
        head = pb.TokenChunk(session_id=self.session_id, index=-1, prompt_ids=self._prepared.prompt_ids)
        head.stand_in_tokenizer = self._codec.stand_in
        wire.to_message(self._prepared.used, head.used)
        return head

    def would_stop(self, token_ids: Sequence[int]) -> bool:
        """Whether these tokens, if they are the next ones, complete a stop string."""
        return self._text.would_stop(token_ids)

    def restore(self, tokens: Sequence[JournalledToken]) -> bool:
        """Tokens that a former coordinator journalled; clients have some of them, or all. True if they reach a stop string."""
        for index, token in enumerate(tokens):
            self._add(index, token.token_id, token.logprobs)
        return self._text.stopped

    def emit(self, command: EmitToken) -> None:
        chunk = self._add(command.index, command.token_id, command.logprobs)
        chunk.timings.extend(wire.timings_to(command.timings))
        chunk.step_s = command.step_s
        self._wake()

    def fail(self, error: NoodleError) -> None:
        """Nothing more is taken; the first error is the one that clients see."""
        self.fault = self.fault or error

    def finish(self, reason: FinishReason, error: NoodleError | None, status: SessionStatus | None = None) -> None:
        """End the streams: with the error if the session failed, else with a last chunk that says why it stopped."""
        failure = error if reason is FinishReason.ERROR else None
        last = pb.TokenChunk(session_id=self.session_id, index=-1, finish_reason=reason)
        if status is not None:
            guessed = status.guessed
            last.cached_tokens, last.num_proposed, last.num_accepted = status.num_cached, guessed.num_proposed, guessed.num_accepted
        if failure is None:
            last.text = self._text.flush()
        self._end = failure or last
        self._wake()

    async def stream(self, next_index: int) -> AsyncIterator[pb.TokenChunk]:
        """Every chunk from that token on, to the end; raises the session's error after the tokens that came before it."""
        while True:
            while next_index < len(self._chunks):
                yield self._chunks[next_index]
                next_index += 1
            if self._end is None:
                self._waiting.append(changed := asyncio.get_running_loop().create_future())
                await changed
            elif isinstance(self._end, NoodleError):
                raise self._end
            else:
                yield self._end
                return

    def _add(self, index: int, token_id: int, logprobs: Logprobs | None) -> pb.TokenChunk:
        """The next token with its text."""
        if index != len(self._chunks):
            raise AssertionError(f"token {index} of {self.session_id} follows {len(self._chunks)} others")
        chunk = pb.TokenChunk(session_id=self.session_id, index=index, token_id=token_id, text=self._text.push(token_id))
        if logprobs is not None:
            wire.to_message(self._spelled(logprobs), chunk.logprobs)
        self._chunks.append(chunk)
        return chunk

    def _spelled(self, logprobs: Logprobs) -> Logprobs:
        chosen, *top = (replace(entry, spelling=self._codec.spelling(entry.token_id)) for entry in (logprobs.chosen, *logprobs.top))
        return Logprobs(chosen, tuple(top))

    def _wake(self) -> None:
        for changed in self._waiting:
            if not changed.done():  # else its client left
                changed.set_result(None)
        self._waiting.clear()
