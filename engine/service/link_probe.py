"""Measures the way to a worker over the wire that steps use: one long-lived stream, frames there and back.

A round trip is a frame without payload. For the bandwidth one side sends a frame that is large enough for its time to stand
out from a round trip's, and the other answers with an empty one; sizes grow until they do. Time and bytes are bounded, so
that a slow link yields fewer samples, never a late cluster.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio

from engine.data.errors import InvalidInput
from engine.data.measured_link import MeasuredLink
from engine.service.errors import from_rpc_error
from engine.service.trust.access import Access
from protos import noodle_pb2 as pb
from protos import noodle_pb2_grpc as rpc

MAX_FRAME_BYTES = 2**18  # decode sends far less; on a link that is too fast to tell, bandwidth does not decide
MAX_MOVED_BYTES = 4 * 2**20  # for one link, both directions together
BUDGET_S = 0.15  # for one link, once connected
CONNECT_TIMEOUT_S = 2.0
_NUM_ROUND_TRIPS = 20
_NUM_TRANSFERS = 3  # at the final size, for each direction
_FIRST_BYTES = 4096
_STANDS_OUT = 4.0  # a transfer that takes this many round trips is mostly transfer


@dataclass(frozen=True, slots=True)
class LinkPeer:
    """The worker at the other end of a link that a worker or the coordinator measures."""

    worker_id: str
    address: str


async def measure_links(from_id: str, peers: Sequence[LinkPeer], access: Access) -> tuple[MeasuredLink, ...]:
    """Both directions of every link, one peer after the other; a peer that cannot be reached is a failure in its place."""
    found: list[MeasuredLink] = []
    for peer in peers:
        channel = access.channel(peer.address, peer.worker_id)
        try:
            found += await _measure(from_id, peer.worker_id, rpc.StageServiceStub(channel).Echo(metadata=access.metadata))
        except grpc.aio.AioRpcError as error:
            found.append(MeasuredLink(from_id, peer.worker_id, failure=str(from_rpc_error(error, f"{peer.worker_id} at {peer.address}"))))
        except (asyncio.InvalidStateError, grpc.aio.UsageError):
            found.append(MeasuredLink(from_id, peer.worker_id, failure=f"{peer.worker_id} at {peer.address} ended the stream"))
        except TimeoutError:
            failure = f"{peer.worker_id} at {peer.address} did not answer within {CONNECT_TIMEOUT_S:.0f} s: is a firewall between them?"
            found.append(MeasuredLink(from_id, peer.worker_id, failure=failure))
        finally:
            await channel.close()
    return tuple(found)


async def echo(context: Any) -> AsyncIterator[pb.EchoFrame]:
    """The other end: answer every frame with one of the size it asks for. Raises InvalidInput for a frame beyond the limit."""
    answer = b""
    while (frame := await context.read()) is not grpc.aio.EOF:
        if len(frame.payload) > MAX_FRAME_BYTES or not 0 <= frame.reply_bytes <= MAX_FRAME_BYTES:
            raise InvalidInput(
                f"an echo frame of {len(frame.payload)} bytes for {frame.reply_bytes} is too large: at most {MAX_FRAME_BYTES}"
            )
        if len(answer) != frame.reply_bytes:
            answer = os.urandom(frame.reply_bytes)  # what could be compressed on the way would flatter the link
        yield pb.EchoFrame(payload=answer)


async def _measure(from_id: str, to_id: str, call: Any) -> list[MeasuredLink]:
    began_s = time.perf_counter()
    stream = _Stream(call)
    await asyncio.wait_for(stream.exchange(0, 0), CONNECT_TIMEOUT_S)  # connects, and does not count
    stream.moved_bytes, stream.deadline_s = 0, time.perf_counter() + BUDGET_S
    trips_s = [await asyncio.wait_for(stream.exchange(0, 0), CONNECT_TIMEOUT_S)]
    while len(trips_s) < _NUM_ROUND_TRIPS and stream.may_go_on(0, share=0.4):
        trips_s.append(await asyncio.wait_for(stream.exchange(0, 0), CONNECT_TIMEOUT_S))
    there = await _bandwidths(stream, trips_s, outwards=True)
    back = await _bandwidths(stream, trips_s, outwards=False)
    call.cancel()
    spent_s, moved = time.perf_counter() - began_s, stream.moved_bytes
    return [_link(from_id, to_id, trips_s, there, moved, spent_s), _link(to_id, from_id, trips_s, back, moved, spent_s)]


class _Stream:
    """One echo stream with its limits."""

    def __init__(self, call: Any) -> None:
        self._call = call
        self._payload = os.urandom(MAX_FRAME_BYTES)
        self.moved_bytes = 0
        self.deadline_s = 0.0

    async def exchange(self, num_out: int, num_back: int) -> float:
        """Seconds from writing a frame to having read its answer."""
        frame = pb.EchoFrame(payload=self._payload[:num_out], reply_bytes=num_back)
        began_s = time.perf_counter()
        await self._call.write(frame)
        answer = await self._call.read()
        spent_s = time.perf_counter() - began_s
        if answer is grpc.aio.EOF:
            raise await self._ended()
        self.moved_bytes += num_out + num_back
        return spent_s

    async def _ended(self) -> grpc.aio.AioRpcError:
        call = self._call
        code, initial, trailing = await call.code(), await call.initial_metadata(), await call.trailing_metadata()
        return grpc.aio.AioRpcError(code, initial, trailing, await call.details())

    def may_go_on(self, num_bytes: int, share: float = 1.0) -> bool:
        """Whether another exchange of `num_bytes` stays inside the limits; `share` of the time may be used."""
        left_s = self.deadline_s - time.perf_counter()
        return left_s > (1.0 - share) * BUDGET_S and self.moved_bytes + num_bytes <= MAX_MOVED_BYTES


async def _bandwidths(stream: _Stream, trips_s: Sequence[float], *, outwards: bool) -> list[float]:
    """Samples of bytes/s: the frames that took longest beyond a round trip, at least one."""
    trip_s = _quantile(trips_s, 0.5)
    num_bytes, rates = _FIRST_BYTES, list[float]()
    while True:
        spent_s = await asyncio.wait_for(stream.exchange(*((num_bytes, 0) if outwards else (0, num_bytes))), CONNECT_TIMEOUT_S + BUDGET_S)
        stands_out = spent_s > _STANDS_OUT * trip_s or num_bytes == MAX_FRAME_BYTES
        if not stands_out and stream.may_go_on(4 * num_bytes, share=0.7 if outwards else 1.0):
            num_bytes *= 4
            continue
        rates.append(num_bytes / max(spent_s - trip_s, 0.1 * spent_s))
        if len(rates) == _NUM_TRANSFERS or not stream.may_go_on(num_bytes, share=0.7 if outwards else 1.0):
            return rates


def _link(from_id: str, to_id: str, trips_s: Sequence[float], rates: Sequence[float], moved_bytes: int, spent_s: float) -> MeasuredLink:
    trips = (_quantile(trips_s, 0.5), _quantile(trips_s, 0.1), _quantile(trips_s, 0.9))
    bandwidths = (_quantile(rates, 0.5), _quantile(rates, 0.1), _quantile(rates, 0.9))
    return MeasuredLink(from_id, to_id, *trips, *bandwidths, len(trips_s), len(rates), moved_bytes, spent_s)


def _quantile(values: Sequence[float], share: float) -> float:
    """The nearest rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
