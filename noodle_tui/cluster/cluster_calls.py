"""What the console asks of the cluster on the user's behalf: previews, comparisons, confirmed changes.

Every answer and every failure becomes a message; nothing is sent whose preview no longer holds.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from engine.data.errors import InvalidInput, NoodleError, Refused
from engine.data.generation import SessionText
from engine.data.plan import Plan, Stage
from noodle_tui.background import begin
from noodle_tui.changes.actions import ACTIONS, ALL_NODES, arguments_of, is_one_request, nodes_of, still_holds, title_of
from noodle_tui.changes.marking import preview_for, singles
from noodle_tui.cluster.move_progress import followed
from noodle_tui.cluster.previews import candidate, filled, priced, suggestion_of
from noodle_tui.cluster.undoing import Undoing, opposite
from noodle_tui.cluster.written import Written
from noodle_tui.core.messages import (
    ActionChanged,
    DialogChanged,
    LinksArrived,
    LogsArrived,
    PresentPlanned,
    TextArrived,
    WhatIfAsked,
    WhatIfEnded,
)
from noodle_tui.core.pages import Page, Preview
from noodle_tui.listings import cursor_row
from noodle_tui.listings.base_plan import as_planned
from noodle_tui.state import LinkState
from noodle_tui.text.figures import short_id

if TYPE_CHECKING:
    from engine.data.measured_link import MeasuredLink
    from noodle_tui.app import ConsoleApp

KNOWN_STRATEGIES = ("auto", "balanced", "bottleneck_first", "memory_aware", "latency_optimized", "cost")
UNDO = "; {cluster.undo} takes it back"
_OFFERED = re.compile(r"choose one of ([A-Za-z0-9_, -]+)")


class ClusterCalls:
    """Belongs to one app; its tasks run in the app's loop."""

    def __init__(self, app: ConsoleApp) -> None:
        self._app = app
        self._undoing, self._written = Undoing(), Written()

    # --- what-if --------------------------------------------------------------------------------------------------
    def compare(self) -> None:
        """Ask what every strategy would do now; nothing is asked twice at once."""
        state = self._app.state
        if state.whatif.running or state.latest is None or state.link.state is not LinkState.LIVE or state.replay is not None:
            return
        self._app.dispatch(WhatIfAsked(state.latest.status.plan_version))
        begin(self._app, self._compare, state.latest.status.strategy, group="what-if")

    async def _compare(self, present: str) -> None:
        """Strategies that this coordinator does not offer are left out; those it names beside ours are asked as well."""
        version = self._plan_version()
        await self._ask_present()
        names, asked = [*dict.fromkeys(name for name in (present, *KNOWN_STRATEGIES) if name)], set[str]()
        while names and self._plan_version() == version:
            name = names.pop(0)
            asked.add(name)
            found, error = await candidate(self._app.link, name)
            offered = offered_by(error)
            if offered:
                names += [other for other in offered if other not in asked and other not in names]
            else:
                self._app.dispatch(found)
        self._app.dispatch(WhatIfEnded(time.time()))
        self._app.paint_soon()

    def _plan_version(self) -> int:
        return self._app.state.latest.status.plan_version if self._app.state.latest else 0

    def _present_stages(self) -> tuple[Stage, ...]:
        return as_planned(self._app.state.latest.status).stages if self._app.state.latest else ()

    async def _ask_present(self) -> None:
        """What the plan that serves would be planned to take now; without an answer the figures it was made with stand."""
        plan = await priced(self._app.link, self._present_stages())
        if plan is not None:
            self._app.dispatch(PresentPlanned(plan))

    # --- adaptation -----------------------------------------------------------------------------------------------
    def look_at_suggestion(self) -> None:
        """Fetch what adaptation suggests when the status names one that is not known yet."""
        state = self._app.state
        decision_id = state.latest.status.adaptation.suggestion_id if state.latest else 0
        if not decision_id or state.suggestion is not None or state.replay is not None or state.link.state is not LinkState.LIVE:
            return
        if not any(worker.group == "suggestion" and worker.is_running for worker in self._app.workers):
            begin(self._app, self._fetch_suggestion, decision_id, group="suggestion")

    async def _fetch_suggestion(self, decision_id: int) -> None:
        found = await suggestion_of(self._app.link, decision_id)
        if found is not None:
            await self._ask_present()
            self._app.dispatch(found)
            self._app.paint_soon()

    # --- links ----------------------------------------------------------------------------------------------------
    def look_at_links(self) -> None:
        """Fetch what was measured of the ways between workers once its screen is shown, and when an event tells of news."""
        state = self._app.state
        if state.latest is None or state.ui.page is not Page.NODES or state.replay is not None or state.link.state is not LinkState.LIVE:
            return
        newest = max((event.sequence for event in state.latest.events if event.text.startswith("link")), default=0)
        if newest != state.links.event and not any(worker.group == "links" and worker.is_running for worker in self._app.workers):
            begin(self._app, self._fetch_links, newest, group="links")

    async def _fetch_links(self, event: int) -> None:
        """Without an answer none are shown, and none asked for again until there is news."""
        links: tuple[MeasuredLink, ...] = ()
        with contextlib.suppress(NoodleError):
            links = await self._app.link.ask("links")
        self._app.dispatch(LinksArrived(links, event))
        self._app.paint_soon()

    # --- what processes write ------------------------------------------------------------------------------------
    def look_at_lines(self) -> None:
        """Fetch what coordinator and workers wrote since the last look, while the Logs are shown; those of an own cluster come anyway."""
        state = self._app.state
        if state.ui.page is not Page.LOGS or state.latest is None or state.replay is not None or state.link.state is not LinkState.LIVE:
            return
        if not state.setup.owns_cluster and not any(worker.group == "lines" and worker.is_running for worker in self._app.workers):
            begin(self._app, self._fetch_lines, group="lines")

    async def _fetch_lines(self) -> None:
        lines = await self._written.since(self._app.link, nodes_of(self._app.state))
        if lines:
            self._app.dispatch(LogsArrived(lines))
            self._app.paint_soon()

    # --- what sessions say ----------------------------------------------------------------------------------------
    def look_at_text(self) -> None:
        """Fetch the prompt and answer of the session that is shown in full, whenever it has a new token."""
        state = self._app.state
        session = cursor_row(state, Page.SESSIONS)
        if state.ui.page is not Page.SESSIONS or not state.ui.listing(Page.SESSIONS).detail or session is None or state.replay is not None:
            return
        known = state.text.text.session_id == session.session_id and state.text.num_generated == session.num_generated
        if known or state.link.state is not LinkState.LIVE:
            return
        if not any(worker.group == "text" and worker.is_running for worker in self._app.workers):
            begin(self._app, self._fetch_text, session.session_id, session.num_generated, group="text")

    async def _fetch_text(self, session_id: str, num_generated: int) -> None:
        """An answer that is no answer is shown in its place: most coordinators show no text."""
        try:
            found = TextArrived(await self._app.link.ask("text", session_id), num_generated)
        except NoodleError as e:
            found = TextArrived(SessionText(session_id, "", ""), num_generated, str(e))
        self._app.dispatch(found)
        self._app.paint_soon()

    # --- changes --------------------------------------------------------------------------------------------------
    def preview(self, key_id: str, *names: str, undoes: Preview | None = None) -> None:
        """Open the dialog of an action, for these nodes or whatever else it is about; a plan is fetched for those that make one."""
        if key_id == "cluster.whatif":
            self.compare()
            return
        preview = preview_for(key_id, self._app.state, names)
        if undoes is not None:
            preview = replace(preview, undoes=undoes, undoing=self._app.state.named(self._undoing.about(undoes)))
        self._app.dispatch(DialogChanged(preview))
        if preview.pending:
            begin(self._app, self._fill, preview, group="preview", exclusive=True)

    async def _fill(self, preview: Preview) -> None:
        self._app.dispatch(await filled(self._app.link, preview, self._app.state.suggestion, self._present_stages()))
        self._app.paint_soon()

    def confirm(self, preview: Preview) -> None:
        """Send what the preview says, unless something moved meanwhile: then the dialog says why."""
        if still_holds(preview, self._app.state):
            return
        self._app.dispatch(DialogChanged(None))
        self._tell(preview, "running", "sent to the coordinator")
        begin(self._app, self._send, preview, group="action")

    def undo(self, before: Preview | None = None) -> None:
        """The preview that takes back what was done last here, or last before another change; raises Refused where there is nothing."""
        change = self._undoing.newest(before)
        if change is None:
            raise Refused(
                self._app.state.named("nothing to take back: this console has changed no plan, node or mode yet ({app.help} lists keys)")
            )
        self.preview(*opposite(change), undoes=change)

    def joined_another(self) -> None:
        """What was changed on the cluster before is not taken back on this one."""
        self._undoing, self._written = Undoing(), Written()

    def _tell(self, preview: Preview, state: str, text: str) -> None:
        self._app.dispatch(ActionChanged(title_of(preview), state, text, ACTIONS[preview.action].plans))
        self._app.paint_soon()

    async def _send(self, preview: Preview) -> None:
        undoing = self._undoing  # of the cluster that it is sent to
        try:
            if preview.action == "cluster.profile":
                names = nodes_of(self._app.state) if preview.target == ALL_NODES else (preview.target,)
                written = [await self._profile(name, preview) for name in names]
                done, text = True, self._app.state.named("{screen.profile} shows ") + ", ".join(written)
            elif not is_one_request(preview):
                done, text = await self._send_all(preview)
            else:
                answer = await self._app.link.act(ACTIONS[preview.action].call, arguments_of(preview))
                done, text = await self._outcome(answer, preview)
                text += self._app.state.named(UNDO) if done and preview.undoes is None and opposite(preview) else ""
        except NoodleError as problem:
            done, text = False, f"{type(problem).__name__}: {problem}"
        except Exception as problem:
            done, text = False, f"unexpected {type(problem).__name__}: {problem}"
        if done:
            undoing.took_effect(preview)
        self._tell(preview, "done" if done else "failed", text)

    async def _send_all(self, preview: Preview) -> tuple[bool, str]:
        """One after the other; what is refused of them stands in the way of no other."""
        refused, said = list[str](), list[str]()
        for number, one in enumerate(singles(preview), 1):
            try:
                answer = await self._app.link.act(ACTIONS[one.action].call, arguments_of(one))
                said.append(f"{short_id(one.target)}: {said_of(answer, one) or 'done'}")
            except NoodleError as problem:
                refused.append(f"{one.target}: {str(problem) or type(problem).__name__}")
            self._tell(preview, "running", f"{number} of {len(preview.names)}, {len(refused)} refused")
        return not refused, "; ".join(refused or said)

    async def _outcome(self, answer: object, preview: Preview) -> tuple[bool, str]:
        """A move that begins is followed to its end; whatever else was answered is said at once."""
        if not isinstance(answer, Plan) or answer.plan_version <= preview.plan_version:
            return True, said_of(answer, preview)

        def say(text: str) -> None:
            self._tell(preview, "running", text)

        return await followed(self._app.link, answer.plan_version, preview.move, say)

    async def _profile(self, worker_id: str, preview: Preview) -> str:
        """Progress as the node tells it; the document goes to a folder here, where screen 7 and `report` find it."""
        from noodle_tui.cluster.profile_file import save_profile

        document, percent = "", -1
        async for answer in self._app.link.profile(worker_id):
            document = answer.profile_json
            if int(100 * answer.progress) != percent:
                percent = int(100 * answer.progress)
                self._tell(preview, "running", f"{worker_id} {max(0, percent)} %  {answer.detail}")
        path = await asyncio.to_thread(save_profile, worker_id, document)
        self._app.effects.files.load_profile(path, show=False)  # the reader may be elsewhere by now
        return f"{path.parent.name} in {path.parent.parent}"


def offered_by(error: NoodleError | None) -> tuple[str, ...]:
    """The strategies that a coordinator names when it is asked for one it does not know; empty for any other error."""
    found = _OFFERED.search(str(error)) if isinstance(error, InvalidInput) else None
    return tuple(name.strip() for name in found[1].split(",")) if found else ()


def said_of(answer: object, preview: Preview) -> str:
    """What a change has led to, in a sentence."""
    if isinstance(answer, Plan):
        return f"plan #{answer.plan_version} serves on: no item has to move, or the move waits for room (Events tells)"
    if preview.action == "cluster.auto":
        return f"adaptation is {preview.target} now"
    if preview.action == "cluster.confirm":
        return f"suggestion {preview.target} is being carried out: Events tells its end"
    if preview.action == "cluster.acknowledge":
        return "what was shown counts as seen"
    if preview.action == "cluster.forget":
        return f"{preview.target} is off the list"
    return str(answer or "")
