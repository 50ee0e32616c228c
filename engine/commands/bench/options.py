"""The commands that measure and test the program itself."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from engine.data.precision import AUTO, DTYPE_BYTES
from engine.options.declared import argument, option
from engine.options.kinds import whole

SUITES = ("all", "hop", "decode", "serve", "plan", "staged", "adaptation", "gpu", "quality")


def dtypes(text: str) -> tuple[str, ...]:
    """`float32,int8`."""
    return _names(text, tuple(DTYPE_BYTES))


def kv_dtypes(text: str) -> tuple[str, ...]:
    """`auto,int8`."""
    return _names(text, (AUTO, *DTYPE_BYTES))


def _names(text: str, allowed: tuple[str, ...]) -> tuple[str, ...]:
    found = tuple(dict.fromkeys(text.split(",")))
    if unknown := [name for name in found if name not in allowed]:
        raise argparse.ArgumentTypeError(f"dtype {unknown[0][:80]!r} is not known: use {', '.join(allowed)}")
    return found


@dataclass(frozen=True, kw_only=True)
class Drill:
    """Check the protocol in a simulated hostile network."""

    seeds: int = option(kind=whole(1), default=1000, metavar="N", help="histories to run (default %(default)s)")
    first: int = option(kind=whole(0), default=0, metavar="SEED", help="the first one; a seed replays bit for bit")
    jobs: int = option(kind=whole(1), default=1, metavar="N", help="processes that share the work (default %(default)s)")
    json: bool = option(default=False, help="one JSON document on stdout")


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Measure hop cost, decode speed, serving many sessions or the planner on this machine."""

    suite: str = argument(optional=True, choices=SUITES, default="all", help="all: hop, decode, serve")
    model: str | None = argument(optional=True, metavar="MODEL", help="of `quality`, and of `decode` instead of GPT-2")
    dtype: tuple[str, ...] = option(
        kind=dtypes,
        default=(),
        metavar="D[,D]",
        help="of `quality` (default float32,bfloat16,int8) and `decode` (default float32), compared with the first",
    )
    kv_dtype: tuple[str, ...] = option(
        kind=kv_dtypes, default=(AUTO,), metavar="D[,D]", help="what KV is kept in: every --dtype with each of them (default auto)"
    )
    sessions: int = option(kind=whole(1), default=8, metavar="N", help="concurrent sessions of `serve` (default %(default)s)")
    workers: int = option(kind=whole(0), default=3, metavar="N", help="of `serve`; at most of `gpu`, 0: no cluster (default %(default)s)")
    steps: int = option(kind=whole(1000), default=10_000, metavar="N", help="of each steady trace of `adaptation` (default %(default)s)")
    tokens: int = option(kind=whole(8), default=500, metavar="N", help="tokens per measurement (default %(default)s)")
    rounds: int = option(kind=whole(1), default=3, metavar="N", help="interleaved rounds; medians are quoted (default %(default)s)")
    device: str = option(
        default="cuda:0",
        metavar="D[,D]",
        help="of `gpu`: the stage runs on the first, clusters on the first and on all of them (default %(default)s)",
    )
    model_config: str = option(default="llama-1b,llama-8b", metavar="NAME[,NAME]", help="of `gpu` (default %(default)s)")
    no_peers: bool = option(default=False, help="of `gpu`: leave transformers' own figures out")
    json: bool = option(default=False, help="one JSON document on stdout")
