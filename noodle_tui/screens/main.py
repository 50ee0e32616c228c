"""The one Textual screen: three line views and the fields of the Prompt screen.

There is one screen for all pages, because changing lines costs fewer bytes than changing screens. It holds no facts of
its own; what to draw is decided in `frame.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.events import Click, DescendantFocus, Resize
from textual.geometry import Size
from textual.reactive import Reactive
from textual.screen import Screen
from textual.widget import Widget

from engine.data.errors import InvalidInput
from engine.data.sampling import SamplingRequest
from noodle_tui.core.pages import FIELD_ROWS, Page
from noodle_tui.glyphs import Glyphs
from noodle_tui.options import Options
from noodle_tui.screens.frame import NUM_TOP_ROWS, Settings, body_lines, last_line, top_lines
from noodle_tui.state import ConsoleState
from noodle_tui.text.lines import Canvas, Lines, Span, line
from noodle_tui.themes import Look
from noodle_tui.widgets.line_view import LineView
from noodle_tui.widgets.prompt_field import PROMPT_LABEL, PromptField, TextField

if TYPE_CHECKING:
    from noodle_tui.app import ConsoleApp

T = TypeVar("T")
SETTINGS = (("max-tokens", " max tokens ", 7), ("temperature", "  temperature ", 6), ("top-p", "  top p ", 6), ("seed", "  seed ", 12))
BY_MODEL = "auto"  # what an empty setting means


class Main(Screen[None], inherit_bindings=False):
    """See the module docstring; `keyboard.py` brings the keys."""

    app: ConsoleApp
    AUTO_FOCUS = ""
    focused: Reactive[Widget | None] = Reactive(None, repaint=False)  # Textual would paint every cell once more

    def __init__(self, look: Look, glyphs: Glyphs, options: Options) -> None:
        super().__init__()
        self._look = look
        self._glyphs = glyphs
        self._resized_to: Size | None = None
        self.field: TextField | PromptField | None = None  # where what is typed goes
        self._defaults = (str(options.max_new_tokens), f"{options.temperature:g}", "", str(options.seed))

    def compose(self) -> ComposeResult:
        """Top, body, fields, keys."""
        styles = self._look.styles
        yield LineView(styles, id="top")
        yield LineView(styles, id="body")
        with Horizontal(id="prompt-row"):
            yield self._label("prompt-label", PROMPT_LABEL)
            yield PromptField(styles, self.app.state.named("{nav.in} = write a prompt"), self.app.paint_soon, id="prompt")
        with Horizontal(id="settings-row"):
            for (name, label, width), value in zip(SETTINGS, self._defaults, strict=True):
                yield self._label(f"{name}-label", label)
                field = TextField(value, BY_MODEL if name in ("temperature", "top-p") else "", max_length=width - 1, id=name)
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
    def paint(self, state: ConsoleState, now_s: float, settings: Settings) -> bool:
        """Show `state`; what is unchanged costs nothing. False where the terminal is too small for more than a line."""
        canvas = Canvas(self.size.width, self.size.height, self._glyphs, now_s)
        top = top_lines(state, canvas)
        self.set_class(len(top) == 1, "-too-small")
        self._show("top", top)
        if len(top) == 1:
            return False
        self._show_fields(state.ui.page is Page.PROMPT, are_laid_out=state.latest is not None)
        self._show("body", body_lines(state, self.body_canvas(state, now_s), settings))
        self._show("keys", (last_line(state, canvas, typing=self.field is not None),))
        return True

    def body_canvas(self, state: ConsoleState, now_s: float) -> Canvas:
        """The room of the body, counted rather than asked for: the layout follows a moment later."""
        fields = FIELD_ROWS - 1 + self.prompt.num_rows if state.ui.page is Page.PROMPT else 0
        return Canvas(self.size.width, max(0, self.size.height - NUM_TOP_ROWS - 1 - fields), self._glyphs, now_s)

    def restyle(self, look: Look) -> None:
        """Use another theme from now on."""
        self._look = look
        for view in self.query(LineView):
            view.restyle(look.styles)

    def on_resize(self, event: Resize) -> None:
        """Everything is measured anew, once the layout has settled; an event without a change must not start a circle.

        A window that went from one size to another and back is told of once, and has lost cells meanwhile: all are painted again.
        """
        if self._resized_to is not None:
            self.call_after_refresh(self.refresh)
        if event.size != self._resized_to:
            self._resized_to = event.size
            self.call_after_refresh(self.app.paint_soon)

    def _show(self, view_id: str, lines: Lines) -> None:
        self.query_one(f"#{view_id}", LineView).show(lines)

    # --- fields ---------------------------------------------------------------------------------------------------
    def turned_to(self, page: Page) -> None:
        """Another page is shown: the Prompt is there to write at once, elsewhere keys are commands."""
        self._show_fields(page is Page.PROMPT, are_laid_out=False)
        if page is Page.PROMPT:
            self.write()
        else:
            self.leave_field()

    @property
    def prompt(self) -> PromptField:
        return self.query_one("#prompt", PromptField)

    def _show_fields(self, are_shown: bool, are_laid_out: bool) -> None:
        """The rows have the class, and not the screen, whose every cell would be painted once more.

        So it is when they are laid out: the first paint need not wait for them, and what the cluster says first changes all cells.
        """
        for row in self.query(Horizontal):
            if are_laid_out or are_shown:
                row.add_class("-laid-out")
            row.set_class(are_shown, "-shown")
        self.query_one("#prompt-row").styles.height = self.prompt.num_rows if are_shown else 0
        if are_shown:
            self.prompt.draw()

    def write(self) -> None:
        """Put the cursor into the prompt."""
        self._enter("prompt")

    def leave_field(self) -> None:
        """From now on keys are commands."""
        self.field = None
        self.set_focus(None)

    def next_field(self, step: int) -> None:
        """From the prompt through its settings and around."""
        names = ["prompt", *(name for name, _, _ in SETTINGS)]
        at = names.index(self.field.id) if self.field is not None and self.field.id in names else 0
        self._enter(names[(at + step) % len(names)])

    def _enter(self, name: str) -> None:
        """At once, so that the next key is text already; Textual's focus only draws the cursor, and goes with the window's."""
        self.field = self.prompt if name == "prompt" else self.query_one(f"#{name}", TextField)
        self.set_focus(self.field)

    def settings(self) -> tuple[int, SamplingRequest]:
        """How many tokens at most, and how they are drawn: an empty field leaves it to the model. Raises InvalidInput with the reason."""
        tokens, temperature, top_p, seed = (self.query_one(f"#{name}", TextField).value.strip() for name, _, _ in SETTINGS)
        sampling = SamplingRequest(
            temperature=_number("temperature", temperature, float) if temperature else None,
            top_p=_number("top p", top_p, float) if top_p else None,
            seed=_number("seed", seed, int),
        )
        return _number("max tokens", tokens, int), sampling

    def on_click(self, event: Click) -> None:
        """With `--mouse`: a tab, a key of the last row, or a row; twice on a row opens it."""
        from noodle_tui.screens.mouse import CLUSTERS_ROW, TABS_ROW, cluster_at, identity_at, key_at, page_at  # not for the first paint

        state, y = self.app.state, event.screen_y
        if state.ui.dialog is not None or state.ui.help:
            return
        if y == TABS_ROW:
            page = page_at(state, event.screen_x, Canvas(self.size.width, self.size.height, self._glyphs, 0.0))
            if page is not None:
                self.app.effects.press(f"screen.{page.value}")
            return
        if y == CLUSTERS_ROW:
            address = cluster_at(state, event.screen_x, self.query_one("#top", LineView).lines[CLUSTERS_ROW])
            if address not in ("", state.link.address):
                self.app.effects.run(f"ctx {address}")
            return
        if y == self.size.height - 1 and self.field is None:
            keys = self.query_one("#keys", LineView).lines
            if pressed := key_at(state, event.screen_x, keys[0] if keys else ()):
                self.app.effects.press(pressed)
            return
        lines = self.query_one("#body", LineView).lines
        row = y - NUM_TOP_ROWS
        identity = identity_at(state, lines[row]) if 0 <= row < len(lines) else ""
        if identity:
            from noodle_tui.core.messages import RowChosen

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

    def on_descendant_focus(self, event: DescendantFocus) -> None:
        """A click into a field goes there."""
        if isinstance(event.widget, TextField | PromptField) and self.app.state.ui.page is Page.PROMPT:
            self.field = event.widget
        self.app.paint_soon()


def _number(what: str, text: str, kind: Callable[[str], T]) -> T:
    try:
        return kind(text)
    except ValueError:
        raise InvalidInput(f"{what} {text!r} is not a number") from None
