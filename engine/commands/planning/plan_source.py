"""Where `noodle-engine plan` gets its problem from, and the plan that runs: a document, or a running cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
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
from engine.planning.estimating.estimate import Machine, estimate
from engine.planning.estimating.machine_links import MachineLinks, NamedLink, links_between
from engine.planning.export.modules import modules_of
from engine.planning.problem import MOST_PRICE, Link, Problem
from engine.profile.hardware import HardwareCapability
from engine.profile.profile import Profile

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Source:
    """The problem as its source states it, its model, and what runs now; `running` is () when nothing is known to run."""

    problem: Problem
    running: tuple[Stage, ...] = ()
    plan_version: int = 0
    model: str = ""
    has_random_weights: bool = False  # then its name means nothing to another program
    modules: tuple[tuple[str, ...], ...] = ()  # of every item, as a profile names them

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
    if options.profile is None and (options.hardware or options.link or options.price):
        raise InvalidInput("--hardware, --link and --price say which machines --profile is for: name a profile, or leave them out")
    if options.connection.connect:
        if options.current is not None:
            raise InvalidInput("--connect asks the cluster for the plan that runs: leave --current out")
        return asyncio.run(_from_cluster(options.connection))
    if options.profile is not None:
        source = _estimated(options.profile, options, wanted, strategy)
    else:
        source = Source(read_as("problem", options.problem or Path("-"), read_problem))
    if options.current is None:
        return source
    current = read_as("plan", options.current, plan_from_json)
    return replace(source, running=current.ranges, plan_version=current.plan_version, model=current.model or source.model)


def _estimated(profile_path: Path, options: PlanSource, wanted: Wanted, strategy: str) -> Source:
    """From a profile and what the doctor found on each machine; says on stderr what is left out, and why."""
    if not options.hardware:
        raise InvalidInput(
            "--profile needs a machine to plan for: name what `noodle-engine doctor --hardware --json` wrote with --hardware FILE"
        )
    profile = read_as("profile", profile_path, Profile.from_json)
    machines = [Machine(path.stem, _devices(path)) for path in options.hardware]
    found = _links(options, machines)
    load = {"context_tokens": wanted.context_tokens or 0, "in_flight": wanted.in_flight or 1}
    problem, match = estimate(profile, machines, strategy, found.links, sessions=wanted.sessions, **load)
    for refusal in match.refusals:
        note(f"left out: {refusal.reason}")
    for sentence in found.assumed:
        note(sentence)
    problem = _priced(problem, options.price, machines, strategy)
    scores = sorted(match.scores.items(), key=lambda pair: -pair[1])
    note(f"suited for {strategy}, 0 to 1: {', '.join(f'{node_id} {score:.2f}' for node_id, score in scores)}")
    return Source(problem, model=profile.model, has_random_weights=profile.random_weights, modules=modules_of(profile))


def _links(options: PlanSource, machines: list[Machine]) -> MachineLinks:
    given = [(entry.ends, Link(entry.latency_s, entry.bandwidth_bytes_per_s)) for entry in options.link]
    everywhere = [link for ends, link in given if not ends]
    if len(everywhere) > 1:
        raise InvalidInput("--link is given twice for all machines: keep one, or name a pair, e.g. A-B=0.001,1.25e8")
    return links_between(machines, [NamedLink(ends, link) for ends, link in given if ends], everywhere[0] if everywhere else None)


def _priced(problem: Problem, prices: tuple[str, ...], machines: list[Machine], strategy: str) -> Problem:
    """With the prices that were given, for all nodes or for none; else with watts, and unknown ones are taken for the largest known."""
    given = dict(map(_price, prices))
    known = {machine.name: [node.node_id for node in machine.nodes()] for machine in machines}
    machine_of = {node_id: name for name, nodes in known.items() for node_id in nodes}
    if unknown := [name for name in given if name not in known and name not in machine_of]:
        raise InvalidInput(f"--price names {unknown[0][:64]!r}, which is no machine and no node: there are {', '.join(known)}")
    per_s = {n.node_id: given.get(n.node_id, given.get(machine_of[n.node_id])) for n in problem.nodes}
    if given and (without := [node_id for node_id, price in per_s.items() if price is None]):
        raise InvalidInput(f"--price is given for some nodes and not for {', '.join(without[:4])}: give it for all, or for none")
    if given:
        return replace(problem, nodes=tuple(replace(n, price_per_s=per_s[n.node_id] or 0.0) for n in problem.nodes))
    silent = [n.node_id for n in problem.nodes if n.price_per_s == 0]
    most = max(n.price_per_s for n in problem.nodes)
    if strategy == "cost" and silent:
        taken = f"taken for {most:g} W like the largest known" if most else "so all cost the same"
        note(f"{', '.join(silent[:4])}: the power is not known, {taken}; give --price NAME=PER_S")
        return replace(problem, nodes=tuple(replace(n, price_per_s=n.price_per_s or most or 1.0) for n in problem.nodes))
    return problem


def _price(text: str) -> tuple[str, float]:
    name, equals, price = text.rpartition("=")
    with suppress(ValueError):
        if equals and name and 0 <= float(price) <= MOST_PRICE:
            return name, float(price)
    raise InvalidInput(f"--price {text[:60]!r} is not allowed: give NAME=PER_S, e.g. box=0.0007")


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
    model = status.model
    return Source(read_problem(problem), tuple(_running(status)), status.plan_version, model.name, model.random_weights)


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
