"""The coordinator process: one cluster behind the Control service."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import shutil
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from engine.control import events as on
from engine.control.cluster import Cluster, ClusterConfig
from engine.data import ModelRef, NoodleError
from engine.service.control_service import ControlService
from engine.service.journal import Journal
from engine.service.prepare import prepare_model
from engine.service.process import Server, announce, stop_event
from engine.service.security import SecurityOptions, channel_credentials, worker_token
from engine.service.shell import ClusterShell
from engine.service.text import TextCodec
from engine.service.worker_peer import PeerOptions
from protos import noodle_pb2_grpc as rpc

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CoordinatorOptions:
    """What `noodle-engine coordinator` takes. Without `state_dir` the journal lies in a temporary folder."""

    model: ModelRef
    num_workers: int
    cache_dir: Path
    listen: str = "127.0.0.1:0"
    strategy: str = "balanced"
    state_dir: Path | None = None
    exit_with_parent: bool = False
    security: SecurityOptions = field(default_factory=SecurityOptions)


async def run_coordinator(options: CoordinatorOptions) -> int:
    """Serve until told to stop; returns the exit code."""
    stopping = stop_event(options.exit_with_parent)
    cluster_id = f"noodle-{secrets.token_hex(2)}"
    state_dir = options.state_dir or Path(tempfile.mkdtemp(prefix="noodle-"))
    cluster = Cluster(ClusterConfig(options.num_workers, options.strategy), time.monotonic())
    peer_options = PeerOptions(worker_token(options.security), channel_credentials(options.security))
    shell = ClusterShell(cluster, cluster_id, Journal(state_dir / "journal.sqlite3"), peer_options)
    server = Server(options.security)
    rpc.add_ControlServicer_to_server(ControlService(shell), server.grpc)
    address = await server.start(options.listen)
    announce({"address": address, "cluster_id": cluster_id, "pid": os.getpid()})
    shell.spawn(shell.tick_forever())
    shell.spawn(_prepare(options, shell))
    try:
        await stopping.wait()
    finally:
        await server.stop()
        await shell.close()
        if options.state_dir is None:
            shutil.rmtree(state_dir, ignore_errors=True)
    return 0


async def _prepare(options: CoordinatorOptions, shell: ClusterShell) -> None:
    """Get the model ready and tell the cluster; a model that cannot be had is a state, not the end of the process."""
    try:
        card = await prepare_model(options.model, options.cache_dir, lambda done, detail: shell.feed(on.ModelProgress(detail, done)))
        shell.codec = await asyncio.to_thread(TextCodec, Path(card.folder))
    except NoodleError as e:
        shell.feed(on.ModelFailed(str(e)))
        return
    shell.feed(on.ModelReady(card))
