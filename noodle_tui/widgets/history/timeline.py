"""The last minutes on one axis of time: how long steps took, which plans served, what befell which node. Its right edge is now."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.cells import cell_len

from engine.data.status import Event, Severity
from noodle_tui.core.history import Sample
from noodle_tui.state import ConsoleState, View
from noodle_tui.text.figures import age, ms
from noodle_tui.text.lines import Canvas, Line, Lines, Span, line
from noodle_tui.text.sparkline import sparkline, values_per_cell
from noodle_tui.widgets.plan.owner_row import letters_of

LABEL = 15
FRAMES_APART_S = 3.0  # a longer silence is a gap in the graph
MIN_SPAN_S, MAX_SPAN_S = 60.0, 1800.0
BESIDE = (0, 2, -2, 4, -4, 6, -6)  # cells: where a mark may stand whose place is taken, as when all nodes join at once
_WORDS = {"+": "joined", "-": "drains", "W": "warning", "!": "lost or refused"}
_STYLES = {"+": "ok", "-": "warn", "W": "warn", "!": "error"}
_GRAVITY = {"!": 0, "W": 1, "-": 2, "+": 3}


@dataclass(frozen=True, slots=True)
class NodeMark:
    """What befell one node: a sign, and the node's letter as on the Plan screen."""

    wall_s: float
    sign: str
    letter: str
    node: str


def timeline(state: ConsoleState, view: View, marks: Sequence[NodeMark], canvas: Canvas) -> Lines:
    """Three rows: step time, plans with what went wrong that concerns no single node, and the nodes."""
    width = max(10, canvas.width - LABEL - 12)
    span_s = span_of(state, view)
    columns = _columns(state.history.samples, view.wall_s, span_s, width * values_per_cell("timeline", canvas.glyphs))
    known = [value for value in columns if value > 0]
    reference = sorted(known)[len(known) // 2] if known else 0.0
    graph = sparkline(columns, reference, width, canvas.glyphs, graph="timeline")
    scale = f" 0..{ms(2 * reference)}ms" if known else " no steps"
    return (
        line(Span(f" last {age(span_s):<4} p95 ", "dim"), *graph, Span(scale, "dim")),
        line(Span(f"{'plan':>14} ", "dim"), *_plan_row(state, view, span_s, width)),
        line(Span(f"{'node':>14} ", "dim"), *_node_row(marks, view.wall_s, span_s, width), Span(" now", "dim")),
    )


def span_of(state: ConsoleState, view: View) -> float:
    """How far back the axis reaches, in seconds."""
    return max(MIN_SPAN_S, min(MAX_SPAN_S, view.wall_s - state.history.samples[0].wall_s)) if state.history.samples else MIN_SPAN_S


def marks_of(state: ConsoleState, view: View) -> list[NodeMark]:
    """What the axis shows of single nodes, oldest first."""
    since_s = view.wall_s - span_of(state, view)
    signed = [(event, _sign(event)) for event in reversed(view.events) if event.kind == "node" and event.wall_s >= since_s]
    letters = letters_of([*(stage.worker_id for stage in view.status.stages), *(event.subject for event, sign in signed if sign)])
    return [NodeMark(event.wall_s, sign, letters[event.subject], event.subject) for event, sign in signed if sign]


def key_of_marks(marks: Sequence[NodeMark], width: int) -> str:
    """What signs and letters stand for, as much of it as fits; empty without marks."""
    signs = [f"{sign} {_WORDS[sign]}" for sign in _WORDS if any(mark.sign == sign for mark in marks)]
    letters = [f"{letter}={node}" for letter, node in sorted({(mark.letter, mark.node) for mark in marks})]
    text = ""
    for part in (*letters, *signs):
        if cell_len(text) + cell_len(part) + 3 <= width:
            text += f" {part} "
    return text


def _sign(event: Event) -> str:
    """Empty for what is routine: measured, loaded, profiled."""
    if event.severity is Severity.ERROR:
        return "!"
    if event.severity is Severity.WARN:
        return "W"
    if event.severity is Severity.OK or event.text.startswith("joined"):
        return "+"
    return "-" if event.text.startswith("draining") else ""


def _columns(samples: Sequence[Sample], now_s: float, span_s: float, width: int) -> list[float]:
    """The highest p95 of each column's time; columns narrower than the frames' interval take the next frame's."""
    columns = [0.0] * width
    before = width
    for sample in samples:
        x = _column(sample.wall_s, now_s, span_s, width)
        near = int(FRAMES_APART_S / span_s * width)
        for i in range(before + 1 if x - before <= near else x, x + 1):
            columns[i] = max(columns[i], sample.step_p95_s)
        before = x if x >= 0 else width
    return columns


def _column(wall_s: float, now_s: float, span_s: float, width: int) -> int:
    """Where a moment stands; -1 before the beginning."""
    x = int((1 - (now_s - wall_s) / span_s) * width)
    return min(width - 1, x) if x >= 0 else -1


def _plan_row(state: ConsoleState, view: View, span_s: float, width: int) -> Line:
    return plan_marks(state, view, lambda wall_s: _column(wall_s, view.wall_s, span_s, width), width)


def plan_marks(state: ConsoleState, view: View, column: Callable[[float], int], width: int, *, of_nodes: bool = False) -> Line:
    """`|14` where a plan began to serve; `W` and `!` where something went wrong, in the cells that are left.

    `column` says where a moment stands, negative before the first cell. What befell single nodes is there with `of_nodes`.
    """
    cells = [Span(" ")] * width
    free = width
    for plan in reversed(state.history.plans):
        x = max(0, column(plan.first_wall_s))
        label = f"|{plan.plan_version}" if x + len(f"|{plan.plan_version}") <= free else "|"  # half a number is another number
        if x < free:
            cells[x : x + len(label)] = [Span(char, "accent") for char in label]
            free = x
    for event in view.events:
        x = column(event.wall_s)
        sign = "" if (event.kind == "node" and not of_nodes) or not 0 <= x < width else _sign(event)
        if sign in ("W", "!") and (cells[x].text == " " or (cells[x].text == "W" and sign == "!")):
            cells[x] = Span(sign, _STYLES[sign])
    return _joined(cells)


def _node_row(marks: Sequence[NodeMark], now_s: float, span_s: float, width: int) -> Line:
    """Sign and letter of every mark; the gravest takes its place first, those after it stand beside."""
    cells = [Span(".", "dim")] * width
    for mark in sorted(marks, key=lambda mark: (_GRAVITY[mark.sign], -mark.wall_s)):
        x = min(_column(mark.wall_s, now_s, span_s, width), width - 2)
        free = (x + by for by in BESIDE if 0 <= x + by <= width - 2 and cells[x + by].text == cells[x + by + 1].text == ".")
        at = next(free, None) if x >= 0 else None
        if at is not None:
            cells[at : at + 2] = [Span(mark.sign, _STYLES[mark.sign]), Span(mark.letter, _STYLES[mark.sign])]
    return _joined(cells)


def _joined(cells: Sequence[Span]) -> Line:
    """Neighbours of one style as one span: every change of style costs bytes."""
    spans: list[Span] = []
    for cell in cells:
        if spans and spans[-1].style == cell.style:
            spans[-1] = Span(spans[-1].text + cell.text, cell.style)
        else:
            spans.append(cell)
    return tuple(spans)
