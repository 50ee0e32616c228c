"""The commands that run servers."""

from __future__ import annotations

from dataclasses import dataclass

from engine.api.options import ApiOptions
from engine.commands.connection import Connection
from engine.options.declared import group, option
from engine.service.coordinator.options import CoordinatorOptions
from engine.service.local_options import LocalOptions
from engine.service.worker.options import WorkerOptions


@dataclass(frozen=True, kw_only=True)
class Up:
    """Start a coordinator and workers on this machine and serve until interrupted."""

    cluster: LocalOptions = group(LocalOptions)
    api: ApiOptions = group(ApiOptions)
    json: bool = option(default=False, help="one JSON line with the address when ready")


@dataclass(frozen=True, kw_only=True)
class Coordinator:
    """Serve a cluster that workers join."""

    coordinator: CoordinatorOptions = group(CoordinatorOptions)


@dataclass(frozen=True, kw_only=True)
class Worker:
    """Serve stages on this machine for a coordinator."""

    worker: WorkerOptions = group(WorkerOptions)


@dataclass(frozen=True, kw_only=True)
class Serve:
    """Answer OpenAI's HTTP API for a cluster that runs."""

    connection: Connection = group(Connection)
    api: ApiOptions = group(ApiOptions)
    json: bool = option(default=False, help="one JSON line with the address when ready")
