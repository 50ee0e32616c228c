"""`noodle-console`: the Textual shell around the pure reducer, and `main`.

The app owns the state, the one painter and the life of the embedded cluster. Messages from `link.py` and from keys go through `dispatch`;
only `paint` touches widgets. What keys do is in `key_effects.py`, what is asked of the cluster in `cluster_calls.py`.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from textual import events
from textual.app import App
from textual.driver import Driver
from textual.filter import ANSIToTruecolor, LineFilter

from engine.data.errors import NoodleError
from engine.folders import settings_path, shown_path
from engine.program import run_program
from noodle_tui import options as command_line
from noodle_tui.background import begin
from noodle_tui.cluster.tape import Tape
from noodle_tui.config import SETTINGS_FILE, Config, load_config
from noodle_tui.core.pages import Page
from noodle_tui.core.reading import Reading
from noodle_tui.glyphs import ASCII, Glyphs
from noodle_tui.options import Options, is_loopback
from noodle_tui.screens.frame import Settings, preload
from noodle_tui.screens.main import Main
from noodle_tui.state import ConsoleState, Setup
from noodle_tui.state import Link as LinkView
from noodle_tui.terminal import streams as terminal
from noodle_tui.terminal.ascii_filter import AsciiFilter
from noodle_tui.terminal.exits import install_signal_handlers
from noodle_tui.terminal.tight_update import tightened
from noodle_tui.text.graph_sets import glyphs_for
from noodle_tui.theme_watch import ThemeWatch
from noodle_tui.themes import THEMES, Look, choose_look, load_theme, theme_names

if TYPE_CHECKING:
    from noodle_tui.cluster.cluster_calls import ClusterCalls
    from noodle_tui.cluster.link import Link
    from noodle_tui.cluster.replay import ReplayLink
    from noodle_tui.core.messages import Message
    from noodle_tui.input.key_effects import KeyEffects
    from noodle_tui.input.keyboard import Keyboard
    from noodle_tui.terminal.alarm import Alarm

_ASCII_ONLY = AsciiFilter()
MAX_BACKLOG = 2  # writes still queued for the terminal: on a slow line frames are dropped, not queued
ANSWER_INTERVAL_S = 0.1  # tokens are painted at most this often
BLURRED_INTERVAL_S = 5.0
STOP_TIMEOUT_S = 8.0


class ConsoleApp(App[None], inherit_bindings=False):
    """The console; see the module docstring."""

    CSS_PATH = "console.tcss"
    ENABLE_COMMAND_PALETTE = False
    TITLE = "noodle-console"

    def __init__(
        self,
        options: Options,
        look: Look,
        glyphs: Glyphs,
        *,
        make_link: Callable[..., Any] | None = None,
        config: Config | None = None,
        clock: Callable[[], float] = time.monotonic,
        driver_class: type[Driver] | None = None,
    ) -> None:
        super().__init__(driver_class)
        self.clock = clock
        self.reading = Reading()
        self._early: list[events.Event] = []
        self.animation_level = "none"
        self.options = options
        config = config or Config()
        self.state = ConsoleState(
            link=LinkView(since_s=clock(), address=options.connect or ""),
            setup=Setup(
                read_only=not options.rw and not is_loopback(options.connect),
                owns_cluster=options.connect is None and options.replay is None,
                keys=config.keys,
                thresholds=config.thresholds,
                joined=(options.connect,) if options.connect else (),
                files=tuple(shown_path(settings_path(name)) for name in (SETTINGS_FILE, THEMES)),
            ),
        )
        self.settings = Settings(tuple(theme_names()))
        self._make_link = make_link or _make_link
        self.look = look
        self._glyphs = glyphs
        self.tape = Tape(self)
        self._theme_watch = ThemeWatch(look.name, config.theme)
        self._paint_pending = self._answer_pending = False
        self._painted_s = 0.0
        self.loop: asyncio.AbstractEventLoop | None = None
        self._apply_theme()

    @functools.cached_property
    def link(self) -> Link | ReplayLink:
        """To the cluster or the recording; `switch` puts another one in its place."""
        return cast("Link | ReplayLink", self._make_link(self.options, self.dispatch))

    @functools.cached_property
    def calls(self) -> ClusterCalls:
        """Imported when first needed, as everything that the first paint can do without."""
        from noodle_tui.cluster.cluster_calls import ClusterCalls

        return ClusterCalls(self)

    @functools.cached_property
    def effects(self) -> KeyEffects:
        """See `calls`."""
        from noodle_tui.input.key_effects import KeyEffects

        return KeyEffects(self)

    @functools.cached_property
    def keyboard(self) -> Keyboard:
        """See `calls`."""
        from noodle_tui.input.keyboard import Keyboard

        return Keyboard(self)

    @functools.cached_property
    def alarm(self) -> Alarm:
        """See `calls`."""
        from noodle_tui.terminal.alarm import Alarm

        return Alarm(self.options.alert, self._to_terminal)

    async def on_event(self, event: events.Event) -> None:
        """Keys and pastes are taken here, in the order in which they were typed; those before the first paint wait for it."""
        if not isinstance(event, events.Key | events.Paste) or event.is_forwarded:
            await super().on_event(event)
        elif self.loop is None:
            self._early.append(event)
        else:
            await self._typed(event)

    async def _typed(self, event: events.Event) -> None:
        if isinstance(event, events.Key):
            await self.keyboard.take(event)
        elif isinstance(event, events.Paste):
            self.keyboard.paste(event.text)

    def get_line_filters(self) -> Sequence[LineFilter]:
        """The look decides about colour (NO_COLOR picks the mono theme), so only two filters are left."""
        stock = [item for item in super().get_line_filters() if isinstance(item, ANSIToTruecolor)]
        return [*stock, _ASCII_ONLY] if self._glyphs is ASCII else stock

    def get_default_screen(self) -> Main:
        """The one screen."""
        self.main = Main(self.look, self._glyphs, self.options)
        return self.main

    async def on_ready(self) -> None:
        """Everything that costs time starts after the first paint."""
        self.loop = asyncio.get_running_loop()
        self.app_resume_signal.subscribe(self, lambda _: self.refresh(layout=True))
        self.paint()
        for event in self._early:
            await self._typed(event)
        self.set_interval(1 / self.options.hz, self._on_timer)
        self.call_after_refresh(self._start_link)

    def _start_link(self) -> None:
        if self.options.record is not None:
            self._try(lambda: self.tape.begin(Path(self.options.record or "")))
        if self.options.profile is not None:
            self.effects.files.load_profile(Path(self.options.profile))
        begin(self, self.link.run, group="link")
        self.call_after_refresh(_settle)

    def _try(self, action: Callable[[], object]) -> None:
        try:
            action()
        except NoodleError as problem:
            from noodle_tui.core.messages import Said

            self.dispatch(Said(str(problem), is_error=True))

    # --- state and paint ------------------------------------------------------------------------------------------
    def dispatch(self, message: Message) -> None:
        """Take in one message; what the reader waits for is painted soon, the rest at the next tick."""
        from noodle_tui.changes.reducer import reduce
        from noodle_tui.core.messages import FrameArrived, LogsArrived, ReplayMoved, SessionEnded, Tick, TokenArrived

        before = self.state
        self.state = reduce(before, message, self.clock())
        self.tape.take(message)
        if self.options.alert != "off" and isinstance(message, FrameArrived | Tick):
            self.alarm.heard(before, self.state, self.clock())
        if before.ui.page is not self.state.ui.page:
            self.main.turned_to(self.state.ui.page)
        if isinstance(message, TokenArrived | SessionEnded):
            self._paint_answer_soon()
        elif before.link.state is not self.state.link.state or before.latest is None:
            if not isinstance(message, LogsArrived):
                self.paint_soon()
        elif isinstance(message, ReplayMoved) and message.paused:
            self.paint_soon()

    def _fatal_error(self) -> None:
        """Textual would print a traceback; the exception is kept, and becomes a sentence once the terminal is restored."""
        self._close_messages_no_wait()

    def _display(self, screen: Any, renderable: Any) -> None:
        """Textual's last step before the terminal; here an update loses the bytes that change nothing."""
        super()._display(screen, tightened(renderable))

    def _to_terminal(self, text: str) -> None:
        if self._driver is not None:
            self._driver.write(text)

    def paint(self) -> None:
        """The one painter: shows the state; unchanged cells are not written."""
        self._paint_pending = False
        if not self.is_running or self._backlog() > MAX_BACKLOG or not self.main.is_mounted:
            return
        self._painted_s = self.clock()
        with self.batch_update():
            whole = self.main.paint(self.state, self._painted_s, self.settings)
        self.reading.painted(self.state.ui.dialog if whole else None, self.clock())

    def paint_soon(self) -> None:
        """Paint once after the events that are waiting now."""
        if not self._paint_pending and self.is_running:
            self._paint_pending = True
            self.call_next(self.paint)

    def _on_timer(self) -> None:
        from noodle_tui.core.messages import Tick

        self.dispatch(Tick())
        self.calls.look_at_suggestion()
        self.calls.look_at_links()
        self.calls.look_at_text()
        self.calls.look_at_lines()
        self._reload_theme()
        if self.app_focus or self.clock() - self._painted_s >= BLURRED_INTERVAL_S:
            self.paint()

    def _paint_answer_soon(self) -> None:
        if not self._answer_pending and self.is_running and self.state.ui.page is Page.PROMPT:
            self._answer_pending = True
            self.set_timer(ANSWER_INTERVAL_S, self._paint_answer)

    def _paint_answer(self) -> None:
        self._answer_pending = False
        if self._backlog() > MAX_BACKLOG:
            self._paint_answer_soon()
        else:
            self.paint()

    def _backlog(self) -> int:
        writer = getattr(self._driver, "_writer_thread", None)
        return writer._queue.qsize() if writer is not None else 0

    # --- themes ---------------------------------------------------------------------------------------------------
    def use_theme(self, name: str) -> None:
        """Change the colours; raises InvalidInput with the file and the key."""
        self.look = load_theme(name)
        self._theme_watch.use(name)
        self._apply_theme()
        self.main.restyle(self.look)
        self.paint_soon()

    def _apply_theme(self) -> None:
        self.register_theme(self.look.textual_theme())
        if self.theme == self.look.name:
            self._watch_theme(self.look.name)
        self.theme = self.look.name

    def _reload_theme(self) -> None:
        """What was saved, a theme or the settings, is shown at once; what is broken keeps the colours and says what is wrong."""
        self._try(lambda: self.use_theme(name) if (name := self._theme_watch.news()) else None)

    # --- the link -------------------------------------------------------------------------------------------------
    def switch(self, address: str) -> None:
        """Connect to another coordinator; an embedded cluster is ended. Raises what `Options` and `checked` say against it."""
        from noodle_tui.core.messages import Said

        options = command_line.checked(Options(connect=address, hz=self.options.hz, access=self.options.access))
        self.dispatch(Said(f"connecting to {address}"))
        begin(self, self._switch, options, group="switch", exclusive=True)

    async def _switch(self, options: Options) -> None:
        from noodle_tui.core.messages import AccessChanged

        self.workers.cancel_group(self, "answer")
        self.workers.cancel_group(self, "link")
        await self.link.stop()
        self.calls.joined_another()
        self.options = replace(self.options, connect=options.connect, cluster=None, replay=None)
        link, old = LinkView(since_s=self.clock(), address=options.connect or ""), self.state
        setup, ui, talk = old.joining(options.connect or ""), old.ui.unmarked(), old.talk.elsewhere()
        self.state = ConsoleState(link=link, setup=setup, ui=ui, recording=old.recording, talk=talk)
        self.dispatch(AccessChanged(not self.options.rw and not is_loopback(options.connect)))
        self.link = self._make_link(self.options, self.dispatch)
        begin(self, self.link.run, group="link")
        self.paint_soon()

    def leave(self, exit_code: int = 0) -> None:
        """Quit: end the embedded cluster first; asking twice ends it at once."""
        if self.state.quitting:
            self.link.kill()
            self.exit(return_code=exit_code)
            return
        from noodle_tui.core.messages import Quitting

        ending = "ending the cluster's processes, {app.quit} again = at once"
        self.dispatch(Quitting(self.state.named(ending) if self.link.owns_cluster else "leaving"))
        self.paint()
        begin(self, self._stop_and_exit, exit_code, group="leave")

    async def _stop_and_exit(self, exit_code: int) -> None:
        self.workers.cancel_group(self, "answer")
        self.workers.cancel_group(self, "link")
        self.tape.close()
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await self.link.stop()
        except Exception as problem:
            self.log(f"stopping the cluster failed: {problem!r}")
        self.link.kill()
        self.exit(return_code=exit_code)


def _make_link(options: Options, post: Callable[[Message], None]) -> Link | ReplayLink:
    """The way to a cluster, or a recording in its place."""
    if options.replay is None:
        from noodle_tui.cluster.link import Link

        return Link(options, post)
    from noodle_tui.cluster.replay import ReplayLink

    return ReplayLink(options, post)


def _settle() -> None:
    """After the first paint: the other screens, and the garbage collector, which need not look at what stays for ever."""
    preload()
    gc.freeze()
    gc.enable()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the console; the exit code is 0 after `q`, 130 after Ctrl-C, 2 for bad usage."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # it writes past us, onto the screen
    return run_program("noodle-console", _main, argv)


def _main(arguments: Sequence[str]) -> int:
    config = load_config(settings_path(SETTINGS_FILE))
    options = command_line.checked(command_line.parse(arguments, config))
    if options.headless:
        from noodle_tui.cluster.headless import record

        return record(options)
    if options.serve is not None:
        from noodle_tui.terminal.browser import serve

        return serve(options.serve, arguments)
    return _run(options, config)


def _run(options: Options, config: Config) -> int:
    if not terminal.is_terminal():
        terminal.say(terminal.NOT_A_TERMINAL)
        return 2
    stream = terminal.output_stream()
    ascii_only = options.ascii or terminal.wants_ascii(os.environ, getattr(stream, "encoding", None))
    terminal.make_streams_forgiving()
    terminal.make_term_usable()
    terminal.give_size()
    look = choose_look(options.theme, os.environ)
    app = ConsoleApp(options, look, glyphs_for(options.graphs, ascii_only), config=config, driver_class=terminal.driver_class())
    install_signal_handlers(app)
    try:
        app.run(mouse=options.mouse)
    finally:
        app.link.kill()
    if app._exception is not None:
        raise app._exception
    return app.return_code or 0
