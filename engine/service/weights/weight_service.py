"""WeightService: sends tensors to workers that lack them, in chunks, a few at a time, at a pace that leaves tokens alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from io import FileIO

import grpc
import grpc.aio

from engine.data.errors import Corrupt, InvalidInput
from engine.service.weights.pace import Pace
from engine.service.weights.weight_library import Extent, WeightLibrary
from protos import noodle_pb2 as pb
from protos import noodle_pb2_grpc as rpc

CHUNK_BYTES = 1 << 20
MAX_AT_ONCE = 4  # transfers of one process; others wait for their turn
MAX_FOUND = 100_000
SIGN_OF_LIFE_S = 1.0


class WeightService(rpc.WeightServiceServicer):
    """`on_sent` hears of every chunk's bytes."""

    def __init__(self, library: WeightLibrary, pace: Pace, on_sent: Callable[[int], None] = lambda _: None) -> None:
        self._library, self._pace, self._on_sent = library, pace, on_sent
        self._turns = asyncio.Semaphore(MAX_AT_ONCE)

    async def Find(self, request: pb.FindRequest, context: grpc.aio.ServicerContext) -> pb.FindReply:
        if len(request.tensors) > MAX_FOUND:
            raise InvalidInput(f"{len(request.tensors)} tensors in one question are too many: ask for at most {MAX_FOUND}")
        return pb.FindReply(found=await asyncio.to_thread(self._find, request))

    def _find(self, request: pb.FindRequest) -> list[int]:
        return [index for index, wanted in enumerate(request.tensors) if self._library.find(request.fingerprint, wanted) is not None]

    async def Fetch(self, request: pb.FetchRequest, context: grpc.aio.ServicerContext) -> AsyncIterator[pb.WeightChunk]:
        extent = await asyncio.to_thread(self._library.get, request.fingerprint, request.tensor)
        if not 0 <= request.offset_bytes <= extent.num_bytes:
            raise InvalidInput(f"offset {request.offset_bytes} lies outside the tensor's {extent.num_bytes} bytes")
        while not await self._is_our_turn():
            yield pb.WeightChunk()
        try:
            async for chunk in self._chunks(extent, request.offset_bytes):
                yield chunk
        finally:
            self._turns.release()

    async def _is_our_turn(self) -> bool:
        try:
            await asyncio.wait_for(self._turns.acquire(), SIGN_OF_LIFE_S)
        except TimeoutError:
            return False
        return True

    async def _chunks(self, extent: Extent, offset_bytes: int) -> AsyncIterator[pb.WeightChunk]:
        try:
            stream = await asyncio.to_thread(FileIO, extent.file, "r")
        except OSError as error:
            raise Corrupt(f"{extent.file.name} cannot be read: {error.strerror}") from error
        with stream:
            stream.seek(extent.offset_bytes + offset_bytes)
            left = extent.num_bytes - offset_bytes
            while left:
                data = await asyncio.to_thread(_read, stream, min(left, CHUNK_BYTES))
                left -= len(data)
                yield pb.WeightChunk(data=data)
                self._on_sent(len(data))
                await self._pace.moved(len(data))


def _read(stream: FileIO, num_bytes: int) -> bytes:
    try:
        data = stream.read(num_bytes)
    except OSError as error:
        raise Corrupt(f"the file of a tensor cannot be read: {error.strerror}") from error
    if not data:
        raise Corrupt("the file of a tensor ends early")
    return data
