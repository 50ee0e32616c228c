"""The one client: the console, the command line, the tests and the embedded cluster all talk to a coordinator through it."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import Message

from engine.data.adaptation import AdaptationStatus
from engine.data.errors import Corrupt, NoodleError, Unavailable
from engine.data.generation import GenerateRequest, SessionText, TokenChunk
from engine.data.measured_link import MeasuredLink
from engine.data.moves import MoveEstimate, MoveReport
from engine.data.plan import AdoptedPlan, Plan, Stage
from engine.data.status import ClusterStatus, SessionStatus, WrittenLine
from engine.data.version import Version, check_takes_several
from engine.data.watch_frame import WatchFrame, completed
from engine.service import wire
from engine.service.addresses import check_address
from engine.service.errors import is_transport_failure
from engine.service.incoming import checked
from engine.service.links import connect
from engine.service.tracing import parent as trace
from engine.service.trust.access import Access, Metadata, own_access
from engine.service.trust.trouble import explained
from protos import noodle_pb2 as pb
from protos import noodle_pb2_grpc as rpc

M = TypeVar("M", bound=Message)

CALL_TIMEOUT_S = 10.0
RESUME_LIMIT_S = 60.0
RESUME_PAUSE_S = 0.1
RECONNECT_TIMEOUT_S = 5.0
CANCEL_TIMEOUT_S = 1.0
SESSION_ID_BYTES = 16  # random: nobody guesses the id of another's session


class Client:
    """A connection to one coordinator; every method raises `engine.data` errors, never gRPC's.

    A server that asks for others says `for_caller` for whom: sessions of different callers share no keys and values.
    """

    def __init__(self, address: str, access: Access | None = None, for_caller: bytes = b"") -> None:
        self.address, self._for_caller = check_address(address), for_caller
        self._access = access or own_access(address)
        self._channel = self._access.channel(address)
        self._was_connected = False
        self._unfinished: set[str] = set()  # sessions begun here whose end has not come
        self._stub = rpc.ControlStub(self._channel)

    @property
    def _metadata(self) -> Metadata:
        return self._access.metadata

    @property
    def is_busy(self) -> bool:
        """Whether sessions that were begun here have not ended."""
        return bool(self._unfinished)

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Cancel the sessions that nobody read to their end, and disconnect."""
        for session_id in [*self._unfinished]:
            await self._abandon(session_id)
        await self._channel.close()

    async def _abandon(self, session_id: str) -> None:
        """Say that nobody waits for a session any more; a coordinator that does not hear it finds out by itself, but later."""
        if session_id in self._unfinished:
            self._unfinished.remove(session_id)
            request = pb.CancelRequest(session_id=session_id)
            with contextlib.suppress(grpc.aio.AioRpcError, grpc.aio.UsageError):
                await self._stub.Cancel(request, metadata=self._metadata, timeout=CANCEL_TIMEOUT_S)

    async def status(self) -> ClusterStatus:
        reply = await self._call(self._stub.GetStatus(pb.GetStatusRequest(), metadata=self._metadata, timeout=CALL_TIMEOUT_S))
        return wire.from_message(ClusterStatus, reply)

    async def watch(self, after_sequence: int = 0, min_interval_s: float = 0.5) -> AsyncGenerator[WatchFrame, None]:
        """State and new events at most every `min_interval_s` and at least once a second."""
        request = pb.WatchRequest(after_sequence=after_sequence, min_interval_s=min_interval_s, keeps_finished=True)
        finished: tuple[SessionStatus, ...] = ()
        async for message in self._stream(self._stub.Watch(request, metadata=self._metadata)):
            frame = completed(wire.from_message(WatchFrame, message), finished)
            finished = frame.status.ended.latest
            yield frame

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[TokenChunk, None]:
        """Tokens once each and in order; closing the generator cancels the session.

        A session that began survives broken connections and restarts of the coordinator: the client comes back for the tokens it
        does not have, for up to `RESUME_LIMIT_S` after the last answer. One whose begin nobody confirmed is asked for again under its
        id, which begins it at most once; but a coordinator that never answered this client is an error at once.
        """
        message = wire.request_to_message(request)
        message.for_caller = self._for_caller
        message.session_id = f"s-{secrets.token_hex(SESSION_ID_BYTES)}"
        self._unfinished.add(message.session_id)
        try:
            async with contextlib.aclosing(self._to_the_end(message)) as chunks:
                async for chunk in chunks:
                    if chunk.finish_reason is not None:
                        self._unfinished.discard(message.session_id)
                    yield chunk
        except NoodleError:
            self._unfinished.discard(message.session_id)
            raise
        finally:
            await self._abandon(message.session_id)

    async def _to_the_end(self, message: pb.GenerateRequest) -> AsyncGenerator[TokenChunk, None]:
        """Every chunk of a session, over as many connections as it takes."""
        heard_s = time.monotonic()
        while True:
            channel = self._channel
            try:
                async with contextlib.aclosing(self._resumable(message)) as chunks:
                    async for chunk in chunks:
                        heard_s = time.monotonic()
                        yield chunk
                        if chunk.finish_reason is not None:
                            return
                error: NoodleError = Unavailable(f"the coordinator at {self.address} ended the stream early")
            except _Disconnected as e:
                error = e.error
            if not self._was_connected or time.monotonic() - heard_s > RESUME_LIMIT_S:
                raise error
            await asyncio.sleep(RESUME_PAUSE_S)
            await self._reconnect(channel)

    async def _reconnect(self, broken: grpc.aio.Channel) -> None:
        """Replace the channel, unless another session of this client did it already."""
        fresh = await connect(self._access, self.address, RECONNECT_TIMEOUT_S)
        if self._channel is broken:
            self._channel, self._stub = fresh, rpc.ControlStub(fresh)
            await broken.close()
        else:
            await fresh.close()

    async def _resumable(self, message: pb.GenerateRequest) -> AsyncGenerator[TokenChunk, None]:
        """One connection's chunks that are new to us; advances `message` so that the next one begins where this ended."""
        call = self._stub.Generate(message, metadata=(*self._metadata, *trace.metadata()))
        try:
            async for received in call:
                chunk, self._was_connected = wire.chunk_from_message(checked(received)), True
                is_header = chunk.index < 0 and chunk.finish_reason is None
                if (is_header and message.resume) or 0 <= chunk.index < message.next_index:
                    continue
                if chunk.index > message.next_index:
                    raise Corrupt(f"token {chunk.index} of {chunk.session_id} arrived where {message.next_index} was due")
                message.resume = True
                message.next_index = max(message.next_index, chunk.index + 1)
                yield chunk
        except grpc.aio.AioRpcError as e:
            if is_transport_failure(e):
                raise _Disconnected(await self._explained(e)) from e
            raise await self._explained(e) from e
        finally:
            with contextlib.suppress(Exception):
                call.cancel()

    async def version(self) -> Version:
        """What the coordinator is; an older one that cannot say has protocol 0. Raises what a failed connection raises."""
        try:
            reply = checked(await self._stub.GetVersion(pb.GetVersionRequest(), metadata=self._metadata, timeout=CALL_TIMEOUT_S))
        except grpc.aio.AioRpcError as e:
            if e.code() is grpc.StatusCode.UNIMPLEMENTED:
                return Version("", 0)
            raise await self._explained(e) from e
        return wire.from_message(Version, reply)

    async def plan(
        self, strategy: str = "", stages: Sequence[Stage] = (), without: str | Sequence[str] = (), including: str | Sequence[str] = ()
    ) -> Plan:
        """What the planner would do now, or `without` workers, or `including` drained ones, or what the caller's own `stages`
        would; nothing is done."""
        request = pb.PlanRequest(strategy=strategy)
        request.without_worker_id, request.without_worker_ids[:] = await self._named(without)
        request.with_worker_id, request.with_worker_ids[:] = await self._named(including)
        for stage in stages:
            wire.to_message(stage, request.stages.add())
        return wire.from_message(Plan, await self._call(self._stub.PlanNow(request, metadata=self._metadata, timeout=CALL_TIMEOUT_S)))

    async def problem_json(self) -> str:
        """The planning problem of the cluster as it is now: a document for `engine.planning.documents.problem_json`."""
        reply = await self._call(self._stub.GetProblem(pb.GetProblemRequest(), metadata=self._metadata, timeout=CALL_TIMEOUT_S))
        return str(reply.problem_json)

    async def links(self) -> tuple[MeasuredLink, ...]:
        """What the workers measured of the ways between them."""
        reply = await self._call(self._stub.GetLinks(pb.GetLinksRequest(), metadata=self._metadata, timeout=CALL_TIMEOUT_S))
        return tuple(wire.from_message(MeasuredLink, link) for link in reply.links)

    async def lines(self, worker_id: str = "", after: int = 0) -> tuple[WrittenLine, ...]:
        """Log lines with a greater number of a worker, or without a name of the coordinator, the oldest first; raises NotFound."""
        request = pb.LinesRequest(worker_id=worker_id, after=after)
        reply = await self._call(rpc.LineServiceStub(self._channel).GetLines(request, metadata=self._metadata, timeout=CALL_TIMEOUT_S))
        return tuple(wire.from_message(WrittenLine, line) for line in reply.lines)

    async def plans(self) -> tuple[AdoptedPlan, ...]:
        """The plans that were adopted here, oldest first; the last one is the present one, if there is any."""
        reply = await self._call(self._stub.ListPlans(pb.ListPlansRequest(), metadata=self._metadata, timeout=CALL_TIMEOUT_S))
        return tuple(wire.from_message(AdoptedPlan, found) for found in reply.plans)

    async def estimate_move(self, stages: Sequence[Stage]) -> MoveEstimate:
        """What a move to `stages` would carry and take; raises Refused while no plan serves."""
        request = pb.EstimateMoveRequest()
        for stage in stages:
            wire.to_message(stage, request.stages.add())
        reply = await self._call(self._stub.EstimateMove(request, metadata=self._metadata, timeout=CALL_TIMEOUT_S))
        return wire.from_message(MoveEstimate, reply)

    async def apply(self, expected_plan_version: int, strategy: str = "", stages: Sequence[Stage] = ()) -> Plan:
        """Move to a new plan, or to the caller's own `stages`; raises Refused if the plan is not the one the caller saw.

        With both a strategy and stages the move goes to these stages, and the plan counts as that strategy's.
        """
        request = pb.ApplyRequest(expected_plan_version=expected_plan_version, strategy=strategy)
        for stage in stages:
            wire.to_message(stage, request.stages.add())
        return wire.from_message(Plan, await self._call(self._stub.Apply(request, metadata=self._metadata, timeout=CALL_TIMEOUT_S)))

    async def profile(self, worker_id: str, quick: bool = False) -> AsyncGenerator[ProfileProgress, None]:
        """Measure every layer of the model on a node, beside what it serves; the last answer carries the document."""
        request = pb.ProfileRequest(worker_id=worker_id, quick=quick)
        async for message in self._stream(self._stub.Profile(request, metadata=self._metadata)):
            yield ProfileProgress(message.progress, message.detail, message.profile_json)

    async def drain(self, worker_ids: str | Sequence[str], expected_plan_version: int | None = None) -> Plan:
        """Leave a worker, or several with one plan, out of plans.

        Raises Refused if a version is given and the plan is another one or about to be, or if the coordinator is too old for several.
        """
        one, several = await self._named(worker_ids)
        request = pb.DrainRequest(worker_id=one, worker_ids=several, expected_plan_version=expected_plan_version)
        return wire.from_message(Plan, await self._call(self._stub.Drain(request, metadata=self._metadata, timeout=CALL_TIMEOUT_S)))

    async def undrain(self, worker_ids: str | Sequence[str], expected_plan_version: int | None = None) -> Plan:
        """Let plans use drained workers again; raises Refused if one is not drained, or as `drain` does."""
        one, several = await self._named(worker_ids)
        request = pb.UndrainRequest(worker_id=one, worker_ids=several, expected_plan_version=expected_plan_version)
        return wire.from_message(Plan, await self._call(self._stub.Undrain(request, metadata=self._metadata, timeout=CALL_TIMEOUT_S)))

    async def _named(self, worker_ids: str | Sequence[str]) -> tuple[str, Sequence[str]]:
        """The two fields of a request: one name as every coordinator reads it, or several, if this one does."""
        names = (worker_ids,) if isinstance(worker_ids, str) else tuple(worker_ids)
        if len(names) < 2:
            return names[0] if names else "", ()
        check_takes_several(await self.version())
        return "", names

    async def forget(self, worker_id: str) -> None:
        """Strike a lost node off the list; raises Refused for one that is alive, NotFound for one that nobody knows."""
        request = pb.ForgetRequest(worker_id=worker_id)
        await self._call(self._stub.Forget(request, metadata=self._metadata, timeout=CALL_TIMEOUT_S))

    async def acknowledge(self, sequence: int = 0) -> tuple[int, int]:
        """Say that the warnings and errors up to that event have been seen, 0: up to the newest.

        Returns the event up to which all are acknowledged now, and how many warnings and errors were new by that.
        """
        request = pb.AcknowledgeRequest(sequence=sequence)
        reply = await self._call(self._stub.Acknowledge(request, metadata=self._metadata, timeout=CALL_TIMEOUT_S))
        return int(reply.sequence), int(reply.num_warnings)

    async def cancel(self, session_id: str, expected_plan_version: int | None = None) -> None:
        """End a session; raises Refused if a version is given and the plan is another one."""
        request = pb.CancelRequest(session_id=session_id, expected_plan_version=expected_plan_version)
        await self._call(self._stub.Cancel(request, metadata=self._metadata, timeout=CALL_TIMEOUT_S))

    async def text(self, session_id: str) -> SessionText:
        """What a session was asked and has answered so far; raises Refused if the coordinator does not show it, NotFound for no session."""
        request = pb.GetTextRequest(session_id=session_id)
        reply = await self._call(self._stub.GetText(request, metadata=self._metadata, timeout=CALL_TIMEOUT_S))
        return wire.from_message(SessionText, reply)

    async def set_slowdown(self, worker_id: str, factor: float) -> None:
        """Let a worker play a machine that is `factor` times as slow; 1 ends it."""
        request = pb.SetSlowdownRequest(worker_id=worker_id, factor=factor)
        await self._call(self._stub.SetSlowdown(request, metadata=self._metadata, timeout=CALL_TIMEOUT_S))

    async def moves(self) -> tuple[MoveReport, ...]:
        """The last live changes of plan, oldest first."""
        reply = await self._call(self._stub.ListMoves(pb.ListMovesRequest(), metadata=self._metadata, timeout=CALL_TIMEOUT_S))
        return tuple(wire.from_message(MoveReport, m) for m in reply.moves)

    async def adaptation(self) -> AdaptationStatus:
        """Whether the cluster moves layers by itself, and what it decided so far."""
        request = pb.GetAdaptationRequest()
        reply = await self._call(self._stub.GetAdaptation(request, metadata=self._metadata, timeout=CALL_TIMEOUT_S))
        return wire.from_message(AdaptationStatus, reply)

    async def set_adaptation(self, mode: str = "", confirm: int = 0, expected_mode: str = "") -> AdaptationStatus:
        """Switch to a mode (off, suggest, auto), confirm a suggestion by its id, or both.

        Raises InvalidInput, or Refused: the mode is not the expected one, the suggestion is not open any more.
        """
        request = pb.SetAdaptationRequest(mode=mode, decision_id=confirm, expected_mode=expected_mode)
        reply = await self._call(self._stub.SetAdaptation(request, metadata=self._metadata, timeout=CALL_TIMEOUT_S))
        return wire.from_message(AdaptationStatus, reply)

    async def _call(self, call: Awaitable[M]) -> M:
        try:
            answer = checked(await call)
            self._was_connected = True
            return answer
        except grpc.aio.AioRpcError as e:
            raise await self._explained(e) from e

    async def _stream(self, call: Any) -> AsyncIterator[Any]:
        try:
            async for message in call:
                yield checked(message)
        except grpc.aio.AioRpcError as e:
            raise await self._explained(e) from e
        finally:
            with contextlib.suppress(Exception):
                call.cancel()

    async def _explained(self, error: grpc.aio.AioRpcError) -> NoodleError:
        return await explained(error, f"the coordinator at {self.address}", self.address, self._access)


@dataclass(frozen=True, slots=True)
class ProfileProgress:
    """What a node says while it is profiled: 0..1 or -1, a sentence, and at the end the profile as JSON."""

    progress: float
    detail: str
    profile_json: str = ""


class _Disconnected(Exception):
    def __init__(self, error: NoodleError) -> None:
        super().__init__(str(error))
        self.error = error
