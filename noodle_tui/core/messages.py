"""Everything that can happen to the console, as frozen values for the reducer in `state.py`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine.data.generation import SessionText, TokenChunk
from engine.data.plan import Plan
from engine.data.watch_frame import WatchFrame
from noodle_tui.core.logs import LogLine
from noodle_tui.core.pages import Dialog, Entry

if TYPE_CHECKING:
    from engine.data.adaptation import AdaptationEntry
    from engine.data.measured_link import MeasuredLink
    from engine.data.moves import MoveEstimate
    from noodle_tui.core.profile_view import ProfileView


@dataclass(frozen=True, slots=True)
class BootProgress:
    """The embedded cluster is being started; no coordinator answers yet."""

    text: str


@dataclass(frozen=True, slots=True)
class BootFailed:
    """The embedded cluster could not be started; `r` tries again."""

    error: str


@dataclass(frozen=True, slots=True)
class Dialling:
    """An attempt to reach the coordinator begins."""

    address: str


@dataclass(frozen=True, slots=True)
class FrameArrived:
    frame: WatchFrame
    wall_s: float
    anew: bool = False  # the replay jumped: what was known before is of another time
    lead: tuple[tuple[WatchFrame, float], ...] = ()  # then: the frames of the seconds before, with their times of day, oldest first


@dataclass(frozen=True, slots=True)
class ReplayMoved:
    """Where the replay stands."""

    index: int
    num_frames: int
    wall_s: float
    speed: float
    paused: bool


@dataclass(frozen=True, slots=True)
class RecordingChanged:
    """A recording began (its file), ended (empty) or failed (why)."""

    path: str
    error: str = ""


@dataclass(frozen=True, slots=True)
class LinkLost:
    """The coordinator cannot be reached; the link tries again at `retry_at_s`."""

    error: str
    retry_at_s: float
    mismatch: bool = False  # it answers, but the two sides speak different protocols


@dataclass(frozen=True, slots=True)
class PeerKnown:
    """The coordinator said which program it is; protocols fit."""

    own: str
    coordinator: str


@dataclass(frozen=True, slots=True)
class ProcessesDied:
    """Sentences about processes of the embedded cluster that ended by themselves."""

    failures: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Tick:
    """Time passed; turns silence into STALE."""


@dataclass(frozen=True, slots=True)
class HoldToggled:
    wall_s: float


@dataclass(frozen=True, slots=True)
class KeyPressed:
    """A key that only changes what is shown, by its binding id; see `keys.py`."""

    key_id: str


@dataclass(frozen=True, slots=True)
class HelpFiltered:
    """What was typed while the help is open."""

    text: str


@dataclass(frozen=True, slots=True)
class RowChosen:
    """A row of the list on screen was clicked."""

    identity: str


@dataclass(frozen=True, slots=True)
class EntryChanged:
    """The line at the bottom is being typed; None closes it."""

    entry: Entry | None


@dataclass(frozen=True, slots=True)
class DialogChanged:
    """A dialog opens, changes or (None) closes."""

    dialog: Dialog | None


@dataclass(frozen=True, slots=True)
class PreviewArrived:
    """The coordinator's answer to a preview: a plan, or why there is none."""

    action: str
    target: str
    plan: Plan | None = None
    present: Plan | None = None
    error: str = ""
    lapsed: str = ""
    move: MoveEstimate | None = None
    about: str = ""


@dataclass(frozen=True, slots=True)
class ActionChanged:
    """An action that was confirmed moves on; without a state everything that ended is dismissed."""

    title: str
    state: str  # running, done, failed
    detail: str = ""
    is_move: bool = False


@dataclass(frozen=True, slots=True)
class WhatIfAsked:
    """The strategies are being asked for, on this plan."""

    plan_version: int


@dataclass(frozen=True, slots=True)
class CandidateArrived:
    """What one strategy would do, or why it cannot."""

    strategy: str
    plan: Plan | None
    error: str = ""
    move: MoveEstimate | None = None


@dataclass(frozen=True, slots=True)
class SuggestionArrived:
    """What adaptation suggests, as the coordinator predicts it now."""

    entry: AdaptationEntry
    plan: Plan | None = None
    move: MoveEstimate | None = None


@dataclass(frozen=True, slots=True)
class TextArrived:
    """What a session was asked and has answered, or why the coordinator does not say it."""

    text: SessionText
    num_generated: int  # of the session, when it was asked for
    error: str = ""


@dataclass(frozen=True, slots=True)
class LinksArrived:
    """What the workers measured of the ways between them, as of the event that told so."""

    links: tuple[MeasuredLink, ...]
    event: int


@dataclass(frozen=True, slots=True)
class PresentPlanned:
    """The plan that serves, by the times that the coordinator plans with now."""

    plan: Plan


@dataclass(frozen=True, slots=True)
class WhatIfEnded:
    """Every strategy has answered."""

    wall_s: float


@dataclass(frozen=True, slots=True)
class ProfileLoaded:
    """A profile was read from a file, or why it was not."""

    path: str
    profile: ProfileView | None
    error: str = ""


@dataclass(frozen=True, slots=True)
class LogsArrived:
    """Lines that processes of the embedded cluster wrote."""

    lines: tuple[LogLine, ...]


@dataclass(frozen=True, slots=True)
class AccessChanged:
    """Whether capital letters may change the cluster."""

    read_only: bool


@dataclass(frozen=True, slots=True)
class Said:
    """A sentence for the line under the tabs: what a key or command did."""

    text: str
    is_error: bool = False


@dataclass(frozen=True, slots=True)
class AnswerScrolled:
    """The answer moves by `step` rows; positive is back towards its beginning."""

    step: int


@dataclass(frozen=True, slots=True)
class ConversationBegun:
    """A new one; those before are kept."""


@dataclass(frozen=True, slots=True)
class ConversationChosen:
    """Another one is shown."""

    index: int


@dataclass(frozen=True, slots=True)
class SystemChanged:
    """What the model is told before the first turn of this conversation; empty: nothing."""

    text: str


@dataclass(frozen=True, slots=True)
class PromptSent:
    number: int  # of this answer; what arrives for an older one is dropped
    prompt: str
    max_new_tokens: int
    temperature: float
    seed: int


@dataclass(frozen=True, slots=True)
class PromptRefused:
    """The prompt never left: a setting is wrong, nothing is connected, or an answer is still running."""

    error: str


@dataclass(frozen=True, slots=True)
class RefusalDismissed:
    """The user has read why the prompt was not sent."""


@dataclass(frozen=True, slots=True)
class TokenArrived:
    number: int
    chunk: TokenChunk


@dataclass(frozen=True, slots=True)
class SessionEnded:
    """The stream of one answer ended; an empty error means it ended by itself or was cancelled here."""

    number: int
    error: str = ""
    cancelled: bool = False


@dataclass(frozen=True, slots=True)
class Quitting:
    text: str


Message = (
    BootProgress
    | BootFailed
    | Dialling
    | FrameArrived
    | ReplayMoved
    | RecordingChanged
    | LinkLost
    | PeerKnown
    | ProcessesDied
    | Tick
    | HoldToggled
    | KeyPressed
    | HelpFiltered
    | RowChosen
    | EntryChanged
    | DialogChanged
    | PreviewArrived
    | ActionChanged
    | WhatIfAsked
    | CandidateArrived
    | SuggestionArrived
    | TextArrived
    | LinksArrived
    | PresentPlanned
    | WhatIfEnded
    | ProfileLoaded
    | LogsArrived
    | AccessChanged
    | Said
    | AnswerScrolled
    | ConversationBegun
    | ConversationChosen
    | SystemChanged
    | PromptSent
    | PromptRefused
    | RefusalDismissed
    | TokenArrived
    | SessionEnded
    | Quitting
)
