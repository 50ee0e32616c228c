"""Options of `noodle-engine plan`."""

from __future__ import annotations

import argparse
import math
import os
import re
from collections.abc import Callable
from pathlib import Path


def add_plan_options(plan: argparse.ArgumentParser, whole: Callable[[int], Callable[[str], int]], size: Callable[[str], int]) -> None:
    """`whole` and `size` are the command line's readers of whole numbers and of sizes such as 2G."""
    plan.add_argument("--problem", type=Path, metavar="FILE", help="the problem as a JSON document; '-' reads stdin")
    plan.add_argument("--connect", metavar="HOST:PORT", help="plan for a running cluster instead, from what its workers measured")
    plan.add_argument(
        "--profile", type=Path, metavar="FILE", help="estimate instead: this profile.json, scaled to the --hardware of each machine"
    )
    plan.add_argument(
        "--hardware",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="what `doctor --hardware --json` wrote on a machine; may be repeated",
    )
    plan.add_argument(
        "--link", type=link, metavar="S,BYTES/S", help="with --profile: latency and bandwidth between machines (default: no limit)"
    )
    plan.add_argument("--token", default=os.environ.get("NOODLE_TOKEN"), help="default: $NOODLE_TOKEN")
    plan.add_argument("--tls-ca", type=Path)
    plan.add_argument("--current", type=Path, metavar="FILE", help="with --problem: the plan that runs, as `plan --json` wrote it")
    plan.add_argument("--compare", action="store_true", help="all strategies in one table, with the moves from the plan that runs")
    plan.add_argument("--strategy", default="balanced", help="what to minimise (default balanced)")
    plan.add_argument("--in-flight", type=whole(1), metavar="M", help="sessions in the pipeline at once, instead of the document's")
    plan.add_argument("--sessions", type=whole(1), metavar="S", help="sessions whose KV every stage must hold")
    plan.add_argument("--context-tokens", type=whole(0), metavar="T", help="tokens of KV per session")
    plan.add_argument("--node-order", choices=("free", "given"), help="whether the order of the nodes is searched")
    plan.add_argument("--use-all-nodes", action="store_true", help="leave no node out")
    plan.add_argument(
        "--pin", action="append", default=[], metavar="ITEM=NODE", help="an item, by name or index, on a node; may be repeated"
    )
    plan.add_argument("--forbid", action="append", default=[], metavar="NODE", help="leave a node out; may be repeated")
    plan.add_argument("--max-stages", type=whole(1), metavar="K")
    plan.add_argument("--min-items", type=whole(1), metavar="K", help="items per stage, at least")
    plan.add_argument("--max-items", type=whole(1), metavar="K", help="items per stage, at most")
    plan.add_argument("--stage-items", metavar="4,4,5", help="the number of items of each stage; only the nodes are chosen")
    plan.add_argument("--memory-reserve", type=size, metavar="SIZE", help="memory to keep free on every node, e.g. 500M")
    plan.add_argument("--latency-limit", type=float, metavar="SECONDS", help="longest round trip of one token")
    plan.add_argument("--no-notes", action="store_true", help="do not solve again to find out what would help")
    plan.add_argument("--json", action="store_true", help="one JSON document on stdout")


def link(text: str) -> tuple[float, float]:
    """`0.001,1.25e8`: one way in seconds, bytes per second."""
    number = r"([0-9]{1,15}(?:\.[0-9]{1,15})?(?:e-?[0-9]{1,2})?)"
    match = re.fullmatch(f"{number},{number}", text)
    if match is None or not 0 <= float(match[1]) < 1e9 or not 0 < float(match[2]) < math.inf:
        raise argparse.ArgumentTypeError(f"link {text[:60]!r} is not allowed: give seconds and bytes per second, e.g. 0.001,1.25e8")
    return float(match[1]), float(match[2])
