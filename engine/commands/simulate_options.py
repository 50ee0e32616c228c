"""The options of `noodle-engine simulate`."""

from __future__ import annotations

import argparse
from pathlib import Path

from engine.commands.option_types import factors, ids, numbers, positive, size, whole


def add_simulate_options(parser: argparse.ArgumentParser) -> None:
    """What is simulated, with what costs, and how it is shown."""
    _model_and_plan(parser)
    _machines(parser)
    _sessions(parser)
    parser.add_argument("--compare", choices=("native",), help="with one process that serves one session after the other")
    parser.add_argument("--gantt", type=Path, metavar="FILE.html", help="write an interactive chart")
    parser.add_argument("--width", type=whole(20), default=100, help="columns of the text chart (default 100)")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")


def _model_and_plan(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--profile", type=Path, metavar="FILE", help="profile.json of `noodle-engine profile`, or its folder")
    add("--item-ms", type=numbers, default=(), metavar="T,T,...", help="instead: each item's time for one token, as workers measure it")
    add(
        "--extra-token-share",
        type=float,
        default=0.05,
        help="with --item-ms: cost of a step's further tokens, as a share of the first (default 0.05)",
    )
    add("--plan", type=Path, metavar="FILE", help="a plan as JSON: stages with node, start, stop")
    add("--layers", type=ids, default=(), metavar="N,N,...", help="items per stage")
    add("--strategy", default="balanced", help="how to plan when no plan is given (default balanced)")
    add("--context-tokens", type=whole(2), help="longest session that the model takes (default: any)")


def _machines(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--workers", type=whole(1), help="nodes w1, w2, ... (default: as many as the plan has stages, else 3)")
    add("--slowdown", type=factors, default=(), metavar="F[,F...]", help="how much slower than the profile each of them is")
    add("--node", action="append", default=[], metavar="NAME[,slowdown=F][,kv-memory=B][,busy-cores=F]", help="one node; may be repeated")
    add("--kv-memory", type=size, help="of each node, for keys and values (default: as much as is wanted)")
    add("--one-host", type=positive, metavar="CORES", help="all nodes and the coordinator share one machine with so many cores")
    add("--busy-cores", type=positive, default=1.0, help="with --one-host: cores that a decode step keeps busy (default 1)")
    add("--prompt-busy-cores", type=positive, help="the same for steps with prompts (default: as --busy-cores)")
    add("--threads", type=whole(1), default=1, help="compute threads of each node, as the scheduler is told (default 1)")
    add("--latency-ms", type=float, default=0.0, help="of every link (default 0)")
    add("--bandwidth", type=size, help="of every link, bytes per second, e.g. 125M (default: unlimited)")
    add(
        "--link", action="append", default=[], metavar="FROM:TO,latency-ms=F,bandwidth=B", help="one link; the coordinator is 'coordinator'"
    )
    add("--hop-ms", type=float, default=0.4, help="the program's own cost of a message (default 0.4; `bench hop` measures it)")
    add(
        "--neighbour-share",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="with --one-host: what every other stage adds to a stage's computing (default 0; `bench staged` finds it)",
    )
    add("--open-ms", type=float, default=0.0, help="the program's own cost of opening a session (default 0; `bench staged` finds it)")


def _sessions(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--sessions", type=whole(1), default=1, help="how many (default 1)")
    add("--prompt-tokens", type=whole(1), default=16, help="of each session (default 16)")
    add("--new-tokens", type=whole(1), default=64, help="to generate in each session (default 64)")
    add("--rate", type=positive, metavar="PER_S", help="sessions arrive at random, so many a second (default: all at the start)")
    add("--seed", type=whole(0), default=0, help="of --rate (default 0)")
    add("--trace", type=Path, metavar="FILE", help="sessions as lines arrival_s,prompt_tokens,new_tokens instead")
    add("--prompt-chunk", type=whole(1), default=512, help="prompt tokens of a step at most (default 512)")
