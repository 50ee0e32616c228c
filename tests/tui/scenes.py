"""Whole states of the console, each reached by messages alone: what the golden frames show."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from engine.data.generation import FinishReason
from engine.data.precision import Identity, Precision
from engine.data.status import NodeState, Phase, SessionStatus, Severity
from noodle_tui.changes.actions import ACTIONS, preview_of
from noodle_tui.changes.reducer import reduce
from noodle_tui.cluster.link import mismatch_sentence
from noodle_tui.cluster.profile_file import read_profile
from noodle_tui.core import messages as m
from noodle_tui.core.logs import LogLine
from noodle_tui.core.pages import Entry, EntryKind, Notice, Page, ThemeChoice
from noodle_tui.state import ConsoleState
from tests.tui import frames

NOW_S = 100.0
WALL_S = 1_700_000_000.0
PROFILE = Path(__file__).parent / "profile.json"
EVENTS = (
    frames.event(1, "#14 balanced: gpu-a 0-4 | cpu-b 5-8 | gpu-c 9-11 | pi-d 12-13, bottleneck 11.8 ms"),
    frames.event(2, "serving on 4 stages", Severity.OK, subject="#14"),
    frames.event(3, "stage latency 11.8 ms > 1.5x planned 7.6 ms", Severity.WARN, subject="gpu-c", kind="node"),
)
SESSIONS = (
    SessionStatus("s-21aa", "decode", 312, 141, 512, 0.228, 14.1, 20.0, 0.031),
    SessionStatus("s-22bb", "decode", 88, 402, 512, 0.201, 14.0, 57.0, 0.0304),
    SessionStatus("s-23cc", "prefill", 1900, 0, 256, 0.0, 0.0, 2.0),
    SessionStatus("s-24dd", "queued", 104, 0, 256, 0.0, 0.0, 19.0, 0.0, 1, 19.0, "KV budget: needs 360 tokens, 40 of 2048 are free"),
)
FINISHED = (
    SessionStatus("s-20ff", "failed", 60, 7, 256, 0.3, 12.0, 4.0, 0.09, why="DATA_LOSS: a checksum is wrong", finish_reason="error"),
    SessionStatus("s-19ee", "done", 12, 64, 64, 0.21, 13.9, 5.0, 0.029, finish_reason="length"),
)
SERVED = {"sessions": SESSIONS, "latest": FINISHED, "num_failed": 1}


UNKNOWNS = ("cpu-b was measured at a short context only: P on screen 2 profiles it",)
SLOWER = (0.0031, 0.0042, 0.0105, 0.003)


def state_of(*timed: tuple[float, m.Message], state: ConsoleState | None = None) -> ConsoleState:
    state = state or ConsoleState()
    for now_s, message in timed:
        state = reduce(state, message, now_s)
    return state


HALF = Precision("float32", "bfloat16", 2**30)


def live(num_nodes: int = 4, **changes: Any) -> m.FrameArrived:
    return m.FrameArrived(frames.frame(frames.status(num_nodes, **changes), *EVENTS), WALL_S)


def slow_third_stage() -> dict[str, Any]:
    """gpu-c takes half as long again as its plan."""
    base = frames.status()
    stages = tuple(replace(s, predicted_s=0.0076) if s.worker_id == "gpu-c" else s for s in base.stages)
    nodes = tuple(replace(n, state=NodeState.WARN) if n.worker_id == "gpu-c" else n for n in base.nodes)
    made = {"predicted_bottleneck_s": 0.0076, "predicted_step_s": sum(s.predicted_s + 0.001 for s in stages)}
    return {"stages": stages, "nodes": nodes, **made}


def lived(stop_s: float = 99.5) -> ConsoleState:
    """A minute of frames: plan 13, then 14, on which the third stage turns slow."""
    state = ConsoleState()
    for i in range(60):
        changes: dict[str, Any] = slow_third_stage() | {**SERVED, "plan_version": 13 if i < 25 else 14}
        changes |= {"step_p95_s": 0.028 + 0.002 * (i % 5), "tokens_per_s": 80.0 + i % 7}
        if i < 25:
            changes["stages"] = tuple(replace(s, start=0, stop=0) if s.worker_id == "pi-d" else s for s in changes["stages"])
            changes["stages"] = tuple(replace(s, stop=14) if s.worker_id == "gpu-c" else s for s in changes["stages"])
        events = EVENTS if i == 30 else ()
        frame = m.FrameArrived(frames.frame(frames.status(**changes), *events), WALL_S - 59 + i)
        state = reduce(state, frame, stop_s - 59 + i)
    return state


def keyed(state: ConsoleState, *key_ids: str) -> ConsoleState:
    return state_of(*((99.6, m.KeyPressed(key_id)) for key_id in key_ids), state=state)


def page(name: Page, *key_ids: str) -> ConsoleState:
    return keyed(lived(), f"screen.{name.value}", *key_ids)


def compared() -> ConsoleState:
    """The strategies have answered; the cursor is on the best one."""
    candidates = (
        m.CandidateArrived("balanced", frames.plan(), move=frames.move(unknowns=UNKNOWNS)),
        m.CandidateArrived(
            "memory_aware",
            frames.plan("memory_aware", (0, 5, 9, 11, 14), bottleneck_s=0.0105, stage_s=(0.0031, 0.0042, 0.0105, 0.003)),
            move=frames.move(num_items=1, weight_bytes=2**28, load_s=2.1, num_measured=0),
        ),
        m.CandidateArrived("cost", None, "no plan fits: pi-d holds 4 GiB and item 13 alone needs 5 GiB; add a node or memory"),
    )
    timed = [
        (99.0, m.WhatIfAsked(14)),
        (99.1, m.PresentPlanned(frames.present())),
        *((99.1, candidate) for candidate in candidates),
        (99.2, m.WhatIfEnded(WALL_S)),
    ]
    return state_of(*timed, state=page(Page.WHATIF))


def suggesting(state: ConsoleState | None = None) -> ConsoleState:
    """Adaptation has found a plan that pays and waits to be told."""
    changes = slow_third_stage() | {**SERVED, "mode": "suggest", "suggestion_id": 7}
    state = state_of((99.5, live(**changes)), state=state or lived())
    return state_of((99.6, m.SuggestionArrived(frames.suggested(), frames.plan("given"), frames.move())), state=state)


def mismatched(state: ConsoleState | None = None) -> ConsoleState:
    text = mismatch_sentence("10.0.0.5:7070", "0.3.0 (protocol 3)", "0.1.0 (protocol 2)", other_is_older=True)
    return state_of((90.0, m.Dialling("10.0.0.5:7070")), (95.0, m.LinkLost(text, 104.0, mismatch=True)), state=state)


def answered() -> ConsoleState:
    text = "Pipeline parallelism splits a model's layers into stages on different devices; each token passes them in order."
    tokens = [(91.0 + i * 0.05, m.TokenArrived(1, frames.chunk(i, " " + word))) for i, word in enumerate(text.split())]
    last = m.TokenArrived(1, frames.chunk(-1, "", finish_reason=FinishReason.LENGTH))
    timed = [(90.8, m.PromptSent(1, "explain pipelines", 64, 0.0, 0)), *tokens, (97.0, last), (97.0, m.SessionEnded(1))]
    return state_of(*timed, state=page(Page.PROMPT))


def profiled(*key_ids: str) -> ConsoleState:
    view = read_profile(PROFILE)
    return keyed(state_of((99.0, m.ProfileLoaded("p", replace(view, path="profile.json"))), state=page(Page.PROFILE)), *key_ids)


def large(num_stages: int = 48, num_machines: int = 6) -> ConsoleState:
    """A plan of more stages than a picture can hold, eight to a machine; one of them is slow."""
    names = [f"rack-{i * num_machines // num_stages}-gpu{i % (num_stages // num_machines)}" for i in range(num_stages)]
    nodes = tuple(frames.node(name, i, i + 1, host=name.rpartition("-")[0]) for i, name in enumerate(names))
    stages = tuple(frames.stage(name, i, i + 1, 0.0085 if i == 29 else 0.002 + 0.0001 * (i % 5)) for i, name in enumerate(names))
    state = state_of((99.5, live(nodes=nodes, stages=stages, num_items=num_stages)))
    return keyed(state, "screen.plan")


def deep(*key_ids: str) -> ConsoleState:
    """A model of many blocks that take the same, but for one."""
    view = read_profile(PROFILE)
    phase = view.phases[1]
    block = next(item for item in phase.items if item.name == "h.1")
    times = [0.0149 if i == 9 else 0.0047 + 0.00003 * (i % 3) for i in range(16)]
    blocks = tuple(
        replace(block, index=i + 1, name=f"h.{i}", p50_s=time_s, p95_s=time_s * 1.1, share=time_s / 0.09) for i, time_s in enumerate(times)
    )
    items = (phase.items[0], *blocks, replace(phase.items[-1], index=17))
    shown = replace(view, path="profile.json", phases=(replace(phase, items=items),))
    return keyed(state_of((99.0, m.ProfileLoaded("p", shown)), state=page(Page.PROFILE)), *key_ids)


def doubtfully_profiled() -> ConsoleState:
    """Steps varied too much for any share to mean something."""
    view = replace(read_profile(PROFILE), path="profile.json", noise_cv=0.87, doubt="a step varies by 87 % at decode ctx 16")
    return state_of((99.0, m.ProfileLoaded("p", view)), state=page(Page.PROFILE))


def serving_profiled() -> ConsoleState:
    """The profile on screen is of the model that serves."""
    ranges = ((0, 2), (2, 5), (5, 6))
    stages = tuple(frames.stage(frames.NAMES[i], *ranges[i], frames.TIMES_S[i], queue_p50_s=0.002) for i in range(3))
    return state_of((99.5, live(3, stages=stages, num_items=6)), state=profiled("nav.down", "nav.down"))


def twice_profiled(*key_ids: str) -> ConsoleState:
    """Another profile of the same model was shown before; its blocks took half as long."""
    view = replace(read_profile(PROFILE), path="profile-gpu-a/profile.json", host="gpu-a")
    phase = view.phases[0]
    items = tuple(replace(item, p50_s=item.p50_s / 2 if item.name.startswith("h.") else item.p50_s) for item in phase.items)
    earlier = m.ProfileLoaded("q", replace(view, phases=(replace(phase, items=items), *view.phases[1:])))
    shown = m.ProfileLoaded("p", replace(view, path="profile.json"))
    return keyed(state_of((98.0, earlier), (99.0, shown), state=page(Page.PROFILE)), *key_ids)


def helped(text: str) -> ConsoleState:
    return state_of((99.7, m.HelpFiltered(text)), state=page(Page.PLAN, "app.help"))


def _own(state: ConsoleState) -> ConsoleState:
    """The console of an embedded cluster, whose logs it reads."""
    return replace(state, setup=replace(state.setup, owns_cluster=True))


def logged() -> ConsoleState:
    said = [("w1", "info", "measuring 14 items"), ("w2", "WARN", "WARN slow disk: 31 MB/s"), ("w2", "ERROR", "ERROR cannot bind port")]
    lines = tuple(LogLine(0, WALL_S + i, level, source, text) for i, (source, level, text) in enumerate(said))
    return keyed(state_of((99.0, m.LogsArrived(lines)), state=_own(page(Page.LOGS))))


def flooded() -> ConsoleState:
    """A process writes more than anybody can read."""
    lines = tuple(LogLine(0, WALL_S, "info", "w1", f"step {i}") for i in range(312))
    return state_of((99.9, m.LogsArrived(lines)), state=_own(page(Page.LOGS)))


def repeating(name: Page) -> ConsoleState:
    """Adaptation has looked twenty times and found nothing worth doing, while sessions ended."""
    texts = [(i, f"decision {i}: decline", "adapt") if i % 5 else (i, f"length: {i} tokens", "session") for i in range(4, 29)]
    events = [frames.event(i, text, subject=f"#{i}", kind=kind) for i, text, kind in texts]
    return keyed(state_of((99.5, m.FrameArrived(frames.frame(frames.status(), *events), WALL_S)), state=lived()), f"screen.{name.value}")


def previewed(action: str, state: ConsoleState | None = None, target: str = "") -> ConsoleState:
    state = state or lived()
    state = state_of((99.0, m.DialogChanged(preview_of(ACTIONS[action], state, target))), state=state)
    if not ACTIONS[action].plans:
        return state
    dialog = state.ui.dialog
    about = "the stages of plan #13 (balanced), with the times that hold now" if action == "cluster.rollback" else ""
    answer = m.PreviewArrived(
        action, getattr(dialog, "target", ""), frames.plan(), frames.present(), move=frames.move(unknowns=UNKNOWNS), about=about
    )
    return state_of((99.1, answer), state=state)


def offline() -> ConsoleState:
    lost = m.LinkLost("cannot reach 10.0.0.5:7070: Connection refused; is it running, and is the address right?", 104.0)
    return state_of((90.0, m.Dialling("10.0.0.5:7070")), (90.0, lost), state=lived(89.5))


def back() -> ConsoleState:
    """The coordinator is there again, on another plan and with one node less."""
    nodes = tuple(
        replace(n, state=NodeState.LOST, detail="its connection broke") if n.worker_id == "pi-d" else n for n in frames.status().nodes
    )
    event = frames.event(4, "pi-d lost: its connection broke", Severity.ERROR, subject="pi-d", kind="node")
    return state_of((99.8, m.FrameArrived(frames.frame(frames.status(nodes=nodes, plan_version=15), event), WALL_S)), state=offline())


def degraded() -> ConsoleState:
    nodes = (frames.node(state=NodeState.LOST, detail="gone"),)
    frame = live(phase=Phase.GATHERING, detail="waiting for 4 workers", nodes=nodes, stages=())
    return state_of((99.0, m.ProcessesDied(("w2 (pid 7) was killed by signal 9",))), (99.5, frame))


def failed() -> ConsoleState:
    text = "Refused: the plan is #15 now, not #14: look at it and ask again"
    return state_of((99.0, m.ActionChanged("REBALANCE", "running")), (99.5, m.ActionChanged("REBALANCE", "failed", text)), state=lived())


def starting() -> ConsoleState:
    return state_of((97.0, m.BootProgress("Starting a cluster on this machine: a coordinator and worker processes for gpt2 ...")))


def palette(text: str, choice: int = -1) -> ConsoleState:
    return state_of((99.0, m.EntryChanged(Entry(EntryKind.COMMAND, text, choice))), state=lived())


def themes() -> ConsoleState:
    return state_of((99.0, m.DialogChanged(ThemeChoice(("noodle-dark", "ansi", "mono"), 1, "noodle-dark"))), state=lived())


def said(message: m.Message, state: ConsoleState | None = None) -> ConsoleState:
    return state_of((99.5, message), state=state or lived())


def running() -> ConsoleState:
    text = "round 2: decode ctx 64  38 %"
    return state_of((99.5, m.ActionChanged("PROFILE gpu-c", "running", text)), state=lived())


def read_in_full() -> ConsoleState:
    """`e` on an action that failed."""
    text = "Unavailable: the coordinator at 10.0.0.5:7070 did not answer: Deadline Exceeded; look at `noodle-engine status`, then try again"
    return state_of((99.0, m.DialogChanged(Notice("REBALANCE failed", text))), state=lived())


def streaming(last: m.Message | None = None) -> ConsoleState:
    """An answer on its way, or what ended it."""
    tokens = [(91.0 + i * 0.05, m.TokenArrived(1, frames.chunk(i, f" word{i}"))) for i in range(30)]
    timed = [(90.8, m.PromptSent(1, "count words", 64, 0.7, 7)), *tokens, *([(97.0, last)] if last else [])]
    return state_of(*timed, state=page(Page.PROMPT))


def slowed() -> ConsoleState:
    """An answer of which one token waited at a node, and one came late by the wire."""
    tokens: list[tuple[float, m.Message]] = []
    for i in range(40):
        chunk = frames.chunk(i, f" word{i}")
        if i == 33:
            late = tuple(replace(t, queue_s=0.118) if t.worker_id == "gpu-c" else t for t in chunk.timings)
            chunk = replace(chunk, timings=late, step_s=0.142)
        tokens.append((91.0 + i * 0.05, m.TokenArrived(1, replace(chunk, step_s=0.0652) if i == 36 else chunk)))
    return state_of((90.8, m.PromptSent(1, "count words", 64, 0.7, 7)), *tokens, state=page(Page.PROMPT))


def filtered(text: str) -> ConsoleState:
    return state_of((99.0, m.EntryChanged(Entry(EntryKind.FILTER, text))), state=page(Page.NODES))


SCENES: dict[str, Callable[[], ConsoleState]] = {
    "overview": lived,
    "nodes": lambda: page(Page.NODES, "nav.down", "nav.down"),
    "plan": lambda: page(Page.PLAN, "nav.down", "nav.down"),
    "plan-of-layers": lambda: page(Page.PLAN, "view.mode"),
    "plan-of-memory": lambda: page(Page.PLAN, "view.mode", "view.mode"),
    "plan-of-compare": lambda: page(Page.PLAN, "view.compare"),
    "overview-of-machines": lambda: keyed(large(), "screen.overview"),
    "overview-of-slowest": lambda: keyed(large(), "screen.overview", "view.expand"),
    "plan-of-machines": lambda: keyed(large(), "nav.down", "nav.down", "nav.down"),
    "plan-of-machines-as-layers": lambda: keyed(large(), "view.mode", "nav.down"),
    "plan-of-machines-as-memory": lambda: keyed(large(), "view.mode", "view.mode"),
    "plan-of-every-stage": lambda: keyed(large(), "view.expand", *["nav.down"] * 29),
    "what-if": lambda: keyed(compared(), "nav.down"),
    "what-if-of-infeasible": lambda: keyed(compared(), "nav.end"),
    "what-if-of-memory": lambda: keyed(compared(), "nav.down", "nav.down", "nav.down", "view.metric"),
    "what-if-of-items": lambda: keyed(compared(), "nav.down", "nav.down", "nav.down", "view.metric", "view.metric"),
    "events": lambda: page(Page.EVENTS),
    "sessions": lambda: page(Page.SESSIONS),
    "sessions-of-queued": lambda: keyed(page(Page.SESSIONS), "nav.down", "nav.down", "nav.down"),
    "sessions-of-failed": lambda: keyed(page(Page.SESSIONS), "nav.down", "nav.down", "nav.down", "nav.down"),
    "profile": profiled,
    "profile-of-noise": doubtfully_profiled,
    "profile-of-empty": lambda: page(Page.PROFILE),
    "profile-of-memory": lambda: profiled("view.metric"),
    "profile-of-speed": lambda: profiled("view.metric", "view.metric"),
    "profile-of-serving": serving_profiled,
    "profile-of-compare": lambda: twice_profiled("view.compare"),
    "profile-of-alike": lambda: deep("nav.down"),
    "profile-of-every-item": lambda: deep("view.expand", *["nav.down"] * 10),
    "prompt": answered,
    "prompt-of-empty": lambda: page(Page.PROMPT),
    "logs": logged,
    "nodes-of-details": lambda: page(Page.NODES, "nav.down", "nav.down", "nav.in"),
    "nodes-of-filter": lambda: filtered("state:warn"),
    "nodes-of-nothing": lambda: filtered("tpu"),
    "events-of-details": lambda: page(Page.EVENTS, "nav.in"),
    "events-of-repeats": lambda: repeating(Page.EVENTS),
    "events-of-kind": lambda: page(Page.EVENTS, "view.kind"),
    "logs-of-repeats": lambda: repeating(Page.LOGS),
    "logs-of-flood": flooded,
    "logs-of-details": lambda: keyed(logged(), "nav.up", "nav.in"),
    "prompt-of-streaming": streaming,
    "prompt-of-slow-tokens": slowed,
    "prompt-of-error": lambda: streaming(m.SessionEnded(1, "Unavailable: the session was lost with its worker: ask again")),
    "overview-of-sessions": lambda: keyed(lived(), "nav.panel"),
    "help": lambda: page(Page.PLAN, "app.help"),
    "help-of-filter": lambda: helped("plan"),
    "help-of-nothing": lambda: helped("teleport"),
    "overview-in-braille": lived,
    "nodes-in-braille": lambda: page(Page.NODES, "nav.down", "nav.down"),
    "events-in-braille": lambda: page(Page.EVENTS),
    "help-in-braille": lambda: page(Page.NODES, "app.help"),
    "palette-of-everything": lambda: palette(""),
    "palette-of-nothing": lambda: palette("fly to the moon"),
    "palette": lambda: palette("th", 1),
    "themes": themes,
    "confirm-rebalance": lambda: previewed("cluster.rebalance"),
    "confirm-apply": lambda: previewed("cluster.apply", keyed(compared(), "nav.down", "nav.down", "nav.down", "nav.down"), "memory_aware"),
    "confirm-drain": lambda: previewed("cluster.drain"),
    "confirm-read-only": lambda: previewed("cluster.cancel", said(m.AccessChanged(True))),
    "confirm-rollback": lambda: previewed("cluster.rollback"),
    "confirm-auto": lambda: previewed("cluster.auto", suggesting()),
    "confirm-suggestion": lambda: previewed("cluster.confirm", suggesting()),
    "what-if-of-suggestion": lambda: keyed(suggesting(compared()), "nav.down", "nav.down", "nav.down"),
    "what-if-of-compare": lambda: keyed(compared(), "nav.down", "nav.down", "nav.down", "view.compare", "nav.down"),
    "suggesting": suggesting,
    "version": mismatched,
    "version-of-replaced": lambda: mismatched(lived(89.5)),
    "versions": lambda: state_of((99.0, m.PeerKnown("0.3.0", "0.5.1")), (99.5, live())),
    "half-precision": lambda: state_of((99.5, live(3, precision=HALF, identity=Identity.WITHIN_TOLERANCE))),
    "random": lambda: state_of((99.5, live(3, random_weights=True, has_tokenizer=False))),
    "boot": lambda: state_of((99.5, m.FrameArrived(frames.frame(frames.booting()), WALL_S))),
    "starting": starting,
    "connecting": lambda: state_of((97.0, m.Dialling("10.0.0.5:7070"))),
    "no-workers": lambda: state_of((99.5, live(0, phase=Phase.GATHERING, detail="", sessions=(), num_workers_expected=3))),
    "stale": lambda: said(m.Tick(), state_of((92.0, live()), (96.0, m.Tick()))),
    "offline": offline,
    "back": back,
    "degraded": degraded,
    "failed": failed,
    "failed-in-full": read_in_full,
    "running": running,
    "refused": lambda: said(m.PromptRefused("max tokens '12x' is not a number"), page(Page.PROMPT)),
    "quitting": lambda: said(m.Quitting("ending the cluster's processes, q again = at once")),
    "hold": lambda: said(m.HoldToggled(WALL_S)),
    "replay": lambda: said(m.ReplayMoved(30, 60, WALL_S, 4.0, False)),
}


def scene(name: str) -> ConsoleState:
    return SCENES[name]()
