"""Fetches tensors from other workers and the coordinator into the weight cache, several sources side by side.

One tensor at a time from each source, chunk by chunk, hashed as it arrives; what breaks off is gone on with where it broke, by
whoever is free. Which source sends what is `FetchQueue`'s affair. Knows no model and no tensors in memory.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import grpc
import grpc.aio

from engine.control.nodes.fetch_queue import FetchQueue
from engine.data.errors import Corrupt, InvalidInput, NoodleError, NotFound, Unavailable
from engine.model.weights.manifest import TensorEntry
from engine.model.weights.partial_entry import PartialEntry
from engine.model.weights.weight_cache import WeightCache
from engine.service.errors import from_rpc_error
from engine.service.incoming import checked
from engine.service.weights.pace import Pace
from engine.service.weights.weight_service import CHUNK_BYTES
from protos import noodle_pb2 as pb
from protos import noodle_pb2_grpc as rpc

T = TypeVar("T")

STALL_S = 10.0  # without a chunk, after which a source is taken for broken
FIND_TIMEOUT_S = 5.0
LOOK_AGAIN_S = 0.2


@dataclass(frozen=True, slots=True)
class WeightSource:
    """Somebody who may hold weights. `rate_bytes_per_s` is 0 where nobody measured the way."""

    source_id: str
    stub: rpc.WeightServiceStub
    metadata: tuple[tuple[str, str], ...]
    rate_bytes_per_s: float = 0.0


@dataclass(slots=True)
class FetchReport:
    """What a fetch moved, by source."""

    bytes_from: dict[str, int] = field(default_factory=dict)
    spent_s: float = 0.0

    @property
    def num_bytes(self) -> int:
        return sum(self.bytes_from.values())

    def add(self, other: FetchReport) -> None:
        for source_id, num_bytes in other.bytes_from.items():
            self.bytes_from[source_id] = self.bytes_from.get(source_id, 0) + num_bytes
        self.spent_s += other.spent_s


class WeightFetch:
    """One set of tensors. `on_trouble` hears sentences for the operator, `on_bytes` the bytes of every chunk kept."""

    def __init__(
        self,
        cache: WeightCache,
        fingerprint: str,
        wanted: Sequence[TensorEntry],
        on_trouble: Callable[[str], Awaitable[None]],
        on_bytes: Callable[[int], None],
        pace: Pace,
    ) -> None:
        self._cache, self._fingerprint, self._pace = cache, fingerprint, pace
        self._wanted = {entry.sha256.hex(): entry for entry in wanted}
        self._on_trouble, self._on_bytes = on_trouble, on_bytes
        self._changed = asyncio.Event()
        self._last_failure: dict[str, str] = {}
        self.report = FetchReport()

    async def run(self, sources: Sequence[WeightSource]) -> None:
        """Return when all is in the cache; raises NotFound if nobody can give something, Exhausted if the disk is full."""
        if not self._wanted:
            return
        began_s = time.monotonic()
        holdings = dict(zip((s.source_id for s in sources), await asyncio.gather(*map(self._find, sources)), strict=True))
        rates = {s.source_id: s.rate_bytes_per_s for s in sources}
        queue = FetchQueue({key: entry.num_bytes for key, entry in self._wanted.items()}, holdings, rates)
        tasks = [asyncio.create_task(self._drain(queue, source)) for source in sources if holdings[source.source_id]]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if missing := queue.lost():
            raise NotFound(self._explain([self._wanted[key] for key in missing]))
        self.report.spent_s = time.monotonic() - began_s

    async def _find(self, source: WeightSource) -> frozenset[str]:
        """The keys that the source holds; none if it does not answer."""
        keys = list(self._wanted)
        request = pb.FindRequest(fingerprint=self._fingerprint, tensors=[_wanted(self._wanted[key]) for key in keys])
        try:
            reply = checked(await source.stub.Find(request, metadata=source.metadata, timeout=FIND_TIMEOUT_S))
        except (grpc.aio.AioRpcError, InvalidInput) as e:
            self._last_failure[source.source_id] = str(e if isinstance(e, InvalidInput) else from_rpc_error(e, source.source_id))
            return frozenset()
        return frozenset(keys[index] for index in reply.found if index < len(keys))

    async def _drain(self, queue: FetchQueue, source: WeightSource) -> None:
        while not queue.is_done and not queue.is_useless(source.source_id):
            key = queue.take(source.source_id, time.monotonic())
            if key is not None:
                await self._fetch(queue, source, self._wanted[key])
                self._changed.set()
                continue
            self._changed.clear()
            try:
                await asyncio.wait_for(self._changed.wait(), LOOK_AGAIN_S)
            except TimeoutError:
                continue

    async def _fetch(self, queue: FetchQueue, source: WeightSource, entry: TensorEntry) -> None:
        """Try to get one tensor, or the rest of it, from one source, and tell the queue how it went."""
        began_s = time.monotonic()
        partial = await _in_thread(self._cache.begin, entry)
        held_bytes = partial.num_bytes
        try:
            await self._receive(source, entry, partial)
            await _in_thread(partial.finish)
            queue.arrived(source.source_id, partial.num_bytes - held_bytes, time.monotonic() - began_s)
        except NotFound as error:
            await self._trouble(source, f"{source.source_id} cannot send {entry.name[:120]!r}: {error}")
            queue.refused(source.source_id)
        except Unavailable as error:
            await self._trouble(
                source, f"{source.source_id} broke off while sending {entry.name[:120]!r}: {error}; going on elsewhere or later"
            )
            queue.failed(source.source_id, partial.num_bytes - held_bytes, time.monotonic() - began_s, time.monotonic())
        except Corrupt as error:
            partial.discard()
            await self._is_wrong(queue, source, entry, error, partial.resumed_bytes)
        finally:
            partial.close()

    async def _receive(self, source: WeightSource, entry: TensorEntry, partial: PartialEntry) -> None:
        """Append what the source sends until the tensor is complete. Raises Unavailable, NotFound, Corrupt or Exhausted."""
        request = pb.FetchRequest(fingerprint=self._fingerprint, tensor=_wanted(entry), offset_bytes=partial.num_bytes)
        call = source.stub.Fetch(request, metadata=source.metadata)
        try:
            while partial.num_bytes < entry.num_bytes:
                chunk = await asyncio.wait_for(call.read(), STALL_S)
                if chunk is grpc.aio.EOF:
                    raise Unavailable(f"{source.source_id} ended after {partial.num_bytes} of {entry.num_bytes} bytes")
                if len(chunk.data) > CHUNK_BYTES:
                    raise Corrupt(f"{source.source_id} sent a chunk of {len(chunk.data)} bytes: at most {CHUNK_BYTES} are allowed")
                await _in_thread(partial.append, chunk.data)
                self._count(source.source_id, len(chunk.data))
                await self._pace.moved(len(chunk.data))
        except TimeoutError as e:
            raise Unavailable(f"{source.source_id} sent nothing for {STALL_S:.0f} s") from e
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError, grpc.aio.UsageError) as e:
            raise _explained(e, source.source_id) from e
        finally:
            call.cancel()

    def _count(self, source_id: str, num_bytes: int) -> None:
        self.report.bytes_from[source_id] = self.report.bytes_from.get(source_id, 0) + num_bytes
        self._on_bytes(num_bytes)

    async def _trouble(self, source: WeightSource, text: str) -> None:
        self._last_failure[source.source_id] = text
        await self._on_trouble(text)

    async def _is_wrong(self, queue: FetchQueue, source: WeightSource, entry: TensorEntry, error: Corrupt, resumed_bytes: int) -> None:
        """The content is not what the hash says; with bytes of several sources in it, it is not clear who was wrong."""
        if resumed_bytes:
            queue.put_back(source.source_id)
            text = f"{entry.name[:120]!r}, begun elsewhere and ended by {source.source_id}, has the wrong content: dropped, fetched anew"
        else:
            queue.refused(source.source_id)
            text = f"refused {entry.name[:120]!r} from {source.source_id}: {error}"
        await self._trouble(source, text)

    def _explain(self, missing: Sequence[TensorEntry]) -> str:
        why = "; ".join(f"{source_id}: {text}" for source_id, text in self._last_failure.items()) or "nobody holds them"
        names = ", ".join(repr(entry.name[:80]) for entry in missing[:3])
        text = f"{len(missing)} of {len(self._wanted)} tensors ({names}, ...) cannot be fetched: {why[:400]}"
        return f"{text}; copy the model folder here, or start its coordinator again"


async def _in_thread(function: Callable[..., T], *arguments: Any) -> T:
    """Like `asyncio.to_thread`, but a caller that is cancelled waits: the thread must not write to a file that others go on with."""
    work = asyncio.get_running_loop().run_in_executor(None, function, *arguments)
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait({work})
        raise


def _wanted(entry: TensorEntry) -> pb.WantedTensor:
    return pb.WantedTensor(name=entry.name, sha256=entry.sha256, num_bytes=entry.num_bytes)


def _explained(error: Exception, source_id: str) -> NoodleError:
    """NotFound if the source lacks the tensor or cannot read it; everything else counts as a source that broke off."""
    if not isinstance(error, grpc.aio.AioRpcError):
        return Unavailable(f"{source_id} ended the stream")
    found = from_rpc_error(error, source_id)
    return NotFound(str(found)) if isinstance(found, NotFound | Corrupt) else Unavailable(str(found))
