"""`noodle-engine plan --compare`: every strategy on one problem, beside the plan that runs, in one table."""

from __future__ import annotations

import shutil
import time
from typing import Any

from engine.commands.output import print_json, say, table
from engine.commands.planning.options import Plan
from engine.commands.planning.plan_source import Source
from engine.planning.documents.comparison import ComparedPlan, compare
from engine.planning.documents.partition_plan import PartitionPlan
from engine.planning.documents.plan_diff import PlanDiff
from engine.planning.documents.plan_drawing import bottleneck_text, draw, plain
from engine.planning.problem import Problem

DEFAULT_WIDTH = 100


def compare_all(options: Plan, source: Source, problem: Problem) -> int:
    """Print the comparison; 1 if no strategy finds a plan."""
    running = source.running_plan(problem)
    sessions = many_sessions(problem)
    rows = compare(problem, running, time.perf_counter)
    if options.json:
        print_json({"sessions": sessions, "plans": [_row_document(row, sessions) for row in rows]})
    else:
        say(as_text(rows, sessions))
    return int(not any(row.plan for row in rows if row.plan is not running))


def many_sessions(problem: Problem) -> int:
    """The m of `tokens/s at m sessions`: what the problem says, else one for every node."""
    return problem.in_flight if problem.in_flight > 1 else max(2, len(problem.nodes))


def as_text(rows: tuple[ComparedPlan, ...], sessions: int) -> str:
    """One line for each plan, the drawing of the first new one, and why some strategies have none."""
    header = ("STRATEGY", "STEP ms", "TOK/S x1", f"TOK/S x{sessions}", "BOTTLENECK", "MEMORY", "MOVES", "PROOF", "STAGES")
    lines = [table(header, [_cells(row, row.plan, sessions) for row in rows if row.plan])]
    lines += [f"{row.strategy}: {plain(row.failure)}" for row in rows if row.failure]
    drawn = [row.plan for row in rows if row.plan][:1]
    return "\n".join([*lines, *("\n" + draw(plan, drawing_width()) for plan in drawn)])


def drawing_width() -> int:
    """The terminal's, as far as there is one."""
    return max(20, shutil.get_terminal_size((DEFAULT_WIDTH, 24)).columns)


def _cells(row: ComparedPlan, plan: PartitionPlan, sessions: int) -> tuple[str, ...]:
    rates = (f"{plan.tokens_per_s(1):.4g}", f"{plan.tokens_per_s(sessions):.4g}")
    proof = "-" if row.moves is None and not plan.search.solve_ms else "optimal" if plan.optimal else f"gap {100 * plan.gap:.2f} %"
    return (
        row.strategy,
        f"{1e3 * plan.round_trip_s:.4g}",
        *rates,
        bottleneck_text(plan),
        _memory(plan),
        moves_text(row.moves),
        proof,
        _stages(plan),
    )


def _stages(plan: PartitionPlan) -> str:
    text = plain(plan.ranges_text)
    return text if len(text) <= 60 else text[:57] + "..."


def _memory(plan: PartitionPlan) -> str:
    stage = plan.fullest
    share = f"{100 * stage.memory_bytes / stage.room_bytes:.0f} %" if stage.room_bytes > 0 else "no room"
    return f"{share} of {plain(stage.node_id)}"


def moves_text(moves: PlanDiff | None) -> str:
    """For people: how much moves, `-` when there is nothing to move from."""
    return "-" if moves is None else f"{len(moves.moves)} items, {moves.num_bytes / 1e6:.4g} MB" if moves.moves else "none"


def _row_document(row: ComparedPlan, sessions: int) -> dict[str, Any]:
    if row.plan is None:
        return {"strategy": row.strategy, "plan": None, "failure": row.failure}
    index, is_link = row.plan.bottleneck
    fullest = row.plan.fullest
    return {
        "strategy": row.strategy,
        "step_s": row.plan.round_trip_s,
        "tokens_per_s_alone": row.plan.tokens_per_s(1),
        "tokens_per_s": row.plan.tokens_per_s(sessions),
        "bottleneck": {"stage": index, "node": row.plan.stages[index].node_id, "is_link": is_link, "time_s": row.plan.bottleneck_s},
        "fullest": {"node": fullest.node_id, "memory_bytes": fullest.memory_bytes},
        "moves": moves_document(row.moves),
        "plan": row.plan.document(),
    }


def moves_document(moves: PlanDiff | None) -> dict[str, Any] | None:
    """The difference from the plan that runs, as scripts read it."""
    if moves is None:
        return None
    listed = [{"item": m.item, "name": m.name, "from": m.from_node, "to": m.to_node, "num_bytes": m.num_bytes} for m in moves.moves]
    return {"items": listed, "num_bytes": moves.num_bytes, "joining": list(moves.joining), "leaving": list(moves.leaving)}
