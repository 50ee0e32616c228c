"""Where `noodle-engine plan` gets its problem from, and the plan that runs: a document, or a running cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from engine.commands.connection import Connection
from engine.commands.output import note
from engine.commands.planning.options import PlanSource, Wanted
from engine.data.errors import InvalidInput, NoodleError
from engine.data.plan import Stage
from engine.data.status import ClusterStatus
from engine.data.typed_json import decode, read_object
from engine.files import read_document, read_stdin, shown
from engine.planning.documents.partition_plan import PartitionPlan
from engine.planning.documents.plan_json import plan_from_json
from engine.planning.documents.problem_json import read_problem
from engine.planning.estimate import Machine, estimate
from engine.planning.problem import Link, Problem
from engine.profile.hardware import HardwareCapability
from engine.profile.profile import Profile

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Source:
    """The problem as its source states it, and what runs now; `running` is () when nothing is known to run."""

    problem: Problem
    running: tuple[Stage, ...] = ()
    plan_version: int = 0
    model: str = ""

    def running_plan(self, problem: Problem) -> PartitionPlan | None:
        """What runs, at the costs of `problem`, which may say other things than the source does; None, and a note on stderr why,
        when a node of it cannot hold layers any more, since it drains or was lost."""
        gone = [stage.node_id for stage in self.running if stage.node_id not in {node.node_id for node in problem.nodes}]
        if gone:
            note(f"the running plan #{self.plan_version} cannot be compared: {', '.join(gone)} may hold no layers now")
        return PartitionPlan.of_running(problem, self.running, self.plan_version, self.model) if self.running and not gone else None


def load(options: PlanSource, wanted: Wanted, strategy: str) -> Source:
    """Raises InvalidInput for options that name no source or two, and for a document that is wrong."""
    sources = {"problem": options.problem, "connect": options.connection.connect, "profile": options.profile}
    given = [name for name, value in sources.items() if value]
    if len(given) != 1:
        what = f"{' and '.join(f'--{name}' for name in given)} are two problems" if given else "no problem is given"
        raise InvalidInput(f"{what}: name one, by --problem FILE, --connect HOST:PORT, or --profile FILE with --hardware FILE")
    if options.profile is None and (options.hardware or options.link is not None):
        raise InvalidInput("--hardware and --link say which machines --profile is for: name a profile, or leave them out")
    if options.connection.connect:
        if options.current is not None:
            raise InvalidInput("--connect asks the cluster for the plan that runs: leave --current out")
        return asyncio.run(_from_cluster(options.connection))
    if options.profile is not None:
        problem = _estimated(options.profile, options, wanted, strategy)
    else:
        problem = read_as("problem", options.problem or Path("-"), read_problem)
    if options.current is None:
        return Source(problem)
    current = read_as("plan", options.current, plan_from_json)
    return Source(problem, current.ranges, current.plan_version, current.model)


def _estimated(profile_path: Path, options: PlanSource, wanted: Wanted, strategy: str) -> Problem:
    """From a profile and what the doctor found on each machine; says on stderr what is left out, and why."""
    if not options.hardware:
        raise InvalidInput(
            "--profile needs a machine to plan for: name what `noodle-engine doctor --hardware --json` wrote with --hardware FILE"
        )
    profile = read_as("profile", profile_path, Profile.from_json)
    machines = [Machine(path.stem, _devices(path)) for path in options.hardware]
    link = Link(*options.link) if options.link is not None else Link()
    load = {"context_tokens": wanted.context_tokens or 0, "in_flight": wanted.in_flight or 1}
    problem, match = estimate(profile, machines, strategy, link, sessions=wanted.sessions, **load)
    for refusal in match.refusals:
        note(f"left out: {refusal.reason}")
    scores = sorted(match.scores.items(), key=lambda pair: -pair[1])
    note(f"suited for {strategy}, 0 to 1: {', '.join(f'{node_id} {score:.2f}' for node_id, score in scores)}")
    return problem


def _devices(path: Path) -> tuple[HardwareCapability, ...]:
    remedy = "write it again with `noodle-engine doctor --hardware --json`"

    def parse(text: str) -> tuple[HardwareCapability, ...]:
        raw = read_object(text, "what the doctor found", remedy)
        found: tuple[HardwareCapability, ...] = decode(tuple[HardwareCapability, ...], raw.get("capabilities"), "capabilities", remedy)
        return found

    return read_as("hardware", path, parse)


async def _from_cluster(connection: Connection) -> Source:
    async with connection.client() as client:
        problem, status = await client.problem_json(), await client.status()
    return Source(read_problem(problem), tuple(_running(status)), status.plan_version, status.model.name)


def _running(status: ClusterStatus) -> list[Stage]:
    return [Stage(stage.worker_id, stage.start, stage.stop) for stage in status.stages]


def read_as(what: str, path: Path, parse: Callable[[str], T]) -> T:
    """A document as `parse` reads it; `-` is stdin. What it raises names the file."""
    is_stdin = str(path) == "-"
    text = read_stdin(f"a {what}") if is_stdin else read_document(path, f"a {what}")
    try:
        return parse(text)
    except NoodleError as error:
        raise type(error)(f"{'standard input' if is_stdin else shown(path)}: {error}") from error
