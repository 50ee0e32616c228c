"""What every screen shares: the truth line on top, a body of styled lines, the key line at the bottom, one `paint`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.app import ComposeResult
from textual.events import Resize
from textual.geometry import Size
from textual.screen import Screen

from noodle_tui.glyphs import Glyphs
from noodle_tui.lines import Canvas, Lines, Span, crop, line
from noodle_tui.state import ConsoleState
from noodle_tui.themes import Look
from noodle_tui.widgets.line_view import LineView
from noodle_tui.widgets.truth_line import is_too_small, too_small_line, truth_line

if TYPE_CHECKING:
    from noodle_tui.app import ConsoleApp

NUM_TOP_ROWS = 2  # truth line and rule


class PaintedScreen(Screen[None]):
    """Draws a state when told to; holds no facts of its own."""

    app: ConsoleApp

    def __init__(self, look: Look, glyphs: Glyphs) -> None:
        super().__init__()
        self._look = look
        self._glyphs = glyphs
        self._resized_to: Size | None = None

    def compose(self) -> ComposeResult:
        """Top, whatever the screen puts in the middle, key line."""
        yield LineView(self._look.styles, id="top", classes="top")
        yield from self.compose_middle()
        yield LineView(self._look.styles, id="keys", classes="one-row")

    def compose_middle(self) -> ComposeResult:
        """The widgets between the top rows and the key line."""
        yield LineView(self._look.styles, id="body")

    def paint(self, state: ConsoleState, now_s: float) -> None:
        """Show `state`; what is unchanged costs nothing."""
        canvas = Canvas(self.size.width, self.size.height, self._glyphs, now_s)
        small = is_too_small(canvas.width, canvas.height)
        self.set_class(small, "-too-small")
        if small:
            self._show("top", (crop(too_small_line(state, canvas), canvas.width),))
            return
        rule = line(Span(canvas.glyphs.horizontal * canvas.width, "rule"))
        self._show("top", (crop(truth_line(state, canvas), canvas.width), rule))
        self._show("keys", (crop(self.key_line(state), canvas.width),))
        self.paint_middle(state, canvas)

    def paint_middle(self, state: ConsoleState, canvas: Canvas) -> None:
        """Draw what `compose_middle` made."""
        self._show("body", self.body(state, self._canvas_of("body", canvas)))

    def body(self, state: ConsoleState, canvas: Canvas) -> Lines:
        """The lines of a screen that has nothing but lines."""
        return ()

    def key_line(self, state: ConsoleState) -> tuple[Span, ...]:
        """The keys that matter now."""
        return ()

    def restyle(self, look: Look) -> None:
        """Use another theme from now on."""
        self._look = look
        for view in self.query(LineView):
            view.restyle(look.styles)

    def on_screen_resume(self) -> None:
        """A screen that comes back shows the present at once."""
        self.app.paint_soon()

    def on_resize(self, event: Resize) -> None:
        """Everything is measured anew, once the layout has settled; an event without a change must not start a circle."""
        if event.size != self._resized_to:
            self._resized_to = event.size
            self.call_after_refresh(self.app.paint_soon)

    def _canvas_of(self, view_id: str, canvas: Canvas) -> Canvas:
        size = self.query_one(f"#{view_id}", LineView).size
        return canvas.sized(size.width, size.height)

    def _show(self, view_id: str, lines: Lines) -> None:
        self.query_one(f"#{view_id}", LineView).show(lines)
