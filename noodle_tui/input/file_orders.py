"""Commands that read or write files: profiles, recordings, exports, pictures."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from engine.data.errors import NoodleError, Refused
from noodle_tui.background import begin
from noodle_tui.core.messages import KeyPressed, ProfileLoaded, Said
from noodle_tui.core.pages import Page
from noodle_tui.listings import shown_rows, table_of
from noodle_tui.text.tables import record

if TYPE_CHECKING:
    from noodle_tui.app import ConsoleApp


class FileOrders:
    """Belongs to one app; what goes wrong is raised as NoodleError."""

    def __init__(self, app: ConsoleApp) -> None:
        self._app = app

    def _say(self, text: str) -> None:
        self._app.dispatch(Said(text))

    def load_profile(self, path: Path | None, *, show: bool = True) -> None:
        """Read a profile in a thread, and turn to it unless told not to; without a path the newest one here, if there is one."""
        begin(self._app, self._load_profile, path, group="profile", exclusive=True)
        if path is not None and show:
            self._app.dispatch(KeyPressed("screen.profile"))

    async def _load_profile(self, path: Path | None) -> None:
        from noodle_tui.cluster.profile_file import newest_profile, read_profile

        try:
            found = path or await asyncio.to_thread(newest_profile, Path.cwd())
            if found is None:
                return
            self._app.dispatch(ProfileLoaded(str(found), await asyncio.to_thread(read_profile, found)))
        except NoodleError as problem:
            self._app.dispatch(ProfileLoaded(str(path or ""), None, str(problem)))
        except OSError as problem:
            self._app.dispatch(ProfileLoaded(str(path or ""), None, f"cannot look for profiles: {problem.strerror or problem}"))
        self._app.paint_soon()

    def next_profile(self) -> None:
        """The next profile here, by the name of its folder: that of another node, if all were profiled."""
        from noodle_tui.cluster.profile_file import profile_after

        view = self._app.state.profile.view
        found = profile_after(Path.cwd(), view.path if view else "")
        if found is None:
            raise Refused("there is no profile in this folder: P takes one of a node, : profile FILE shows any")
        self.load_profile(found)

    def record(self, argument: str) -> None:
        """`record FILE` or `record off`."""
        if argument == "off":
            self._app.tape.end()
        else:
            self._app.tape.begin(Path(argument))

    def export(self, argument: str) -> None:
        """`export FORMAT [FILE]`: the list on screen, filtered and sorted as it stands; what is folded there is in it too."""
        from noodle_tui.input.export import render, write_new

        state = replace(self._app.state, ui=replace(self._app.state.ui, expanded=frozenset(Page)))
        form, _, name = argument.partition(" ")
        page = state.ui.list_page
        table = table_of(state, page)
        if page is Page.PROMPT:
            self._export_answer(form, name.strip())
            return
        if table is None:
            raise Refused(f"screen {state.ui.page.value} has no list to export; `shot` writes it as SVG")
        records = [record(table, row) for row in shown_rows(state, page)]
        path = Path(name.strip() or self._file_name(page.value, form))
        write_new(path, render(records, form))
        self._say(f"{len(records)} {table.noun} written to {path}")

    def _export_answer(self, form: str, name: str) -> None:
        """The last prompt and its answer as one record."""
        from noodle_tui.input.export import render, write_new

        answer = self._app.state.generation
        if not answer.num_tokens:
            raise Refused("there is no answer to export yet")
        names = ("session_id", "prompt", "text", "num_prompt_tokens", "num_tokens", "max_new_tokens", "temperature", "seed")
        figures = {"ttft_s": answer.ttft_s, "tokens_per_s": answer.tokens_per_s, "error": answer.error}
        record = {name: getattr(answer, name) for name in names} | figures | {"finish_reason": str(answer.finish_reason or "")}
        path = Path(name or self._file_name("answer", form))
        write_new(path, render([record], form))
        self._say(f"the answer is in {path}")

    def shot(self, argument: str) -> None:
        """`shot [FILE]`: the screen as SVG, without the line that asked for it."""
        from noodle_tui.input.export import write_new

        path = Path(argument or self._file_name(self._app.state.ui.page.value, "svg"))
        self._app.paint()
        write_new(path, self._app.export_screenshot(title="noodle-console"))
        self._say(f"this screen is in {path}")

    def _file_name(self, what: str, suffix: str) -> str:
        return f"noodle-{what}-{time.strftime('%Y%m%d-%H%M%S')}.{suffix}"
