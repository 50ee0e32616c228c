"""The outputs of all sessions: between the cluster's commands, the journal and the clients.

Whatever fails while one session's output is handled ends that session, with an error that its client sees, and nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from typing import Any

from engine.control import commands as do
from engine.control import events as on
from engine.control.sessions.session_status import with_error
from engine.data.errors import NoodleError, NotFound
from engine.data.generation import FinishReason, GenerateRequest, Logprobs, Segment
from engine.data.status import Severity
from engine.service import wire
from engine.service.coordinator.journal.journal import Journal, JournalledSession, WrittenSession
from engine.service.coordinator.outputs.session_output import SessionOutput
from engine.service.coordinator.text.codec import TextCodec
from engine.service.coordinator.text.grammars import Grammars
from engine.service.coordinator.text.prompts import Prepared
from engine.service.errors import as_noodle_error, from_number, surviving
from protos import noodle_pb2 as pb

GRACE_S = 10.0  # for a client whose connection broke; one that leaves says so
RETURN_S = 60.0  # for one whose coordinator was restarted
EPOCH_BITS = 20  # a session is interrupted less often than that within one incarnation of the coordinator


class SessionOutputs:
    """Of the sessions that run, by id; `codec` is there once the model is known.

    What the cluster has to hear leaves by `feed`, what an operator should know by `record`, what takes time by `spawn`.
    """

    def __init__(
        self,
        journal: Journal,
        feed: Callable[[on.ClusterEvent], None],
        record: Callable[[do.Record], None],
        spawn: Callable[[Coroutine[Any, Any, None]], None],
    ) -> None:
        self._journal, self._feed, self._record, self._spawn = journal, feed, record, spawn
        self._by_id: dict[str, SessionOutput] = {}
        self._beginning: dict[str, asyncio.Event] = {}
        self.codec: TextCodec | None = None
        self._grammars: Grammars | None = None

    def speak(self, codec: TextCodec, grammars: Grammars | None = None) -> None:
        """The model's tokenizer is known: sessions may begin."""
        self.codec, self._grammars = codec, grammars

    def mask(self, segment: Segment, generated: Sequence[int]) -> bytes:
        """Which tokens may be sampled behind a segment of a session that has `generated` these; empty: any may. Raises Corrupt."""
        output = self._by_id.get(segment.session_id)
        if segment.sample_index is None or output is None or output.constraint is None:
            return b""
        return output.constraint.mask(generated)

    # ------------------------------------------------------------------------------------------ clients
    def open(self, event: on.SessionSubmitted, prepared: Prepared, session: WrittenSession) -> SessionOutput:
        """Journal and submit a session; raises what the journal or the cluster says against it.

        One that cannot be journalled has failed; one that the cluster refuses never was.
        """
        output = self._new(event.session_id, prepared, event.request)
        self._journal_beginning(event, session)
        try:
            self._feed(event)
        except Exception as e:
            error = as_noodle_error(e)
            self._by_id.pop(event.session_id, None)
            with surviving():
                self._journal.close_session(event.session_id, FinishReason.ERROR, error)
            raise error from e
        return output

    def _journal_beginning(self, event: on.SessionSubmitted, session: WrittenSession) -> None:
        try:
            self._journal.open_session(session)
        except Exception as e:
            error = as_noodle_error(e)
            del self._by_id[event.session_id]
            self._feed(on.SessionFailed(event.session_id, error, submitted=event))
            raise error from e

    @contextlib.contextmanager
    def beginning(self, session_id: str) -> Iterator[None]:
        """While the prompt of a new session is read, nobody else begins one of its id."""
        done = self._beginning[session_id] = asyncio.Event()
        try:
            yield
        finally:
            del self._beginning[session_id]
            done.set()

    async def begun(self, session_id: str) -> None:
        """Return when nobody is beginning a session of this id any more."""
        while (waiting := self._beginning.get(session_id)) is not None:
            await waiting.wait()

    def find(self, session_id: str) -> SessionOutput | None:
        """Of a session that runs, or of one that is over and can be read again from the journal."""
        if output := self._by_id.get(session_id):
            return output
        found = self._journal.session(session_id)
        if found is None or found.finish_reason is None:
            return None
        output = self._new(session_id, Prepared(found.prompt_ids, found.used), found.request)
        del self._by_id[session_id]
        output.restore(found.tokens)
        output.finish(found.finish_reason, found.error)
        return output

    def leave(self, output: SessionOutput) -> None:
        """A client's stream ended: if it was the last one, it has a moment to come back before its session is cancelled."""
        output.num_listeners -= 1
        if output.session_id in self._by_id:
            self._spawn(self._cancel_unless_heard(output, GRACE_S))

    async def _cancel_unless_heard(self, output: SessionOutput, wait_s: float) -> None:
        await asyncio.sleep(wait_s)
        if output.num_listeners == 0 and self._by_id.get(output.session_id) is output:
            with contextlib.suppress(NotFound):
                self._feed(on.SessionCancelled(output.session_id, "the client went away"))

    def _new(self, session_id: str, prepared: Prepared, request: GenerateRequest) -> SessionOutput:
        if self.codec is None:
            raise AssertionError("a session before the model is known")
        output = self._by_id[session_id] = SessionOutput(session_id, prepared, self.codec, request.stop)
        return output

    # ------------------------------------------------------------------------------------------ a restart
    def restore(self) -> None:
        """Go on with what a former coordinator left behind; call it once the model is known."""
        for session_id in self._journal.unfinished():
            try:
                if found := self._journal.session(session_id):
                    self._take_over(found)
            except Exception as e:
                self._lose(session_id, as_noodle_error(e))

    def _prepared(self, found: JournalledSession) -> Prepared:
        grammar = found.request.grammar
        constraint = None if grammar is None or self._grammars is None else self._grammars.constraint(grammar)
        return Prepared(found.prompt_ids, found.used, constraint)

    def _take_over(self, found: JournalledSession) -> None:
        output = self._new(found.session_id, self._prepared(found), found.request)
        stopped = output.restore(found.tokens)
        epoch, age_s = self._journal.incarnation << EPOCH_BITS, max(0.0, time.time() - found.wall_s)
        token_ids, sampling = tuple(token.token_id for token in found.tokens), found.used.sampling
        self._feed(on.SessionRestored(found.session_id, found.prompt_ids, found.request, token_ids, epoch, stopped, age_s, sampling))
        self._spawn(self._cancel_unless_heard(output, RETURN_S))

    def _lose(self, session_id: str, error: NoodleError) -> None:
        """A session that cannot be taken over; the others can."""
        if output := self._by_id.pop(session_id, None):
            output.finish(FinishReason.ERROR, error)
        with surviving():
            self._journal.close_session(session_id, FinishReason.ERROR, error)
        self._record(do.Record(Severity.ERROR, "session", session_id, f"could not be taken over: {error}"))

    # ------------------------------------------------------------------------------------------ tokens
    def outcomes(self, results: Iterable[pb.SegmentResult]) -> tuple[on.SegmentOutcome, ...]:
        """What a worker says of a step; the text decides about stop strings before the cluster hears of the tokens."""
        found = list[on.SegmentOutcome]()
        before: dict[str, list[int]] = {}  # tokens of each session that stand earlier in the report
        for result in results:
            own = before.setdefault(result.session_id, [])
            found.append(self._outcome(result, own))
            own.append(result.token_id)
        return tuple(found)

    def _outcome(self, result: pb.SegmentResult, before: Sequence[int]) -> on.SegmentOutcome:
        index, error, stopped = (result.sample_index if result.sample_index >= 0 else None), None, False
        logprobs = wire.from_message(Logprobs, result.logprobs) if result.HasField("logprobs") else None
        output = self._by_id.get(result.session_id)
        try:
            if result.code:
                error = from_number(result.code, result.message)
            elif output is not None and index is not None:
                stopped = output.would_stop((*before, result.token_id))
        except Exception as e:
            error = as_noodle_error(e)
        return on.SegmentOutcome(result.session_id, result.epoch, index, result.token_id, error, stopped, logprobs)

    def emit(self, command: do.EmitToken, *, is_journalled: bool = False) -> None:
        """Journal a token, then turn it into text for the clients; raises what goes wrong with either."""
        if output := self._open(command):
            if not is_journalled:
                self._journal_token(command)
            output.emit(command)

    def journal_together(self, commands: Sequence[do.EmitToken]) -> bool:
        """Journal the tokens of a step at once; False if one of them cannot be, and so none was."""
        try:
            with self._journal.together():
                for command in commands:
                    if self._open(command):
                        self._journal_token(command)
        except Exception:  # journalled one by one, each says for itself what is wrong with it
            return False
        return True

    def _open(self, command: do.EmitToken) -> SessionOutput | None:
        """Of the session of a token, unless it has ended."""
        output = self._by_id.get(command.session_id)
        return output if output is not None and output.fault is None else None

    def _journal_token(self, command: do.EmitToken) -> None:
        self._journal.append_token(command.session_id, command.index, command.token_id, command.logprobs)

    def fail(self, session_id: str, error: NoodleError) -> None:
        """End a session with an error; its neighbours and the workers have nothing to do with it."""
        if output := self._by_id.get(session_id):
            output.fail(error)
        self._feed(on.SessionFailed(session_id, error))

    def finish(self, command: do.FinishSession) -> tuple[FinishReason, NoodleError | None]:
        """End a session and say how it ended: one whose last tokens had no place on the disk, or no text, has failed, even if the
        cluster knows all of them."""
        output, reason, error, status = self._by_id.pop(command.session_id, None), command.reason, command.error, command.status
        if output is not None:
            try:
                if output.fault is None:
                    output.finish(reason, error, status)
            except Exception as e:
                fault = as_noodle_error(e)
                output.fail(fault)
                self._feed(on.SessionFailed(command.session_id, fault))
            if output.fault is not None:
                reason, error, status = FinishReason.ERROR, output.fault, with_error(status, output.fault)
                output.finish(reason, error)
        self._journal.close_session(command.session_id, reason, error, status)
        return reason, error
