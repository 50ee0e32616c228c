"""`up`, `coordinator` and `worker`: the commands that run servers."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, NoReturn

from engine.client.local_cluster import wait_until_serving
from engine.commands.output import note, print_json, say, stand_in_note
from engine.commands.serving.http import api_sentence, api_server
from engine.commands.serving.options import Coordinator, Down, Up, Worker
from engine.data.errors import NoodleError, NotFound, NotSupported
from engine.data.status import ClusterStatus
from engine.options.declared import words
from engine.service.local import LocalCluster
from engine.service.on_ray.options import RayPlace
from engine.service.process import Stopping, serve, set_up_logging
from engine.service.trust.access import own_access
from engine.service.trust.local_tokens import token_path

if TYPE_CHECKING:
    from engine.service.on_ray.ray_cluster import RayCluster


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
    cluster = LocalCluster(command.cluster) if command.ray.place.on is None else _on_ray(command)
    stopping = Stopping(exit_with_parent=False, tidy_up_s=None)  # its children end at once, so its own end is quick
    is_kept = False
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
                server = api_server(command.api, cluster.address, own_access(cluster.address))
                http = await server.start()
                stack.push_async_callback(server.stop)
            _announce(cluster, status, http, command.json)
            if is_kept := command.ray.detach:
                _say(f"it runs on its own; `{_down(command.ray.place)}` ends it")
                return 0
            await _until(stopping, cluster)
        return 0
    finally:
        if not is_kept:
            await cluster.stop()


def _on_ray(command: Up) -> RayCluster:
    """Raises NotSupported without Ray's package."""
    from engine.commands.serving.ray_package import ray_cluster

    cluster = ray_cluster().RayCluster(command.cluster, command.ray)
    cluster.on_note = _say
    return cluster


def _down(place: RayPlace) -> str:
    """The command that ends a cluster there."""
    return " ".join(("noodle-engine down", *words(place)))


def down(command: Down) -> int:
    """End a cluster on Ray and its HTTP API, or that alone."""
    from engine.commands.serving.ray_package import ray_cluster, ray_door
    from engine.service.trust.local_tokens import remove_papers

    ray, name = ray_cluster(), command.place.cluster_name
    ray.connect(command.place)
    if command.api:
        if not ray_door().remove(name):
            raise NotFound(f"no API of {name} runs on this Ray: give its --name, or another --address")
        print_json({"address": ""}) if command.json else say(f"the API of {name} on Ray is down")
        return 0
    keeper = ray.find(command.place)
    with contextlib.suppress(NotSupported):  # nobody can have started one
        ray_door().remove(name)
    address = ray.end(keeper)
    if address:
        remove_papers(address)
    if command.json:
        print_json({"address": address})
    else:
        say(f"{name} on Ray is down")
    return 0


def _announce(cluster: LocalCluster | RayCluster, status: ClusterStatus, http: str, as_json: bool) -> None:
    if as_json:
        addresses = {"address": cluster.address, "pids": cluster.pids(), "metrics_addresses": cluster.metrics_addresses}
        more = {"http": http, "key_file": token_path(cluster.address)} if http else {}
        print_json({**addresses, **more, "stand_in_tokenizer": status.model.stand_in_tokenizer})
        return
    weights = " with random weights: answers are noise" if status.model.random_weights else ""
    say(f"{status.model.name}{weights}; ready: noodle-engine generate 'Hello' --connect {cluster.address}")
    if http:
        say(api_sentence(http, cluster.address))


async def _started(cluster: LocalCluster | RayCluster) -> ClusterStatus:
    await cluster.start()
    return await wait_until_serving(cluster, say=_say)


async def _until(stopping: Stopping, cluster: LocalCluster | RayCluster) -> None:
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
