"""The console's state as one frozen value and `reduce`, the only way to change it.

Pure: no clock, no I/O, no Textual. Time is an argument, so every state of the link can be tested without waiting.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from engine.data import ClusterStatus, Event
from noodle_tui import generation
from noodle_tui.generation import Generation
from noodle_tui.messages import (
    AnswerScrolled,
    BootFailed,
    BootProgress,
    Dialling,
    FrameArrived,
    HoldToggled,
    LinkLost,
    Message,
    NodeSelected,
    ProcessesDied,
    PromptRefused,
    PromptSent,
    Quitting,
    RecordingChanged,
    RefusalDismissed,
    ReplayMoved,
    SessionEnded,
    Tick,
    TokenArrived,
)
from noodle_tui.safe_text import clean, safe_text

FRAME_INTERVAL_S = 1.0  # the coordinator re-sends at least this often, as proof of life
STALE_AFTER_S = 3 * FRAME_INTERVAL_S
MAX_EVENTS = 500
MAX_ERROR_CHARS = 2_000


class LinkState(StrEnum):
    CONNECTING = "CONNECTING"
    LIVE = "LIVE"
    STALE = "STALE"  # the stream is open, but silent
    OFFLINE = "OFFLINE"


@dataclass(frozen=True, slots=True)
class View:
    """What the coordinator last said, and when it arrived."""

    status: ClusterStatus
    events: tuple[Event, ...]  # newest first
    arrived_s: float
    wall_s: float


@dataclass(frozen=True, slots=True)
class Link:
    """The connection: its state, since when, and what it does next."""

    state: LinkState = LinkState.CONNECTING
    since_s: float = 0.0
    address: str = ""
    attempt: int = 0
    error: str = ""
    retry_at_s: float | None = None  # None: nothing is scheduled, only a key tries again
    boot: str = ""  # what the embedded cluster is doing before its coordinator answers


@dataclass(frozen=True, slots=True)
class ConsoleState:
    """Everything on screen follows from this value and the clock."""

    link: Link = field(default_factory=Link)
    latest: View | None = None
    held: View | None = None  # what the display is frozen at while the user holds it
    held_wall_s: float = 0.0
    failures: tuple[str, ...] = ()  # processes of the embedded cluster that died
    selected: int = 0  # row of the node table
    generation: Generation = field(default_factory=Generation)
    answer_scroll: int = 0  # rows back from the end of the answer
    refusal: str = ""  # why the last prompt was not sent; stays until dismissed
    quitting: str = ""
    replay: ReplayMoved | None = None
    recording: str = ""  # the file that is being written

    @property
    def shown(self) -> View | None:
        """What panels draw: the held view, or the latest."""
        return self.held or self.latest

    @property
    def num_waiting_events(self) -> int:
        """Events that arrived while the display was held."""
        if self.held is None or self.latest is None:
            return 0
        newest_held = self.held.events[0].sequence if self.held.events else 0
        return sum(event.sequence > newest_held for event in self.latest.events)


def reduce(state: ConsoleState, message: Message, now_s: float) -> ConsoleState:
    """The state after `message`, which arrived at `now_s`."""
    return _HANDLERS[type(message)](state, message, now_s)


# --- the link -------------------------------------------------------------------------------------------------
def _boot_progress(state: ConsoleState, message: BootProgress, now_s: float) -> ConsoleState:
    link = Link(since_s=now_s, boot=safe_text(message.text))
    return replace(state, link=link, failures=(), latest=None, held=None)  # what was known was of another cluster


def _boot_failed(state: ConsoleState, message: BootFailed, now_s: float) -> ConsoleState:
    error = safe_text(message.error, MAX_ERROR_CHARS)
    return replace(state, link=Link(LinkState.OFFLINE, now_s, error=error))


def _dialling(state: ConsoleState, message: Dialling, now_s: float) -> ConsoleState:
    link = state.link
    changed = replace(link, address=safe_text(message.address), attempt=link.attempt + 1, retry_at_s=None)
    if link.state is not LinkState.OFFLINE:
        changed = replace(changed, state=LinkState.CONNECTING, since_s=link.since_s or now_s)
    return replace(state, link=changed)  # OFFLINE stays OFFLINE until a frame proves otherwise


def _frame_arrived(state: ConsoleState, message: FrameArrived, now_s: float) -> ConsoleState:
    status = clean(message.frame.status)
    events = _merge(None if message.anew else state.latest, status, message.frame.events)
    view = View(status, events, now_s, message.wall_s)
    link = Link(LinkState.LIVE, now_s, state.link.address)
    if state.link.state is LinkState.LIVE:
        link = replace(link, since_s=state.link.since_s)
    return _clamp_selection(replace(state, link=link, latest=view))


def _merge(previous: View | None, status: ClusterStatus, events: tuple[Event, ...]) -> tuple[Event, ...]:
    """Newest first, each event once; a younger coordinator than before starts a new list."""
    known = previous.events if previous and status.uptime_s >= previous.status.uptime_s else ()
    newest = known[0].sequence if known else -1
    fresh = [clean(event) for event in sorted(events, key=lambda e: -e.sequence) if event.sequence > newest]
    return (*fresh, *known)[:MAX_EVENTS]


def _link_lost(state: ConsoleState, message: LinkLost, now_s: float) -> ConsoleState:
    since_s = state.link.since_s if state.link.state is LinkState.OFFLINE else now_s
    error = safe_text(message.error, MAX_ERROR_CHARS)
    link = replace(state.link, state=LinkState.OFFLINE, since_s=since_s, error=error, retry_at_s=message.retry_at_s)
    return replace(state, link=link)


def _processes_died(state: ConsoleState, message: ProcessesDied, now_s: float) -> ConsoleState:
    return replace(state, failures=clean(message.failures))


def _tick(state: ConsoleState, message: Tick, now_s: float) -> ConsoleState:
    silent = state.latest is not None and state.replay is None and now_s - state.latest.arrived_s >= STALE_AFTER_S
    if state.link.state is LinkState.LIVE and silent:
        return replace(state, link=replace(state.link, state=LinkState.STALE, since_s=now_s))
    return state


def _replay_moved(state: ConsoleState, message: ReplayMoved, now_s: float) -> ConsoleState:
    return replace(state, replay=message)


def _recording_changed(state: ConsoleState, message: RecordingChanged, now_s: float) -> ConsoleState:
    return replace(state, recording=safe_text(message.path), refusal=safe_text(message.error) or state.refusal)


# --- the display ----------------------------------------------------------------------------------------------
def _hold_toggled(state: ConsoleState, message: HoldToggled, now_s: float) -> ConsoleState:
    if state.held is not None:
        return _clamp_selection(replace(state, held=None))
    return replace(state, held=state.latest, held_wall_s=message.wall_s)


def _node_selected(state: ConsoleState, message: NodeSelected, now_s: float) -> ConsoleState:
    return _clamp_selection(replace(state, selected=state.selected + message.step))


def _clamp_selection(state: ConsoleState) -> ConsoleState:
    last = len(state.shown.status.nodes) - 1 if state.shown else 0
    selected = max(0, min(state.selected, last))
    return state if selected == state.selected else replace(state, selected=selected)


def _answer_scrolled(state: ConsoleState, message: AnswerScrolled, now_s: float) -> ConsoleState:
    return replace(state, answer_scroll=max(0, state.answer_scroll + message.step))


def _quitting(state: ConsoleState, message: Quitting, now_s: float) -> ConsoleState:
    return replace(state, quitting=safe_text(message.text))


# --- the prompt -----------------------------------------------------------------------------------------------
def _prompt_sent(state: ConsoleState, message: PromptSent, now_s: float) -> ConsoleState:
    return replace(state, generation=generation.begin(message, now_s), answer_scroll=0, refusal="")


def _prompt_refused(state: ConsoleState, message: PromptRefused, now_s: float) -> ConsoleState:
    return replace(state, refusal=safe_text(message.error))


def _refusal_dismissed(state: ConsoleState, message: RefusalDismissed, now_s: float) -> ConsoleState:
    return replace(state, refusal="")


def _token_arrived(state: ConsoleState, message: TokenArrived, now_s: float) -> ConsoleState:
    return replace(state, generation=generation.receive(state.generation, message, now_s))


def _session_ended(state: ConsoleState, message: SessionEnded, now_s: float) -> ConsoleState:
    return replace(state, generation=generation.end(state.generation, message))


_HANDLERS: dict[type, Callable[[ConsoleState, Any, float], ConsoleState]] = {
    BootProgress: _boot_progress,
    BootFailed: _boot_failed,
    Dialling: _dialling,
    FrameArrived: _frame_arrived,
    LinkLost: _link_lost,
    ProcessesDied: _processes_died,
    ReplayMoved: _replay_moved,
    RecordingChanged: _recording_changed,
    Tick: _tick,
    HoldToggled: _hold_toggled,
    NodeSelected: _node_selected,
    AnswerScrolled: _answer_scrolled,
    Quitting: _quitting,
    PromptSent: _prompt_sent,
    PromptRefused: _prompt_refused,
    RefusalDismissed: _refusal_dismissed,
    TokenArrived: _token_arrived,
    SessionEnded: _session_ended,
}
