"""The commands that run servers."""

from __future__ import annotations

from dataclasses import dataclass

from engine.api.options import ApiOptions
from engine.commands.connection import Connection
from engine.data.errors import InvalidInput
from engine.options.declared import group, option
from engine.service.coordinator.options import AUTO, CoordinatorOptions
from engine.service.local_options import LocalOptions
from engine.service.on_ray.options import RayDoor, RayOptions, RayPlace
from engine.service.worker.options import WorkerOptions


@dataclass(frozen=True, kw_only=True)
class Up:
    """Start a coordinator and workers, on this machine or on Ray, and serve until interrupted."""

    cluster: LocalOptions = group(LocalOptions)
    ray: RayOptions = group(RayOptions)
    api: ApiOptions = group(ApiOptions)
    json: bool = option(default=False, help="one JSON line with the address when ready")

    def __post_init__(self) -> None:
        if self.ray.place.on is None:
            self.cluster.on_this_machine()
        elif self.api.http is not None and self.ray.detach:
            raise InvalidInput("--http ends with this command, and --detach ends it at once: leave one out, or use `noodle-engine serve`")
        elif self.api.http is not None and self.api.keys is None:
            raise InvalidInput("--http of a cluster on Ray needs --keys FILE with lines 'viewer|operator KEY': it knows no tokens")


@dataclass(frozen=True, kw_only=True)
class Down:
    """End a cluster that runs on Ray, whoever started it."""

    place: RayPlace = group(RayPlace)
    api: bool = option(default=False, help="end its HTTP API alone, which `serve --on ray` started")
    json: bool = option(default=False, help="one JSON line with the address that it had")

    def __post_init__(self) -> None:
        if self.place.on is None:
            raise InvalidInput("say --on ray: a cluster that `up` started on one machine ends with its `up`")


@dataclass(frozen=True, kw_only=True)
class Coordinator:
    """Serve a cluster that workers join."""

    coordinator: CoordinatorOptions = group(CoordinatorOptions)

    def __post_init__(self) -> None:
        if self.coordinator.num_workers == AUTO:
            raise InvalidInput("--workers auto goes with `noodle-engine up --on ray`: say how many workers the first plan waits for")


@dataclass(frozen=True, kw_only=True)
class Worker:
    """Serve stages on this machine for a coordinator."""

    worker: WorkerOptions = group(WorkerOptions)


@dataclass(frozen=True, kw_only=True)
class Serve:
    """Answer OpenAI's HTTP API for a cluster that runs, in this process or in several under Ray Serve."""

    connection: Connection = group(Connection)
    api: ApiOptions = group(ApiOptions)
    ray: RayDoor = group(RayDoor)
    json: bool = option(default=False, help="one JSON line with the address when ready")

    def __post_init__(self) -> None:
        if self.ray.place.on is not None and self.connection != Connection():
            raise InvalidInput("serve --on ray finds its cluster by --name and is let in by it: leave --connect and what goes with it out")
