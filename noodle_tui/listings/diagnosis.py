"""What is wrong with the cluster, as this console finds it, and the key that helps. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from engine.diagnosis.diagnose import SILENT_S, silence
from engine.diagnosis.finding import Finding, Kind, Remedy
from noodle_tui.core.pages import Page
from noodle_tui.state import ConsoleState, LinkState
from noodle_tui.text.safe_text import safe_text

KEYS: Mapping[Remedy, str] = {
    Remedy.COMPARE: "{screen.what-if} = other plans",
    Remedy.WITHOUT: "{cluster.drain} = plan without it",
    Remedy.FORGET: "{cluster.drain} = forget it",
    Remedy.REPLAN: "{cluster.rebalance} = plan again",
    Remedy.SESSIONS: "{screen.sessions} = sessions",
    Remedy.NODE: "{nav.in} = its figures",
    Remedy.LOGS: "{screen.logs} = logs",
}
_PAGES: Mapping[Kind, Page] = {
    Kind.COORDINATOR: Page.LOGS,
    Kind.PROMPT: Page.SESSIONS,
    Kind.KV: Page.SESSIONS,
    Kind.OLD_PLAN: Page.PLAN,
    Kind.RESTING: Page.PLAN,
}


def findings(state: ConsoleState, now_s: float) -> tuple[Finding, ...]:
    """The greatest loss first. A coordinator that says nothing cannot say so itself."""
    if state.latest is None:
        return ()
    silent_s = now_s - state.latest.arrived_s
    is_silent = state.link.state in (LinkState.STALE, LinkState.OFFLINE) and state.replay is None and silent_s >= SILENT_S
    return ((silence(silent_s),) if is_silent else ()) + state.standing.said


def key_for(state: ConsoleState, finding: Finding) -> str:
    """The key that helps, from the screen that is shown; where the cursor is on another node the culprit is named beside it."""
    listing, text = state.ui.listing(Page.NODES), KEYS[finding.do]
    said = state.standing.said
    is_meant = (listing.cursor or (said[0].node if said else "")) == finding.node and len(listing.marked) < 2
    if finding.do is Remedy.NODE and not (is_meant and state.ui.page in (Page.OVERVIEW, Page.NODES)):
        text = "{screen.nodes} = nodes"
    key = state.named("{nav.out} then " if state.ui.page is Page.PROMPT else "") + state.named(text)  # in its field keys are text
    if finding.do in (Remedy.WITHOUT, Remedy.FORGET) and not is_meant:
        return key.replace(" = ", f" on {safe_text(finding.node)} = ", 1)
    return key


def culprit(state: ConsoleState) -> Finding | None:
    """Where `enter` on the Overview goes, as long as no row of the list was chosen."""
    said = state.standing.said
    return said[0] if said and state.ui.panel == 0 and not state.ui.listing(Page.NODES).cursor else None


def page_of(finding: Finding) -> Page:
    """The screen that shows more of it."""
    return _PAGES.get(finding.kind, Page.NODES)
