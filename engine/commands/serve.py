"""`up`, `coordinator` and `worker`: the commands that run servers."""

from __future__ import annotations

import argparse
import asyncio
import platform
import re
import secrets
import sys
from collections.abc import Callable
from typing import NoReturn

from engine.commands.output import note, print_json, stand_in_note
from engine.data.errors import NoodleError, Unavailable
from engine.data.model import ModelRef
from engine.data.status import ClusterStatus, Phase
from engine.service.addresses import check_address
from engine.service.client import Client
from engine.service.local import LocalCluster, LocalOptions
from engine.service.metrics_server import MetricsOptions
from engine.service.process import Stopping, serve, set_up_logging
from engine.service.security import SecurityOptions, load_tokens


def coordinator(options: argparse.Namespace) -> NoReturn:
    """Serve a cluster until interrupted."""
    from engine.model.sources.source import default_cache_dir
    from engine.service.coordinator.coordinator import CoordinatorOptions, run_coordinator

    set_up_logging(options.log_level)
    settings = CoordinatorOptions(
        model=_model_ref(options),
        num_workers=options.workers,
        cache_dir=options.cache_dir or default_cache_dir(),
        listen=options.listen,
        strategy=options.strategy,
        adapt=options.adapt,
        layers=options.layers,
        state_dir=options.state_dir,
        exit_with_parent=options.exit_with_parent,
        metrics_dir=options.metrics_dir,
        metrics_every_step=options.metrics_every_step,
        metrics=_metrics(options),
        security=_security(options),
    )
    serve(run_coordinator(settings))


def worker(options: argparse.Namespace) -> NoReturn:
    """Serve stages until interrupted."""
    from engine.model.sources.source import default_cache_dir
    from engine.service.worker.worker import WorkerOptions, run_worker

    set_up_logging(options.log_level)
    settings = WorkerOptions(
        join=check_address(options.join),
        worker_id=options.id or default_id(),
        listen=options.listen,
        advertise=options.advertise,
        device=options.device,
        memory_bytes=options.memory,
        kv_memory_bytes=options.kv_memory,
        num_threads=options.threads,
        share_with=options.share_with,
        slowdown=options.slowdown,
        cache_dir=options.cache_dir or default_cache_dir(),
        cache_limit_bytes=options.cache_limit,
        exit_with_parent=options.exit_with_parent,
        metrics=_metrics(options),
        security=_security(options),
    )
    serve(run_worker(settings))


def up(options: argparse.Namespace) -> NoReturn:
    """Start a cluster on this machine, say when it is ready, serve until interrupted."""
    settings = LocalOptions(
        model=options.model,
        random_weights=options.random_weights,
        num_workers=options.workers,
        dtype=options.dtype,
        num_threads=options.threads,
        memory_bytes=options.memory,
        kv_memory_bytes=options.kv_memory,
        slowdowns=options.slowdown,
        adapt=options.adapt,
        layers=options.layers,
        cache_dir=str(options.cache_dir) if options.cache_dir else None,
        state_dir=options.state_dir,
        listen=options.listen,
        metrics_dir=str(options.metrics_dir) if options.metrics_dir else None,
        metrics_every_step=options.metrics_every_step,
        metrics_port=options.metrics_port,
    )
    serve(_up(settings, options.json))


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
        _say(f"weights {status.precision.sentence}; identity grade {status.identity}: {status.identity.sentence}")
        if status.stand_in_tokenizer:
            note(stand_in_note(status.stand_in_tokenizer))
        elif status.tokenizer_source != "tokenizer.json":
            note(f"noodle-engine: the tokenizer is built from {status.tokenizer_source}, for there is no tokenizer.json")
        if as_json:
            addresses = {"address": cluster.address, "pids": cluster.pids(), "metrics_addresses": cluster.metrics_addresses}
            print_json({**addresses, "stand_in_tokenizer": status.stand_in_tokenizer})
        else:
            weights = " with random weights: answers are noise" if status.random_weights else ""
            print(f"{status.model}{weights}; ready: noodle-engine generate 'Hello' --connect {cluster.address}", flush=True)
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
    print(f"noodle-engine: {text}", file=sys.stderr, flush=True)


def _model_ref(options: argparse.Namespace) -> ModelRef:
    from engine.model.sources.source import default_ref

    if options.model is None and options.random_weights is None:
        default = default_ref()
        return ModelRef(default.model, default.random_weights, options.dtype)
    return ModelRef(options.model or "gpt2", options.random_weights, options.dtype)


def _security(options: argparse.Namespace) -> SecurityOptions:
    return load_tokens(SecurityOptions(options.token_file, options.tls_cert, options.tls_key, options.tls_ca, options.insecure))


def _metrics(options: argparse.Namespace) -> MetricsOptions:
    return MetricsOptions(options.metrics_port, options.metrics_host, options.insecure)


def default_id() -> str:
    """The host's name and a word that nobody else has: containers are often called alike, and in each of them the pid is 1."""
    host = re.sub(r"[^A-Za-z0-9.-]", "-", platform.node()).strip("-.")[:40]
    word = "".join(secrets.choice("bdfghjklmnprstvz") + secrets.choice("aeiou") for _ in range(4))
    return f"{host or 'node'}-{word}"
