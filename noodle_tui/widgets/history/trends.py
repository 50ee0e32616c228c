"""The last five minutes, or the last hour, as graphs: of the cluster, of a node, of a session. Plan changes and alarms stand below them.

Each graph shows the highest look of every column's time. Its scale is printed, and is that of the plan where there is one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engine.data.status import NodeState, SessionStatus
from engine.diagnosis.diagnose import memory_share
from noodle_tui.core.looks import FINE_SPAN_S, Points, column_of, columns
from noodle_tui.listings.nodes import NodeRow, kv_share, utilisation
from noodle_tui.state import ConsoleState, View
from noodle_tui.text.chart import chart
from noodle_tui.text.figures import ms, percent, rate, short_id, with_ms
from noodle_tui.text.lines import BLANK, Canvas, Line, Lines, Span, beside, crop, line, width_of
from noodle_tui.text.sparkline import values_per_cell
from noodle_tui.widgets.history.timeline import plan_marks

FROM_WIDTH = 120  # of the screen; narrower ones have no room that is empty
MIN_CELLS, MAX_CELLS = 24, 100
MIN_ROWS, MAX_ROWS = 2, 6  # of one graph
AXIS_ROWS = 2
GRAPH = "history"
NICE = (1.0, 1.5, 2.0, 3.0, 5.0, 7.5, 10.0)


@dataclass(frozen=True, slots=True)
class Trend:
    """One figure over time: its name, what it is now, its scale."""

    name: str
    now: str
    scale: str
    points: Points
    top: float
    reference: float = 0.0  # a higher value has a colour


def trends_beside(state: ConsoleState, chosen: Sequence[Trend], canvas: Canvas) -> Lines:
    """The chosen row on the left, the cluster on the right."""
    left = (canvas.width - 3) // 2
    here = trends(state, chosen, canvas.sized(left, canvas.height))
    cluster = trends(state, of_cluster(state), canvas.sized(canvas.width - left - 3, canvas.height))
    return beside(here, cluster, left, canvas.glyphs) if here and cluster else cluster or here


def filling(state: ConsoleState, chosen: Sequence[Trend], canvas: Canvas) -> Lines:
    """What a screen puts into rows that would be empty: the same, after a blank one; nothing where it is narrow."""
    if canvas.width < FROM_WIDTH:
        return ()
    graphs = trends_beside(state, chosen, canvas.sized(canvas.width, canvas.height - 1))
    return (BLANK, *graphs) if graphs else ()


def trends(state: ConsoleState, shown: Sequence[Trend], canvas: Canvas) -> Lines:
    """As many graphs as have room, the first ones first, above one axis; nothing where not even one has."""
    view, cells = state.shown, min(MAX_CELLS, canvas.width - 3)
    room = canvas.height - AXIS_ROWS
    count = min(len(shown), room // (MIN_ROWS + 1), max(2, room // (MIN_ROWS + 2)))
    if view is None or count < 1 or cells < MIN_CELLS:
        return ()
    rows = min(MAX_ROWS, room // count - 1)
    span_s = state.setup.graph_span_s
    drawn = [row for trend in shown[:count] for row in _trend(trend, view.wall_s, span_s, cells, rows, canvas)]
    return (*drawn, line(" ", *_marks(state, view, span_s, cells)), _axis(state, span_s, cells))


def _trend(trend: Trend, now_s: float, span_s: float, cells: int, rows: int, canvas: Canvas) -> Lines:
    values = columns(trend.points, now_s, span_s, cells * values_per_cell(GRAPH, canvas.glyphs))
    title = line(" ", Span(trend.name, "title"), f"  {trend.now}")
    if width_of(title) + len(trend.scale) + 2 <= canvas.width:
        title += (Span(f"  {trend.scale}", "dim"),)
    if not trend.points:
        return (title, line(Span("   nothing in this time", "dim")), *([BLANK] * (rows - 1)))
    return (crop(title, canvas.width), *(line(" ", *row) for row in chart(values, trend.top, trend.reference, rows, canvas.glyphs, GRAPH)))


def _marks(state: ConsoleState, view: View, span_s: float, cells: int) -> Line:
    return plan_marks(state, view, lambda wall_s: column_of(wall_s, view.wall_s, span_s / cells, cells), cells, of_nodes=True)


def _axis(state: ConsoleState, span_s: float, cells: int) -> Line:
    """When the first column was, and the key for the other span."""
    first, other = ("5 min ago", "last hour") if span_s <= FINE_SPAN_S else ("1 h ago", "last 5 min")
    text = first + state.named(f"   |n plan, W ! alarm, {{view.span}} = {other}")
    if len(text) + len("  now") > cells:
        text = first + state.named(f"   {{view.span}} = {other}")
    return line(Span(f" {text:<{cells - len('now')}}now", "dim"))


def of_cluster(state: ConsoleState) -> tuple[Trend, ...]:
    """Throughput, and the 95th percentile of a step beside what is planned."""
    if state.shown is None or not state.shown.status.stages:
        return ()
    speed = state.shown.status.speed
    planned_s = speed.expected_step_s or speed.predicted_step_s
    tokens = [(sample.wall_s, sample.tokens_per_s) for sample in state.history.samples]
    steps = [(sample.wall_s, sample.step_p95_s) for sample in state.history.samples]
    most = _nice(max((value for _, value in tokens), default=0.0))
    counts, kv = [(s.wall_s, float(s.num_sessions)) for s in state.history.samples], [(s.wall_s, s.kv_share) for s in state.history.samples]
    many = _nice(max((value for _, value in counts), default=0.0))
    status = state.shown.status
    queued = sum(session.state == "queued" for session in status.sessions)
    reserved = status.work.kv_reserved_tokens / status.work.kv_capacity_tokens if status.work.kv_capacity_tokens else 0.0
    return (
        Trend("THROUGHPUT", f"{rate(speed.tokens_per_s)} tok/s", f"0..{_plain(most)} tok/s", tokens, most),
        _timed("STEP p95", speed.step_p95_s, planned_s, steps),
        Trend("SESSIONS", f"{len(status.sessions) - queued} run {queued} wait", f"0..{_plain(many)}", counts, many),
        Trend("KV reserved", percent(reserved), "0..100%", kv, 1.0, state.thresholds.kv),
    )


def of_node(state: ConsoleState, row: NodeRow) -> tuple[Trend, ...]:
    """Its stage's time beside the plan, what it holds of what it may, and how busy it is."""
    node, stage, looks, span_s = row.node, row.stage, state.history.looks, state.setup.graph_span_s
    name, found = node.worker_id[-16:], []
    now = "-" if node.state is NodeState.LOST else ""  # who is gone uses nothing now; what it did before is drawn
    if stage is not None:
        found.append(
            _timed(f"{name} p50", 0.0 if now else stage.compute_p50_s, stage.planned_s, looks.of_node(node.worker_id, "time_s", span_s))
        )
    use = looks.of_node(node.worker_id, "use", span_s)
    most = max(1.0, _nice(max((value for _, value in use), default=0.0)))
    found += [
        Trend(
            f"{name} memory", now or percent(memory_share(node)), "0..100%",
            looks.of_node(node.worker_id, "memory", span_s), 1.0, state.thresholds.memory,
        ),
        Trend(f"{name} util", now or percent(utilisation(row)), f"0..{percent(most)}", use, most),
        Trend(
            f"{name} KV", now or percent(kv_share(node)), "0..100%",
            looks.of_node(node.worker_id, "kv", span_s), 1.0, state.thresholds.kv,
        ),
    ]  # fmt: skip
    return tuple(found)


def of_session(state: ConsoleState, session: SessionStatus) -> tuple[Trend, ...]:
    """How fast it writes, and how long its slow steps take."""
    looks, span_s = state.history.looks, state.setup.graph_span_s
    tokens = looks.of_session(session.session_id, "tokens_per_s", span_s)
    most = _nice(max((value for _, value in tokens), default=0.0))
    name = short_id(session.session_id)[:12]
    return (
        Trend(f"{name} speed", f"{rate(session.tokens_per_s)} tok/s", f"0..{_plain(most)} tok/s", tokens, most),
        _timed(f"{name} step p95", session.step_p95_s, 0.0, looks.of_session(session.session_id, "step_p95_s", span_s)),
    )


def _timed(name: str, now_s: float, planned_s: float, points: Points) -> Trend:
    """A time on a scale of 0 to twice its plan; without one, to the highest that was seen."""
    top = 2 * planned_s if planned_s > 0 else 1e-3 * _nice(1e3 * max((value for _, value in points), default=0.0))
    plan = f"0..2x plan {with_ms(planned_s)}" if planned_s > 0 else f"0..{ms(top)}ms"
    return Trend(name, with_ms(now_s), plan, points, top, planned_s)


def _plain(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:g}"


def _nice(value: float) -> float:
    """The next round number above."""
    if value <= 0:
        return 1.0
    power = 1.0
    while value > 10 * power:
        power *= 10
    while value <= power and power > 1e-6:
        power /= 10
    return next(power * step for step in NICE if value <= power * step)
