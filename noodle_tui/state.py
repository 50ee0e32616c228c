"""The console's state as one frozen value; everything on screen follows from it and the clock.

Pure: no clock, no I/O, no Textual. `reducer.py` is the only way from one state to the next.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from engine.data.generation import SessionText
from engine.data.plan import Plan
from engine.data.status import ClusterStatus, Event
from noodle_tui.core.generation import Generation
from noodle_tui.core.history import History
from noodle_tui.core.keys import KEYS, Key, named
from noodle_tui.core.logs import LogBook
from noodle_tui.core.looks import FINE_SPAN_S
from noodle_tui.core.pages import Ui
from noodle_tui.core.talk import Talk

if TYPE_CHECKING:
    from engine.data.adaptation import AdaptationEntry
    from engine.data.measured_link import MeasuredLink
    from engine.data.moves import MoveEstimate
    from engine.diagnosis.standing import Standing
    from noodle_tui.core.messages import ReplayMoved
    from noodle_tui.core.profile_view import ProfileView

FRAME_INTERVAL_S = 1.0  # the coordinator re-sends at least this often, as proof of life
STALE_AFTER_S = 3 * FRAME_INTERVAL_S
MAX_EVENTS = 500
MAX_ERROR_CHARS = 2_000
ACTION_STATES = ("running", "done", "failed")  # the most urgent last


class LinkState(StrEnum):
    CONNECTING = "CONNECTING"
    LIVE = "LIVE"
    STALE = "STALE"  # the stream is open, but silent
    OFFLINE = "OFFLINE"
    VERSION = "VERSION"  # the coordinator answers, but speaks another protocol


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
    versions: str = ""  # both sides', when their packages differ


@dataclass(frozen=True, slots=True)
class Candidate:
    """What one strategy would do, or why it cannot."""

    strategy: str
    plan: Plan | None
    error: str = ""
    move: MoveEstimate | None = None


@dataclass(frozen=True, slots=True)
class Suggestion:
    """What adaptation offers, its evidence, and what the coordinator predicts of it."""

    entry: AdaptationEntry
    plan: Plan | None = None
    move: MoveEstimate | None = None

    @property
    def name(self) -> str:
        """As it stands in the comparison."""
        return f"suggestion {self.entry.decision_id}"


@dataclass(frozen=True, slots=True)
class WhatIf:
    """The comparison of strategies: for which plan it was asked, and what has answered so far."""

    plan_version: int = -1  # -1: never asked
    running: bool = False
    candidates: tuple[Candidate, ...] = ()
    present: Plan | None = None  # the plan that serves, by the times that the candidates rest on
    wall_s: float = 0.0


@dataclass(frozen=True, slots=True)
class ProfileState:
    """The profile on screen 7, or why there is none."""

    view: ProfileView | None = None
    error: str = ""
    earlier: ProfileView | None = None  # that was shown before, to compare with


@dataclass(frozen=True, slots=True)
class ActionRun:
    """A change that was confirmed: running, done or failed; a failure stays until it is dismissed."""

    title: str
    state: str
    since_s: float
    detail: str = ""
    is_move: bool = False  # it changes the plan: one of those at a time


@dataclass(frozen=True, slots=True)
class Sentence:
    """Something to read under the tabs for a while."""

    text: str
    since_s: float
    is_error: bool = False


@dataclass(frozen=True, slots=True)
class Thresholds:
    """From which values on a figure is a warning; `[thresholds]` of console.toml."""

    over_plan: float = 0.5  # a stage this far above its prediction
    memory: float = 0.92  # of a node's memory
    kv: float = 0.85  # of a node's KV budget
    heartbeat_s: float = 1.0
    token_s: float = 0.06  # of an answer's step: slower than anybody reads


@dataclass(frozen=True, slots=True)
class Held:
    """What the display is frozen at while the user holds it, and since when."""

    view: View
    wall_s: float


@dataclass(frozen=True, slots=True)
class LinksKnown:
    """What was measured of the links between nodes."""

    links: tuple[MeasuredLink, ...] = ()
    event: int = -1  # the newest event about links when they were asked for; -1: never asked


@dataclass(frozen=True, slots=True)
class TextKnown:
    """A session's prompt and answer, as they were when it had so many tokens."""

    text: SessionText = field(default_factory=lambda: SessionText("", "", ""))
    num_generated: int = 0
    error: str = ""  # why there is none


@dataclass(frozen=True, slots=True)
class Setup:
    """What this console may do and how its user wants it."""

    read_only: bool = False
    owns_cluster: bool = False  # its processes were started by this console
    keys: tuple[Key, ...] = KEYS  # as the user has bound them
    thresholds: Thresholds = field(default_factory=Thresholds)
    joined: tuple[str, ...] = ()  # addresses of coordinators, in the order in which they were joined
    files: tuple[str, ...] = ()  # where settings and themes lie, as people write it
    cluster_names: Mapping[str, str] = field(default_factory=dict)  # by address, of those that were left
    graph_span_s: float = FINE_SPAN_S  # how far back the graphs of the last minutes reach


@dataclass(frozen=True, slots=True)
class ConsoleState:
    """Everything on screen follows from this value and the clock."""

    link: Link = field(default_factory=Link)
    latest: View | None = None
    held: Held | None = None
    failures: tuple[str, ...] = ()  # processes of the embedded cluster that died
    talk: Talk = field(default_factory=Talk)
    refusal: str = ""  # why the last prompt or key was refused; stays until dismissed
    quitting: str = ""
    replay: ReplayMoved | None = None
    recording: str = ""  # the file that is being written
    ui: Ui = field(default_factory=Ui)
    history: History = field(default_factory=History)
    logs: LogBook = field(default_factory=LogBook)
    whatif: WhatIf = field(default_factory=lambda: WhatIf())
    known_suggestion: Suggestion | None = None  # perhaps no longer open
    links: LinksKnown = field(default_factory=lambda: LinksKnown())
    text: TextKnown = field(default_factory=lambda: TextKnown())
    profile: ProfileState = field(default_factory=lambda: ProfileState())
    actions: tuple[ActionRun, ...] = ()  # one of each title, the newest last
    said: Sentence | None = None  # what a key or command did, or what was missed
    setup: Setup = field(default_factory=lambda: Setup())

    def joining(self, address: str) -> Setup:
        """What stays when this console joins another cluster, which stands among the joined ones from then on."""
        name = {self.link.address: self.latest.status.cluster_id} if self.latest else {}
        joined = tuple(dict.fromkeys((*self.setup.joined, address)))
        return replace(self.setup, owns_cluster=False, joined=joined, cluster_names={**self.setup.cluster_names, **name})

    @property
    def shown(self) -> View | None:
        """What panels draw: the held view, or the latest."""
        return self.held.view if self.held else self.latest

    @property
    def standing(self) -> Standing:
        """What is wrong, as far as frames tell."""
        return self.history.standing

    @property
    def generation(self) -> Generation:
        """The answer that runs, or the last one."""
        return self.talk.newest

    @property
    def keys(self) -> tuple[Key, ...]:
        return self.setup.keys

    @property
    def thresholds(self) -> Thresholds:
        return self.setup.thresholds

    @property
    def read_only(self) -> bool:
        return self.setup.read_only

    def named(self, text: str) -> str:
        """See `keys.named`; never for a text that comes from elsewhere."""
        return named(text, self.keys)

    @property
    def suggestion(self) -> Suggestion | None:
        """What adaptation offers now."""
        known, latest = self.known_suggestion, self.latest
        if known is None or latest is None or known.entry.for_version != latest.status.plan_version:
            return None
        return known if latest.status.adaptation.suggestion_id == known.entry.decision_id else None

    @property
    def action(self) -> ActionRun | None:
        """The one to tell of: a failure, else what was done last, else what runs."""
        return max(self.actions, key=lambda run: (ACTION_STATES.index(run.state), run.since_s), default=None)

    @property
    def move(self) -> ActionRun | None:
        """The change of plan that runs."""
        return next((run for run in self.actions if run.is_move and run.state == "running"), None)

    @property
    def num_waiting_events(self) -> int:
        """Events that arrived while the display was held."""
        if self.held is None or self.latest is None:
            return 0
        newest_held = self.held.view.events[0].sequence if self.held.view.events else 0
        return sum(event.sequence > newest_held for event in self.latest.events)
