"""Where on Ray a cluster is, and what its workers take there. Nothing heavy is imported here, and not Ray either."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from dataclasses import dataclass

from engine.data.errors import InvalidInput, NotSupported, check_name
from engine.options.declared import group, option
from engine.options.kinds import whole

ON_RAY = "ray"
DEFAULT_REPLICAS = 2
_RESOURCE = re.compile(r"([A-Za-z][A-Za-z0-9_.:-]{0,63})=([0-9]{1,6}(?:\.[0-9]{1,4})?)")


@dataclass(frozen=True, slots=True)
class Resources:
    """What Ray keeps free for one worker, by Ray's names: CPU, GPU, memory, or what a cluster calls its own."""

    amounts: tuple[tuple[str, float], ...]

    def __str__(self) -> str:
        return ",".join(f"{name}={amount:g}" for name, amount in self.amounts)

    def bundle(self) -> dict[str, float]:
        return dict(self.amounts)


def resources(text: str) -> Resources:
    """`CPU=2,GPU=1`."""
    found = [_RESOURCE.fullmatch(part) for part in text.split(",")]
    amounts = {match[1]: float(match[2]) for match in found if match is not None}
    if len(amounts) != len(found) or not all(amounts.values()):
        raise argparse.ArgumentTypeError(f"{text[:80]!r} is not allowed: give names of Ray's and numbers above 0, e.g. CPU=2,GPU=1")
    return Resources(tuple(amounts.items()))


@dataclass(frozen=True, kw_only=True)
class RayPlace:
    """A cluster that Ray places, restarts and scales."""

    on: str | None = option(choices=(ON_RAY,), help="run on a Ray cluster instead of this machine alone; needs 'noodlecore[ray]'")
    ray_address: str = option(
        "--address", default="auto", metavar="HOST:PORT", help="of the Ray cluster (default auto: the one that this machine belongs to)"
    )
    cluster_name: str = option("--name", default="noodle", metavar="NAME", help="of the cluster among others on that Ray (default noodle)")

    def __post_init__(self) -> None:
        check_name("--name", self.cluster_name)
        if self.ray_address.startswith("ray://"):
            raise NotSupported(
                f"--address {self.ray_address[:80]} is Ray's client, which workers cannot be started through: run this on a machine of the "
                "Ray cluster, with --address auto or HOST:PORT"
            )

    def check_used(self, others: Mapping[str, object]) -> None:
        """Raise InvalidInput if something was said that means nothing without `--on ray`; `others` are more such values by flag."""
        said = {"--address": self.ray_address != "auto", "--name": self.cluster_name != "noodle", **others}
        if self.on is None and (flag := next((flag for flag, value in said.items() if value), "")):
            raise InvalidInput(f"{flag} goes with --on ray: give both, or leave it out")


@dataclass(frozen=True, kw_only=True)
class RayDoor:
    """The HTTP API of a cluster on Ray, behind Ray Serve."""

    place: RayPlace = group(RayPlace)
    replicas: int | None = option(
        kind=whole(1), metavar="N", help=f"servers behind Ray's proxy, which shares requests among them (default {DEFAULT_REPLICAS})"
    )
    detach: bool = option(default=False, help="let it run on its own once it is ready; `noodle-engine down --on ray` ends it")

    def __post_init__(self) -> None:
        self.place.check_used({"--replicas": self.replicas, "--detach": self.detach})


@dataclass(frozen=True, kw_only=True)
class RayOptions:
    """A cluster that Ray places, restarts and scales."""

    place: RayPlace = group(RayPlace)
    resources: Resources | None = option(
        kind=resources,
        metavar="NAME=N,...",
        help="what Ray keeps free for each worker (default: a CPU, and a GPU where there are some)",
    )
    detach: bool = option(default=False, help="let it run on its own once it is ready; `noodle-engine down --on ray` ends it")

    def __post_init__(self) -> None:
        self.place.check_used({"--resources": self.resources, "--detach": self.detach})
