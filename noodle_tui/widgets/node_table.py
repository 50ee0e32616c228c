"""One row per node: its state in a word, its stage, a latency sparkline beside the number, memory, heartbeat age.

While a node starts, measures or loads, its row tells that instead: the sentence and how far it is.
"""

from __future__ import annotations

from dataclasses import dataclass

from engine.data import ClusterStatus, NodeState, NodeStatus, StageStatus
from noodle_tui.figures import age, ms, percent, size
from noodle_tui.lines import Canvas, Line, Lines, Span, fit, line
from noodle_tui.widgets.sparkline import sparkline

_STYLES = {
    NodeState.OK: "ok",
    NodeState.WARN: "warn",
    NodeState.SUSPECT: "warn",
    NodeState.DRAINING: "warn",
    NodeState.LOST: "error",
    NodeState.STARTING: "accent",
    NodeState.MEASURING: "accent",
    NodeState.LOADING: "accent",
}
BOOTING = frozenset({NodeState.STARTING, NodeState.MEASURING, NodeState.LOADING})
_NAME, _STATE = 10, 10  # cells of the fixed columns
WIDE_FROM = 72  # below this, utilisation gives way and memory is a percentage
ALMOST_FULL = 0.92  # of a node's memory
_STAGE = 19  # stage, items, p50


@dataclass(frozen=True, slots=True)
class Row:
    """A node with the stage it runs, if any."""

    node: NodeStatus
    stage_index: int | None
    stage: StageStatus | None


def ordered(status: ClusterStatus) -> tuple[Row, ...]:
    """Nodes in the order of their stages, then those without one."""
    where = {stage.worker_id: i for i, stage in enumerate(status.stages)}
    nodes = sorted(status.nodes, key=lambda n: (where.get(n.worker_id, len(where)), n.worker_id))
    return tuple(
        Row(node, where.get(node.worker_id), status.stages[where[node.worker_id]] if node.worker_id in where else None) for node in nodes
    )


def node_table(status: ClusterStatus, selected: int, canvas: Canvas) -> Lines:
    """Header, as many nodes as fit around the selected one, and that one's details if a row is left."""
    rows = ordered(status)
    room = canvas.height - 1
    if not rows or room < 1:
        return ()
    if len(rows) > room:
        room -= 1
    first = max(0, min(selected - room // 2, len(rows) - room))
    shown = rows[first : first + room]
    body = [_row(row, first + i == selected, canvas) for i, row in enumerate(shown)]
    if len(rows) > len(shown):
        body.append(line(Span(f" {first + 1}-{first + len(shown)} of {len(rows)} nodes, up and down move", "dim")))
    elif len(body) < room:
        body.append(_details(rows[selected].node, canvas))
    return (_header(canvas), *body)


def _stretch(canvas: Canvas) -> int:
    """Cells left for the sparkline."""
    tail = len(_gauge_heading(canvas))
    return max(6, canvas.width - 1 - _NAME - _STATE - _STAGE - tail - 2)


def _gauge_heading(canvas: Canvas) -> str:
    return f" {'UTIL':>4} {'MEMORY':>10} {'SEEN':>4}" if canvas.width >= WIDE_FROM else f" {'MEM':>4} {'SEEN':>4}"


def _header(canvas: Canvas) -> Line:
    last = fit("LAST STEPS, 0..2x plan" if _stretch(canvas) >= 22 else "LAST", _stretch(canvas) + 2, canvas.glyphs)
    text = f" {'NODE':<{_NAME}}{'STATE':<{_STATE}}{'STG':<4}{'ITEMS':<8}{'p50ms':>6} {last}{_gauge_heading(canvas)}"
    return line(Span(text, "dim"))


def _row(row: Row, selected: bool, canvas: Canvas) -> Line:
    node = row.node
    mark = Span(canvas.glyphs.cursor if selected else " ", "accent")
    name = fit(node.worker_id, _NAME - 1, canvas.glyphs) + " "
    state = Span(fit(str(node.state), _STATE - 1, canvas.glyphs) + " ", _STYLES[node.state])
    middle = _activity(node, canvas) if node.state in BOOTING or node.state is NodeState.LOST else _stage_cells(row, canvas)
    return line(mark, name, state, *middle, *_gauges(node, canvas))


def _stage_cells(row: Row, canvas: Canvas) -> Line:
    width = _stretch(canvas)
    stage = row.stage
    if stage is None:
        return line(Span(fit(row.node.detail or "no stage in this plan", _STAGE + width + 2, canvas.glyphs), "dim"))
    items = f"{stage.start}-{stage.stop - 1}" if stage.stop > stage.start else "-"
    numbers = f"{f'S{row.stage_index}':<4}{items:<8}{ms(stage.compute_p50_s or stage.predicted_s):>6}"
    graph = sparkline(stage.history_s, stage.predicted_s or stage.compute_p50_s, width, canvas.glyphs)
    return line(numbers, " [", *graph, "]")


def _activity(node: NodeStatus, canvas: Canvas) -> Line:
    """The sentence a node gives about itself, with a bar if it knows how far it is."""
    width = _STAGE + _stretch(canvas) + 2
    if not 0 <= node.progress <= 1:
        return line(fit(node.detail, width, canvas.glyphs))
    bar_width = max(6, min(20, width // 5))
    done = int(node.progress * bar_width)
    bar = canvas.glyphs.full * done + canvas.glyphs.empty * (bar_width - done)
    text = fit(node.detail, width - bar_width - 6, canvas.glyphs)
    return line(text, " ", Span(bar, "accent"), f" {percent(node.progress):>4}")


def _gauges(node: NodeStatus, canvas: Canvas) -> Line:
    share = node.resident_bytes / node.memory_bytes if node.memory_bytes > 0 else 0.0
    memory = f"{size(node.resident_bytes)}/{size(node.memory_bytes)}" if node.memory_bytes > 0 else size(node.resident_bytes)
    seen = Span(f" {age(node.heartbeat_age_s):>4}", "warn" if node.heartbeat_age_s >= 1 else "text")
    style = "warn" if share > ALMOST_FULL else "text"
    if canvas.width < WIDE_FROM:
        return line(Span(f" {percent(share):>4}", style), seen)
    return line(f" {percent(node.cpu_utilisation):>4} ", Span(f"{memory:>10}", style), seen)


def _details(node: NodeStatus, canvas: Canvas) -> Line:
    kv = f"KV {size(node.kv_used_bytes)} of {size(node.kv_budget_bytes)}"
    facts = [f"{node.worker_id}: {node.device} on {node.host}", f"pid {node.pid}", kv, node.address, node.detail]
    return line(Span(" " + fit("  ".join(fact for fact in facts if fact), canvas.width - 2, canvas.glyphs).rstrip(), "dim"))
