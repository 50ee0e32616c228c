"""The options of a worker; None means: find out from the machine."""

from __future__ import annotations

from dataclasses import dataclass

from engine.options.declared import group, option
from engine.options.kinds import factor, size, whole
from engine.service.options import CacheOptions, ServerOptions


def default_id() -> str:
    """The host's name and a word that nobody else has: containers are often called alike, and in each of them the pid is 1."""
    import platform
    import re
    import secrets

    host = re.sub(r"[^A-Za-z0-9.-]", "-", platform.node()).strip("-.")[:40]
    word = "".join(secrets.choice("bdfghjklmnprstvz") + secrets.choice("aeiou") for _ in range(4))
    return f"{host or 'node'}-{word}"


@dataclass(frozen=True, kw_only=True)
class WorkerOptions:
    """Serve stages on this machine for a coordinator."""

    join: str = option(
        default="",
        required=True,
        of_process=True,
        metavar="HOST:PORT",
        help="the coordinator's address, the line of an invitation, or auto: look for one that says `--announce`",
    )
    worker_id: str = option(
        "--id",
        default="",
        of_process=True,
        metavar="ID",
        help="this node's name in the cluster (default: host name and a random word)",
    )
    advertise: str | None = option(
        of_process=True,
        metavar="HOST[:PORT]",
        help="the address to tell the others (default: where it listens, or its way to the coordinator)",
    )
    device: str | None = option(
        help="cpu or cuda:N; where several workers start, a list that they take in turn (default: the best one here)"
    )
    memory_bytes: int | None = option(
        "--memory", kind=size, metavar="SIZE", help="memory of a worker for weights and KV, e.g. 2G (default: what is available)"
    )
    kv_memory_bytes: int | None = option("--kv-memory", kind=size, metavar="SIZE", help="part of it for keys and values")
    share_with: int = option(
        default=1, kind=whole(1), of_process=True, metavar="N", help="workers that share this machine's memory (default %(default)s)"
    )
    num_threads: int | None = option("--threads", kind=whole(1), metavar="N", help="compute threads of a worker (default: all cores)")
    compile: str = option(default="auto", choices=("auto", "off"), help="join and fuse parts of a model on a GPU (default %(default)s)")
    cache: CacheOptions = group(CacheOptions)
    cache_limit_bytes: int | None = option(
        "--cache-limit", kind=size, metavar="SIZE", help="of the weights kept there, e.g. 20G (default: what the disk holds)"
    )
    drain_s: int = option(
        "--drain-seconds",
        kind=whole(0),
        default=25,
        metavar="N",
        help="at SIGTERM, for how long a worker may hand over what it holds; 0: end at once (default %(default)s)",
    )
    slowdown: float = option(default=1.0, kind=factor, of_process=True, metavar="FACTOR", help="emulate a machine that is this much slower")
    server: ServerOptions = group(ServerOptions)
