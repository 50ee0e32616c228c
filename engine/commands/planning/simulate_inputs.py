"""The options of `noodle-engine simulate` as a scenario; every wrong one is refused in one sentence."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from engine.commands.machine.profile import read_profile
from engine.commands.planning.options import Simulate, SimulatedMachines, SimulatedModel, SimulatedSessions
from engine.data.errors import InvalidInput
from engine.data.model import Item
from engine.data.plan import GIVEN, Plan, Stage
from engine.files import read_document
from engine.planning.manual_plan import check_layers
from engine.planning.strategies import check_strategy
from engine.simulation.arrivals import Arrival, at_once, poisson, trace
from engine.simulation.cost import CostSource, ItemTimes, ProfileCosts
from engine.simulation.inputs import items_of
from engine.simulation.planned import plan_for_load
from engine.simulation.scenario import LinkModel, NodeSetup, Scenario, SoftwareCosts, VirtualHost, patient_limits

_ONE_HOST = "host"


def scenario_of(options: Simulate) -> Scenario:
    """Raises InvalidInput, NotFound or Corrupt, and Refused for a profile that is too noisy."""
    machines = options.machines
    items, costs = _model(options.model)
    plan = _plan(options.model, len(items))
    nodes = _nodes(machines, plan)
    if plan is not None and not plan.stages[0].node_id:
        plan = _on_nodes(plan, nodes)
    strategy = check_strategy(options.model.strategy)
    scenario = Scenario(
        items=items,
        costs=costs,
        nodes=nodes,
        arrivals=_arrivals(options.load),
        plan=plan,
        strategy=strategy,
        hosts=(VirtualHost(_ONE_HOST, machines.one_host),) if machines.one_host else (),
        coordinator_host=_ONE_HOST if machines.one_host else "",
        link=LinkModel(machines.latency_ms / 1e3, machines.bandwidth or math.inf),
        links=dict(map(_link, machines.link)),
        software=SoftwareCosts(machines.hop_ms / 1e3, machines.neighbour_share, machines.open_ms / 1e3),
        limits=patient_limits(prompt_chunk_tokens=options.load.prompt_chunk),
        context_tokens=options.model.context_tokens or 2**40,
    )
    return scenario if plan is not None else replace(scenario, plan=plan_for_load(scenario, strategy))


def _model(options: SimulatedModel) -> tuple[tuple[Item, ...], CostSource]:
    if options.profile is None and options.item_ms:
        times = tuple(time_ms / 1e3 for time_ms in options.item_ms)
        return tuple(Item(f"item.{k}", 0, 0, 0) for k in range(len(times))), ItemTimes(times, options.extra_token_share)
    if options.profile is None or options.item_ms:
        raise InvalidInput("give either --profile FILE (from `noodle-engine profile`) or --item-ms T,T,..., one time per item")
    profile = read_profile(options.profile)
    profile.check_usable()
    if profile.cost_model is None:
        raise InvalidInput(f"{options.profile} has no cost model: take the profile again on a quieter machine")
    return items_of(profile), ProfileCosts(profile.cost_model)


# ---------------------------------------------------------------------------------------------- plan and nodes
def _plan(options: SimulatedModel, num_items: int) -> Plan | None:
    """The plan that was given, its nodes unnamed when only layer counts are known; None to let a strategy plan."""
    if options.plan is not None and options.layers:
        raise InvalidInput("give either --plan FILE or --layers N,N,..., not both")
    if options.plan is not None:
        return Plan(1, GIVEN, read_plan(options.plan))
    if not options.layers:
        return None
    check_layers(options.layers, num_items)
    starts = [sum(options.layers[:k]) for k in range(len(options.layers))]
    return Plan(1, GIVEN, tuple(Stage("", start, start + n) for start, n in zip(starts, options.layers, strict=True)))


def read_plan(path: Path) -> tuple[Stage, ...]:
    """The stages of a plan as `noodle-engine plan --json` prints it: {"stages": [{"node", "start", "stop"}, ...]}."""
    raw = _read(path, "a plan", json.loads)
    rows = raw.get("stages") if isinstance(raw, dict) else None
    if not isinstance(rows, list) or not rows:
        raise InvalidInput(f"{path} is not a plan: it needs a list 'stages' of objects with node, start and stop")
    return tuple(_stage(path, k, row) for k, row in enumerate(rows))


def _stage(path: Path, index: int, row: Any) -> Stage:
    node, start, stop = (row.get(name) for name in ("node", "start", "stop")) if isinstance(row, dict) else (None,) * 3
    if not isinstance(node, str) or type(start) is not int or type(stop) is not int or not 0 <= start < stop:
        raise InvalidInput(f"{path}: stage {index} needs a node name and whole numbers 0 <= start < stop")
    return Stage(node, start, stop)


def _nodes(options: SimulatedMachines, plan: Plan | None) -> tuple[NodeSetup, ...]:
    if options.node and (options.workers is not None or options.slowdown):
        raise InvalidInput("give either --node for every node or --workers with --slowdown, not both")
    shared = {"host_id": _ONE_HOST if options.one_host else "", "num_threads": options.threads}
    cores = {
        "busy_cores": options.busy_cores,
        "prompt_busy_cores": options.busy_cores if options.prompt_busy_cores is None else options.prompt_busy_cores,
    }
    memory = {"kv_budget_bytes": options.kv_memory_bytes} if options.kv_memory_bytes is not None else {}
    common: dict[str, Any] = {**shared, **cores, **memory}
    if options.node:
        return tuple(NodeSetup(**{**common, **_node(text)}) for text in options.node)
    if plan is not None and plan.stages[0].node_id:
        names = [stage.node_id for stage in plan.stages]
    else:
        names = [f"w{k + 1}" for k in range(options.workers or (len(plan.stages) if plan else 3))]
    if len(options.slowdown) > len(names):
        raise InvalidInput(f"--slowdown has {len(options.slowdown)} factors for {len(names)} nodes: leave some out")
    factors = (*options.slowdown, *(1.0,) * (len(names) - len(options.slowdown)))
    return tuple(NodeSetup(name, slowdown=factor, **common) for name, factor in zip(names, factors, strict=True))


def _node(text: str) -> dict[str, Any]:
    """`NAME[,slowdown=F][,kv-memory=BYTES][,busy-cores=F]`."""
    name, *parts = text.split(",")
    known = {"slowdown": ("slowdown", float), "kv-memory": ("kv_budget_bytes", int), "busy-cores": ("busy_cores", float)}
    found: dict[str, Any] = {"node_id": name}
    for part in parts:
        key, _, value = part.partition("=")
        if key not in known:
            raise InvalidInput(f"--node {text[:80]!r}: {key[:40]!r} is unknown: use {', '.join(known)}")
        field, kind = known[key]
        found[field] = _number(f"--node {text[:80]!r}: {key}", value, kind)
    return found


def _on_nodes(plan: Plan, nodes: Sequence[NodeSetup]) -> Plan:
    """Layer counts on the first nodes, in the order in which they were given."""
    if len(plan.stages) > len(nodes):
        raise InvalidInput(f"--layers names {len(plan.stages)} stages, there are {len(nodes)} nodes: give as many")
    return Plan(1, GIVEN, tuple(Stage(node.node_id, s.start, s.stop) for s, node in zip(plan.stages, nodes, strict=False)))


def _link(text: str) -> tuple[tuple[str, str], LinkModel]:
    """`FROM:TO,latency-ms=F[,bandwidth=BYTES_PER_S]`."""
    ends, *parts = text.split(",")
    sender, colon, receiver = ends.partition(":")
    values = {"latency-ms": 0.0, "bandwidth": math.inf}
    for part in parts:
        key, _, value = part.partition("=")
        if key not in values:
            raise InvalidInput(f"--link {text[:80]!r}: {key[:40]!r} is unknown: use {', '.join(values)}")
        values[key] = _number(f"--link {text[:80]!r}: {key}", value, float)
    if not colon:
        raise InvalidInput(f"--link {text[:80]!r} is not allowed: write FROM:TO,latency-ms=F,bandwidth=BYTES_PER_S")
    return (sender, receiver), LinkModel(values["latency-ms"] / 1e3, values["bandwidth"])


# ---------------------------------------------------------------------------------------------- sessions
def _arrivals(options: SimulatedSessions) -> tuple[Arrival, ...]:
    if (path := options.trace) is not None:
        return trace(_read(path, "a trace", lambda text: list(_rows(path, text))))
    if options.rate is not None:
        generator = random.Random(options.seed)
        return poisson(options.sessions, options.rate, options.prompt_tokens, options.new_tokens, generator)
    return at_once(options.sessions, options.prompt_tokens, options.new_tokens)


def _rows(path: Path, text: str) -> list[tuple[float, int, int]]:
    """Lines `arrival_s,prompt_tokens,new_tokens`; empty ones, comments and a header are skipped."""
    rows = []
    for number, line in enumerate(text.splitlines(), 1):
        cells = [cell.strip() for cell in line.split(",")]
        if not line.strip() or line.startswith("#") or (number == 1 and cells[0] == "arrival_s"):
            continue
        if len(cells) != 3:
            raise InvalidInput(f"{path}, line {number}: {line[:60]!r} must be arrival_s,prompt_tokens,new_tokens")
        where = f"{path}, line {number}"
        rows.append((_number(where, cells[0], float), _number(where, cells[1], int), _number(where, cells[2], int)))
    if not rows:
        raise InvalidInput(f"{path} holds no session: write lines arrival_s,prompt_tokens,new_tokens")
    return rows


def _number(where: str, text: str, kind: Callable[[str], Any]) -> Any:
    try:
        value = kind(text)
    except ValueError as error:
        raise InvalidInput(f"{where}: {text[:40]!r} is no {'whole ' if kind is int else ''}number") from error
    if not math.isfinite(value):
        raise InvalidInput(f"{where}: {text[:40]!r} is not finite")
    return value


def _read(path: Path, what: str, parse: Callable[[str], Any]) -> Any:
    text = read_document(path, what)
    try:
        return parse(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise InvalidInput(f"{path} is not JSON ({error}): it cannot be {what}") from error
