"""`up`, `coordinator` and `worker`: the commands that run servers."""

from __future__ import annotations

import asyncio
import contextlib
from typing import NoReturn

from engine.client.local_cluster import wait_until_serving
from engine.commands.output import note, print_json, say, stand_in_note
from engine.commands.serving.http import api_sentence, api_server
from engine.commands.serving.options import Coordinator, Up, Worker
from engine.data.errors import NoodleError
from engine.data.status import ClusterStatus
from engine.service.local import LocalCluster
from engine.service.process import Stopping, serve, set_up_logging
from engine.service.trust.access import Access
from engine.service.trust.local_tokens import find_token, token_path


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
    serve(_up(command))


async def _up(command: Up) -> int:
    stopping = Stopping(exit_with_parent=False, tidy_up_s=None)  # its children end at once, so its own end is quick
    cluster = LocalCluster(command.cluster)
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
        async with contextlib.AsyncExitStack() as stack:
            http = ""
            if command.api.http is not None:
                server = api_server(command.api, cluster.address, Access(find_token(cluster.address)))
                http = await server.start()
                stack.push_async_callback(server.stop)
            _announce(cluster, status, http, command.json)
            await _until(stopping, cluster)
        return 0
    finally:
        await cluster.stop()


def _announce(cluster: LocalCluster, status: ClusterStatus, http: str, as_json: bool) -> None:
    if as_json:
        addresses = {"address": cluster.address, "pids": cluster.pids(), "metrics_addresses": cluster.metrics_addresses}
        more = {"http": http, "key_file": token_path(cluster.address)} if http else {}
        print_json({**addresses, **more, "stand_in_tokenizer": status.model.stand_in_tokenizer})
        return
    weights = " with random weights: answers are noise" if status.model.random_weights else ""
    say(f"{status.model.name}{weights}; ready: noodle-engine generate 'Hello' --connect {cluster.address}")
    if http:
        say(api_sentence(http, cluster.address))


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


def _say(text: str) -> None:
    note(f"noodle-engine: {text}")
