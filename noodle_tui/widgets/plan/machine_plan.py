"""A plan of very many stages where there are few rows: the machines that take longest, each with its stages on the step's axis."""

from __future__ import annotations

from noodle_tui.listings.machines import machine_rows
from noodle_tui.listings.stages import stage_rows
from noodle_tui.state import ConsoleState
from noodle_tui.text.figures import with_ms
from noodle_tui.text.lines import Canvas, Line, Lines, Span, line, width_of
from noodle_tui.widgets.plan.axis_bars import Axis, axis_of, machine_bars

NO_CURSOR = -1


def machine_plan(state: ConsoleState, canvas: Canvas) -> Lines:
    """Title and machines in at most `canvas.height` rows; those in sight stand in execution order, the bottleneck's is among them."""
    machines, stages = machine_rows(state), stage_rows(state)
    if not machines or state.shown is None or canvas.height < 2:
        return ()
    room = canvas.height - 1 if len(machines) < canvas.height else canvas.height - 2
    longest = sorted(machines, key=lambda row: (not row.is_bottleneck, -row.time_s))[:room]
    axis = axis_of(stages, canvas)
    rows: list[Line] = [
        _title(state, len(stages), len(machines), axis, canvas),
        *machine_bars(longest, axis, NO_CURSOR, canvas.sized(canvas.width, len(longest))),
    ]
    hidden_s = [row.time_s for row in machines if row not in longest]
    if hidden_s:
        rows.append(line(Span(f" + {len(hidden_s)} more machines, at most {with_ms(max(hidden_s))} each", "dim")))
    return tuple(rows)


def _title(state: ConsoleState, num_stages: int, num_machines: int, axis: Axis, canvas: Canvas) -> Line:
    """What is shown, how to see more, and the scale where it fits."""
    row = line(
        Span(f" PLAN #{state.shown.status.plan_version if state.shown else 0}", "title"),
        Span(f"  {num_stages} stages on {num_machines} machines", "dim"),
    )
    for part in (f"   {state.named('{view.expand}')} = stages", f"   {axis}" if axis.total_s > 0 else "   no times yet"):
        if width_of(row) + len(part) < canvas.width:
            row = (*row, Span(part, "dim"))
    return row
