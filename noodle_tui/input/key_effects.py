"""What keys and commands do beyond changing what is shown: fields, files, the link, the replay, themes, leaving."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

from engine.data.errors import InvalidInput, NoodleError, Refused, Unavailable
from noodle_tui.changes.actions import KEY_OF, MODES, still_holds
from noodle_tui.core.messages import (
    AccessChanged,
    ActionChanged,
    DialogChanged,
    EntryChanged,
    HoldToggled,
    KeyPressed,
    Said,
)
from noodle_tui.core.pages import Entry, EntryKind, Leaving, Notice, Page, Preview, ThemeChoice
from noodle_tui.input.entry_line import EntryLine
from noodle_tui.input.file_orders import FileOrders
from noodle_tui.input.talking import Talking
from noodle_tui.listings import shown_rows, table_of
from noodle_tui.state import LinkState
from noodle_tui.themes import theme_names

if TYPE_CHECKING:
    from noodle_tui.app import ConsoleApp
    from noodle_tui.cluster.replay import ReplayLink

_DIALOG_KEYS = {"nav.up", "nav.down", "nav.page_up", "nav.page_down", "nav.home", "nav.end"}
ALWAYS = ("app.interrupt", "app.suspend")  # whatever is open
_CLOSING = {"nav.out", "view.node", "nav.in", "action.detail"}  # `n` is No


class KeyEffects:
    """Belongs to one app; `press` is the way in for every key, `run` for every command."""

    def __init__(self, app: ConsoleApp) -> None:
        self._app = app
        self.entry = EntryLine(app, self.run)
        self.files = FileOrders(app)
        self.talking = Talking(app)
        self._effects: dict[str, Callable[[], object]] = {
            "nav.in": self._enter,
            "nav.out": self._leave,
            "nav.up": lambda: self._move("nav.up"),
            "nav.down": lambda: self._move("nav.down"),
            "nav.page_up": lambda: self._scroll("nav.page_up", 1),
            "nav.page_down": lambda: self._scroll("nav.page_down", -1),
            "nav.panel": lambda: self._next_panel("nav.panel", 1),
            "nav.panel_back": lambda: self._next_panel("nav.panel_back", -1),
            "list.filter": self.entry.open_filter,
            "view.hold": self._hold,
            "view.export": lambda: self.entry.open(EntryKind.COMMAND, "export json"),
            "view.shot": lambda: self.run("shot"),
            "view.theme": self._themes,
            "time.prev": lambda: self._step("time.prev", -1),
            "time.next": lambda: self._step("time.next", 1),
            "time.slower": lambda: self._pace(0.5),
            "time.faster": lambda: self._pace(2.0),
            "prompt.write": self.talking.write,
            "link.retry": self._retry,
            "link.next": self._next_cluster,
            "action.detail": self._detail,
            "app.command": lambda: self.entry.open(EntryKind.COMMAND, ""),
            "app.quit": self._quit,
            "prompt.copy": self.talking.copy,
            "prompt.save": self.talking.save,
            "app.interrupt": lambda: self._app.leave(130),
            "app.suspend": self._suspend,
            **{f"screen.{page.value}": (lambda page=page: self.open_page(page)) for page in Page},  # type: ignore[misc]
        }
        self._orders = self._commands()

    def _commands(self) -> dict[str, Callable[[str], object]]:
        """What `:` takes, by name."""
        return {
            "key": self.press,
            "ctx": self._app.switch,
            "theme": self._app.use_theme,
            "rw": lambda _: self._access(False),
            "ro": lambda _: self._access(True),
            "record": self.files.record,
            "export": self.files.export,
            "shot": self.files.shot,
            "filter": self._filter_with,
            "plan": self._compare_with,
            "strategy": lambda name: self._app.calls.preview("cluster.apply", name),
            "drain": lambda names: self._app.calls.preview("cluster.drain", *names.split()),
            "undrain": lambda names: self._app.calls.preview("cluster.undrain", *names.split()),
            "forget": lambda name: self._app.calls.preview("cluster.forget", name),
            "acknowledge": lambda _: self._app.calls.preview("cluster.acknowledge"),
            "rollback": lambda number: self._app.calls.preview("cluster.rollback", number.lstrip("#")),
            "adapt": self._adapt,
            "confirm": lambda number: self._app.calls.preview("cluster.confirm", number.lstrip("#")),
            "cancel": lambda name: self._app.calls.preview("cluster.cancel", name),
            "profile": lambda path: self.files.load_profile(Path(path)),
            "system": self.talking.system,
            "new": lambda _: self.talking.begin_new(),
            "conversation": self.talking.choose,
            "copy": lambda _: self.talking.copy(),
            "edit": self.talking.edit,
            "seek": self._seek,
            "speed": self._speed,
        }

    # --- ways in --------------------------------------------------------------------------------------------------
    def press(self, key_id: str, typed_s: float | None = None) -> None:
        """One key by its id; `typed_s` is when, by the app's clock, and now without it."""
        if key_id in ALWAYS:
            self._effects[key_id]()
        elif self._app.state.ui.dialog is not None:
            self._in_dialog(key_id, self._app.clock() if typed_s is None else typed_s)
        elif key_id.startswith("cluster."):
            self._change(key_id)
        elif key_id == "view.node" and self._app.state.ui.page is Page.PROFILE:
            self._try(self.files.next_profile)
        elif key_id in self._effects:
            self._effects[key_id]()
        else:
            self._app.dispatch(KeyPressed(key_id))
        self._app.paint_soon()

    def run(self, text: str) -> None:
        """One command line; what is wrong with it is said under the tabs."""
        from noodle_tui.changes.commands import parse_command

        try:
            order = parse_command(text, self._app.state.keys)
            self._orders[order.name](order.argument)
        except NoodleError as problem:
            self._app.dispatch(Said(str(problem), is_error=True))
        self._app.paint_soon()

    def _say(self, text: str) -> None:
        self._app.dispatch(Said(text))

    def _typing(self) -> bool:
        return self._app.main.field is not None and not self._app.state.ui.help

    # --- dialogs --------------------------------------------------------------------------------------------------
    def _in_dialog(self, key_id: str, typed_s: float) -> None:
        dialog = self._app.state.ui.dialog
        if isinstance(dialog, ThemeChoice):
            self._choose_theme(dialog, key_id)
        elif key_id == "dialog.yes" and isinstance(dialog, Preview | Leaving):
            self._yes(dialog, typed_s)
        elif key_id in _DIALOG_KEYS:
            self._app.dispatch(KeyPressed(key_id))
        elif key_id in _CLOSING:
            self._app.dispatch(DialogChanged(None))
        elif isinstance(dialog, Preview) and key_id == "cluster.undo" and dialog.undoes is not None:
            self._try(lambda: self._app.calls.undo(dialog.undoes))
        elif isinstance(dialog, Preview) and key_id == KEY_OF.get(dialog.action, dialog.action) and still_holds(dialog, self._app.state):
            self._look_again(dialog, key_id)
        elif key_id == "app.quit":
            self._quit()

    def _look_again(self, dialog: Preview, key_id: str) -> None:
        """The same preview, now that the situation has moved."""
        if dialog.undoes is None and (dialog.also or dialog.action == "cluster.auto"):
            self._app.calls.preview(key_id)
        else:
            self._app.calls.preview(dialog.action, *filter(None, dialog.names), undoes=dialog.undoes)

    def _yes(self, dialog: Preview | Leaving, typed_s: float) -> None:
        """What a dialog asked for, unless the key was typed before the dialog could be read."""
        if isinstance(dialog, Preview) and still_holds(dialog, self._app.state):
            return  # the dialog says why
        if not self._app.reading.can_be_meant(dialog, typed_s):
            self._app.dispatch(DialogChanged(replace(dialog, hasty=True)))
        elif isinstance(dialog, Preview):
            self._app.calls.confirm(dialog)
        else:
            self._app.leave(0)

    def _suspend(self) -> None:
        """Into the background of the shell; where there is none, that is said."""
        driver = self._app._driver
        if driver is not None and driver.can_suspend:
            self._app.action_suspend_process()
        else:
            self._app.dispatch(Said("this terminal cannot suspend a program", is_error=True))

    def _quit(self) -> None:
        """At once, unless a change is running: then it is asked what shall become of it."""
        running = next((run for run in self._app.state.actions if run.state == "running"), None)
        if running is None or self._app.state.quitting:
            self._app.leave(0)
            return
        fate = "it ends with this console's own cluster" if self._app.link.owns_cluster else "the cluster goes on with it alone"
        self._app.dispatch(DialogChanged(Leaving(f"{running.title} is still running: {fate}.")))

    def _try(self, action: Callable[[], object]) -> None:
        try:
            action()
        except NoodleError as problem:
            self._app.dispatch(Said(str(problem), is_error=True))

    def _next_cluster(self) -> None:
        """The one after this in the order in which they were joined."""
        known, here = self._app.state.setup.joined, self._app.options.connect or ""
        if len(known) < 2:
            self._app.dispatch(
                Said(self._app.state.named("no other cluster was joined: {app.command} ctx HOST:PORT joins one"), is_error=True)
            )
        else:
            self._try(lambda: self._app.switch(known[(known.index(here) + 1) % len(known)] if here in known else known[0]))

    def _choose_theme(self, dialog: ThemeChoice, key_id: str) -> None:
        if key_id in _DIALOG_KEYS:
            self._app.dispatch(KeyPressed(key_id))
            moved = self._app.state.ui.dialog
            if isinstance(moved, ThemeChoice):
                self._try_theme(moved.names[moved.index])
        elif key_id in ("nav.in", "view.theme"):
            self._app.dispatch(DialogChanged(None))
        elif key_id == "nav.out":
            self._app.dispatch(DialogChanged(None))
            self._try_theme(dialog.before)

    def _try_theme(self, name: str) -> None:
        self._try(lambda: self._app.use_theme(name))

    def _themes(self) -> None:
        names = tuple(theme_names())
        present = self._app.look.name
        self._app.dispatch(DialogChanged(ThemeChoice(names, names.index(present) if present in names else 0, present)))

    def _change(self, key_id: str) -> None:
        """A capital letter."""
        if key_id == "cluster.whatif":
            self.open_page(Page.WHATIF, asked=True)
        elif key_id == "cluster.undo":
            self._try(self._app.calls.undo)
        else:
            self._app.calls.preview(key_id)

    def _adapt(self, mode: str) -> None:
        if mode not in MODES:
            raise InvalidInput(f"adapt {mode[:20]!r}: the modes are {', '.join(MODES)}")
        self._app.calls.preview("cluster.auto", mode)

    def _detail(self) -> None:
        """What an action said, in full; the second press dismisses it."""
        state = self._app.state
        if state.action is not None:
            self._app.dispatch(
                DialogChanged(Notice(f"{state.action.title} {state.action.state}", state.action.detail or "nothing more was said"))
            )
            if state.action.state != "running":
                self._app.dispatch(ActionChanged("", ""))

    # --- moving ---------------------------------------------------------------------------------------------------
    def open_page(self, page: Page, *, asked: bool = False) -> None:
        """A screen; some fetch what they show when they are opened."""
        self._app.dispatch(KeyPressed(f"screen.{page.value}"))
        state = self._app.state
        version = state.latest.status.plan_version if state.latest else -1
        if page is Page.WHATIF and (asked or state.whatif.plan_version != version):
            self._app.calls.compare()
        if page is Page.PROFILE and state.profile.view is None:
            self.files.load_profile(None)

    def _enter(self) -> None:
        if self._app.state.ui.page is Page.PROMPT:
            self.talking.enter()
        elif not self._replayed_event():
            self._app.dispatch(KeyPressed("nav.in"))

    def _replayed_event(self) -> bool:
        """In a replay, enter on the Events screen goes to when the event happened."""
        state, link = self._app.state, self._replay()
        if link is None or state.ui.page is not Page.EVENTS:
            return False
        table, rows = table_of(state, Page.EVENTS), shown_rows(state, Page.EVENTS)
        listing = state.ui.listing(Page.EVENTS)
        row = next((row for row in rows if table is not None and table.identity(row) == listing.cursor), rows[0] if rows else None)
        if row is not None:
            link.seek_wall(row.wall_s)
        return True

    def _leave(self) -> None:
        """Esc: the running answer, the field, then what the reducer knows."""
        state = self._app.state
        if state.refusal or not self._typing():
            self._app.dispatch(KeyPressed("nav.out"))
        elif not self.talking.stop():
            self._app.main.leave_field()
        if state.ui.page is Page.PROMPT and not self._typing():
            self.talking.stop()

    def _move(self, key_id: str) -> None:
        if not self._typing():
            self._app.dispatch(KeyPressed(key_id))

    def _scroll(self, key_id: str, pages: int) -> None:
        """Through the conversation on the Prompt screen, through the list elsewhere."""
        if self._app.state.ui.page is Page.PROMPT:
            self.talking.scroll(pages)
        else:
            self._app.dispatch(KeyPressed(key_id))

    def _next_panel(self, key_id: str, step: int) -> None:
        state = self._app.state
        if self._typing():
            self._app.main.next_field(step)
        else:
            self._app.dispatch(KeyPressed(key_id))
            if self._app.state.ui.page is not state.ui.page:
                self.open_page(self._app.state.ui.page)

    def _replay(self) -> ReplayLink | None:
        """The link, if it plays a recording."""
        return cast("ReplayLink", self._app.link) if self._app.options.replay is not None else None

    def _hold(self) -> None:
        if (replay := self._replay()) is not None:
            replay.pause()
        else:
            self._app.dispatch(HoldToggled(time.time()))

    def _step(self, key_id: str, direction: int) -> None:
        """A frame in a replay, a conversation on the Prompt screen, a plan change elsewhere."""
        if (replay := self._replay()) is not None:
            replay.step(direction)
        elif self._app.state.ui.page is Page.PROMPT:
            self.talking.step(direction)
        else:
            self._app.dispatch(KeyPressed(key_id))

    def _pace(self, factor: float) -> None:
        if (replay := self._replay()) is not None:
            replay.change_speed(factor)

    def _seek(self, argument: str) -> None:
        replay = self._replay()
        if replay is None or self._app.state.replay is None:
            raise Refused("seek is for replays: start with --replay FILE")
        from noodle_tui.changes.commands import wall_of

        if argument in ("next", "prev"):
            replay.seek_plan(1 if argument == "next" else -1)
            return
        replay.seek_wall(wall_of(argument, self._app.state.replay.wall_s))

    def _speed(self, argument: str) -> None:
        replay = self._replay()
        if replay is None or self._app.state.replay is None:
            raise Refused("speed is for replays: start with --replay FILE")
        try:
            replay.change_speed(float(argument) / self._app.state.replay.speed)
        except ValueError:
            raise InvalidInput(f"speed {argument[:20]!r} is not a number") from None

    # --- lists ------------------------------------------------------------------------------------------------------
    def _filter_with(self, text: str) -> None:
        self._app.dispatch(EntryChanged(Entry(EntryKind.FILTER, text)))
        self._app.dispatch(EntryChanged(None))

    def _compare_with(self, argument: str) -> None:
        if not argument.isdecimal() or not any(plan.plan_version == int(argument) for plan in self._app.state.history.plans):
            seen = ", ".join(f"#{plan.plan_version}" for plan in self._app.state.history.plans) or "none"
            raise InvalidInput(f"plan {argument[:20]!r} was not seen here; seen: {seen}")
        self.open_page(Page.PLAN)
        self._app.dispatch(KeyPressed("view.compare"))
        while self._app.state.ui.compare_version not in (0, int(argument)):
            self._app.dispatch(KeyPressed("view.compare"))

    # --- the link -------------------------------------------------------------------------------------------------
    def _retry(self) -> None:
        """Try to connect now; nothing to do while the link is live."""
        if self._app.state.link.state is not LinkState.LIVE:
            self._app.link.retry_now()

    def _access(self, read_only: bool) -> None:
        if not read_only and self._app.state.latest is None:
            raise Unavailable("not connected to a coordinator yet")
        self._app.dispatch(AccessChanged(read_only))
        self._say("read-only: capital letters only show what they would do" if read_only else "capital letters may change the cluster now")
