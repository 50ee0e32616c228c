"""What coordinator and workers wrote last, read over the wire from real processes."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from dataclasses import replace
from typing import Any

import pytest

from engine.client.local_cluster import wait_until_serving
from engine.data.errors import NotFound
from engine.data.status import Severity, WrittenLine
from engine.service.client import Client
from engine.service.coordinator.options import CoordinatorOptions
from engine.service.local import LocalCluster
from engine.service.local_options import local_options
from engine.service.log_lines.kept_lines import MAX_CHARS, MAX_LINES, KeptLines
from engine.service.worker.options import WorkerOptions


class Talking(LocalCluster):
    """Its processes log what they do, too."""

    def coordinator_options(self) -> CoordinatorOptions:
        options = super().coordinator_options()
        return replace(options, server=replace(options.server, log_level="INFO"))

    def worker_options(self, index: int) -> WorkerOptions:
        options = super().worker_options(index)
        return replace(options, server=replace(options.server, log_level="INFO"))


def test_a_client_reads_what_a_worker_wrote_and_each_line_once() -> None:
    async def run() -> tuple[Any, ...]:
        cluster = Talking(local_options(model="gpt2:tiny", num_workers=2, num_threads=1, random_weights=0))
        try:
            client = Client(await cluster.start())
            await wait_until_serving(cluster)
            with pytest.raises(NotFound, match="w9"):
                await client.lines("w9")
            os.kill(cluster.pids()["w2"], signal.SIGHUP)  # it reads its tokens again, and says so
            worker: tuple[WrittenLine, ...] = ()
            while not worker:
                worker = await client.lines("w2")
            again, own = await client.lines("w2", worker[-1].number), await client.lines()
            await client.close()
            return worker, again, own
        finally:
            await cluster.stop()

    worker, again, own = asyncio.run(run())
    assert worker[0].text.startswith("read again: ") and worker[0].severity is Severity.INFO
    assert not set(again) & set(worker) and not set(own) & set(worker)
    assert own and not any(line.text.startswith(("node ", "plan ")) for line in own), "events are no lines"


def test_lines_are_bounded_cut_and_go_on_from_a_number() -> None:
    kept = KeptLines()
    for i in range(MAX_LINES + 20):
        text = f"line {i} \x1b[31m" + "y" * 2 * MAX_CHARS
        record = logging.LogRecord("x", logging.WARNING if i % 2 else logging.INFO, "", 0, text, (), None)
        record.created = 1000.0  # all within one tick of the clock
        kept.handle(record)
    lines = kept.after(0)
    assert len(lines) == MAX_LINES and lines[-1].text.startswith(f"line {MAX_LINES + 19}")
    assert all(len(line.text) <= MAX_CHARS and "\x1b" not in line.text for line in lines)
    assert {line.severity for line in lines} == {Severity.INFO, Severity.WARN}
    assert kept.after(lines[-3].number) == lines[-2:]


def test_a_line_that_cannot_be_made_fails_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging, "raiseExceptions", False)  # which would print it, as for every handler
    lines = KeptLines()
    for text in ("%d workers", "two workers"):
        lines.handle(logging.LogRecord("noodle", logging.INFO, "here", 1, text, ("two",) if "%" in text else (), None))
    assert [line.text for line in lines.after(0)] == ["two workers"]
