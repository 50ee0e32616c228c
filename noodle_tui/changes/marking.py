"""Several rows at once: which are marked, and what a capital letter would do to all of them. Pure."""

from __future__ import annotations

from dataclasses import replace

from noodle_tui.changes.actions import ACTIONS, action_for, action_for_node, node_state, preview_of
from noodle_tui.core.pages import Page, Preview
from noodle_tui.listings import cursor_identity, table_of
from noodle_tui.state import ConsoleState
from noodle_tui.text.tables import arrange, cursor_index

PAGES = {"cluster.drain": Page.NODES, "cluster.cancel": Page.SESSIONS}  # where marks mean something, by the key that acts on them


def toggled(state: ConsoleState) -> ConsoleState:
    """The row under the cursor is marked, or no longer; the cursor goes on to the next one."""
    page = state.ui.page
    name, table = cursor_identity(state, page), table_of(state, page)
    if not name or table is None:
        return state
    listing = state.ui.listing(page)
    rows = arrange(table, listing, state.ui.warn_only)
    index = min(len(rows) - 1, cursor_index(table, rows, listing) + 1)
    moved = replace(listing, marked=listing.marked ^ {name}, cursor=table.identity(rows[index]), index=index)
    return replace(state, ui=state.ui.with_listing(page, moved))


def marked(state: ConsoleState, page: Page) -> tuple[str, ...]:
    """The marked rows that are still there, in the order of the list's own."""
    table, names = table_of(state, page), state.ui.listing(page).marked
    return tuple(name for row in table.rows if (name := table.identity(row)) in names) if table is not None and names else ()


def preview_for(key_id: str, state: ConsoleState, names: tuple[str, ...] = ()) -> Preview:
    """One preview for all `names`; without any for the rows that are marked, else for what the key means here."""
    if names:
        return _of_all(key_id, names, state)
    page = PAGES.get(key_id)
    names = marked(state, page) if page is not None and state.ui.page is page else ()
    if not names:
        return preview_of(action_for(key_id, state), state)
    if page is Page.SESSIONS:
        return _of_sessions(names, state) if names[1:] else _of_all(key_id, names, state)
    kinds = [action_for_node(node_state(state, name)) for name in names]
    preview = _of_all(kinds[0], names, state)
    if len(set(kinds)) == 1:
        return preview
    told = ", ".join(f"{name} is {node_state(state, name)}" for name in names)
    return replace(preview, pending=False, blocked=f"{told}: mark nodes that are in the same state")


def _of_all(action_id: str, names: tuple[str, ...], state: ConsoleState) -> Preview:
    return replace(preview_of(ACTIONS[action_id], state, names[0]), also=names[1:])


def _of_sessions(names: tuple[str, ...], state: ConsoleState) -> Preview:
    """Those that have ended meanwhile are left out."""
    running = {session.session_id: session for session in state.latest.status.sessions} if state.latest else {}
    live = tuple(name for name in names if name in running)
    first = preview_of(ACTIONS["cluster.cancel"], state, live[0] if live else names[0])
    written = sum(running[name].num_generated for name in live)
    left_out = f"; {len(names) - len(live)} of those marked ended meanwhile" if len(live) < len(names) else ""
    return replace(first, also=live[1:], about=f"{len(live)} sessions with {written} tokens out{left_out}") if live else first


def singles(preview: Preview) -> tuple[Preview, ...]:
    """A preview of several as one for each."""
    return tuple(replace(preview, target=name, also=()) for name in preview.names)
