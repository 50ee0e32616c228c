"""The one Textual screen: three line views and the fields of the Prompt screen.

There is one screen for all pages, because changing lines costs fewer bytes than changing screens. It holds no facts of
its own; what to draw is decided in `frame.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.events import Click, Key, Paste, Resize
from textual.geometry import Size
from textual.screen import Screen
from textual.widgets import Input

from engine.data.errors import InvalidInput
from engine.data.generation import GenerateRequest, Sampling
from noodle_tui.glyphs import Glyphs
from noodle_tui.keys import Key as Binding
from noodle_tui.lines import Canvas, Lines, Span, line
from noodle_tui.messages import HelpFiltered, RowChosen
from noodle_tui.options import Options
from noodle_tui.pages import Page
from noodle_tui.screens.frame import NUM_TOP_ROWS, Settings, body_lines, last_line, top_lines
from noodle_tui.screens.prompt import FIELD_ROWS
from noodle_tui.state import ConsoleState
from noodle_tui.themes import Look
from noodle_tui.widgets.line_view import LineView
from noodle_tui.widgets.prompt_field import PromptField, TextField

if TYPE_CHECKING:
    from noodle_tui.app import ConsoleApp

T = TypeVar("T")
SETTINGS = (("max-tokens", " max tokens ", 7), ("temperature", "  temperature ", 6), ("seed", "  seed ", 12))


class Main(Screen[None], inherit_bindings=False):
    """See the module docstring; printable keys type only while a field has the focus."""

    app: ConsoleApp
    AUTO_FOCUS = ""

    def __init__(self, look: Look, glyphs: Glyphs, options: Options) -> None:
        super().__init__()
        self._look = look
        self._glyphs = glyphs
        self._resized_to: Size | None = None
        self._defaults = (str(options.max_new_tokens), f"{options.temperature:g}", str(options.seed))

    def compose(self) -> ComposeResult:
        """Top, body, fields, keys."""
        styles = self._look.styles
        yield LineView(styles, id="top")
        yield LineView(styles, id="body")
        with Horizontal(id="prompt-row"):
            yield self._label("prompt-label", " prompt > ")
            yield PromptField(self.app.state.named("{nav.in} = write a prompt"), id="prompt")
        with Horizontal(id="settings-row"):
            for (name, label, width), value in zip(SETTINGS, self._defaults, strict=True):
                yield self._label(f"{name}-label", label)
                field = TextField(value, max_length=width - 1, id=name)
                field.styles.width = width
                yield field
            yield LineView(styles, classes="one-row")
        yield LineView(styles, id="keys", classes="one-row")

    def _label(self, label_id: str, text: str) -> LineView:
        view = LineView(self._look.styles, id=label_id, classes="one-row")
        view.styles.width = len(text)
        view.show((line(Span(text, "dim")),))
        return view

    # --- painting -------------------------------------------------------------------------------------------------
    def paint(self, state: ConsoleState, now_s: float, settings: Settings) -> None:
        """Show `state`; what is unchanged costs nothing."""
        canvas = Canvas(self.size.width, self.size.height, self._glyphs, now_s)
        top = top_lines(state, canvas)
        self.set_class(len(top) == 1, "-too-small")
        self._show("top", top)
        if len(top) == 1:
            return
        self.set_class(state.ui.page is Page.PROMPT, "-prompt")
        self._show("body", body_lines(state, self.body_canvas(state, now_s), settings))
        self._show("keys", (last_line(state, canvas, typing=isinstance(self.focused, TextField)),))

    def body_canvas(self, state: ConsoleState, now_s: float) -> Canvas:
        """The room of the body, counted rather than asked for: the layout follows a moment later."""
        fields = FIELD_ROWS if state.ui.page is Page.PROMPT else 0
        return Canvas(self.size.width, max(0, self.size.height - NUM_TOP_ROWS - 1 - fields), self._glyphs, now_s)

    def restyle(self, look: Look) -> None:
        """Use another theme from now on."""
        self._look = look
        for view in self.query(LineView):
            view.restyle(look.styles)

    def on_resize(self, event: Resize) -> None:
        """Everything is measured anew, once the layout has settled; an event without a change must not start a circle."""
        if event.size != self._resized_to:
            self._resized_to = event.size
            self.call_after_refresh(self.app.paint_soon)

    def _show(self, view_id: str, lines: Lines) -> None:
        self.query_one(f"#{view_id}", LineView).show(lines)

    # --- fields ---------------------------------------------------------------------------------------------------
    def write(self) -> None:
        """Put the cursor into the prompt."""
        self.query_one("#prompt", PromptField).focus()

    def next_field(self, step: int) -> None:
        """From the prompt through its settings and around."""
        names = ["prompt", *(name for name, _, _ in SETTINGS)]
        at = names.index(self.focused.id) if self.focused is not None and self.focused.id in names else 0
        self.query_one(f"#{names[(at + step) % len(names)]}", TextField).focus()

    def request(self) -> GenerateRequest:
        """The prompt with the settings as they stand; raises InvalidInput with the reason."""
        tokens, temperature, seed = (self.query_one(f"#{name}", TextField).value for name, _, _ in SETTINGS)
        sampling = Sampling(temperature=_number("temperature", temperature, float), seed=_number("seed", seed, int))
        prompt = self.query_one("#prompt", PromptField).value
        return GenerateRequest(prompt, max_new_tokens=_number("max tokens", tokens, int), sampling=sampling)

    async def _on_key(self, event: Key) -> None:
        """Keys take effect here and in order: a burst such as `:theme` must not run ahead of the line that `:` opens.

        Bindings do the same through the app's queue, for keys that a focused field leaves over.
        """
        if self.focused is not None:
            return
        entry = self.app.state.ui.entry
        if entry is None and self._typed_into_help(event):
            event.stop()
            event.prevent_default()
            return
        key = None if entry is not None else self._key_of(event)
        if entry is not None or key is not None:
            event.stop()
            event.prevent_default()
        if entry is not None:
            self.app.effects.entry.press(entry, event.key, event.character)
        elif key is not None:
            self.app.effects.press(key.id)

    def _typed_into_help(self, event: Key) -> bool:
        """Whether the help is open and the key filters it."""
        ui = self.app.state.ui
        if not ui.help or ui.dialog is not None:
            return False
        from noodle_tui.help_filter import typed  # not for the first paint

        text = typed(ui.help_filter, event.key, event.character, self.app.state.keys)
        if text is not None:
            self.app.dispatch(HelpFiltered(text))
            self.app.paint_soon()
        return text is not None

    def _key_of(self, event: Key) -> Binding | None:
        """What a key is bound to on this screen; a dialog takes the keys of all screens, since `n` is its No."""
        ui = self.app.state.ui
        names = set(event.aliases)
        here = (key for key in self.app.state.keys if ui.dialog is not None or ui.page in key.pages)
        return next((key for key in here if names & set(key.keys.split(","))), None)

    def on_click(self, event: Click) -> None:
        """With `--mouse`: a tab or a row; twice on a row opens it."""
        from noodle_tui.mouse import TABS_ROW, identity_at, page_at  # not for the first paint

        state, y = self.app.state, event.screen_y
        if state.ui.dialog is not None or state.ui.help or self.focused is not None:
            return
        if y == TABS_ROW:
            page = page_at(state, event.screen_x, Canvas(self.size.width, self.size.height, self._glyphs, 0.0))
            if page is not None:
                self.app.effects.press(f"screen.{page.value}")
            return
        lines = self.query_one("#body", LineView).lines
        row = y - NUM_TOP_ROWS
        identity = identity_at(state, lines[row]) if 0 <= row < len(lines) else ""
        if identity:
            self.app.dispatch(RowChosen(identity))
            if event.chain == 2:
                self.app.effects.press("nav.in")
            self.app.paint_soon()

    def on_mouse_scroll_down(self) -> None:
        """One row."""
        self.app.effects.press("nav.down")

    def on_mouse_scroll_up(self) -> None:
        """One row."""
        self.app.effects.press("nav.up")

    def on_paste(self, event: Paste) -> None:
        """Into the line at the bottom, if it is open."""
        entry = self.app.state.ui.entry
        if entry is not None and self.focused is None:
            event.stop()
            self.app.effects.entry.insert(entry, event.text.strip())
        elif self.app.state.ui.help and self.focused is None:
            from noodle_tui.help_filter import pasted

            event.stop()
            self.app.dispatch(HelpFiltered(pasted(self.app.state.ui.help_filter, event.text.strip())))
            self.app.paint_soon()

    def on_descendant_focus(self) -> None:
        """The key line depends on where the cursor is."""
        self.app.paint_soon()

    def on_descendant_blur(self) -> None:
        """See `on_descendant_focus`."""
        self.app.paint_soon()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Enter in a field: run the line, send the prompt, or go back from a setting to it."""
        event.stop()
        if not isinstance(event.input, PromptField):
            self.write()
        elif event.value.strip():
            self.app.effects.send_prompt()


def _number(what: str, text: str, kind: Callable[[str], T]) -> T:
    try:
        return kind(text)
    except ValueError:
        raise InvalidInput(f"{what} {text!r} is not a number") from None
