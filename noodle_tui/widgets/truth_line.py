"""Line 1: cluster, link with data age, model, plan, nodes alive, worst alert. On every screen, never scrolled away."""

from __future__ import annotations

from rich.cells import cell_len

from engine.data.status import ClusterStatus, NodeState, NodeStatus, Phase
from noodle_tui.core.keys import key_of
from noodle_tui.core.pages import Page
from noodle_tui.state import ConsoleState, LinkState, View
from noodle_tui.text.figures import age, clock, rate
from noodle_tui.text.lines import Canvas, Line, Span, crop, fit, line, pad, width_of

MIN_WIDTH, MIN_HEIGHT = 60, 15
MIN_NAME = 8  # cells; a shorter piece of the cluster's name says nothing
_DOWN = (LinkState.OFFLINE, LinkState.VERSION)
_LINK_STYLES = {
    LinkState.CONNECTING: "accent",
    LinkState.LIVE: "ok",
    LinkState.STALE: "stale",
    LinkState.OFFLINE: "error",
    LinkState.VERSION: "error",
}
_ERRORS = frozenset({NodeState.LOST})


def truth_line(state: ConsoleState, canvas: Canvas) -> Line:
    """The first row; the cluster's and the model's names give way when the row is narrow."""
    if state.quitting:
        return line(Span(" QUIT ", "accent"), state.quitting)
    if state.shown is None:
        return line(Span(" noodle  ", "title"), *_link(state, canvas), _where(state))
    status, tag = state.shown.status, _tag(state)
    link = (*_hold(state), *(_link(state, canvas) if state.replay is None or state.link.state in _DOWN else ()))
    width = canvas.width - width_of(link) - len(" noodle  ") - width_of(tag) - 1
    facts, name = _facts(state, status, canvas), min(len(status.cluster_id), MIN_NAME) + 1
    for extra in ("versions", "adapt", "dtype"):
        if sum(width_of(part) for part in facts.values()) + name > width:
            facts.pop(extra)
    parts = _as_many_as_fit(facts, width)
    room = width - width_of(parts) - 1
    cluster = fit(status.cluster_id, min(len(status.cluster_id), room), canvas.glyphs) + " " if room >= MIN_NAME else ""
    left = line(Span(f" noodle {cluster} ", "title"), *link, *parts)
    return (*pad(left, canvas.width - width_of(tag)), *tag)


def too_small_line(state: ConsoleState, canvas: Canvas) -> Line:
    """Below 60x15 one useful line instead of an unreadable screen."""
    size = f" {canvas.width}x{canvas.height} is too small ({MIN_WIDTH}x{MIN_HEIGHT})"
    if state.shown is None:
        return line(f" {state.link.state}", state.named("  {app.quit} quit "), Span(size, "dim"))
    status = state.shown.status
    alive, tokens = f"{num_alive(status)}/{len(status.nodes)}", rate(status.speed.tokens_per_s)
    facts = f" {state.link.state} #{status.plan_version} {tokens} tok/s {alive} nodes "
    return line(facts, Span(worst_word(state)[0], worst_word(state)[1]), state.named("  {app.quit} quit "), Span(size, "dim"))


def is_too_small(width: int, height: int) -> bool:
    return width < MIN_WIDTH or height < MIN_HEIGHT


def num_alive(status: ClusterStatus) -> int:
    """Nodes that have registered and not been lost."""
    return sum(node.state is not NodeState.LOST for node in status.nodes)


def worst_word(state: ConsoleState) -> tuple[str, str]:
    """The worst thing that is true now, as a word with a count, and its style."""
    from noodle_tui.listings.nodes import is_warning, node_rows  # not for the first paint

    status = state.shown.status if state.shown else None
    nodes: tuple[NodeStatus, ...] = status.nodes if status else ()
    num_lost = sum(node.state in _ERRORS for node in nodes)
    num_errors = max(num_lost, len(state.failures))  # a dead worker process is usually a lost node too
    rows = node_rows(status) if status else ()
    num_warnings = sum(is_warning(row, state.thresholds) and row.node.state not in _ERRORS for row in rows)
    num_warnings = num_warnings or len(state.standing.said)  # what the line for what is wrong says is no less than a warning
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
    if link.state in _DOWN and state.replay is not None:
        return line(word, f" {age(now_s - link.since_s)}  ")
    if link.state in _DOWN:
        return line(word, f" {age(now_s - link.since_s)}  {_retry(state, now_s)}  ", *_values_from(state.latest))
    return line(word, f" {age(now_s - link.since_s)}  ")


def _tag(state: ConsoleState) -> Line:
    """What the right end says: a recording, a replay, whether capital letters may act."""
    recording = line(Span("[REC]", "warn")) if state.recording else ()
    if state.replay is not None:
        replay = state.replay
        pace = "PAUSED" if replay.paused else f"x{replay.speed:g}"
        return line(Span(f"[REPLAY {clock(replay.wall_s)} {pace} {replay.index + 1}/{replay.num_frames}]", "accent"))
    joined = state.setup.joined
    many = (
        line(Span(f"[{joined.index(state.link.address) + 1}/{len(joined)}]", "accent"))
        if state.link.address in joined[1:] + joined[:-1]
        else ()
    )
    return (*recording, *many, Span("[READ-ONLY]" if state.read_only else "[rw]", "dim"))


def tabs_line(state: ConsoleState, canvas: Canvas) -> Line:
    """The screens by their keys, the present one in capitals; names give way when the row is narrow."""
    for names, gap in ((_LONG, "  "), (_SHORT, " "), (_TINY, " ")):
        spans = [_tab(state, page, names, gap) for page in Page]
        left, right = line(" ", *spans), line(Span(state.named(_TAIL[len(gap) - 1]), "dim"))
        if width_of(left) + width_of(right) <= canvas.width:
            return (*pad(left, canvas.width - width_of(right)), *right)
    return crop(left, canvas.width)


_LONG = tuple(page.value.capitalize() for page in Page)
_SHORT = ("Over", "Nodes", "Plan", "What-if", "Events", "Sess", "Prof", "Prompt", "Logs")
_TINY = ("Ov", "No", "Pl", "Wh", "Ev", "Se", "Pf", "Pr", "Lo")
_TAIL = ("  {app.help}help", "  {app.command} command  {app.help} help ")


def _tab(state: ConsoleState, page: Page, names: tuple[str, ...], gap: str) -> Span:
    name = names[page.number - 1]
    chosen = page is state.ui.page
    return Span(f"{key_of(f'screen.{page.value}', state.keys)}.{name.upper() if chosen else name}{gap}", "title" if chosen else "dim")


def strip_line(state: ConsoleState, canvas: Canvas) -> Line:
    """Under the tabs: a failure until it is dismissed, then what was said since an action moved on, then that action, else a rule."""
    rule = canvas.glyphs.horizontal * canvas.width
    action, dismiss = state.action, state.named("{nav.out} dismisses")
    if state.refusal:
        return _sentence(" ERROR ", state.refusal, dismiss, canvas, "error")
    if action is not None and action.state == "failed":
        return _sentence(f" ERROR {action.title}: ", action.detail, state.named("{action.detail} = in full  ") + dismiss, canvas, "error")
    if state.said is not None:
        return _sentence(
            " ERROR " if state.said.is_error else " ", state.said.text, "", canvas, "error" if state.said.is_error else "accent"
        )
    if action is not None:
        hint = dismiss if action.state == "done" else ""
        others = sum(run.state == "running" for run in state.actions if run is not action)
        also = f"  (+{others} running)" if others else ""
        return _sentence(f" {action.title} {action.state} ", action.detail, hint + also, canvas, "accent")
    return _clusters(state, canvas) or line(Span(rule, "rule"))


def cluster_tabs(state: ConsoleState) -> tuple[tuple[str, str], ...]:
    """Address and text of every joined cluster, the present one in capitals; nothing where there is one."""
    here, joined, named = state.link.address, state.setup.joined, state.setup.cluster_names
    if len(joined) < 2 or here not in joined:
        return ()
    present = state.latest.status.cluster_id if state.latest else named.get(here, "")
    tabs = []
    for address in joined:
        name = f"{present if address == here else named.get(address, '')} {address}".strip()
        tabs.append((address, f" {name.upper() if address == here else name} "))
    return tuple(tabs)


def _clusters(state: ConsoleState, canvas: Canvas) -> Line:
    """A row of tabs where several clusters were joined."""
    tabs, g = cluster_tabs(state), canvas.glyphs
    if not tabs:
        return ()
    keys = state.named(" {link.next} = next ")
    parts: list[Span] = [Span(g.horizontal * 2, "rule")]
    for address, text in tabs:
        parts += [Span(text, "title" if address == state.link.address else "dim"), Span(g.horizontal * 2, "rule")]
    row = (*parts, Span(keys, "dim"))
    return (*row, Span(g.horizontal * max(0, canvas.width - width_of(row)), "rule"))


def _sentence(head: str, text: str, hint: str, canvas: Canvas, style: str) -> Line:
    room = max(0, canvas.width - width_of((Span(head),)) - len(hint) - 3)
    return line(Span(head, style), fit(text, min(cell_len(text), room), canvas.glyphs), Span(f"   {hint}" if hint else "", "dim"))


def _retry(state: ConsoleState, now_s: float) -> str:
    retry_at_s = state.link.retry_at_s
    if retry_at_s is None:
        return "retrying" if state.link.attempt else state.named("{link.retry} = try again")
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
    return line(Span(f"HOLD since {clock(state.held.wall_s)}{waiting}", "warn"), "  ")


def _as_many_as_fit(parts: dict[str, Line], width: int) -> Line:
    """All parts, or without those that matter least: the worst alert is the last to go."""
    for dispensable in ("", "strategy", "plan", "weights", "model", "nodes", "worst"):
        parts.pop(dispensable, None)
        if sum(width_of(part) for part in parts.values()) - 2 <= width:
            break
    first, *rest = [span for part in parts.values() for span in part] or [Span("")]
    return line(Span(first.text.lstrip(), first.style), *rest)


def _facts(state: ConsoleState, status: ClusterStatus, canvas: Canvas) -> dict[str, Line]:
    total = max(len(status.nodes), status.num_workers_expected)
    word, style = worst_word(state)
    fresh = state.link.state is LinkState.LIVE or style != "ok"  # values that are old cannot say that all is well
    return {
        "model": _model(status, canvas),
        "dtype": line(f" {dtype}") if (dtype := status.model.precision.computed_dtype) and status.model.name else (),
        "weights": line(" ", Span("RANDOM WEIGHTS", "warn")) if status.model.random_weights and status.model.name else (),
        "plan": line(f"  plan #{status.plan_version}" if status.stages else "  no plan"),
        "strategy": line(f" {status.strategy}") if status.stages else (),
        "adapt": line(f"  adapt {status.adaptation.mode}") if status.adaptation.mode not in ("", "off") else (),
        "versions": line(Span(f"  {state.link.versions}", "warn")) if state.link.versions else (),
        "nodes": line(f"  nodes {num_alive(status)}/{total}"),
        "worst": line(Span(f"  {word}", style)) if fresh else (),
    }


def _model(status: ClusterStatus, canvas: Canvas) -> Line:
    if not status.model.name:
        return line("  no model")
    name = fit(status.model.name, min(len(status.model.name), max(8, canvas.width // 5)), canvas.glyphs)
    return line(f"  {name}")
