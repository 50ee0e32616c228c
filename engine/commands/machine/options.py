"""The commands that look at this machine and its files."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

from engine.commands.connection import Connection
from engine.data.model import ModelRef
from engine.data.precision import AUTO, DTYPE_CHOICES
from engine.options.declared import argument, group, option
from engine.options.kinds import whole
from engine.service.options import DTYPE_HELP, KV_DTYPE_HELP, CacheOptions


@dataclass(frozen=True, kw_only=True)
class NamedModel:
    """A model that is named by its place on the command line."""

    model: str | None = argument(optional=True, help="hub id, local folder, or architecture name (default: GPT-2)")
    random_weights: int | None = option(kind=whole(0), metavar="SEED", help="seeded random weights")
    dtype: str = option(default=AUTO, choices=DTYPE_CHOICES, help=DTYPE_HELP)
    kv_dtype: str = option(default=AUTO, choices=DTYPE_CHOICES, help=KV_DTYPE_HELP)
    cache: CacheOptions = group(CacheOptions)

    def ref(self) -> ModelRef:
        """The model; without a name GPT-2, as servers take it."""
        from engine.model.sources.source import default_ref

        named = default_ref() if self.model is None else ModelRef(self.model, self.random_weights)
        return replace(named, dtype=self.dtype, kv_dtype=self.kv_dtype)


@dataclass(frozen=True, kw_only=True)
class Models:
    """List models and architectures, or describe one."""

    action: str = argument(optional=True, choices=("list", "describe"), default="list")
    named: NamedModel = group(NamedModel)
    json: bool = option(default=False, help="one JSON document on stdout")
    json_lines: bool = option(default=False)  # progress and the card, for the coordinator


@dataclass(frozen=True, kw_only=True)
class Measuring:
    """How a model is measured."""

    device: str | None = option(help="cpu or cuda:N (default cpu)")
    num_threads: int | None = option("--threads", kind=whole(1), metavar="N", help="compute threads (default: all cores)")
    depth: str = option(default="layer", choices=("item", "layer", "leaf"), help="which modules are timed (default %(default)s)")
    quick: bool = option(default=False, help="fewer points, about 10 s instead of 40 s")
    made_up_weights: bool = option(default=False)  # of a folder that holds config.json alone


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Measure every layer of a model on this machine, and write what was found."""

    named: NamedModel = group(NamedModel)
    measuring: Measuring = group(Measuring)
    out: Path | None = option(kind=Path, metavar="DIR", help="where the files go (default ./profile-MODEL)")
    compare: tuple[Path, Path] | None = option(kind=Path, num_values=2, metavar=("A", "B"), help="show two profiles side by side instead")
    node: str | None = option(metavar="ID", help="let a worker of the cluster at --connect profile the model it serves")
    connection: Connection = group(Connection)
    json: bool = option(default=False, help="one JSON document on stdout")
    json_lines: bool = option(default=False)  # progress and the profile, for a worker


@dataclass(frozen=True, kw_only=True)
class Certs:
    """Make a private authority and certificates of nodes, list them, revoke one."""

    action: str = argument(choices=("init", "node", "list", "revoke"), help="init: the authority; node: a certificate")
    name: str | None = argument(optional=True, metavar="NODE", help="its name in the cluster, which the certificate proves")
    folder: Path = option(
        "--dir",
        kind=Path,
        default_from=lambda: Path(os.environ.get("NOODLE_CERTS", "certs")),
        metavar="DIR",
        help="where all of it is kept (default: $NOODLE_CERTS or ./certs)",
    )
    role: str = option(
        default="worker",
        choices=("viewer", "operator", "worker", "coordinator"),
        help="what the node may do (default %(default)s); people who watch or operate need viewer or operator",
    )
    host: tuple[str, ...] = option(
        repeated=True, metavar="HOST", help="a host name or address that others reach it by; a coordinator needs one; may be repeated"
    )
    days: int = option(kind=whole(1), default=397, metavar="N", help="how long it counts (default %(default)s)")
    json: bool = option(default=False, help="one JSON document on stdout")


@dataclass(frozen=True, kw_only=True)
class Invite:
    """Print one line that lets another machine join, and wait for it; run it where `certs init` was."""

    join: str = option(
        required=True,
        default="",
        metavar="HOST:PORT",
        help="the coordinator's address, as the other machine reaches it, or auto: both look for one that says `--announce`",
    )
    name: str = option(default="", metavar="NODE", help="what the other machine is called (default: as it calls itself)")
    listen: str = option(
        default="",
        metavar="HOST:PORT",
        help="where this waits for it, at a free port if none is said (default: the coordinator's host; with auto: this machine)",
    )
    minutes: int = option(kind=whole(1), default=10, metavar="N", help="how long it counts (default %(default)s)")
    folder: Path = option(
        "--dir",
        kind=Path,
        default_from=lambda: Path(os.environ.get("NOODLE_CERTS", "certs")),
        metavar="DIR",
        help="where the authority is (default: $NOODLE_CERTS or ./certs)",
    )
    json: bool = option(default=False, help="the line in one JSON document on stdout")


@dataclass(frozen=True, kw_only=True)
class Doctor:
    """Check this machine and say how to mend what is wrong."""

    hardware: bool = option(default=False, help="measure CPU and GPUs instead: what they are, what runs, how fast")
    json: bool = option(default=False, help="one JSON document on stdout")


@dataclass(frozen=True, kw_only=True)
class Report:
    """Show a run's metrics or a profile as an HTML page."""

    path: Path = argument(kind=Path, metavar="RUN", help="the folder of --metrics-dir, a .jsonl log, or a profile.json")
    out: Path | None = option(kind=Path, metavar="FILE", help="default: beside what it shows")
    format: str = option(default="html", choices=("html", "csv", "json", "jsonl", "prometheus"), help="of a profile (default %(default)s)")
    json: bool = option(default=False, help="the figures as one JSON document on stdout")


@dataclass(frozen=True, kw_only=True)
class Examples:
    """List files to begin with, print one, or write them: options, Prometheus, Kubernetes, systemd."""

    name: str | None = argument(optional=True, metavar="NAME", help="print this one (default: list them)")
    out: Path | None = option(kind=Path, metavar="DIR", help="write it there, or all of them")
    json: bool = option(default=False, help="the list as one JSON document on stdout")


@dataclass(frozen=True, kw_only=True)
class Cache:
    """Show what is kept on this machine, or remove what nobody used for long."""

    action: str = argument(optional=True, choices=("list", "prune"), default="list")
    older_than_days: int = option(
        "--older-than-days", kind=whole(0), default=30, metavar="N", help="what prune removes (default %(default)s)"
    )
    cache: CacheOptions = group(CacheOptions)
    json: bool = option(default=False, help="one JSON document on stdout")
