"""Where `noodle-engine plan` gets its problem from, and the plan that runs: a document, or a running cluster."""

from __future__ import annotations

import argparse
import asyncio
import sys
from dataclasses import dataclass
from pathlib import Path

from engine.data import ClusterStatus, InvalidInput, Stage
from engine.planning.partition_plan import PartitionPlan
from engine.planning.plan_json import plan_from_json
from engine.planning.problem import Problem
from engine.planning.problem_json import read_problem

MAX_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Source:
    """The problem as its source states it, and what runs now; `running` is () when nothing is known to run."""

    problem: Problem
    running: tuple[Stage, ...] = ()
    plan_version: int = 0
    model: str = ""

    def running_plan(self, problem: Problem) -> PartitionPlan | None:
        """What runs, at the costs of `problem`, which may say other things than the source does."""
        return PartitionPlan.of_running(problem, self.running, self.plan_version, self.model) if self.running else None


def load(options: argparse.Namespace) -> Source:
    """Raises InvalidInput for options that name no source or two, and for a document that is wrong."""
    if options.connect is not None:
        if options.problem is not None or options.current is not None:
            raise InvalidInput("--connect asks the cluster for problem and plan: leave --problem and --current out")
        return asyncio.run(_from_cluster(options))
    if options.problem is None:
        raise InvalidInput("no problem is given: name its JSON document with --problem FILE, or a running cluster with --connect HOST:PORT")
    problem = read_problem(read_file("problem", options.problem))
    if options.current is None:
        return Source(problem)
    current = plan_from_json(read_file("plan", options.current))
    return Source(problem, current.ranges, current.plan_version, current.model)


async def _from_cluster(options: argparse.Namespace) -> Source:
    from engine.service.client import Client  # loads gRPC, which a document does not need

    async with Client(options.connect, options.token, options.tls_ca) as client:
        problem, status = await client.problem_json(), await client.status()
    return Source(read_problem(problem), tuple(_running(status)), status.plan_version, status.model)


def _running(status: ClusterStatus) -> list[Stage]:
    return [Stage(stage.worker_id, stage.start, stage.stop) for stage in status.stages]


def read_file(what: str, path: Path) -> str:
    """The text of a document; `-` is stdin. Raises InvalidInput naming the file."""
    if str(path) == "-":
        return sys.stdin.read(MAX_BYTES)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InvalidInput(f"{what} file {path} has {path.stat().st_size} bytes: at most {MAX_BYTES} are read")
        return path.read_text(encoding="utf-8")
    except OSError as e:
        raise InvalidInput(f"{what} file {path} cannot be read: {e.strerror or e}") from None
    except UnicodeDecodeError as e:
        raise InvalidInput(f"{what} file {path} is not UTF-8 text: {e.reason} at byte {e.start}") from None
