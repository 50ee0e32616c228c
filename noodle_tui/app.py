"""`noodle-console`: the Textual shell around the pure reducer, and `main`.

The app owns the state, the one painter and the life of the embedded cluster. Messages from `link.py` and from keys go
through `dispatch`; only `paint` touches widgets.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from textual.app import App
from textual.binding import Binding, BindingType
from textual.filter import ANSIToTruecolor, LineFilter
from textual.worker import Worker

from engine.data import GenerateRequest, Refused, Unavailable
from noodle_tui import options as command_line
from noodle_tui import terminal
from noodle_tui.exits import install_signal_handlers
from noodle_tui.glyphs import ASCII, UNICODE, AsciiFilter, Glyphs
from noodle_tui.link import Link
from noodle_tui.messages import HoldToggled, Message, PromptSent, Quitting, SessionEnded, Tick, TokenArrived
from noodle_tui.options import Options
from noodle_tui.screens.help import Help
from noodle_tui.screens.overview import Overview
from noodle_tui.screens.painted import PaintedScreen
from noodle_tui.state import ConsoleState, LinkState, reduce
from noodle_tui.state import Link as LinkView
from noodle_tui.themes import DEFAULT_THEME, MONO_THEME, Look, load_theme, theme_names

MAX_BACKLOG = 2  # writes still queued for the terminal: on a slow line frames are dropped, not queued
ANSWER_INTERVAL_S = 0.1  # tokens are painted at most this often
BLURRED_INTERVAL_S = 5.0
STOP_TIMEOUT_S = 8.0


class ConsoleApp(App[None]):
    """The console; see the module docstring."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("space", "hold", "hold / resume the display", id="view.hold"),
        Binding("t", "next_theme", "next theme", id="view.theme"),
        Binding("r", "retry", "connect again now", id="link.retry"),
        Binding("question_mark,f1", "help", "this help", id="app.help"),
        Binding("q", "leave(0)", "quit", id="app.quit"),
        Binding("ctrl+c,ctrl+q", "leave(130)", "quit, even while typing", id="app.interrupt", priority=True),
    ]
    CSS_PATH = "console.tcss"
    ENABLE_COMMAND_PALETTE = False
    TITLE = "noodle-console"

    def __init__(self, options: Options, look: Look, glyphs: Glyphs, *, make_link: Callable[..., Any] = Link) -> None:
        super().__init__()
        self.animation_level = "none"
        self.options = options
        self.state = ConsoleState(link=LinkView(since_s=time.monotonic(), address=options.connect or ""))
        self.link: Link = make_link(options, self.dispatch)
        self.look = look
        self._glyphs = glyphs
        self._ascii_filter = AsciiFilter(enabled=glyphs is ASCII)
        self._answer: Worker[None] | None = None
        self._paint_pending = self._answer_pending = False
        self._painted_s = 0.0
        self.loop: asyncio.AbstractEventLoop | None = None
        self._apply_theme()

    def get_line_filters(self) -> Sequence[LineFilter]:
        """The look decides about colour (NO_COLOR picks the mono theme), so only two filters are left."""
        stock = [item for item in super().get_line_filters() if isinstance(item, ANSIToTruecolor)]
        return [*stock, self._ascii_filter] if self._ascii_filter.enabled else stock

    def get_default_screen(self) -> Overview:
        """The first screen."""
        return Overview(self.look, self._glyphs, self.options)

    def on_ready(self) -> None:
        """Everything that costs time starts after the first paint."""
        self.loop = asyncio.get_running_loop()
        self.paint()
        self.set_interval(1 / self.options.hz, self._on_timer)
        self.call_after_refresh(self._start_link)

    def _start_link(self) -> None:
        self.run_worker(self.link.run(), group="link", exit_on_error=False)

    # --- state and paint ------------------------------------------------------------------------------------------
    def dispatch(self, message: Message) -> None:
        """Take in one message; what the reader waits for is painted soon, the rest at the next tick."""
        before = self.state
        self.state = reduce(before, message, time.monotonic())
        if isinstance(message, TokenArrived | SessionEnded):
            self._paint_answer_soon()
        elif before.link.state is not self.state.link.state or before.latest is None:
            self.paint_soon()

    def paint(self) -> None:
        """The one painter: shows the state on the current screen; unchanged cells are not written."""
        self._paint_pending = False
        if not self.is_running or self._backlog() > MAX_BACKLOG or not isinstance(self.screen, PaintedScreen):
            return
        self._painted_s = time.monotonic()
        with self.batch_update():
            self.screen.paint(self.state, self._painted_s)

    def paint_soon(self) -> None:
        """Paint once after the events that are waiting now."""
        if not self._paint_pending and self.is_running:
            self._paint_pending = True
            self.call_next(self.paint)

    def _on_timer(self) -> None:
        self.dispatch(Tick())
        if self.app_focus or time.monotonic() - self._painted_s >= BLURRED_INTERVAL_S:
            self.paint()

    def _paint_answer_soon(self) -> None:
        if not self._answer_pending and self.is_running:
            self._answer_pending = True
            self.set_timer(ANSWER_INTERVAL_S, self._paint_answer)

    def _paint_answer(self) -> None:
        self._answer_pending = False
        if self._backlog() > MAX_BACKLOG:
            self._paint_answer_soon()
        elif isinstance(self.screen, Overview):
            self.screen.paint_answer(self.state, time.monotonic())

    def _backlog(self) -> int:
        writer = getattr(self._driver, "_writer_thread", None)
        return writer._queue.qsize() if writer is not None else 0

    # --- keys -----------------------------------------------------------------------------------------------------
    def action_hold(self) -> None:
        """Freeze the panels, or let them go."""
        self.dispatch(HoldToggled(time.time()))
        self.paint_soon()

    def action_next_theme(self) -> None:
        """The theme after this one."""
        names = theme_names()
        self.look = load_theme(names[(names.index(self.look.name) + 1) % len(names)])
        self._apply_theme()
        for screen in self.screen_stack:
            if isinstance(screen, PaintedScreen):
                screen.restyle(self.look)
        self.paint_soon()

    def _apply_theme(self) -> None:
        self.register_theme(self.look.textual_theme())
        self.theme = self.look.name

    def action_retry(self) -> None:
        """Try to connect now; nothing to do while the link is live."""
        if self.state.link.state is not LinkState.LIVE:
            self.link.retry_now()

    def action_help(self) -> None:
        """Open the help, or close it."""
        if isinstance(self.screen, Help):
            self.pop_screen()
        else:
            self.push_screen(Help(self.look, self._glyphs, (*Overview.BINDINGS, *self.BINDINGS)))

    async def action_leave(self, exit_code: int = 0) -> None:
        """Quit: end the embedded cluster first; asking twice ends it at once."""
        if self.state.quitting:
            self.link.kill()
            self.exit(return_code=exit_code)
            return
        self.dispatch(Quitting("ending the cluster's processes, q again = at once" if self.link.owns_cluster else "leaving"))
        self.paint()
        self.run_worker(self._stop_and_exit(exit_code), group="leave", exit_on_error=False)

    async def _stop_and_exit(self, exit_code: int) -> None:
        self.workers.cancel_group(self, "answer")
        self.workers.cancel_group(self, "link")
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await self.link.stop()
        except Exception as problem:
            self.log(f"stopping the cluster failed: {problem!r}")
        self.link.kill()
        self.exit(return_code=exit_code)

    # --- the prompt -----------------------------------------------------------------------------------------------
    def send(self, request: GenerateRequest) -> None:
        """Start an answer; raises Refused or Unavailable with the reason when it cannot start."""
        if self.state.generation.running:
            raise Refused("one answer at a time: esc stops the running one")
        if self.state.link.state not in (LinkState.LIVE, LinkState.STALE):
            raise Unavailable("not connected to a coordinator yet: the prompt stays in its field")
        sampling = request.sampling
        number = self.state.generation.number + 1
        self.dispatch(PromptSent(number, request.prompt or "", request.max_new_tokens, sampling.temperature, sampling.seed))
        self._answer = self.run_worker(self.link.generate(number, request), group="answer", exit_on_error=False)

    def stop_answer(self) -> bool:
        """Cancel a running answer; False when there is none."""
        if not self.state.generation.running or self._answer is None:
            return False
        self._answer.cancel()
        self.dispatch(SessionEnded(self.state.generation.number, cancelled=True))
        return True


def choose_look(theme: str | None, environ: Mapping[str, str]) -> Look:
    """The theme asked for; NO_COLOR picks the one without colours."""
    return load_theme(theme or (MONO_THEME if "NO_COLOR" in environ else DEFAULT_THEME))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the console; the exit code is 0 after `q`, 130 after Ctrl-C, 2 for bad usage."""
    options = command_line.parse(sys.argv[1:] if argv is None else argv)
    if not terminal.is_terminal():
        terminal.say(terminal.NOT_A_TERMINAL)
        return 2
    stream = terminal.output_stream()
    ascii_only = options.ascii or terminal.wants_ascii(os.environ, getattr(stream, "encoding", None))
    terminal.make_streams_forgiving()
    terminal.make_term_usable()
    app = ConsoleApp(options, choose_look(options.theme, os.environ), ASCII if ascii_only else UNICODE)
    install_signal_handlers(app)
    try:
        app.run(mouse=False)
    finally:
        app.link.kill()
    return app.return_code or 0


if __name__ == "__main__":
    sys.exit(main())
