"""What capital letters do to the cluster, as a table: which call of the client, on what, and what the preview says.

An action whose call the client does not have yet opens its preview all the same and names the command that does it.
To add one when its call exists: set `call` and, if it takes a target, `target`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from engine.data import Phase
from noodle_tui.listings import cursor_identity
from noodle_tui.pages import Page, Preview
from noodle_tui.state import ConsoleState, LinkState


@dataclass(frozen=True, slots=True)
class Action:
    """One change. `call` is a method of the client; `sends` lists its arguments: plan_version, target."""

    id: str
    verb: str  # of the title: `DRAIN gpu-c`
    call: str = ""
    sends: tuple[str, ...] = ()
    target: Callable[[ConsoleState], str] | None = None
    needs: str = ""  # said when there is no target
    plans: bool = False  # the preview shows the plan that the coordinator would adopt
    effect: str = ""  # one sentence: what happens
    command: str = ""  # the same outside the console


def _strategy(state: ConsoleState) -> str:
    chosen = cursor_identity(state, Page.WHATIF)
    return next((c.strategy for c in state.whatif.candidates if c.strategy == chosen and c.plan is not None), "")


def _node(state: ConsoleState) -> str:
    return cursor_identity(state, Page.NODES)


def _session(state: ConsoleState) -> str:
    return cursor_identity(state, Page.SESSIONS)


_LIVE = "layers move in the background while sessions go on; steps stop once, at a token boundary"
_TABLE = (
    Action(
        "cluster.apply",
        "APPLY",
        "apply",
        ("plan_version", "target"),
        _strategy,
        needs="choose a strategy that fits on screen 4 first (S)",
        plans=True,
        effect=_LIVE,
        command="noodle-engine rebalance",
    ),
    Action("cluster.rebalance", "REBALANCE", "apply", ("plan_version",), plans=True, effect=_LIVE, command="noodle-engine rebalance"),
    Action(
        "cluster.drain",
        "DRAIN",
        "drain",
        ("target",),
        _node,
        needs="no node is chosen",
        effect="its items move to the other nodes while sessions go on; it takes no new ones",
        command="noodle-engine drain NODE",
    ),
    Action(
        "cluster.cancel",
        "CANCEL SESSION",
        "cancel",
        ("target",),
        _session,
        needs="no session is chosen",
        effect="its answer ends now and its memory is freed; other sessions are not touched",
        command="noodle-engine cancel ID",
    ),
    Action("cluster.rollback", "ROLL BACK", effect="returns to the plan before this one"),
    Action(
        "cluster.profile",
        "PROFILE",
        "profile",
        ("target",),
        _node,
        needs="no node is chosen",
        effect="times every layer of the model there, beside what it serves, about 40 s; screen 7 shows what it found",
        command="noodle-engine profile --node NODE",
    ),
    Action("cluster.auto", "AUTO-ADAPT", effect="lets the cluster move layers by itself when a stage drifts from its plan"),
)
ACTIONS: dict[str, Action] = {action.id: action for action in _TABLE}


def preview_of(action: Action, state: ConsoleState, target: str = "") -> Preview:
    """The dialog that opens; `blocked` says why `y` would do nothing."""
    target = target or (action.target(state) if action.target else "")
    version = state.latest.status.plan_version if state.latest else 0
    blocked = _blocked(action, state, target)
    return Preview(action.id, target, version, pending=action.plans and not blocked, blocked=blocked)


def _blocked(action: Action, state: ConsoleState, target: str) -> str:
    if state.replay is not None:
        return "this is a replay: there is no cluster to change"
    if state.link.state not in (LinkState.LIVE, LinkState.STALE) or state.latest is None:
        return "not connected to a coordinator"
    if not action.call:
        return f"this coordinator has no call for it yet{': use ' + action.command if action.command else ''}"
    if state.read_only:
        return "read-only: the coordinator is not on this machine; `: rw` allows changes (or start with --rw)"
    if action.target is not None and not target:
        return action.needs
    if action.plans and state.latest.status.phase is not Phase.SERVING and not state.latest.status.nodes:
        return "no worker has joined: there is nothing to plan for"
    return ""


def still_holds(preview: Preview, state: ConsoleState) -> str:
    """Why a preview must not be sent any more; empty while it may."""
    if preview.blocked or preview.settled:
        return preview.blocked or preview.settled
    if preview.pending:
        return "the coordinator has not answered yet"
    now = state.latest.status.plan_version if state.latest else 0
    if now != preview.plan_version:
        return f"the plan moved from #{preview.plan_version} to #{now} since this preview: look again"
    return ""


def arguments_of(preview: Preview) -> tuple[object, ...]:
    """What the call is given, in its order."""
    values: dict[str, object] = {"plan_version": preview.plan_version, "target": preview.target}
    return tuple(values[name] for name in ACTIONS[preview.action].sends)


def title_of(preview: Preview) -> str:
    verb = ACTIONS[preview.action].verb
    return f"{verb} {preview.target}" if preview.target else verb
