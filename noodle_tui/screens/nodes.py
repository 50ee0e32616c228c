"""Screen 2: every node in a list, the chosen one in full below: device, memory, stage, its last events."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len

from engine.data.measured_link import MeasuredLink
from engine.data.status import Event, NodeState
from engine.diagnosis.diagnose import memory_share
from noodle_tui.core.pages import Page
from noodle_tui.listings import cursor_row, table_of, warns
from noodle_tui.listings.nodes import NodeRow, details, kv_share, state_of
from noodle_tui.state import ConsoleState
from noodle_tui.text.figures import ms, percent, signed_percent, size, with_ms
from noodle_tui.text.lines import Canvas, Line, Lines, Span, beside, fit, line, wrap
from noodle_tui.text.safe_text import safe_text
from noodle_tui.text.sparkline import sparkline
from noodle_tui.text.tables import draw_table
from noodle_tui.widgets.bars import bar
from noodle_tui.widgets.event_list import event_list
from noodle_tui.widgets.history.trends import filling, of_node

DETAIL_ROWS = 9
MAX_WRONG = 2  # troubles of one node
TWO_COLUMNS_FROM = 116
BAR_AT = 28  # cells behind the label, so that bars stand below each other


def nodes_body(state: ConsoleState, canvas: Canvas) -> Lines:
    """The list, and the pane of the node that the cursor is on; with `enter` the pane takes the room."""
    table, listing = table_of(state, Page.NODES), state.ui.listing(Page.NODES)
    if table is None:
        return ()
    row: NodeRow | None = cursor_row(state, Page.NODES)
    num_rows = len(table.rows) + 1 + bool(listing.marked)
    pane = 0 if row is None else max(min(DETAIL_ROWS, canvas.height - 4), canvas.height - num_rows - 1)
    if listing.detail and row is not None:
        pane = max(pane, canvas.height - 5)
    height = canvas.height if row is None else max(3, canvas.height - pane - 1)
    rows = draw_table(table, listing, canvas.sized(canvas.width, height), warn_only=warns(state, Page.NODES))
    if row is None or pane < 3:
        return rows
    rule = line(Span(canvas.glyphs.horizontal * canvas.width, "rule"))
    return (*rows, rule, *_pane(state, row, canvas.sized(canvas.width, canvas.height - len(rows) - 1)))


def _pane(state: ConsoleState, row: NodeRow, canvas: Canvas) -> Lines:
    events = [event for event in (state.shown.events if state.shown else ()) if event.subject == row.node.worker_id]
    if canvas.width >= TWO_COLUMNS_FROM:
        left = canvas.width // 2
        facts = _facts(state, row, canvas.sized(left, canvas.height))
        graphs = filling(state, of_node(state, row), canvas.sized(canvas.width, canvas.height - len(facts)))
        height = len(facts) if graphs else canvas.height
        told = _events(state, events, canvas.sized(canvas.width - left - 3, height))
        return (*beside(facts, told, left, canvas.glyphs), *graphs)
    facts = _facts(state, row, canvas)
    return (*facts, *_events(state, events, canvas.sized(canvas.width, canvas.height - len(facts))))


def _facts(state: ConsoleState, row: NodeRow, canvas: Canvas) -> Lines:
    word = state_of(row, state.thresholds)  # as in the list
    lines: list[Line] = [line(" ", Span(f"{row.node.worker_id}", "title"), f"  {word}  ", Span(_role(row), "dim"))]
    lines += _wrong(state, row, canvas)
    for name, text in details(row):
        first, *more = wrap(text, canvas.width - 12)
        lines.append(line(Span(f" {name:<8}", "dim"), first, *_bar_for(name, row, state, canvas, len(first))))
        lines += [line(f"         {part}") for part in more[:2]]
    return (*lines, *_stage(row, canvas), *_links(state, row, canvas))[: canvas.height]


def _wrong(state: ConsoleState, row: NodeRow, canvas: Canvas) -> Lines:
    """What is wrong with the node or its machine, with all that is known of it."""
    names = (row.node.worker_id, row.node.host)
    texts = [safe_text(found.evidence) for found in state.standing.said if found.node == names[0] or found.subject in names]
    rows = [part for text in texts[:MAX_WRONG] for part in wrap(text, canvas.width - 12)]
    return tuple(line(Span(f" {'wrong' if not i else '':<8}", "warn"), part) for i, part in enumerate(rows))


def _role(row: NodeRow) -> str:
    if row.stage is None:
        return "runs no stage"
    return f"runs S{row.stage_index}, items {row.stage.start}-{row.stage.stop - 1} ({row.stage.stop - row.stage.start})"


def _bar_for(name: str, row: NodeRow, state: ConsoleState, canvas: Canvas, used: int) -> Line:
    shares = {"memory": (memory_share(row.node), state.thresholds.memory), "KV": (kv_share(row.node), state.thresholds.kv)}
    if name not in shares or canvas.width < 9 + BAR_AT + 20 or used >= BAR_AT:
        return ()
    share, limit = shares[name]
    return line(" " * (BAR_AT - used), *bar(share, 20, canvas.glyphs, "warn" if share > limit else "low"))


def _stage(row: NodeRow, canvas: Canvas) -> Lines:
    """The stage's times: measured against planned, waiting, the hop, and the graph with its scale."""
    stage = row.stage
    if stage is None:
        return ()
    excess = signed_percent(stage.compute_p50_s / stage.planned_s - 1 if stage.num_steps and stage.planned_s > 0 else None)
    times = f"p50 {with_ms(stage.compute_p50_s)}  p95 {with_ms(stage.compute_p95_s)}  planned {with_ms(stage.planned_s)} {excess}"
    hop = f"hop after {with_ms(stage.hop_p50_s)} planned {with_ms(stage.planned_hop_s)}"
    around = f"waits {with_ms(stage.queue_p50_s)} before, {hop}, {stage.num_steps} steps"
    width = min(60, canvas.width - 34)
    graph = sparkline(stage.history_s, stage.planned_s or stage.compute_p50_s, width, canvas.glyphs, graph="stage")
    scale = f" 0..{ms(2 * (stage.planned_s or stage.compute_p50_s))}ms, now right"
    return (
        line(Span(f" {'stage':<8}", "dim"), times),
        *(line(Span(f" {'around' if not i else '':<8}", "dim"), part) for i, part in enumerate(wrap(around, canvas.width - 12))),
        line(Span(f" {'last':<8}", "dim"), "[", *graph, "]", Span(scale, "dim")),
    )


def _links(state: ConsoleState, row: NodeRow, canvas: Canvas) -> Lines:
    """The way from this node to each other one: there and back, and what it carries."""
    ways = [_way(link) for link in sorted(state.links.links, key=lambda link: link.to_id) if link.from_id == row.node.worker_id]
    if not ways:
        return ()
    rows = ["round trip to " + ways[0]]
    for way in ways[1:]:
        if cell_len(rows[-1]) + len(", ") + cell_len(way) < canvas.width - 12:
            rows[-1] += f", {way}"
        else:
            rows.append(way)  # a name and its figures stay together
    return tuple(line(Span(f" {'links' if not i else '':<8}", "dim"), part) for i, part in enumerate(rows))


def _way(link: MeasuredLink) -> str:
    return f"{link.to_id} none" if link.failure else f"{link.to_id} {with_ms(link.round_trip_s)} at {size(link.bandwidth_bytes_per_s)}/s"


def _events(state: ConsoleState, events: Sequence[Event], canvas: Canvas) -> Lines:
    if canvas.height < 2:
        return ()
    if not events:
        return (line(Span(" EVENTS", "title"), Span("  none of this node among those known here", "dim")),)
    return event_list(events[:10], state.named("{screen.events}"), canvas)


def headline(row: NodeRow, canvas: Canvas) -> Line:
    """One line about a node, for screens that list it among other things."""
    node = row.node
    facts = f"{node.worker_id}: {node.device} on {node.host}"
    if node.state is not NodeState.LOST:  # who is gone uses nothing
        facts += f"  memory {percent(memory_share(node))}  KV {percent(kv_share(node))}"
    facts += f"  {node.detail}" if node.detail else ""
    return line(Span(" " + fit(facts, canvas.width - 2, canvas.glyphs).rstrip(), "dim"))
