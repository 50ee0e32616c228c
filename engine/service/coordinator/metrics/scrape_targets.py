"""The file that tells a Prometheus whom to scrape: this coordinator, and the workers that answer scrapes and can be reached from here."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from engine.control.cluster import Cluster
from engine.data.errors import NoodleError
from engine.data.json_text import json_text
from engine.files import replace_whole
from engine.service.addresses import is_loopback

LOOK_S = 1.0
log = logging.getLogger(__name__)


class ScrapeTargets:
    """A worker that is lost stays on the list until it is forgotten: that it does not answer is what an operator wants to see."""

    def __init__(self, path: Path, cluster: Cluster, cluster_id: str, own_address: str) -> None:
        self._path, self._cluster, self._cluster_id, self._own_address = path, cluster, cluster_id, own_address
        self._written = ""

    async def keep_forever(self) -> None:
        """Write the list whenever it changes."""
        while True:
            try:
                await self._write(target_list(self._targets()))
            except NoodleError as e:
                log.warning("--metrics-sd: %s", e)
            await asyncio.sleep(LOOK_S)

    def write_first(self) -> None:
        """Raises what `replace_whole` says of a file that cannot be written."""
        self._written = target_list(self._targets())
        replace_whole(self._path, self._written.encode())

    def empty(self) -> None:
        """The cluster ends in order: nobody is missed."""
        replace_whole(self._path, target_list([]).encode())

    async def _write(self, text: str) -> None:
        if text != self._written:
            await asyncio.to_thread(replace_whole, self._path, text.encode())
            self._written = text

    def _targets(self) -> Iterator[tuple[str, Mapping[str, str]]]:
        yield self._own_address, {"cluster": self._cluster_id, "role": "coordinator"}
        for member in self._cluster.members:
            address = member.spec.metrics_address
            if address and (is_loopback(member.spec.address) or not is_loopback(address)):
                yield address, {"cluster": self._cluster_id, "role": "worker"}


def target_list(targets: Iterable[tuple[str, Mapping[str, str]]]) -> str:
    """Addresses with their labels as the JSON that Prometheus reads with `file_sd_configs`."""
    return json_text([{"targets": [address], "labels": dict(labels)} for address, labels in targets], indent=1) + "\n"
