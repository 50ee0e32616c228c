"""What capital letters do to the cluster, as a table: which call of the client, on what, and what the preview says.

Every call carries the plan's version (or the mode, or the suggestion) that its preview was made for; the coordinator refuses
it if that has moved. What a preview asks of the coordinator first is in `previews.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from engine.data.plan import GIVEN
from engine.data.status import NodeState, Phase
from noodle_tui.core.pages import Page, Preview
from noodle_tui.listings import cursor_identity, cursor_row
from noodle_tui.state import ConsoleState, LinkState
from noodle_tui.text.figures import short_id

ALL_NODES = "all nodes"
MOST_NAMES = 3  # of a title
KEY_OF = {
    "cluster.confirm": "cluster.apply",
    "cluster.undrain": "cluster.drain",
    "cluster.forget": "cluster.drain",
}  # without one of their own
MODES = {
    "off": "no layer moves unless an operator says so",
    "suggest": "it watches every stage; a move that would pay is offered here, and done after {cluster.apply} and {dialog.yes}",
    "auto": "it watches every stage; a move that pays is done by itself, and taken back if it does not keep its promise",
}


@dataclass(frozen=True, slots=True)
class Action:
    """One change. `call` is a method of the client; `sends` lists its arguments by the names in `arguments_of`."""

    id: str
    verb: str  # of the title: `DRAIN gpu-c`
    call: str
    sends: tuple[str, ...]
    target: Callable[[ConsoleState], str] | None = None
    needs: str = ""  # said when there is no target
    plans: bool = False  # the preview shows the plan that would be adopted, and what the move to it takes
    optional: bool = False  # without a target it means the whole cluster
    effect: str = ""  # one sentence: what happens
    command: str = ""  # the same outside the console; a word in capitals stands for the target, if there is one


def _strategy(state: ConsoleState) -> str:
    chosen = cursor_identity(state, Page.WHATIF)
    return next((c.strategy for c in state.whatif.candidates if c.strategy == chosen and c.plan is not None), "")


def _suggestion(state: ConsoleState) -> str:
    return str(state.suggestion.entry.decision_id) if state.suggestion else ""


def _node_or_all(state: ConsoleState) -> str:
    """The chosen node where a list of nodes is; every node elsewhere."""
    return _node(state) if state.ui.list_page is Page.NODES or len(nodes_of(state)) < 2 else ALL_NODES


def nodes_of(state: ConsoleState) -> tuple[str, ...]:
    """Whom a profile can be taken on."""
    nodes = state.latest.status.nodes if state.latest else ()
    return tuple(node.worker_id for node in nodes if node.state is not NodeState.LOST)


def _choices(action: Action, state: ConsoleState) -> tuple[str, ...]:
    if action.id == "cluster.auto":
        return tuple(MODES)
    names = nodes_of(state) if action.id == "cluster.profile" else ()
    return (*names, ALL_NODES) if len(names) > 1 else ()


def _node(state: ConsoleState) -> str:
    return cursor_identity(state, Page.NODES)


def _newest_warning(state: ConsoleState) -> str:
    """The newest event, where something is new: what came after the preview is not acknowledged with it."""
    latest = state.latest
    return str(latest.events[0].sequence) if latest and latest.events and latest.status.alarms.num_unacknowledged else ""


def _session(state: ConsoleState) -> str:
    return cursor_identity(state, Page.SESSIONS)


def _next_mode(state: ConsoleState) -> str:
    names = tuple(MODES)
    now = state.latest.status.adaptation.mode if state.latest else ""
    return names[(names.index(now) + 1) % len(names)] if now in names else ""


_LIVE = "sessions go on; steps stop once, between two tokens"
_BACK = _LIVE + "; auto-adapt leaves a plan chosen by hand alone until {cluster.rebalance}"
_TABLE = (
    Action(
        "cluster.apply",
        "APPLY",
        "apply",
        ("plan_version", "strategy", "stages"),
        _strategy,
        needs="choose a strategy that fits on What-if first ({cluster.whatif})",
        plans=True,
        effect=_LIVE,
        command="noodle-engine rebalance --strategy NAME",
    ),
    Action(
        "cluster.rebalance",
        "REBALANCE",
        "apply",
        ("plan_version", "strategy", "stages"),
        plans=True,
        effect=_LIVE,
        command="noodle-engine rebalance",
    ),
    Action(
        "cluster.rollback",
        "ROLL BACK",
        "apply",
        ("plan_version", "nothing", "stages"),
        lambda state: "",
        plans=True,
        optional=True,
        effect=_BACK,
        command="noodle-engine rollback PLAN",
    ),
    Action(
        "cluster.confirm",
        "CONFIRM SUGGESTION",
        "set_adaptation",
        ("nothing", "decision"),
        _suggestion,
        needs="adaptation suggests nothing now: {cluster.auto} = suggest lets it",
        plans=True,
        effect=_LIVE,
        command="noodle-engine adapt confirm ID",
    ),
    Action(
        "cluster.drain",
        "DRAIN",
        "drain",
        ("targets", "plan_version"),
        _node,
        needs="no node is chosen",
        plans=True,
        effect=f"no items go there from now on; {_LIVE}",
        command="noodle-engine drain NODE",
    ),
    Action(
        "cluster.undrain",
        "UNDRAIN",
        "undrain",
        ("targets", "plan_version"),
        _node,
        needs="no node is chosen",
        plans=True,
        effect=f"plans may use it again; {_LIVE}",
        command="noodle-engine undrain NODE",
    ),
    Action(
        "cluster.forget",
        "FORGET",
        "forget",
        ("target",),
        _node,
        needs="no node is chosen",
        effect="it is off the list and not waited for any more; a worker of that name may join again",
        command="noodle-engine forget NODE",
    ),
    Action(
        "cluster.acknowledge",
        "ACKNOWLEDGE WARNINGS UP TO EVENT",
        "acknowledge",
        ("decision",),
        _newest_warning,
        needs="no warning and no error is new",
        effect="for everybody they count as seen; they stay in the list",
        command="noodle-engine acknowledge",
    ),
    Action(
        "cluster.cancel",
        "CANCEL SESSION",
        "cancel",
        ("target", "plan_version"),
        _session,
        needs="no session is chosen",
        effect="its answer ends now and its memory is freed; other sessions are not touched",
        command="noodle-engine cancel ID",
    ),
    Action(
        "cluster.profile",
        "PROFILE",
        "profile",
        ("target",),
        _node_or_all,
        needs="no node is chosen",
        effect="times every layer of the model there, beside what it serves, about 40 s a node; Profile shows what it found",
        command="noodle-engine profile --node NODE",
    ),
    Action(
        "cluster.auto",
        "AUTO-ADAPT",
        "set_adaptation",
        ("target", "zero", "mode"),
        _next_mode,
        needs="this coordinator does not say whether it adapts",
        command="noodle-engine adapt MODE",
    ),
)
_DRAINS: dict[NodeState | None, str] = {NodeState.DRAINING: "cluster.undrain", NodeState.LOST: "cluster.forget"}
ACTIONS: dict[str, Action] = {action.id: action for action in _TABLE}


def action_for(key_id: str, state: ConsoleState) -> Action:
    """What a key means here: `A` on adaptation's suggestion confirms it, `D` on a drained node ends that, on a lost one forgets it."""
    if key_id == "cluster.drain":
        return ACTIONS[action_for_node(node_state(state, _node(state)))]
    row = cursor_row(state, Page.WHATIF) if key_id == "cluster.apply" else None
    return ACTIONS["cluster.confirm" if row is not None and row.is_suggestion else key_id]


def action_for_node(state: NodeState | None) -> str:
    """What the key for nodes does to one in that state."""
    return _DRAINS.get(state, "cluster.drain")


def node_state(state: ConsoleState, worker_id: str) -> NodeState | None:
    """What the coordinator says of a node; None if it does not know it."""
    nodes = state.latest.status.nodes if state.latest else ()
    return next((node.state for node in nodes if node.worker_id == worker_id), None)


def preview_of(action: Action, state: ConsoleState, target: str = "") -> Preview:
    """The dialog that opens; `blocked` says why `y` would do nothing."""
    target = target or (action.target(state) if action.target else "")
    status = state.latest.status if state.latest else None
    blocked = _blocked(action, state, target)
    return Preview(
        action.id,
        target,
        status.plan_version if status else 0,
        about=_about(action, state, target),
        choices=_choices(action, state),
        mode=status.adaptation.mode if status else "",
        pending=action.plans and not blocked,
        blocked=blocked,
    )


def _about(action: Action, state: ConsoleState, target: str) -> str:
    """What is known here of the target; previews that ask the coordinator learn more."""
    if action.id == "cluster.cancel" and state.latest is not None:
        found = next((s for s in state.latest.status.sessions if s.session_id == target), None)
        if found is not None:
            held = found.num_prompt_tokens + found.num_generated if found.state != "queued" else 0
            return f"{found.state}, {found.num_generated} of {found.max_new_tokens} tokens out; {held} tokens of KV are freed"
    if action.id == "cluster.acknowledge" and state.latest is not None:
        return f"{state.latest.status.alarms.num_unacknowledged} warnings and errors are new"
    if action.id == "cluster.confirm" and state.suggestion is not None:
        return state.suggestion.entry.sentence
    if action.id == "cluster.auto" and state.suggestion is not None:
        return f"{state.suggestion.name} is open and lapses when the mode changes"
    if action.id == "cluster.auto" and state.latest is not None and state.latest.status.strategy == GIVEN:
        return f"plan #{state.latest.status.plan_version} was chosen by hand: adaptation leaves it alone until " + state.named(
            "{cluster.rebalance} plans again"
        )
    return ""


def _blocked(action: Action, state: ConsoleState, target: str) -> str:
    if state.replay is not None:
        return "this is a replay: there is no cluster to change"
    if state.link.state not in (LinkState.LIVE, LinkState.STALE) or state.latest is None:
        return "not connected to a coordinator"
    if state.read_only:
        return state.named("read-only: the coordinator is not on this machine; `{app.command} rw` allows changes (or start with --rw)")
    if action.target is not None and not target and not action.optional:
        return state.named(action.needs)
    if action.id == "cluster.cancel" and any(s.session_id == target for s in state.latest.status.ended.latest):
        return f"session {target} has ended: there is nothing to cancel"
    if action.id == "cluster.confirm" and _suggestion(state) != target:
        return f"suggestion {target} is not open: the situation has changed, see Events"
    if action.plans and state.latest.status.phase is not Phase.SERVING and not state.latest.status.nodes:
        return "no worker has joined: there is nothing to plan for"
    return ""


def still_holds(preview: Preview, state: ConsoleState) -> str:
    """Why a preview must not be sent any more; empty while it may."""
    if preview.blocked or preview.lapsed:
        return preview.blocked or preview.lapsed
    if preview.pending:
        return "the coordinator has not answered yet"
    if excluded := _excluded(preview, state):
        return excluded
    status = state.latest.status if state.latest else None
    now = status.plan_version if status else 0
    if preview.action == "cluster.auto":
        mode = status.adaptation.mode if status else ""
        if mode != preview.mode:
            return f"the mode moved from {preview.mode} to {mode} since this preview: look again"
        return (
            f"adaptation is {mode} already: " + state.named("{nav.up} and {nav.down} choose another mode") if preview.target == mode else ""
        )
    if preview.action == "cluster.forget" and node_state(state, preview.target) is not NodeState.LOST:
        return f"{preview.target} is not lost any more: there is nothing to forget"
    if now != preview.plan_version and preview.action not in ("cluster.forget", "cluster.acknowledge"):
        return f"the plan moved from #{preview.plan_version} to #{now} since this preview: look again"
    if preview.action == "cluster.confirm" and not _same_move(preview, state):
        return f"suggestion {preview.target} has lapsed since this preview: look again"
    return ""


def _excluded(preview: Preview, state: ConsoleState) -> str:
    """Only changes of the plan exclude each other, and everything excludes a second one of itself."""
    if ACTIONS[preview.action].plans and state.move is not None:
        return f"{state.move.title} is still running: one change of the plan at a time"
    if any(run.title == title_of(preview) and run.state == "running" for run in state.actions):
        return f"{title_of(preview)} is running already"
    return ""


def _same_move(preview: Preview, state: ConsoleState) -> bool:
    """New measurements renew a suggestion under another number: the move that was previewed counts."""
    offered = state.suggestion
    return offered is not None and preview.plan is not None and offered.entry.stages == preview.plan.stages


def arguments_of(preview: Preview) -> tuple[object, ...]:
    """What the call is given, in its order."""
    values: dict[str, object] = {
        "plan_version": preview.plan_version,
        "target": preview.target,
        "targets": preview.names,
        "stages": preview.plan.stages if preview.plan else (),
        "strategy": preview.plan.strategy if preview.plan and preview.plan.strategy != GIVEN else "",
        "decision": int(preview.target) if preview.target.isdecimal() else 0,
        "mode": preview.mode,
        "nothing": "",
        "zero": 0,
    }
    return tuple(values[name] for name in ACTIONS[preview.action].sends)


def is_one_request(preview: Preview) -> bool:
    """The coordinator is told of all of them at once; else of one after the other."""
    return not preview.also or "targets" in ACTIONS[preview.action].sends


def command_of(preview: Preview) -> str:
    """The same on a command line: for the same target, and for no other plan."""
    action = ACTIONS[preview.action]
    if preview.also and not is_one_request(preview):
        return ""
    words = action.command.split()
    if words and words[-1].isupper():
        chosen = preview.target not in ("", ALL_NODES)
        words[-1:] = preview.names if chosen else [] if action.optional else words[-1:]
    goes_with_a_plan = "plan_version" in action.sends
    return " ".join((*words, *((f"--for-plan {preview.plan_version}",) if goes_with_a_plan else ())))


def title_of(preview: Preview) -> str:
    verb = ACTIONS[preview.action].verb
    if preview.action == "cluster.rollback" and preview.target:
        return f"{verb} to the stages of plan #{preview.target}"
    names = preview.names
    shown = ", ".join(short_id(name) for name in names[:MOST_NAMES])
    return f"{verb} {shown}{f' and {len(names) - MOST_NAMES} more' if names[MOST_NAMES:] else ''}" if preview.target else verb
