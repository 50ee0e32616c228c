"""`reduce`: the state after a message. The only way from one state to the next; pure, time is an argument."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from engine.data.status import ClusterStatus, Event, without_former
from noodle_tui.changes import ui_reducer
from noodle_tui.core import generation
from noodle_tui.core.generation import MAX_ANSWER_CHARS
from noodle_tui.core.history import History, missed
from noodle_tui.core.logs import event_line
from noodle_tui.core.messages import (
    AccessChanged,
    ActionChanged,
    AnswerScrolled,
    BootFailed,
    BootProgress,
    CandidateArrived,
    ConversationBegun,
    ConversationChosen,
    Dialling,
    DialogChanged,
    EntryChanged,
    FrameArrived,
    HelpFiltered,
    HoldToggled,
    KeyPressed,
    LinkLost,
    LinksArrived,
    LogsArrived,
    Message,
    PeerKnown,
    PresentPlanned,
    PreviewArrived,
    ProcessesDied,
    ProfileLoaded,
    PromptRefused,
    PromptSent,
    Quitting,
    RecordingChanged,
    RefusalDismissed,
    ReplayMoved,
    RowChosen,
    Said,
    SessionEnded,
    SuggestionArrived,
    SystemChanged,
    TextArrived,
    Tick,
    TokenArrived,
    WhatIfAsked,
    WhatIfEnded,
)
from noodle_tui.core.pages import Preview
from noodle_tui.state import (
    MAX_ERROR_CHARS,
    MAX_EVENTS,
    STALE_AFTER_S,
    ActionRun,
    Candidate,
    ConsoleState,
    Held,
    Link,
    LinksKnown,
    LinkState,
    ProfileState,
    Sentence,
    Suggestion,
    TextKnown,
    View,
    WhatIf,
)
from noodle_tui.text.link_errors import plainly
from noodle_tui.text.safe_text import clean, safe_text

DOWN = (LinkState.OFFLINE, LinkState.VERSION)
SAID_FOR_S = 20.0  # a sentence that nobody has to act on goes away by itself


def reduce(state: ConsoleState, message: Message, now_s: float) -> ConsoleState:
    """The state after `message`, which arrived at `now_s`."""
    return _HANDLERS[type(message)](state, message, now_s)


# --- the link -------------------------------------------------------------------------------------------------
def _boot_progress(state: ConsoleState, message: BootProgress, now_s: float) -> ConsoleState:
    link = Link(since_s=now_s, boot=safe_text(message.text))
    fresh = replace(state, link=link, failures=(), latest=None, held=None, history=History(), whatif=WhatIf())
    return replace(fresh, actions=(), said=None)  # what was known was of another cluster


def _boot_failed(state: ConsoleState, message: BootFailed, now_s: float) -> ConsoleState:
    error = safe_text(message.error, MAX_ERROR_CHARS)
    return replace(state, link=Link(LinkState.OFFLINE, now_s, error=error))


def _dialling(state: ConsoleState, message: Dialling, now_s: float) -> ConsoleState:
    link = state.link
    changed = replace(link, address=safe_text(message.address), attempt=link.attempt + 1, retry_at_s=None)
    if link.state not in DOWN:
        changed = replace(changed, state=LinkState.CONNECTING, since_s=link.since_s or now_s)
    return replace(state, link=changed)  # OFFLINE stays OFFLINE until a frame proves otherwise


def _frame_arrived(state: ConsoleState, message: FrameArrived, now_s: float) -> ConsoleState:
    status = clean(message.frame.status)
    before = None if message.anew else state.latest
    events = _merge(before, status, message.frame.events)
    view = View(status, events, now_s, message.wall_s)
    link = Link(LinkState.LIVE, now_s, state.link.address, versions=state.link.versions)
    if state.link.state is LinkState.LIVE:
        link = replace(link, since_s=state.link.since_s)
    after = replace(
        state,
        link=link,
        latest=view,
        history=_history(state, message).with_frame(status, message.wall_s),
        said=_what_was_missed(state, view, now_s) or state.said,
        whatif=_still_for(state.whatif, status),
    )
    lines = [event_line(event, 0) for event in reversed(_fresh(before, events))]
    return _with_logs(after, lines, now_s if before else None, anew=message.anew)  # the first frame brings what happened long ago


def _history(state: ConsoleState, message: FrameArrived) -> History:
    """What led to a frame. A replay that jumped has not seen it: its message brings the seconds before."""
    if not message.anew:
        return state.history
    history = replace(state.history, standing=History().standing)
    for frame, wall_s in message.lead:
        history = history.with_frame(clean(frame.status), wall_s)
    return history


def _still_for(whatif: WhatIf, status: ClusterStatus) -> WhatIf:
    """Another plan serves: what was found for the one before is no offer any more."""
    if whatif.plan_version == status.plan_version:
        return whatif
    return replace(whatif, candidates=(), present=None)


def _fresh(before: View | None, events: tuple[Event, ...]) -> tuple[Event, ...]:
    """Events that were not known before, newest first."""
    known = {(event.sequence, event.wall_s) for event in before.events} if before else set()
    return tuple(event for event in events if (event.sequence, event.wall_s) not in known)


def _what_was_missed(state: ConsoleState, view: View, now_s: float) -> Sentence | None:
    """Said when the link is back; a replay that jumps misses nothing."""
    before = state.latest
    if state.link.state not in DOWN or before is None or state.replay is not None:
        return None
    return Sentence(missed(before.status, view.status, _fresh(before, view.events), now_s - before.arrived_s), now_s)


def _merge(previous: View | None, status: ClusterStatus, events: tuple[Event, ...]) -> tuple[Event, ...]:
    """Newest first, each event once and as it was told last; a younger coordinator than before starts a new list."""
    known = previous.events if previous and status.uptime_s >= previous.status.uptime_s else ()
    newest = known[0].sequence if known else -1
    fresh = [clean(event) for event in sorted(events, key=lambda e: -e.sequence) if event.sequence > newest]
    return without_former((*fresh, *known)[::-1])[::-1][:MAX_EVENTS]


def _link_lost(state: ConsoleState, message: LinkLost, now_s: float) -> ConsoleState:
    since_s = state.link.since_s if state.link.state in DOWN else now_s
    error = safe_text(plainly(message.error, "" if state.replay is not None else state.link.address), MAX_ERROR_CHARS)
    down = LinkState.VERSION if message.mismatch else LinkState.OFFLINE
    link = replace(state.link, state=down, since_s=since_s, error=error, retry_at_s=message.retry_at_s)
    return replace(state, link=link)


def _peer_known(state: ConsoleState, message: PeerKnown, now_s: float) -> ConsoleState:
    own, other = safe_text(message.own, 40), safe_text(message.coordinator, 40)
    versions = f"console {own}, coordinator {other}" if own != other else ""
    return replace(state, link=replace(state.link, versions=versions))


def _processes_died(state: ConsoleState, message: ProcessesDied, now_s: float) -> ConsoleState:
    return replace(state, failures=clean(message.failures))


def _tick(state: ConsoleState, message: Tick, now_s: float) -> ConsoleState:
    state = _forgotten(state, now_s)
    silent = state.latest is not None and state.replay is None and now_s - state.latest.arrived_s >= STALE_AFTER_S
    if state.link.state is LinkState.LIVE and silent:
        return replace(state, link=replace(state.link, state=LinkState.STALE, since_s=now_s))
    return state


def _replay_moved(state: ConsoleState, message: ReplayMoved, now_s: float) -> ConsoleState:
    return replace(state, replay=message)


def _recording_changed(state: ConsoleState, message: RecordingChanged, now_s: float) -> ConsoleState:
    return replace(state, recording=safe_text(message.path), refusal=safe_text(message.error) or state.refusal)


def _forgotten(state: ConsoleState, now_s: float) -> ConsoleState:
    """What needs nobody's answer goes away by itself; failures stay."""
    if state.said and not state.said.is_error and now_s - state.said.since_s >= SAID_FOR_S:
        state = replace(state, said=None)
    kept = tuple(run for run in state.actions if run.state != "done" or now_s - run.since_s < SAID_FOR_S)
    return replace(state, actions=kept) if kept != state.actions else state


# --- the display ----------------------------------------------------------------------------------------------
def _hold_toggled(state: ConsoleState, message: HoldToggled, now_s: float) -> ConsoleState:
    if state.held is not None or state.latest is None:
        return replace(state, held=None)
    return replace(state, held=Held(state.latest, message.wall_s))


def _answer_scrolled(state: ConsoleState, message: AnswerScrolled, now_s: float) -> ConsoleState:
    return replace(state, talk=replace(state.talk, scroll=max(0, state.talk.scroll + message.step)))


def _quitting(state: ConsoleState, message: Quitting, now_s: float) -> ConsoleState:
    return replace(state, quitting=safe_text(message.text))


def _said(state: ConsoleState, message: Said, now_s: float) -> ConsoleState:
    return replace(state, said=Sentence(safe_text(message.text), now_s, message.is_error) if message.text else None)


def _logs_arrived(state: ConsoleState, message: LogsArrived, now_s: float) -> ConsoleState:
    return _with_logs(state, list(clean(message.lines)), now_s)


def _with_logs(state: ConsoleState, lines: list[Any], now_s: float | None, *, anew: bool = False) -> ConsoleState:
    if not lines and not anew:
        return state
    return replace(state, logs=state.logs.with_lines(lines, now_s, anew=anew))


# --- actions --------------------------------------------------------------------------------------------------
def _preview_arrived(state: ConsoleState, message: PreviewArrived, now_s: float) -> ConsoleState:
    dialog = state.ui.dialog
    if not isinstance(dialog, Preview) or (dialog.action, dialog.target) != (message.action, message.target):
        return state  # the user has gone on
    about, error = safe_text(message.about) or dialog.about, safe_text(message.error)
    answered = replace(dialog, pending=False, plan=clean(message.plan), present=clean(message.present), move=clean(message.move))
    answered = replace(answered, about=about, blocked=error or dialog.blocked, lapsed=safe_text(message.lapsed))
    return replace(state, ui=replace(state.ui, dialog=answered))


def _action_changed(state: ConsoleState, message: ActionChanged, now_s: float) -> ConsoleState:
    if not message.state:
        return replace(state, actions=tuple(run for run in state.actions if run.state == "running"))
    run = ActionRun(safe_text(message.title), message.state, now_s, safe_text(message.detail, MAX_ERROR_CHARS), message.is_move)
    return replace(state, actions=(*(other for other in state.actions if other.title != run.title), run), said=None)


def _whatif_asked(state: ConsoleState, message: WhatIfAsked, now_s: float) -> ConsoleState:
    return replace(state, whatif=WhatIf(message.plan_version, True))


def _candidate_arrived(state: ConsoleState, message: CandidateArrived, now_s: float) -> ConsoleState:
    now, asked = state.latest.status.plan_version if state.latest else 0, state.whatif.plan_version
    if asked != now or (message.plan is not None and message.plan.for_version != asked):
        return state  # the plan that it was asked for serves no longer
    candidate = Candidate(safe_text(message.strategy, 64), clean(message.plan), safe_text(message.error), clean(message.move))
    others = tuple(c for c in state.whatif.candidates if c.strategy != candidate.strategy)
    return replace(state, whatif=replace(state.whatif, candidates=(*others, candidate)))


def _suggestion_arrived(state: ConsoleState, message: SuggestionArrived, now_s: float) -> ConsoleState:
    return replace(state, known_suggestion=Suggestion(clean(message.entry), clean(message.plan), clean(message.move)))


def _text_arrived(state: ConsoleState, message: TextArrived, now_s: float) -> ConsoleState:
    text = message.text
    prompt, answer = (safe_text(part, MAX_ANSWER_CHARS, multiline=True) for part in (text.prompt, text.answer))
    known = replace(text, session_id=safe_text(text.session_id, 64), prompt=prompt, answer=answer)
    return replace(state, text=TextKnown(known, message.num_generated, safe_text(message.error)))


def _links_arrived(state: ConsoleState, message: LinksArrived, now_s: float) -> ConsoleState:
    return replace(state, links=LinksKnown(clean(message.links), message.event))


def _whatif_ended(state: ConsoleState, message: WhatIfEnded, now_s: float) -> ConsoleState:
    return replace(state, whatif=replace(state.whatif, running=False, wall_s=message.wall_s))


def _profile_loaded(state: ConsoleState, message: ProfileLoaded, now_s: float) -> ConsoleState:
    view, shown = message.profile or state.profile.view, state.profile.view
    is_other = shown is not None and view is not None and replace(view, path=shown.path) != shown  # one file has many names
    earlier = shown if is_other else state.profile.earlier
    return replace(state, profile=ProfileState(view, safe_text(message.error), earlier))


# --- the prompt -----------------------------------------------------------------------------------------------
def _system_changed(state: ConsoleState, message: SystemChanged, now_s: float) -> ConsoleState:
    system = safe_text(message.text, generation.MAX_PROMPT_CHARS, multiline=True)
    return replace(state, talk=state.talk.with_current(replace(state.talk.current, system=system)))


def _prompt_sent(state: ConsoleState, message: PromptSent, now_s: float) -> ConsoleState:
    return replace(state, talk=state.talk.asked(generation.begin(message, now_s)), refusal="")


def _prompt_refused(state: ConsoleState, message: PromptRefused, now_s: float) -> ConsoleState:
    return replace(state, refusal=safe_text(message.error))


def _refusal_dismissed(state: ConsoleState, message: RefusalDismissed, now_s: float) -> ConsoleState:
    return replace(state, refusal="")


def _token_arrived(state: ConsoleState, message: TokenArrived, now_s: float) -> ConsoleState:
    talk = state.talk.changed(message.number, lambda turn: generation.receive(turn, message, now_s, state.thresholds.token_s))
    if message.chunk.used is not None:
        talk = replace(talk, has_template=bool(message.chunk.used.template))
    return replace(state, talk=talk)


def _session_ended(state: ConsoleState, message: SessionEnded, now_s: float) -> ConsoleState:
    return replace(state, talk=state.talk.changed(message.number, lambda turn: generation.end(turn, message)))


_HANDLERS: dict[type, Callable[[ConsoleState, Any, float], ConsoleState]] = {
    BootProgress: _boot_progress,
    BootFailed: _boot_failed,
    Dialling: _dialling,
    FrameArrived: _frame_arrived,
    LinkLost: _link_lost,
    PeerKnown: _peer_known,
    ProcessesDied: _processes_died,
    ReplayMoved: _replay_moved,
    RecordingChanged: _recording_changed,
    Tick: _tick,
    HoldToggled: _hold_toggled,
    KeyPressed: lambda state, message, now_s: ui_reducer.pressed(state, message.key_id),
    HelpFiltered: lambda state, message, now_s: ui_reducer.help_filtered(state, message.text),
    RowChosen: lambda state, message, now_s: ui_reducer.row_chosen(state, message.identity),
    EntryChanged: lambda state, message, now_s: ui_reducer.entry_changed(state, message.entry),
    DialogChanged: lambda state, message, now_s: replace(state, ui=replace(state.ui, dialog=message.dialog)),
    PreviewArrived: _preview_arrived,
    ActionChanged: _action_changed,
    WhatIfAsked: _whatif_asked,
    CandidateArrived: _candidate_arrived,
    SuggestionArrived: _suggestion_arrived,
    TextArrived: _text_arrived,
    LinksArrived: _links_arrived,
    PresentPlanned: lambda state, message, now_s: replace(state, whatif=replace(state.whatif, present=clean(message.plan))),
    WhatIfEnded: _whatif_ended,
    ProfileLoaded: _profile_loaded,
    LogsArrived: _logs_arrived,
    AccessChanged: lambda state, message, now_s: replace(state, setup=replace(state.setup, read_only=message.read_only)),
    Said: _said,
    AnswerScrolled: _answer_scrolled,
    ConversationBegun: lambda state, message, now_s: replace(state, talk=state.talk.begun()),
    ConversationChosen: lambda state, message, now_s: replace(state, talk=state.talk.chosen(message.index)),
    SystemChanged: _system_changed,
    Quitting: _quitting,
    PromptSent: _prompt_sent,
    PromptRefused: _prompt_refused,
    RefusalDismissed: _refusal_dismissed,
    TokenArrived: _token_arrived,
    SessionEnded: _session_ended,
}
