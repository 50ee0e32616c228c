"""Line 1: cluster, link with data age, model, plan, nodes alive, worst alert. On every screen, never scrolled away."""

from __future__ import annotations

from engine.data import ClusterStatus, NodeState, NodeStatus, Phase
from noodle_tui.figures import age, clock, rate
from noodle_tui.lines import Canvas, Line, Span, fit, line, width_of
from noodle_tui.state import ConsoleState, LinkState, View

MIN_WIDTH, MIN_HEIGHT = 60, 15
MIN_NAME = 4  # cells; a shorter piece of the cluster's name says nothing
_LINK_STYLES = {LinkState.CONNECTING: "accent", LinkState.LIVE: "ok", LinkState.STALE: "stale", LinkState.OFFLINE: "error"}
_ERRORS = frozenset({NodeState.LOST})
_WARNINGS = frozenset({NodeState.WARN, NodeState.SUSPECT, NodeState.DRAINING})


def truth_line(state: ConsoleState, canvas: Canvas) -> Line:
    """The first row; the cluster's and the model's names give way when the row is narrow."""
    if state.quitting:
        return line(Span(" QUIT ", "accent"), state.quitting)
    if state.shown is None:
        return line(Span(" noodle  ", "title"), *_link(state, canvas), _where(state))
    status = state.shown.status
    link = (*_hold(state), *_link(state, canvas))
    parts = _as_many_as_fit(_facts(state, status, canvas), canvas.width - width_of(link) - len(" noodle  "))
    room = canvas.width - width_of(link) - width_of(parts) - len(" noodle  ") - 1
    cluster = fit(status.cluster_id, min(len(status.cluster_id), room), canvas.glyphs) + " " if room >= MIN_NAME else ""
    return line(Span(f" noodle {cluster} ", "title"), *link, *parts)


def too_small_line(state: ConsoleState, canvas: Canvas) -> Line:
    """Below 60x15 one useful line instead of an unreadable screen."""
    size = f" {canvas.width}x{canvas.height} is too small ({MIN_WIDTH}x{MIN_HEIGHT})"
    if state.shown is None:
        return line(f" {state.link.state}  q quit ", Span(size, "dim"))
    status = state.shown.status
    facts = f" {state.link.state} #{status.plan_version} {rate(status.tokens_per_s)} tok/s {num_alive(status)}/{len(status.nodes)} nodes "
    return line(facts, Span(worst_word(state)[0], worst_word(state)[1]), "  q quit ", Span(size, "dim"))


def is_too_small(width: int, height: int) -> bool:
    return width < MIN_WIDTH or height < MIN_HEIGHT


def num_alive(status: ClusterStatus) -> int:
    """Nodes that have registered and not been lost."""
    return sum(node.state is not NodeState.LOST for node in status.nodes)


def worst_word(state: ConsoleState) -> tuple[str, str]:
    """The worst thing that is true now, as a word with a count, and its style."""
    status = state.shown.status if state.shown else None
    nodes: tuple[NodeStatus, ...] = status.nodes if status else ()
    num_lost = sum(node.state in _ERRORS for node in nodes)
    num_errors = max(num_lost, len(state.failures))  # a dead worker process is usually a lost node too
    num_warnings = sum(node.state in _WARNINGS for node in nodes)
    if status and status.phase is not Phase.SERVING and num_errors:
        return "DEGRADED", "error"
    if num_errors:
        return f"ERROR {num_errors}", "error"
    if num_warnings:
        return f"WARN {num_warnings}", "warn"
    return ("ok", "ok") if status and status.phase is Phase.SERVING else (str(status.phase) if status else "", "accent")


def _link(state: ConsoleState, canvas: Canvas) -> Line:
    link, now_s = state.link, canvas.now_s
    word = Span(str(link.state), _LINK_STYLES[link.state])
    if link.state is LinkState.LIVE and state.latest is not None:
        return line(word, f" {age(now_s - state.latest.arrived_s)}  ")
    if link.state is LinkState.STALE and state.latest is not None:
        return line(word, f" {age(now_s - state.latest.arrived_s)} silent  ")
    if link.state is LinkState.OFFLINE:
        return line(word, f" {age(now_s - link.since_s)}  {_retry(state, now_s)}  ", *_values_from(state.latest))
    return line(word, f" {age(now_s - link.since_s)}  ")


def _retry(state: ConsoleState, now_s: float) -> str:
    retry_at_s = state.link.retry_at_s
    if retry_at_s is None:
        return "retrying" if state.link.attempt else "r = try again"
    return f"retry in {max(0, round(retry_at_s - now_s))}s (no. {state.link.attempt + 1})"


def _values_from(latest: View | None) -> Line:
    return line(Span(f"values from {clock(latest.wall_s)} [stale]  ", "stale")) if latest else ()


def _where(state: ConsoleState) -> str:
    if not state.link.address:
        return "embedded cluster"
    attempt = f"  attempt {max(1, state.link.attempt)}" if state.link.state is LinkState.CONNECTING else ""
    return state.link.address + attempt


def _hold(state: ConsoleState) -> Line:
    if state.held is None:
        return ()
    waiting = f" ({state.num_waiting_events} events)" if state.num_waiting_events else ""
    return line(Span(f"HOLD since {clock(state.held_wall_s)}{waiting}", "warn"), "  ")


def _as_many_as_fit(parts: dict[str, Line], width: int) -> Line:
    """All parts, or without those that matter least: the worst alert is the last to go."""
    for dispensable in ("", "plan", "model", "nodes", "worst"):
        parts.pop(dispensable, None)
        if sum(width_of(part) for part in parts.values()) <= width:
            break
    return tuple(span for part in parts.values() for span in part)


def _facts(state: ConsoleState, status: ClusterStatus, canvas: Canvas) -> dict[str, Line]:
    plan = f"plan #{status.plan_version} {status.strategy}" if status.stages else "no plan"
    total = max(len(status.nodes), status.num_workers_expected)
    word, style = worst_word(state)
    fresh = state.link.state is LinkState.LIVE or style != "ok"  # values that are old cannot say that all is well
    return {
        "model": _model(status, canvas),
        "plan": line(f"{plan}  "),
        "nodes": line(f"nodes {num_alive(status)}/{total}  "),
        "worst": line(Span(word, style)) if fresh else (),
    }


def _model(status: ClusterStatus, canvas: Canvas) -> Line:
    mark = "RANDOM WEIGHTS" if status.random_weights else ""
    if not status.model:
        return line("no model  ")
    name = fit(status.model, min(len(status.model), max(8, canvas.width // 5)), canvas.glyphs)
    return line(name, " " if mark else "", Span(mark, "warn"), "  ")
