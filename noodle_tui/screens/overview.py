"""Screen 1 as a pure function: which panels get how many rows, and where they stand.

Below 116 columns everything is stacked; from there on the events stand beside nodes and sessions, from 180 on the three
stand side by side.
"""

from __future__ import annotations

from noodle_tui.core.pages import Page
from noodle_tui.listings import cursor_row, table_of, warns
from noodle_tui.listings.machines import folds_stages
from noodle_tui.screens.nodes import headline
from noodle_tui.state import ConsoleState, View
from noodle_tui.text.lines import BLANK, Canvas, Line, Lines, Span, beside, crop, line, stack
from noodle_tui.text.tables import draw_table
from noodle_tui.widgets.alert_rules import alert_panel
from noodle_tui.widgets.diagnosis_line import second_line
from noodle_tui.widgets.event_list import event_list, notable
from noodle_tui.widgets.history.trends import of_node, of_session, trends_beside
from noodle_tui.widgets.history.worst_list import worst_list
from noodle_tui.widgets.metrics import metrics
from noodle_tui.widgets.notices import weights
from noodle_tui.widgets.plan.machine_plan import machine_plan
from noodle_tui.widgets.plan.plan_blocks import plan_blocks

TWO_COLUMNS_FROM = 116  # fewer cut either the node table or the events
THREE_COLUMNS_FROM = 180
MIN_EVENT_ROWS = 3  # a heading and two events; fewer are not worth their rows
MIN_SESSION_ROWS = 3
MAX_MACHINE_ROWS = 9
MAX_GRAPH_ROWS = 30
RULES_FROM = 14  # rows of a column
TALL_FROM = 19  # rows: panels get air and the plan gets borders


def overview_body(state: ConsoleState, canvas: Canvas) -> Lines:
    """At most `canvas.height` rows."""
    view = state.shown
    if view is None or canvas.height < 1:
        return ()
    tall = canvas.height >= TALL_FROM
    notes = weights(state, canvas)[: 2 if tall else 1]
    second = second_line(state, canvas) if notes else BLANK  # notes have been read; what is wrong takes no row from anything else
    top: list[Line] = [second, *notes[1:]] if second else [*notes]
    top += metrics(state, canvas.sized(canvas.width, 4 if tall else 3 if canvas.height >= 15 else 2 if canvas.height >= 11 else 1))
    plan = _plan(state, view, canvas.sized(canvas.width, canvas.height - len(top)))
    if plan:
        top += [*([_rule(canvas)] if tall else []), *plan]
    if tall or canvas.height - len(top) > len(view.status.nodes) + 5:
        top.append(_rule(canvas) if tall else BLANK)
    return (*top, *_panels(state, view, canvas.sized(canvas.width, canvas.height - len(top))))


def _plan(state: ConsoleState, view: View, canvas: Canvas) -> Lines:
    """In the rows that are left once the nodes have theirs: blocks with borders, without, or none; a large plan by machine."""
    spare = canvas.height - min(len(view.status.nodes), 4) - 1
    if folds_stages(state, Page.OVERVIEW):
        return machine_plan(state, canvas.sized(canvas.width, min(MAX_MACHINE_ROWS, spare - MIN_EVENT_ROWS - 3)))
    return plan_blocks(view.status, canvas.sized(canvas.width, 6 if spare >= 12 else 3 if spare >= 3 else 0))


def _rule(canvas: Canvas) -> Line:
    return (Span(canvas.glyphs.horizontal * canvas.width, "rule"),)


def _panels(state: ConsoleState, view: View, canvas: Canvas) -> Lines:
    if canvas.width >= THREE_COLUMNS_FROM:
        return _three_columns(state, view, canvas)
    if canvas.width >= TWO_COLUMNS_FROM:
        left = max(74, canvas.width * 3 // 5)
        right = _events_and_rules(state, canvas.sized(canvas.width - left - 3, canvas.height))
        return beside(_nodes_and_sessions(state, view, canvas.sized(left, canvas.height)), right, left, canvas.glyphs)
    nodes = _nodes(state, canvas.sized(canvas.width, _rows_for_nodes(view, canvas)))
    rest = canvas.height - len(nodes)
    panel = state.ui.list_page if state.ui.list_page is not Page.NODES else Page.EVENTS
    return (*nodes, *(_list(state, panel, canvas.sized(canvas.width, rest)) if rest >= MIN_EVENT_ROWS - 1 else ()))


def _all_nodes(view: View) -> int:
    """Rows of a heading, every node, and what is said of the chosen one; without nodes, of what brings the first one."""
    return max(len(view.status.nodes), 2) + 2


def _rows_for_nodes(view: View, canvas: Canvas) -> int:
    """All nodes and the chosen one's details, unless that leaves too little for what stands below."""
    wanted = _all_nodes(view)
    if canvas.height - wanted >= MIN_EVENT_ROWS:
        return wanted
    return canvas.height if canvas.height < 9 else max(5, canvas.height - 5)


def _nodes_and_sessions(state: ConsoleState, view: View, canvas: Canvas) -> Lines:
    wanted = _all_nodes(view)
    for_sessions = min(len(view.status.sessions) + 2, max(MIN_SESSION_ROWS, canvas.height // 3)) if view.status.sessions else 0
    nodes = _nodes(state, canvas.sized(canvas.width, min(wanted, max(4, canvas.height - for_sessions))))
    room = canvas.height - len(nodes) - 1
    rows = list(nodes)
    if view.status.sessions and room >= MIN_SESSION_ROWS:
        rows += [BLANK, *_list(state, Page.SESSIONS, canvas.sized(canvas.width, room))]
    return stack((*rows, *_last_minutes(state, canvas.sized(canvas.width, canvas.height - len(rows)))), canvas.height)


def _last_minutes(state: ConsoleState, canvas: Canvas) -> Lines:
    """In rows that would be empty: graphs of the row that the cursor is on, and of the cluster."""
    on_session = state.ui.list_page is Page.SESSIONS
    row = cursor_row(state, Page.SESSIONS if on_session else Page.NODES)
    chosen = () if row is None else of_session(state, row) if on_session else of_node(state, row)
    graphs = trends_beside(state, chosen, canvas.sized(canvas.width, min(MAX_GRAPH_ROWS, canvas.height - 1)))
    return (BLANK, *graphs) if graphs else ()


def _events_and_rules(state: ConsoleState, canvas: Canvas) -> Lines:
    """The rules stand at the bottom where the events keep most of the column."""
    rules = alert_panel(state, canvas) if canvas.height >= RULES_FROM else ()
    events = _list(state, Page.EVENTS, canvas.sized(canvas.width, canvas.height - len(rules) - (1 if rules else 0)))
    return (*stack(events, canvas.height - len(rules)), *rules)


def _three_columns(state: ConsoleState, view: View, canvas: Canvas) -> Lines:
    """Nodes, events, sessions."""
    left, right = canvas.width * 2 // 5, 66
    middle = canvas.width - left - right - 6
    sessions = _list(state, Page.SESSIONS, canvas.sized(right, canvas.height))
    events = _events_and_rules(state, canvas.sized(middle, canvas.height))
    nodes = _nodes(state, canvas.sized(left, min(_all_nodes(view), canvas.height)))
    first = stack((*nodes, *_last_minutes(state, canvas.sized(left, canvas.height - len(nodes)))), canvas.height)
    last = (*sessions, BLANK, *worst_list(state, canvas.sized(right, canvas.height - len(sessions) - 1)))
    return beside(first, beside(events, stack(last, canvas.height), middle, canvas.glyphs), left, canvas.glyphs)


def _nodes(state: ConsoleState, canvas: Canvas) -> Lines:
    """The node list, and one line about the chosen one if a row is left."""
    table, row = table_of(state, Page.NODES), cursor_row(state, Page.NODES)
    if table is None:
        return ()
    listing, active = state.ui.listing(Page.NODES), state.ui.list_page is Page.NODES
    rows = draw_table(table, listing, canvas, warn_only=warns(state, Page.NODES), active=active)
    if row is None or len(rows) >= canvas.height:
        return rows
    return (*rows, crop(headline(row, canvas), canvas.width))


def _list(state: ConsoleState, page: Page, canvas: Canvas) -> Lines:
    """Sessions or events as a panel with a heading; the events of a narrow column take two rows each."""
    table, active = table_of(state, page), state.ui.list_page is page
    if table is None or canvas.height < 2:
        return ()
    listing = state.ui.listing(page)
    if page is Page.EVENTS and not active and not listing.filter and not warns(state, page):
        return event_list(notable(table.rows), state.named("{screen.events}"), canvas)
    count = f"  {len(table.rows)}" + (state.named("  {nav.in} opens") if active else "")
    heading = line(Span(f" {page.value.upper()}", "title"), Span(count, "dim"))
    rows = draw_table(table, listing, canvas.sized(canvas.width, canvas.height - 1), warn_only=warns(state, page), active=active)
    return (heading, *(crop(row, canvas.width) for row in rows))
