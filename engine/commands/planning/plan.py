"""`noodle-engine plan`: solve a planning problem given as a JSON document and print the plan with its certificate."""

from __future__ import annotations

import math
import re
import time
from dataclasses import replace
from typing import Any

from engine.commands.output import note, print_json, say, table
from engine.commands.planning import plan_compare, plan_export
from engine.commands.planning.options import Plan, Wanted
from engine.commands.planning.plan_source import load
from engine.data.errors import InvalidInput
from engine.files import replace_whole
from engine.planning.documents.partition_plan import PartitionPlan
from engine.planning.documents.plan_diff import diff
from engine.planning.documents.problem_json import constraints_from, problem_to_json
from engine.planning.load import Steps
from engine.planning.partitioner import StaticPartitioner
from engine.planning.problem import Problem
from engine.planning.strategies import check_strategy
from engine.printable import printable


def plan(options: Plan) -> int:
    """Print the plan, or with --compare those of all strategies; an infeasible problem is refused with the limit that binds."""
    check_strategy(options.strategy)
    source = load(options.source, options.wanted, options.strategy)
    problem = with_options(source.problem, options.wanted)
    plan_export.check(options)
    if options.write_problem is not None:
        replace_whole(options.write_problem, f"{problem_to_json(problem)}\n".encode("ascii"))
        note(f"the problem is in {options.write_problem}: edit it, and solve it with `noodle-engine plan --problem`")
    if options.compare:
        return plan_compare.compare_all(options, source, problem)
    if options.exporting.running:
        return plan_export.show(options, plan_export.running_plan(source, problem), source)
    found = StaticPartitioner(problem, source.model, time.perf_counter).partition(options.strategy, with_notes=not options.no_notes)
    if options.exporting.export:
        return plan_export.show(options, found, source)
    running = source.running_plan(problem)
    moves = None if running is None else diff(running, found)
    if options.json:
        compared = {} if moves is None else {"moves": plan_compare.moves_document(moves)}
        print_json(found.document() | _steps_document(problem, found) | compared)
    else:
        say(f"{found.visualize(plan_compare.drawing_width())}\n\n{text(problem, found)}")
        if moves is not None:
            say(f"from the running plan #{source.plan_version}: {plan_compare.moves_text(moves)}")
    return 0


def with_options(problem: Problem, options: Wanted) -> Problem:
    """The problem with what the command line says instead."""
    for option, field in (("in_flight", "in_flight"), ("sessions", "sessions"), ("context_tokens", "context_tokens")):
        if getattr(options, option) is not None:
            problem = replace(problem, **{field: getattr(options, option)})
    if options.in_flight is not None and options.sessions is None and problem.is_batched:
        problem = replace(problem, sessions=max(problem.sessions, options.in_flight))
    if options.node_order is not None:
        problem = replace(problem, free_order=options.node_order == "free")
    if options.use_all_nodes:
        problem = replace(problem, use_all_nodes=True)
    given = constraints_from(_constraints(options), [item.name for item in problem.items])
    changes = {name: getattr(given, name) for name in _named(options)}
    if "pins" in changes:
        changes["pins"] = tuple({**dict(problem.constraints.pins), **dict(given.pins)}.items())
    if "forbidden_nodes" in changes:
        changes["forbidden_nodes"] = tuple({*problem.constraints.forbidden_nodes, *given.forbidden_nodes})
    return replace(problem, constraints=replace(problem.constraints, **changes))


_OPTIONS = {
    "max_stages": "max_stages",
    "min_items": "min_items_per_stage",
    "max_items": "max_items_per_stage",
    "memory_reserve_bytes": "memory_reserve_bytes",
    "latency_limit_s": "latency_limit_s",
}


def _constraints(options: Wanted) -> dict[str, Any]:
    raw: dict[str, Any] = {key: getattr(options, option) for option, key in _OPTIONS.items() if getattr(options, option) is not None}
    if options.pin:
        raw["pins"] = dict(_pin(text) for text in options.pin)
    if options.forbid:
        raw["forbidden_nodes"] = list(options.forbid)
    if options.stage_items is not None:
        if not re.fullmatch(r"[0-9]{1,9}(,[0-9]{1,9})*", options.stage_items):
            raise InvalidInput(
                f"--stage-items {options.stage_items[:60]!r} is not allowed: give whole numbers joined by commas, e.g. 4,4,5"
            )
        raw["stage_items"] = [int(part) for part in options.stage_items.split(",")]
    return raw


def _named(options: Wanted) -> list[str]:
    return list(_constraints(options))


def _pin(text: str) -> tuple[str, str]:
    item, equals, node = text.rpartition("=")
    if not equals or not item or not node:
        raise InvalidInput(f"--pin {text[:60]!r} is not allowed: give ITEM=NODE, e.g. h.0=a")
    return item, node


def text(problem: Problem, found: PartitionPlan) -> str:
    """The plan for people."""
    rows = [
        (
            str(k),
            ascii(s.node_id)[1:-1],
            f"{s.start}-{s.stop - 1}",
            str(s.stop - s.start),
            _ms(s.time_s),
            _ms(s.hop_s),
            _memory(s.memory_bytes, s.room_bytes),
        )
        for k, s in enumerate(found.stages)
    ]
    proof, search = found.proof, found.search
    good = "optimal" if proof.optimal else f"within {100 * proof.gap:.2f} % of the optimum (no plan is below {proof.lower_bound:.6g})"
    lines = [
        f"{found.strategy}: {len(found.stages)} of {len(problem.nodes)} nodes, {good}; {search.method}, {search.solve_ms:.1f} ms",
        table(("STAGE", "NODE", "ITEMS", "COUNT", "COMPUTE ms", "HOP ms", "MEMORY"), rows),
        f"bottleneck {_ms(found.bottleneck_s)} ms, round trip {_ms(found.round_trip_s)} ms, "
        f"period at {problem.in_flight} in flight{_shared(problem, found)} {_ms(found.period_s)} ms ({1 / found.period_s:.4g} tokens/s)"
        if found.period_s > 0
        else "bottleneck, round trip and period are 0 ms",
        f"load balance {found.load_balance:.2f} (the mean of the stages' times by the longest one)",
        f"binds: {found.binds}",
        f"route: {search.route} ({search.why})",
        *(f"would help: {note}" for note in found.notes),
    ]
    if not proof.ties_searched:
        lines.append("among plans of this objective the tie-breaks were not searched: there are too many")
    lines += found.doubts
    return printable("\n".join(lines))


def _steps(problem: Problem, found: PartitionPlan) -> Steps | None:
    """How the sessions in flight share steps; None where each has its own."""
    if not problem.is_batched:
        return None
    index = {node.node_id: number for number, node in enumerate(problem.nodes)}
    return problem.steps(index[stage.node_id] for stage in found.stages)


def _steps_document(problem: Problem, found: PartitionPlan) -> dict[str, Any]:
    steps = _steps(problem, found)
    return {} if steps is None else {"steps_in_flight": steps.in_flight, "rows_per_step": steps.rows}


def _shared(problem: Problem, found: PartitionPlan) -> str:
    steps = _steps(problem, found)
    return "" if steps is None else f", {steps.in_flight} steps of {steps.rows:.3g} rows,"


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:.4g}"


def _memory(used: float, room: float) -> str:
    return f"{used / 1e6:.4g} MB" + (f" of {room / 1e6:.4g}" if math.isfinite(room) else "")
