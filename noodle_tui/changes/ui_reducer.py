"""What keys do that only change what is shown: screens, cursor, filter, sort, drill-down. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from engine.diagnosis.finding import Finding
from noodle_tui.changes.marking import toggled
from noodle_tui.core.keys import BY_ID
from noodle_tui.core.looks import COARSE_SPAN_S, FINE_SPAN_S
from noodle_tui.core.pages import LAST, PANELS, PLAN_MODES, PROFILE_METRICS, WHATIF_METRICS, Entry, EntryKind, Page, Preview, ThemeChoice
from noodle_tui.listings import cursor_identity, shown_rows, table_of
from noodle_tui.listings.diagnosis import culprit, page_of
from noodle_tui.listings.events import kinds
from noodle_tui.listings.lines import sources
from noodle_tui.state import ConsoleState
from noodle_tui.text.tables import cursor_index

PAGE_ROWS = 10


def pressed(state: ConsoleState, key_id: str) -> ConsoleState:
    """The state after a key; one that does nothing here changes nothing."""
    handler = _HANDLERS.get(key_id)
    key = BY_ID.get(key_id)
    if handler is None or (key is not None and state.ui.page not in key.pages):
        return state
    return handler(state)


def entry_changed(state: ConsoleState, entry: Entry | None) -> ConsoleState:
    """A filter works while it is typed."""
    ui = replace(state.ui, entry=entry)
    if entry is None or entry.kind is not EntryKind.FILTER:
        return replace(state, ui=ui)
    page = ui.list_page
    return replace(state, ui=ui.with_listing(page, replace(ui.listing(page), filter=entry.text)))


def open_page(state: ConsoleState, page: Page, came_from: Page | None = None) -> ConsoleState:
    """Another screen; what was set on it before is still there."""
    return _with(state, page=page, came_from=came_from, help=False, help_scroll=0, help_filter="")


# --- moving ---------------------------------------------------------------------------------------------------
def _move(step: int) -> Callable[[ConsoleState], ConsoleState]:
    def move(state: ConsoleState) -> ConsoleState:
        ui = state.ui
        if ui.help:
            return _with(state, help_scroll=max(0, ui.help_scroll + step))
        if isinstance(ui.dialog, ThemeChoice):
            index = max(0, min(len(ui.dialog.names) - 1, ui.dialog.index + step))
            return _with(state, dialog=replace(ui.dialog, index=index))
        if isinstance(ui.dialog, Preview) and ui.dialog.target in ui.dialog.choices:
            names = ui.dialog.choices
            target = names[max(0, min(len(names) - 1, names.index(ui.dialog.target) + step))]
            return _with(state, dialog=replace(ui.dialog, target=target))
        if ui.dialog is not None:
            return state
        return _moved(state, ui.list_page, step)

    return move


def help_filtered(state: ConsoleState, text: str) -> ConsoleState:
    """The help shows what contains the words of `text`."""
    return _with(state, help_filter=text, help_scroll=0)


def row_chosen(state: ConsoleState, identity: str) -> ConsoleState:
    """The cursor goes to a row of the list on screen."""
    page = state.ui.list_page
    table, rows = table_of(state, page), shown_rows(state, page)
    names = [table.identity(row) for row in rows] if table is not None else []
    if identity not in names:
        return state
    listing = replace(state.ui.listing(page), cursor=identity, index=names.index(identity))
    return replace(state, ui=state.ui.with_listing(page, listing))


def _moved(state: ConsoleState, page: Page, step: int) -> ConsoleState:
    table = table_of(state, page)
    rows = shown_rows(state, page)
    if table is None or not rows:
        return state
    listing = state.ui.listing(page)
    index = max(0, min(len(rows) - 1, cursor_index(table, rows, listing) + step))
    moved = replace(listing, cursor=table.identity(rows[index]), index=index)
    if page is Page.LOGS and index == len(rows) - 1:
        moved = replace(moved, cursor="", index=LAST)  # at the end it follows what comes
    if page is Page.EVENTS and index == 0:
        moved = replace(moved, cursor="", index=0)
    return replace(state, ui=state.ui.with_listing(page, moved))


def _panel(step: int) -> Callable[[ConsoleState], ConsoleState]:
    def turn(state: ConsoleState) -> ConsoleState:
        if state.ui.page is Page.OVERVIEW:
            return _with(state, panel=(state.ui.panel + step) % len(PANELS))
        pages = list(Page)
        return open_page(state, pages[(pages.index(state.ui.page) + step) % len(pages)])

    return turn


def _enter(state: ConsoleState) -> ConsoleState:
    """Into what the cursor is on: its own screen, or its details."""
    ui = state.ui
    if ui.page is Page.OVERVIEW and (found := culprit(state)) is not None:
        return _to_culprit(state, found)
    if ui.page is Page.OVERVIEW:
        target = ui.list_page
        opened = open_page(state, target, Page.OVERVIEW)
        return _set_detail(opened, target, True) if target is not Page.NODES else opened
    if ui.page is Page.PLAN:
        return _to_node(state)
    if ui.page is Page.PROMPT or not shown_rows(state, ui.page):
        return state
    return _set_detail(state, ui.page, not ui.listing(ui.page).detail)


def _to_culprit(state: ConsoleState, found: Finding) -> ConsoleState:
    """The screen that shows most of what is wrong, with the cursor on the node that it is about."""
    page = page_of(found)
    if page is Page.NODES and found.node:
        listing = replace(state.ui.listing(Page.NODES), cursor=found.node, filter="")
        state = replace(state, ui=state.ui.with_listing(Page.NODES, listing))
    return open_page(state, page, Page.OVERVIEW)


def _to_node(state: ConsoleState) -> ConsoleState:
    table, rows = table_of(state, Page.PLAN), shown_rows(state, Page.PLAN)
    if table is None or not rows:
        return state
    row = rows[cursor_index(table, rows, state.ui.listing(Page.PLAN))]
    ui = state.ui.with_listing(Page.NODES, replace(state.ui.listing(Page.NODES), cursor=row.stage.worker_id, detail=True, filter=""))
    return open_page(replace(state, ui=ui), Page.NODES, Page.PLAN)


def _set_detail(state: ConsoleState, page: Page, detail: bool) -> ConsoleState:
    return replace(state, ui=state.ui.with_listing(page, replace(state.ui.listing(page), detail=detail)))


def _leave(state: ConsoleState) -> ConsoleState:
    """One step back: help, dialog, marks, filter, detail, then the screen before, then the Overview."""
    ui = state.ui
    listing = ui.listing(ui.list_page)
    if ui.help_filter:
        return help_filtered(state, "")
    if ui.help:
        return _with(state, help=False, help_scroll=0)
    if ui.dialog is not None:
        return _with(state, dialog=None)
    running = tuple(run for run in state.actions if run.state == "running")
    if state.refusal or running != state.actions:
        return replace(state, refusal="", actions=running)
    if state.said is not None:
        return replace(state, said=None)
    if listing.marked and ui.page is not Page.OVERVIEW:
        return replace(state, ui=ui.with_listing(ui.list_page, replace(listing, marked=frozenset())))
    if listing.filter:
        return replace(state, ui=ui.with_listing(ui.list_page, replace(listing, filter="")))
    if listing.detail and ui.page is not Page.OVERVIEW:
        state = _set_detail(state, ui.page, False)
        return open_page(state, ui.came_from) if ui.came_from else state
    if ui.came_from is not None:
        return open_page(state, ui.came_from)
    return open_page(state, Page.OVERVIEW)


# --- lists ----------------------------------------------------------------------------------------------------
def _sort_next(state: ConsoleState) -> ConsoleState:
    """The next column that is drawn; after the last one the list's own order."""
    page = state.ui.list_page
    table = table_of(state, page)
    if table is None:
        return state
    names = ["", *dict.fromkeys(column.name for column in table.columns if column.title and column.name != "history")]
    listing = state.ui.listing(page)
    index = names.index(listing.sort) if listing.sort in names else 0
    return replace(state, ui=state.ui.with_listing(page, replace(listing, sort=names[(index + 1) % len(names)])))


def _sort_reverse(state: ConsoleState) -> ConsoleState:
    page = state.ui.list_page
    listing = state.ui.listing(page)
    return replace(state, ui=state.ui.with_listing(page, replace(listing, reverse=not listing.reverse)))


def _follow(state: ConsoleState) -> ConsoleState:
    page = state.ui.page
    listing = replace(state.ui.listing(page), cursor="", index=LAST if page is Page.LOGS else 0, detail=False)
    return replace(state, ui=state.ui.with_listing(page, listing))


def _next_source(state: ConsoleState) -> ConsoleState:
    names = ["", *sources(state)]
    index = names.index(state.ui.log_node) if state.ui.log_node in names else 0
    return _with(_follow(state), log_node=names[(index + 1) % len(names)])


def _next_kind(state: ConsoleState) -> ConsoleState:
    names = ["", *kinds(state)]
    index = names.index(state.ui.event_kind) if state.ui.event_kind in names else 0
    return _with(_follow(state), event_kind=names[(index + 1) % len(names)])


def _next_metric(state: ConsoleState) -> ConsoleState:
    ui = state.ui
    if ui.page is Page.WHATIF:
        return _with(state, whatif_metric=(ui.whatif_metric + 1) % len(WHATIF_METRICS))
    return _with(state, profile_metric=(ui.profile_metric + 1) % len(PROFILE_METRICS))


def _compare(state: ConsoleState) -> ConsoleState:
    """Earlier plans from the newest back, then none; on the What-if screen the strategy that the cursor is on, or none."""
    if state.ui.page is Page.PROFILE:
        return _with(state, profile_compares=not state.ui.profile_compares)
    if state.ui.page is Page.WHATIF:
        chosen = cursor_identity(state, Page.WHATIF)
        known = {c.strategy for c in state.whatif.candidates if c.plan is not None}
        return _with(state, compare_strategy=chosen if chosen in known - {state.ui.compare_strategy} else "")
    now = state.shown.status.plan_version if state.shown else 0
    versions = [0, *(plan.plan_version for plan in reversed(state.history.plans) if plan.plan_version != now)]
    index = versions.index(state.ui.compare_version) if state.ui.compare_version in versions else 0
    return _with(state, compare_version=versions[(index + 1) % len(versions)])


def _next_span(state: ConsoleState) -> ConsoleState:
    span_s = COARSE_SPAN_S if state.setup.graph_span_s <= FINE_SPAN_S else FINE_SPAN_S
    return replace(state, setup=replace(state.setup, graph_span_s=span_s))


def _plan_change(direction: int) -> Callable[[ConsoleState], ConsoleState]:
    """On the Events screen the cursor goes to the plan event before or after it."""

    def seek(state: ConsoleState) -> ConsoleState:
        if state.ui.page is not Page.EVENTS:
            state = open_page(state, Page.EVENTS, state.ui.page)
        state = state if state.ui.event_kind in ("", "plan") else _with(state, event_kind="")
        table, rows = table_of(state, Page.EVENTS), shown_rows(state, Page.EVENTS)
        if table is None or not rows:
            return state
        listing = state.ui.listing(Page.EVENTS)
        at = cursor_index(table, rows, listing)
        found = [i for i, row in enumerate(rows) if row.kind == "plan" and (i > at if direction < 0 else i < at)]
        if not found:
            return state
        index = found[0] if direction < 0 else found[-1]
        return replace(state, ui=state.ui.with_listing(Page.EVENTS, replace(listing, cursor=table.identity(rows[index]), index=index)))

    return seek


def _with(state: ConsoleState, **changes: object) -> ConsoleState:
    return replace(state, ui=replace(state.ui, **changes))  # type: ignore[arg-type]


_HANDLERS: Mapping[str, Callable[[ConsoleState], ConsoleState]] = {
    "nav.up": _move(-1),
    "nav.down": _move(1),
    "nav.page_up": _move(-PAGE_ROWS),
    "nav.page_down": _move(PAGE_ROWS),
    "nav.home": _move(-LAST),
    "nav.end": _move(LAST),
    "nav.panel": _panel(1),
    "nav.panel_back": _panel(-1),
    "nav.in": _enter,
    "nav.out": _leave,
    "list.sort": _sort_next,
    "list.reverse": _sort_reverse,
    "list.mark": toggled,
    "view.warn": lambda state: _with(state, warn_only=not state.ui.warn_only),
    "view.mode": lambda state: _with(state, plan_mode=(state.ui.plan_mode + 1) % len(PLAN_MODES)),
    "view.compare": _compare,
    "view.phase": lambda state: _with(state, profile_phase=state.ui.profile_phase + 1),
    "view.node": _next_source,
    "view.expand": lambda state: _with(state, expanded=state.ui.expanded ^ {state.ui.page}),
    "view.metric": _next_metric,
    "view.kind": _next_kind,
    "view.span": _next_span,
    "view.newest": _follow,
    "view.follow": _follow,
    "time.prev": _plan_change(-1),
    "time.next": _plan_change(1),
    "app.help": lambda state: _with(state, help=not state.ui.help, help_scroll=0, help_filter=""),
    **{f"screen.{page.value}": (lambda state, page=page: open_page(state, page)) for page in Page},  # type: ignore[misc]
}
