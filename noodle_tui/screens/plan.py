"""Screen 3: the plan as stages on a time axis, as layers, or as memory; who owns which item; what changed since."""

from __future__ import annotations

from collections.abc import Sequence

from engine.data.status import ClusterStatus, Severity, StageStatus
from engine.diagnosis.diagnose import memory_share
from noodle_tui.core.history import PlanSeen
from noodle_tui.core.pages import PLAN_MODES, Page
from noodle_tui.listings import table_of
from noodle_tui.listings.causes import likely_cause
from noodle_tui.listings.machines import FOLD_FROM, MachineRow, folds_stages, owner_names
from noodle_tui.listings.nodes import NodeRow
from noodle_tui.listings.stage_times import step_times
from noodle_tui.listings.stages import StageRow, stage_rows
from noodle_tui.listings.strategies import owners
from noodle_tui.state import ConsoleState, View
from noodle_tui.text.figures import age, clock, percent, signed_percent, size, with_ms
from noodle_tui.text.lines import BLANK, Canvas, Line, Lines, Span, fit, line
from noodle_tui.text.tables import arrange, cursor_index, draw_table
from noodle_tui.widgets.bars import parts_bar
from noodle_tui.widgets.history.trends import Trend, filling, of_node
from noodle_tui.widgets.plan.axis_bars import axis_of, machine_bars, name_cells, stage_bars
from noodle_tui.widgets.plan.owner_row import axis_row, cost_row, legend, letters_of, moves_row, owner_row
from noodle_tui.widgets.plan.stage_split import split_lines

SPLIT_FROM = 22  # rows; fewer go to the hops
Row = StageRow | MachineRow


def plan_body(state: ConsoleState, canvas: Canvas) -> Lines:
    """Title, the view that `v` chose, owners, and the stage that the cursor is on."""
    view, table = state.shown, table_of(state, Page.PLAN)
    if view is None or table is None:
        return ()
    if not table.rows:
        return (line(Span(" PLAN", "title"), "  none yet"), line(f" {table.empty}"))
    rows = arrange(table, state.ui.listing(Page.PLAN))
    cursor = cursor_index(table, rows, state.ui.listing(Page.PLAN))
    title = _title(state, view, canvas)
    row: Row | None = rows[cursor] if rows else None
    bottom = _bottom(state, view, row.slowest if isinstance(row, MachineRow) else row, canvas)
    room = canvas.height - len(title) - len(bottom) - 1
    middle = _MODES[PLAN_MODES[state.ui.plan_mode]](state, rows, cursor, canvas.sized(canvas.width, room))
    shown = (*title, *middle[:room], BLANK, *bottom)
    chosen = row.slowest if isinstance(row, MachineRow) else row
    return (*shown, *filling(state, _of_stage(state, chosen), canvas.sized(canvas.width, canvas.height - len(shown))))[: canvas.height]


def _of_stage(state: ConsoleState, row: StageRow | None) -> tuple[Trend, ...]:
    """Graphs of the chosen stage's node."""
    return of_node(state, NodeRow(row.node, row.index, row.stage)) if row is not None and row.node is not None else ()


def _since(view: View, seen: PlanSeen | None) -> str:
    """When the plan began to serve; without that event, since when it was seen to."""
    name = f"#{view.status.plan_version}"
    began = [event.wall_s for event in view.events if (event.kind, event.subject, event.severity) == ("plan", name, Severity.OK)]
    if began:
        return f"  since {clock(min(began))}"
    return f"  seen since {clock(seen.first_wall_s)}" if seen is not None else ""


def _title(state: ConsoleState, view: View, canvas: Canvas) -> Lines:
    status = view.status
    seen = next((plan for plan in reversed(state.history.plans) if plan.plan_version == status.plan_version), None)
    planned_s, actual_s = step_times(status)
    text = f"  planned {with_ms(planned_s)}"
    if actual_s:
        text += f"  measured {with_ms(actual_s)} ({signed_percent(actual_s / planned_s - 1 if planned_s else None)})"
    since = _since(view, seen)
    name = f" PLAN #{status.plan_version} {status.strategy}"
    text += since if len(name) + len(text) + len(since) <= canvas.width else ""
    return (line(Span(name, "title"), text), line(Span(f" {_hints(state, view.status, canvas)}", "dim")))


def _hints(state: ConsoleState, status: ClusterStatus, canvas: Canvas) -> str:
    """What the keys choose here, and the scale of the axis."""
    mode = PLAN_MODES[state.ui.plan_mode]
    hints = state.named("{view.mode}: ") + " / ".join(name.upper() if name == mode else name for name in PLAN_MODES)
    if len(status.stages) >= FOLD_FROM:
        ways = ("by machine", "one by one")
        first, other = ways if folds_stages(state) else ways[::-1]
        hints += state.named("   {view.expand}: ") + f"{len(status.stages)} stages {first}, or {other}"
    axis = axis_of(stage_rows(state), canvas)
    scale = f"   {axis}" if mode == "time" and axis.total_s > 0 else ""
    return hints + scale if len(hints) + len(scale) < canvas.width else hints


# --- the three views ------------------------------------------------------------------------------------------
def _time_view(state: ConsoleState, rows: Sequence[Row], cursor: int, canvas: Canvas) -> Lines:
    """A bar per stage where it lies in the step; of a large plan one row per machine, with all its stages."""
    chosen, axis = rows[cursor].index if rows else -1, axis_of(stage_rows(state), canvas)
    machines = [row for row in rows if isinstance(row, MachineRow)]
    if machines:
        return machine_bars(machines, axis, chosen, canvas)
    return stage_bars([row for row in rows if isinstance(row, StageRow)], axis, chosen, canvas)


def _layer_view(state: ConsoleState, rows: Sequence[Row], cursor: int, canvas: Canvas) -> Lines:
    table = table_of(state, Page.PLAN)
    return draw_table(table, state.ui.listing(Page.PLAN), canvas) if table else ()


def _memory_view(state: ConsoleState, rows: Sequence[Row], cursor: int, canvas: Canvas) -> Lines:
    """Per stage: what its node holds now, of what it may use."""
    key = f"{canvas.glyphs.full} in use without KV   + KV   {canvas.glyphs.empty} free"
    head = line(Span(f" {'STAGE':<{name_cells(canvas)}} {key}", "dim"))
    lines = [head]
    for i, row in enumerate(rows):
        mark = Span(canvas.glyphs.cursor if i == cursor else " ", "accent")
        lines.append(line(mark, fit(row.name, name_cells(canvas), canvas.glyphs), " ", *_memory_bar(row, state, canvas)))
    return tuple(lines)


def _memory_bar(row: Row, state: ConsoleState, canvas: Canvas) -> Line:
    node = row.node
    if node is None or node.memory_bytes <= 0:
        return line(Span("its node has not told its memory", "dim"))
    share, used_bytes = memory_share(node), max(0, node.gauges.resident_bytes - node.runtime_bytes)
    kv = min(node.gauges.kv_used_bytes, used_bytes)
    shares = ((used_bytes - kv) / node.memory_bytes, canvas.glyphs.full, "low"), (kv / node.memory_bytes, "+", "mid")
    text = f" {percent(share):>4} {size(used_bytes)}/{size(node.memory_bytes)}"
    if canvas.width >= 76:
        text += f"  KV {size(node.gauges.kv_used_bytes)}/{size(node.kv_budget_bytes)}"
    style = "warn" if share > state.thresholds.memory else "text"
    return line(*parts_bar(shares, max(12, canvas.width - name_cells(canvas) - 4 - len(text)), canvas.glyphs), Span(text, style))


_MODES = {"time": _time_view, "layers": _layer_view, "memory": _memory_view}


# --- below ----------------------------------------------------------------------------------------------------
def _bottom(state: ConsoleState, view: View, row: StageRow | None, canvas: Canvas) -> Lines:
    if canvas.height < 12:
        return ()
    owner_lines = _owners(state, view.status, canvas)
    stage_lines = _stage(state, row, canvas) if row is not None and canvas.height >= 16 else ()
    return (*owner_lines, *([BLANK] if stage_lines and canvas.height >= 20 else []), *stage_lines)


def _owners(state: ConsoleState, status: ClusterStatus, canvas: Canvas) -> Lines:
    """Owners and cost of every item; with `c` the earlier plan's owners and what moved since."""
    earlier = next((plan for plan in state.history.plans if plan.plan_version == state.ui.compare_version), None)
    now, before = (_owners_of(state, stages) for stages in (status.stages, earlier.stages if earlier else ()))
    letters = letters_of([*(now[i] for i in sorted(now)), *(before[i] for i in sorted(before))])
    lines = [axis_row(status.model.num_items, canvas)]
    if earlier is not None:
        lines.append(owner_row(f"#{earlier.plan_version}", before, letters, status.model.num_items, canvas))
    lines.append(owner_row("OWNER" if earlier is None else "now", now, letters, status.model.num_items, canvas))
    if earlier is not None:
        lines.append(moves_row(before, now, status.model.num_items, canvas))
    else:
        lines.append(_costs(state, status, canvas))
    return (*lines, legend(letters, canvas))


def _owners_of(state: ConsoleState, stages: tuple[StageStatus, ...]) -> dict[int, str]:
    """Of every item its node, or the node's machine where the plan is shown by machine."""
    names = owner_names(state)
    return {i: names.get(node, node) for i, node in owners(stages).items()}


def _costs(state: ConsoleState, status: ClusterStatus, canvas: Canvas) -> Line:
    """Profiled times where the profile is of a model with as many items, else the mean of each stage."""
    view = state.profile.view
    phase = next((p for p in view.phases if p.point.phase == "decode" and len(p.items) == status.model.num_items), None) if view else None
    if phase is not None:
        return cost_row([item.p50_s for item in phase.items], status.model.num_items, "profiled", canvas)
    times = [0.0] * status.model.num_items
    for row in stage_rows(state):
        for i in range(row.stage.start, min(row.stage.stop, status.model.num_items)):
            times[i] = row.time_s / (row.stage.stop - row.stage.start)
    return cost_row(times, status.model.num_items, "mean of its stage", canvas)


def _stage(state: ConsoleState, row: StageRow, canvas: Canvas) -> Lines:
    stage, node = row.stage, row.node
    head = f"S{row.index} {stage.worker_id}  items {stage.start}-{stage.stop - 1} ({stage.stop - stage.start})"
    if node is not None:
        head += f"   {size(node.gauges.resident_bytes)} resident   KV {size(node.gauges.kv_used_bytes)}   queue {node.gauges.queue_depth}"
    excess = f" {signed_percent(row.time_s / stage.planned_s - 1)}" if stage.num_steps and stage.planned_s > 0 else ""
    times = f"   planned {with_ms(stage.planned_s)}  measured {with_ms(stage.compute_p50_s)}{excess}   waits {with_ms(stage.queue_p50_s)}"
    if node is not None:
        times += f"   util {percent(node.gauges.cpu_utilisation)}  seen {age(node.heartbeat_age_s)}"
    rows = [
        line(" ", Span(head, "accent")),
        line(times),
        *(split_lines(stage, "   split    ", canvas) if canvas.height >= SPLIT_FROM else ()),
    ]
    cause = likely_cause(NodeRow(node, row.index, stage), state.thresholds) if node is not None else ""
    rows += [line(Span("   cause?  ", "warn"), fit(cause, canvas.width - 11, canvas.glyphs).rstrip())] if cause else []
    return (*rows, _past(state, stage.worker_id))


def _past(state: ConsoleState, worker_id: str) -> Line:
    """What this node's stage took in the plans before."""
    seen = [(plan, stage) for plan in state.history.plans[-5:] for stage in plan.stages if stage.worker_id == worker_id]
    texts = [
        f"#{plan.plan_version} {with_ms(stage.compute_p50_s or stage.planned_s)}{'' if stage.compute_p50_s else ' planned'}"
        for plan, stage in seen
    ]
    return line(
        Span("   history ", "dim"), "  ".join(texts) or "-", Span(state.named("   {view.compare} = compare plans   {nav.in} = node"), "dim")
    )
