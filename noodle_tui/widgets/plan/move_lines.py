"""What a change of plan would carry, how long it would take, what memory it needs and what nobody knows of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from engine.data.status import ClusterStatus
from noodle_tui.state import ConsoleState
from noodle_tui.text.figures import percent, size
from noodle_tui.text.lines import Canvas, Line, Lines, Span, fit, line

if TYPE_CHECKING:
    from engine.data.moves import MoveEstimate, NodeMemory

LABEL = 9
TIGHT = 0.92  # of what a node may use, while it holds both stages
MAX_UNKNOWNS = 3


def facts_of(move: MoveEstimate | None) -> tuple[tuple[str, str], ...]:
    """Names and sentences, the most important first."""
    if move is None:
        return (("copy", "unknown: the coordinator has not said what this move would take"),)
    if not move.num_items:
        return (("copy", "nothing: no item would change its owner"),)
    return ("copy", _carried(move)), ("time", _time(move)), ("memory", _fullest(move))


def move_lines(move: MoveEstimate | None, canvas: Canvas) -> Lines:
    """The facts, each on a row of its own."""
    return tuple(
        line(Span(f" {name.upper():<{LABEL - 1}}", "dim"), fit(text, canvas.width - LABEL, canvas.glyphs).rstrip())
        for name, text in facts_of(move)
    )


def memory_lines(move: MoveEstimate | None, canvas: Canvas) -> Lines:
    """Every node whose memory changes: now, meanwhile, afterwards."""
    nodes = [node for node in (move.nodes if move else ()) if (node.now_bytes, node.peak_bytes) != (node.after_bytes, node.after_bytes)]
    return tuple(
        line(
            f" {fit(node.node_id, 16, canvas.glyphs)} memory {size(node.now_bytes):>5} > {size(node.after_bytes):>5}",
            Span(f"   meanwhile {size(node.peak_bytes):>5} of {size(node.limit_bytes)}", "warn" if _share(node) > TIGHT else "dim"),
        )
        for node in nodes
    )


def unknown_lines(texts: Sequence[str], canvas: Canvas, most: int = MAX_UNKNOWNS) -> Lines:
    """Each on a row of its own, the gravest first."""
    rows: list[Line] = []
    for i, text in enumerate(texts[:most]):
        more = f" (+{len(texts) - most} more: enter)" if i == most - 1 and len(texts) > most else ""
        room = canvas.width - LABEL - len(more)
        rows.append(line(Span(" UNKNOWN ", "warn"), fit(text, room, canvas.glyphs).rstrip(), Span(more, "dim")))
    return tuple(rows)


def learning_hint(state: ConsoleState, status: ClusterStatus) -> str:
    """How the planner comes to know what serving shows."""
    if status.adaptation.mode != "off":
        return ""
    return state.named("; {cluster.profile} profiles it, {cluster.auto} = suggest lets the planner learn")


def _carried(move: MoveEstimate) -> str:
    items = f"{move.num_items} item{'s' if move.num_items != 1 else ''}"
    sessions = f"{move.num_sessions} session{'s' if move.num_sessions != 1 else ''}"
    kv = f"{size(move.kv_bytes)} KV of {sessions}, kept" if move.num_sessions else "no session runs"
    return f"{items}, {size(move.weight_bytes)} weights to read, {kv}"


def _time(move: MoveEstimate) -> str:
    known = f"from {move.num_measured} move{'s' if move.num_measured != 1 else ''} here" if move.num_measured else "assumed"
    return f"{move.load_s + move.copy_s:.1f}s beside serving, then {1e3 * move.pause_s:.0f}ms of pause ({known})"


def _fullest(move: MoveEstimate) -> str:
    """The node that comes closest to its limit."""
    known = [node for node in move.nodes if node.limit_bytes > 0]
    if not known:
        return "no node says how much it may use"
    node = max(known, key=_share)
    after = f"{size(node.now_bytes)} > {size(node.after_bytes)} of {size(node.limit_bytes)}"
    return f"fullest {node.node_id[:16]} {after}, {percent(_share(node))} while it holds both"


def _share(node: NodeMemory) -> float:
    return node.peak_bytes / node.limit_bytes if node.limit_bytes > 0 else 0.0
