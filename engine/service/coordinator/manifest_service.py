"""The coordinator's side of manifests: hash the model's folder once, when the first worker asks, and tell all who wait."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from engine.data.errors import Refused, Unavailable
from engine.data.model import ModelCard
from engine.model.weights.manifest import Manifest, manifest_of
from engine.model.weights.tensor_files import read_folder
from engine.service import wire
from protos import noodle_pb2 as pb

TENSORS_PER_PART = 1000
PROGRESS_PERIOD_S = 0.5


class ManifestSource:
    """`card` tells the model that is served now, None while it is not known."""

    def __init__(self, cache_dir: Path, card: Callable[[], ModelCard | None]) -> None:
        self._cache_dir, self._card = cache_dir, card
        self._progress = (-1.0, "")
        self._hashing: asyncio.Task[Manifest] | None = None

    def folder_of(self, fingerprint: str) -> Path | None:
        """The folder of the model that is served, if that is its fingerprint."""
        card = self._card()
        return Path(card.folder) if card is not None and card.fingerprint == fingerprint else None

    async def parts(self, request: pb.ManifestRequest) -> AsyncIterator[pb.ManifestPart]:
        """What GetManifest answers. Raises Unavailable, Refused and what reading the folder raises."""
        folder = self.folder_of(request.fingerprint)
        if self._card() is None:
            raise Unavailable("the model is being prepared: try again in a few seconds")
        if folder is None:
            raise Refused(f"the cluster serves another model than the one with fingerprint {request.fingerprint[:12]}")
        if request.only_config:
            yield pb.ManifestPart(progress=1.0, config_text=(await asyncio.to_thread(read_folder, folder)).config_text)
            return
        hashing = self._start(folder)
        while not hashing.done():
            yield pb.ManifestPart(progress=self._progress[0], detail=self._progress[1])
            await asyncio.wait({hashing}, timeout=PROGRESS_PERIOD_S)
        manifest = hashing.result()
        if manifest.fingerprint != request.fingerprint:
            raise Refused(f"the model in {folder} has changed since this coordinator started: start it again")
        for part in _pages(manifest):
            yield part

    def _start(self, folder: Path) -> asyncio.Task[Manifest]:
        """One pass over the folder for all who wait; a later question looks at the files again, which is quick if they are the same."""
        if self._hashing is None or self._hashing.done():
            self._hashing = asyncio.create_task(asyncio.to_thread(manifest_of, folder, self._cache_dir, self._say))
        return self._hashing

    def _say(self, done: float, detail: str) -> None:
        self._progress = (done, detail)


def _pages(manifest: Manifest) -> list[pb.ManifestPart]:
    parts = [pb.ManifestPart(progress=1.0, config_text=manifest.config_text)]
    for first in range(0, len(manifest.tensors), TENSORS_PER_PART):
        page = manifest.tensors[first : first + TENSORS_PER_PART]
        parts.append(pb.ManifestPart(progress=1.0, tensors=[wire.to_message(entry, pb.TensorEntry()) for entry in page]))
    return parts
