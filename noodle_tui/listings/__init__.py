"""The list of each screen as a `Table`: what its rows are, how they sort and filter, what an export of it holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from noodle_tui.core.pages import Page
from noodle_tui.listings.events import events_table
from noodle_tui.listings.layers import layers_table
from noodle_tui.listings.lines import lines_table
from noodle_tui.listings.machines import plan_table
from noodle_tui.listings.nodes import nodes_table
from noodle_tui.listings.sessions import sessions_table
from noodle_tui.listings.strategies import strategies_table
from noodle_tui.state import ConsoleState
from noodle_tui.text.tables import Table, arrange, cursor_index

_TABLES: Mapping[Page, Callable[[ConsoleState], Table]] = {
    Page.NODES: nodes_table,
    Page.PLAN: plan_table,
    Page.WHATIF: strategies_table,
    Page.EVENTS: events_table,
    Page.SESSIONS: sessions_table,
    Page.PROFILE: layers_table,
    Page.LOGS: lines_table,
}


def table_of(state: ConsoleState, page: Page) -> Table | None:
    """The list of a screen; None where it has none (the Overview borrows those of its panels)."""
    build = _TABLES.get(page)
    if build is None:
        return None
    said = state.standing.said if page is Page.NODES else ()
    home = said[0].node if said else ""  # the node that the first line speaks of: its key means this one
    return replace(build(state), clears=state.named("{nav.out}"), shows_all=state.named("{view.warn}"), home=home)


def shown_rows(state: ConsoleState, page: Page) -> tuple[Any, ...]:
    """The rows as they stand on the screen."""
    table = table_of(state, page)
    return arrange(table, state.ui.listing(page), warns(state, page)) if table else ()


def cursor_row(state: ConsoleState, page: Page) -> Any | None:
    """The row that the cursor of a list is on."""
    table = table_of(state, page)
    rows = shown_rows(state, page)
    return rows[cursor_index(table, rows, state.ui.listing(page))] if table and rows else None


def cursor_identity(state: ConsoleState, page: Page) -> str:
    """Its identity; empty when the list is empty."""
    table, row = table_of(state, page), cursor_row(state, page)
    return table.identity(row) if table is not None and row is not None else ""


def warns(state: ConsoleState, page: Page) -> bool:
    """Whether `w` applies to that list."""
    return state.ui.warn_only and page in (Page.NODES, Page.EVENTS, Page.SESSIONS, Page.LOGS)
