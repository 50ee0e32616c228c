"""`up`, `coordinator` and `worker`: the commands that run servers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NoReturn

from engine.commands.output import note, print_json, say, stand_in_note
from engine.commands.serving.options import Coordinator, Up, Worker
from engine.data.errors import NoodleError, Unavailable
from engine.data.status import ClusterStatus, Phase
from engine.service.client import Client
from engine.service.local import LocalCluster
from engine.service.local_options import LocalOptions
from engine.service.process import Stopping, serve, set_up_logging


def coordinator(command: Coordinator) -> NoReturn:
    """Serve a cluster until interrupted."""
    from engine.service.coordinator.coordinator import run_coordinator

    set_up_logging(command.coordinator.server.log_level)
    serve(run_coordinator(command.coordinator))


def worker(command: Worker) -> NoReturn:
    """Serve stages until interrupted."""
    from engine.service.worker.worker import run_worker

    set_up_logging(command.worker.server.log_level)
    serve(run_worker(command.worker))


def up(command: Up) -> NoReturn:
    """Start a cluster on this machine, say when it is ready, serve until interrupted."""
    serve(_up(command.cluster, command.json))


async def _up(settings: LocalOptions, as_json: bool) -> int:
    stopping = Stopping(exit_with_parent=False, tidy_up_s=None)  # its children end at once, so its own end is quick
    cluster = LocalCluster(settings)
    try:
        waiting = asyncio.create_task(stopping.wait())
        ready = asyncio.create_task(_started(cluster))
        await asyncio.wait({waiting, ready}, return_when=asyncio.FIRST_COMPLETED)
        if not ready.done():
            ready.cancel()
            await asyncio.wait({ready})
            return stopping.exit_code
        status = ready.result()
        _say(f"weights {status.model.precision.sentence}; identity grade {status.identity}: {status.identity.sentence}")
        if status.model.stand_in_tokenizer:
            note(stand_in_note(status.model.stand_in_tokenizer))
        elif status.model.tokenizer_source != "tokenizer.json":
            note(f"noodle-engine: the tokenizer is built from {status.model.tokenizer_source}, for there is no tokenizer.json")
        if as_json:
            addresses = {"address": cluster.address, "pids": cluster.pids(), "metrics_addresses": cluster.metrics_addresses}
            print_json({**addresses, "stand_in_tokenizer": status.model.stand_in_tokenizer})
        else:
            weights = " with random weights: answers are noise" if status.model.random_weights else ""
            say(f"{status.model.name}{weights}; ready: noodle-engine generate 'Hello' --connect {cluster.address}")
        await _until(stopping, cluster)
        return 0
    finally:
        await cluster.stop()


async def _started(cluster: LocalCluster) -> ClusterStatus:
    await cluster.start()
    return await wait_until_serving(cluster, say=_say)


async def _until(stopping: Stopping, cluster: LocalCluster) -> None:
    """Serve until told to stop, or until the coordinator is gone; a lost worker is the coordinator's affair."""
    told: set[str] = set()
    while not stopping.is_set():
        for sentence in cluster.failures():
            if sentence not in told:
                told.add(sentence)
                _say(sentence)
            if sentence.startswith("coordinator "):
                raise NoodleError(sentence)
        try:
            await asyncio.wait_for(stopping.wait(), timeout=0.5)
        except TimeoutError:
            continue


async def wait_until_serving(cluster: LocalCluster, say: Callable[[str], None] | None = None) -> ClusterStatus:
    """Return the status once every stage is loaded; raises Unavailable with the cluster's own reason if it never will be."""
    said = ""
    async with Client(cluster.address) as client:
        async for frame in client.watch(min_interval_s=0.1):
            status = frame.status
            if status.phase is Phase.SERVING:
                return status
            if status.failure:
                raise Unavailable(status.failure)
            dead = [s for s in cluster.failures() if status.plan_version == 0]
            if dead:
                raise NoodleError(dead[0])
            if say is not None and status.detail != said:
                said = status.detail
                say(said)
    raise Unavailable("the coordinator ended the watch: see its log")


def _say(text: str) -> None:
    note(f"noodle-engine: {text}")
