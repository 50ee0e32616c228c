"""How values look that are no longer fresh: they age, and they fade."""

from __future__ import annotations

from dataclasses import replace

from noodle_tui.state import ConsoleState, LinkState
from noodle_tui.text.lines import Lines, Span


def aged(state: ConsoleState, now_s: float) -> ConsoleState:
    """While nothing arrives, heartbeats grow old with the view that told of them."""
    view = state.shown
    if view is None or state.link.state is LinkState.LIVE or state.replay is not None:
        return state
    silence_s = now_s - view.arrived_s
    nodes = tuple(replace(node, heartbeat_age_s=node.heartbeat_age_s + silence_s) for node in view.status.nodes)
    old = replace(view, status=replace(view.status, nodes=nodes))
    return replace(state, held=replace(state.held, view=old)) if state.held is not None else replace(state, latest=old)


def faded(lines: Lines) -> Lines:
    """Values that are no longer fresh look that way; line 1 says it in words."""
    return tuple(tuple(Span(span.text, "stale") for span in row) for row in lines)
