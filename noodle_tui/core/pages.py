"""The nine screens by number, and what the user has set on them. Pure values; what they show is in `screens/`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from engine.data.plan import Plan
from noodle_tui.text.tables import Listing

if TYPE_CHECKING:
    from engine.data.moves import MoveEstimate

FIELD_ROWS = 2  # of the Prompt screen, below its body: the prompt and its settings


class Page(StrEnum):
    """In the order of the digit keys."""

    OVERVIEW = "overview"
    NODES = "nodes"
    PLAN = "plan"
    WHATIF = "what-if"
    EVENTS = "events"
    SESSIONS = "sessions"
    PROFILE = "profile"
    PROMPT = "prompt"
    LOGS = "logs"

    @property
    def number(self) -> int:
        return list(Page).index(self) + 1


PANELS = (Page.NODES, Page.SESSIONS, Page.EVENTS)  # of the Overview, in the order of the tab key
PLAN_MODES = ("time", "layers", "memory")
WHATIF_METRICS = ("time", "memory", "items")
PROFILE_METRICS = ("time", "memory", "bytes")  # of an item: what it takes, what its weights hold, how fast it reads them
FOLD_FROM = 41  # stages; so many, one by one, are no picture any more
LAST = 10**9  # an index beyond every list


@dataclass(frozen=True, slots=True)
class Preview:
    """A change that was asked for and waits for `y`: what it would do, on which plan that rests."""

    action: str  # id in `actions.py`
    target: str  # node, session or strategy; empty for the whole cluster
    plan_version: int  # what the request carries, and is refused if it moved
    plan: Plan | None = None  # what the coordinator would do
    present: Plan | None = None  # what serves, priced by the coordinator in the same moment
    move: MoveEstimate | None = None  # what that would carry and take
    about: str = ""  # why it is offered, or what it concerns
    choices: tuple[str, ...] = ()  # up and down change the target among these
    mode: str = ""  # of adaptation, as it was seen
    pending: bool = False  # the coordinator has been asked and has not answered
    blocked: str = ""  # why `y` does nothing
    lapsed: str = ""  # why it can no longer be confirmed as it stands
    hasty: bool = False  # a `y` came before anybody can have read this
    also: tuple[str, ...] = ()  # further nodes or sessions that it is about
    undoes: Preview | None = None  # the earlier change that this one takes back
    undoing: str = ""  # which one that is, in words

    @property
    def names(self) -> tuple[str, ...]:
        """Every node or session that it is about."""
        return (self.target, *self.also)


@dataclass(frozen=True, slots=True)
class ThemeChoice:
    """The theme picker; every move is shown at once."""

    names: tuple[str, ...]
    index: int
    before: str


@dataclass(frozen=True, slots=True)
class Notice:
    """A text to read in full, such as why an action failed."""

    title: str
    text: str


@dataclass(frozen=True, slots=True)
class Leaving:
    """Quitting was asked for while a change runs; `text` says what becomes of it."""

    text: str
    hasty: bool = False  # see `Preview`


Dialog = Preview | ThemeChoice | Notice | Leaving


class EntryKind(StrEnum):
    FILTER = "filter"
    COMMAND = "command"


@dataclass(frozen=True, slots=True)
class Entry:
    """The line that is being typed at the bottom."""

    kind: EntryKind
    text: str = ""
    choice: int = -1  # which suggestion is picked; -1 runs the text as it stands


@dataclass(frozen=True, slots=True)
class Ui:
    """What the user has chosen to see."""

    page: Page = Page.OVERVIEW
    came_from: Page | None = None  # where `esc` goes after a drill-down
    panel: int = 0  # of the Overview
    listings: Mapping[Page, Listing] = field(default_factory=dict)
    warn_only: bool = False
    plan_mode: int = 0
    compare_version: int = 0  # the plan that the Plan screen compares with; 0 is none
    compare_strategy: str = ""  # the strategy that the What-if screen compares with; empty is the present plan
    profile_phase: int = 0
    expanded: frozenset[Page] = frozenset()  # there, rows that repeat or belong together are shown one by one
    whatif_metric: int = 0
    profile_metric: int = 0
    profile_compares: bool = False  # with the profile that was shown before
    event_kind: str = ""  # only this kind of event; empty is all
    log_node: str = ""  # only this source's lines; empty is all
    help: bool = False
    help_scroll: int = 0
    help_filter: str = ""
    dialog: Dialog | None = None
    entry: Entry | None = None

    def listing(self, page: Page) -> Listing:
        return self.listings.get(page) or Listing(index=LAST if page is Page.LOGS else 0)  # a log stands at its end

    def with_listing(self, page: Page, listing: Listing) -> Ui:
        return replace(self, listings={**self.listings, page: listing})

    def unmarked(self) -> Ui:
        """Without marks: names of another cluster's nodes may be the same."""
        return replace(self, listings={page: replace(listing, marked=frozenset()) for page, listing in self.listings.items()})

    @property
    def list_page(self) -> Page:
        """Whose list the cursor keys move."""
        return PANELS[self.panel] if self.page is Page.OVERVIEW else self.page
