"""The Overview's picture as a pure function: which panels get how many rows, and where they stand.

Below 116 columns everything is stacked; from there on the events stand beside the nodes.
"""

from __future__ import annotations

from dataclasses import replace

from noodle_tui.lines import BLANK, Canvas, Line, Lines, Span, beside, crop, stack
from noodle_tui.state import ConsoleState, LinkState, View
from noodle_tui.widgets.event_list import event_list
from noodle_tui.widgets.metrics import metrics
from noodle_tui.widgets.node_table import node_table
from noodle_tui.widgets.notices import notices, opening
from noodle_tui.widgets.plan_blocks import plan_blocks
from noodle_tui.widgets.session_list import session_list

TWO_COLUMNS_FROM = 116  # fewer cut either the node table or the events
MIN_EVENT_ROWS = 3  # a heading and two events; fewer are not worth their rows
MIN_SESSION_ROWS = 3
TALL_FROM = 20  # rows: panels get air and the plan gets borders


def answer_height(screen_height: int, generating: bool) -> int:
    """Rows of the answer panel: a quarter of the screen once there is something to answer."""
    return max(3, min(12, screen_height // 4)) if generating else 1


def overview_body(state: ConsoleState, canvas: Canvas) -> Lines:
    """Exactly `canvas.height` rows, none wider than the canvas."""
    if canvas.height < 1:
        return ()
    rows = opening(state, canvas) if state.shown is None else _panels(state, _aged(state, state.shown, canvas.now_s), canvas)
    return tuple(crop(row, canvas.width) for row in stack(rows, canvas.height))


def _panels(state: ConsoleState, view: View, canvas: Canvas) -> Lines:
    tall = canvas.height >= TALL_FROM
    top: list[Line] = [*notices(state, canvas.sized(canvas.width, max(3, canvas.height // 3)))]
    rest = _facts(state, view, canvas.sized(canvas.width, canvas.height - len(top)), tall)
    return (*top, *(rest if state.link.state is LinkState.LIVE else _faded(rest)))


def _aged(state: ConsoleState, view: View, now_s: float) -> View:
    """While nothing arrives, heartbeats grow old with the view that told of them."""
    if state.link.state is LinkState.LIVE:
        return view
    silence_s = now_s - view.arrived_s
    nodes = tuple(replace(node, heartbeat_age_s=node.heartbeat_age_s + silence_s) for node in view.status.nodes)
    return replace(view, status=replace(view.status, nodes=nodes))


def _faded(lines: Lines) -> Lines:
    """Values that are no longer fresh look that way; line 1 says it in words."""
    return tuple(tuple(Span(span.text, "stale") for span in row) for row in lines)


def _facts(state: ConsoleState, view: View, canvas: Canvas, tall: bool) -> Lines:
    """Figures, plan, then nodes and events in what is left."""
    top: list[Line] = []
    top += metrics(view.status, canvas.sized(canvas.width, 2 if canvas.height >= 12 else 1))
    plan = plan_blocks(view.status, canvas.sized(canvas.width, _plan_height(canvas, len(top), len(view.status.nodes))))
    if plan:
        top += [*([_rule(canvas)] if tall else []), *plan]
    if tall or canvas.height - len(top) > len(view.status.nodes) + 5:
        top.append(_rule(canvas) if tall else BLANK)
    rest = canvas.sized(canvas.width, canvas.height - len(top))
    return (*top, *(_columns(state, view, rest) if canvas.width >= TWO_COLUMNS_FROM else _stacked(state, view, rest)))


def _plan_height(canvas: Canvas, num_used: int, num_nodes: int) -> int:
    """Rows for the plan once the nodes have theirs: with borders, without, or none."""
    spare = canvas.height - num_used - min(num_nodes, 4) - 1
    return 6 if spare >= 12 else 3 if spare >= 3 else 0


def _rule(canvas: Canvas) -> Line:
    return (Span(canvas.glyphs.horizontal * canvas.width, "rule"),)


def _stacked(state: ConsoleState, view: View, canvas: Canvas) -> Lines:
    """Nodes on top of events; the nodes come first when there is not room for both."""
    wanted = len(view.status.nodes) + 2
    for_events = canvas.height - wanted
    height = wanted if for_events >= MIN_EVENT_ROWS - 1 else canvas.height
    nodes = node_table(view.status, state.selected, canvas.sized(canvas.width, height))
    return (*nodes, *event_list(view.events, canvas.sized(canvas.width, canvas.height - len(nodes))))


def _columns(state: ConsoleState, view: View, canvas: Canvas) -> Lines:
    left = max(74, canvas.width * 3 // 5)
    wanted = len(view.status.nodes) + 2
    nodes = node_table(view.status, state.selected, canvas.sized(left, min(wanted, canvas.height)))
    for_sessions = canvas.height - len(nodes) - 1
    if view.status.sessions and for_sessions >= MIN_SESSION_ROWS:
        nodes = (*nodes, BLANK, *session_list(view.status.sessions, canvas.sized(left, for_sessions)))
    events = event_list(view.events, canvas.sized(canvas.width - left - 3, canvas.height))
    return beside(stack(nodes, canvas.height), events, left, canvas.glyphs)
