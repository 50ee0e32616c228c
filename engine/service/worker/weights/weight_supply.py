"""Where a worker's weights come from: the model's folder if it is here, else the cache, filled from other workers and the coordinator.

Imported before torch is; only opening a model imports it. What is fetched and when stays within one call of `weights`, which may
be cancelled at any moment: what has arrived by then stays in the cache.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import grpc.aio

from engine.data.errors import Corrupt, NoodleError
from engine.data.measured_link import COORDINATOR
from engine.model.weights.manifest import MAX_TENSORS, Manifest, TensorEntry
from engine.model.weights.weight_cache import WeightCache
from engine.service import wire
from engine.service.errors import from_rpc_error
from engine.service.incoming import checked
from engine.service.meters import Meters
from engine.service.trust.access import Access
from engine.service.weights.pace import Pace
from engine.service.worker.weights.weight_fetch import FetchReport, WeightFetch, WeightSource
from protos import noodle_pb2 as pb
from protos import noodle_pb2_grpc as rpc

if TYPE_CHECKING:
    from engine.model.weights.stored_tensor import DamagedTensor
    from engine.model.weights.weight_folder import WeightFolder

log = logging.getLogger(__name__)

MAX_MESSAGE_BYTES = 8 << 20  # a chunk or a page of the manifest is far smaller
MAX_PEERS = 8
NOTE_TIMEOUT_S = 5.0
RECENTLY_S = 0.5
# Every channel is a connection of its own: on the one that carries steps, a token would wait behind chunks.
_CHANNEL_OPTIONS = (
    *(option for option in wire.CHANNEL_OPTIONS if option[0] != "grpc.max_receive_message_length"),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
)


@dataclass(frozen=True, slots=True)
class Supplied:
    """Weights that can be loaded now, and what it took to have them here."""

    weights: WeightFolder
    used_cache: bool = False
    cached_bytes: int = 0
    report: FetchReport = field(default_factory=FetchReport)

    def describe(self, reply: pb.LoadReply) -> pb.LoadReply:
        """Put it into the reply."""
        reply.used_cache, reply.cached_bytes = self.used_cache, self.cached_bytes
        reply.fetched_bytes, reply.fetch_s = self.report.num_bytes, self.report.spent_s
        for source_id, num_bytes in sorted(self.report.bytes_from.items()):
            reply.fetched_from.add(source_id=source_id, num_bytes=num_bytes)
        return reply


class WeightSupply:
    """`join` is the coordinator's address, which tells what a model consists of and has all of it."""

    def __init__(self, worker_id: str, join: str, cache: WeightCache, meters: Meters, access: Access) -> None:
        self._worker_id, self._join, self._cache, self._meters = worker_id, join, cache, meters
        self._access = access
        self._folders: dict[str, Path] = {}  # model folders of this machine, by fingerprint
        self._fetching = asyncio.Lock()
        self.pace = Pace(_steps_run(meters))

    def folder_of(self, fingerprint: str) -> Path | None:
        """The model folder on this machine, if it has been seen to be the right one."""
        return self._folders.get(fingerprint)

    async def config(self, request: pb.MeasureRequest | pb.ProfileNodeRequest) -> WeightFolder:
        """The model's configuration; its tensors may be missing. Raises what the coordinator says and what opening it raises."""
        local = await asyncio.to_thread(self._open_folder, request.folder, request.fingerprint)
        if local is not None:
            return local
        async with self._coordinator() as channel:
            manifest = await self._ask_manifest(channel, request.fingerprint, only_config=True)
        return await asyncio.to_thread(self._open_cached, manifest)

    async def weights(self, request: pb.LoadRequest, held: range, distrust_cache: bool = False) -> Supplied:
        """All tensors of items [start, stop) but those of `held`, which are in memory. Raises NotFound, Exhausted, Corrupt, Unavailable.

        The cache's entries are checked when they are read; `distrust_cache` checks them now, at the price of reading them twice.
        """
        local = await asyncio.to_thread(self._open_folder, request.folder, request.fingerprint)
        if local is not None:
            return Supplied(local)
        try:
            return await self._from_cache(request, held, distrust_cache)
        finally:
            self._meters.say("", -1.0)

    async def _from_cache(self, request: pb.LoadRequest, held: range, distrust_cache: bool) -> Supplied:
        async with self._coordinator() as channel:
            manifest = await self._ask_manifest(channel, request.fingerprint)
            weights = await asyncio.to_thread(self._open_cached, manifest)
            needed = await asyncio.to_thread(_needed, weights, manifest, request, held)
            await asyncio.to_thread(self._cache.make_room, needed)
            is_here = self._cache.is_whole if distrust_cache else self._cache.has
            missing = await asyncio.to_thread(lambda: [entry for entry in needed if not is_here(entry)])
            cached_bytes = sum(e.num_bytes for e in needed) - sum(e.num_bytes for e in missing)
            async with self._fetching:  # one that was cancelled has put its files down by then
                report = await self._fetch(request, missing, channel)
        for entry in needed:
            self._cache.touch(entry.sha256)
        return Supplied(weights, True, cached_bytes, report)

    async def drop_damaged(self, error: DamagedTensor) -> None:
        """An entry of the cache is not what its name says: remove it, so that it is fetched again."""
        self._cache.remove(error.tensor.sha256)
        await self.note(f"the cached copy of {error.tensor.name[:120]!r} was damaged or gone: fetching it again")

    async def note(self, text: str) -> None:
        """A line in the cluster's event list, and in this process's log whatever happens."""
        log.warning("%s", text)
        async with self._coordinator() as channel:
            with contextlib.suppress(grpc.aio.AioRpcError):
                request = pb.NoteRequest(worker_id=self._worker_id, text=text)
                await rpc.ControlStub(channel).Note(request, metadata=self._access.metadata, timeout=NOTE_TIMEOUT_S)

    # ------------------------------------------------------------------------------------------ opening
    def _open_folder(self, folder: str, fingerprint: str) -> WeightFolder | None:
        """The coordinator's folder, where it is on this machine as well and holds the same model."""
        from engine.model.weights.weight_folder import WeightFolder

        try:
            found = WeightFolder(Path(folder))
        except (NoodleError, OSError):
            return None
        if found.fingerprint != fingerprint:
            log.warning("%s holds another model than the coordinator's: fetching weights instead", folder)
            return None
        self._folders[fingerprint] = found.folder
        return found

    def _open_cached(self, manifest: Manifest) -> WeightFolder:
        from engine.model.weights.cached_weights import CachedWeights

        return CachedWeights(manifest, self._cache)

    # ------------------------------------------------------------------------------------------ asking
    def _coordinator(self) -> grpc.aio.Channel:
        return self._open_channel(self._join)

    def _open_channel(self, address: str, node_id: str = "") -> grpc.aio.Channel:
        return self._access.channel(address, node_id, _CHANNEL_OPTIONS)

    async def _ask_manifest(self, channel: grpc.aio.Channel, fingerprint: str, only_config: bool = False) -> Manifest:
        request = pb.ManifestRequest(fingerprint=fingerprint, only_config=only_config)
        config_text, entries = b"", list[TensorEntry]()
        try:
            async for message in rpc.ControlStub(channel).GetManifest(request, metadata=self._access.metadata):
                part = checked(message)
                if part.detail:
                    self._meters.say(f"the coordinator is {part.detail}", part.progress)
                config_text = part.config_text or config_text
                entries += [wire.from_message(TensorEntry, tensor) for tensor in part.tensors]
                if len(entries) > MAX_TENSORS:
                    raise Corrupt(f"the coordinator's manifest has more than {MAX_TENSORS} tensors")
        except grpc.aio.AioRpcError as e:
            raise from_rpc_error(e, f"the coordinator at {self._join}") from e
        return Manifest(fingerprint, config_text, tuple(entries))

    async def _fetch(self, request: pb.LoadRequest, missing: Sequence[TensorEntry], coordinator: grpc.aio.Channel) -> FetchReport:
        progress = _Progress(self._meters, sum(entry.num_bytes for entry in missing))
        fetch = WeightFetch(self._cache, request.fingerprint, missing, self.note, progress.add, self.pace)
        async with contextlib.AsyncExitStack() as stack:
            sources = []
            for peer in request.weight_peers[:MAX_PEERS] if missing else ():
                channel = await stack.enter_async_context(self._open_channel(peer.address, peer.worker_id))
                stub = rpc.WeightServiceStub(channel)
                sources.append(WeightSource(peer.worker_id, stub, self._access.metadata, peer.bandwidth_bytes_per_s))
            # It has enough to do with tokens, so the others choose first.
            sources.append(WeightSource(COORDINATOR, rpc.WeightServiceStub(coordinator), self._access.metadata))
            try:
                await fetch.run(sources)
            finally:
                for source_id, num_bytes in fetch.report.bytes_from.items():
                    self._meters.add_link(source_id, self._worker_id, "weights", num_bytes)
        return fetch.report


class _Progress:
    """Bytes fetched, as the console shows them."""

    def __init__(self, meters: Meters, total_bytes: int) -> None:
        self._meters, self._total_bytes, self._done_bytes = meters, total_bytes, 0

    def add(self, num_bytes: int) -> None:
        self._done_bytes += num_bytes
        self._meters.fetched_bytes += num_bytes
        text = f"fetching weights, {self._done_bytes / 1e6:.1f} of {self._total_bytes / 1e6:.1f} MB"
        self._meters.say(text, min(1.0, self._done_bytes / max(1, self._total_bytes)))


def _needed(weights: WeightFolder, manifest: Manifest, request: pb.LoadRequest, held: range) -> list[TensorEntry]:
    """The entries that loading reads, each content once. Imports torch."""
    from engine.model.running.loading import names_needed

    names = names_needed(weights, request.start, request.stop, request.model.dtype, held)
    return list({entry.sha256: entry for entry in manifest.tensors if entry.name in names}.values())


def _steps_run(meters: Meters) -> Callable[[], bool]:
    """Whether this worker computes steps now, or did a moment ago."""

    def watch() -> Iterator[bool]:
        num_steps, seen_s = meters.num_steps, float("-inf")
        while True:
            if meters.num_steps != num_steps:
                num_steps, seen_s = meters.num_steps, time.monotonic()
            yield meters.queue_depth > 0 or time.monotonic() - seen_s < RECENTLY_S

    watching = watch()
    return lambda: next(watching)
