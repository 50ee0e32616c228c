"""Screen 1, the Overview: cluster, plan, nodes, events, and the prompt with its streaming answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, TypeVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.widgets import Input

from engine.data import GenerateRequest, InvalidInput, NoodleError, Sampling
from noodle_tui.generation import AnswerState
from noodle_tui.glyphs import Glyphs
from noodle_tui.lines import Canvas, Span, line
from noodle_tui.messages import AnswerScrolled, NodeSelected, PromptRefused, RefusalDismissed
from noodle_tui.options import Options
from noodle_tui.screens.overview_body import answer_height, overview_body
from noodle_tui.screens.painted import PaintedScreen
from noodle_tui.state import ConsoleState, LinkState
from noodle_tui.themes import Look
from noodle_tui.widgets.answer import answer, num_rows_back
from noodle_tui.widgets.line_view import LineView
from noodle_tui.widgets.prompt_field import PromptField, TextField

T = TypeVar("T")
SETTINGS = (("max-tokens", " max tokens ", 7), ("temperature", "  temperature ", 6), ("seed", "  seed ", 12))


class Overview(PaintedScreen):
    """The first screen; printable keys type only while one of its fields has the focus."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter,p", "write", "write a prompt", id="nav.in"),
        Binding("escape", "leave", "stop the answer / leave the field", id="nav.out"),
        Binding("up,k", "select(-1)", "previous node", id="nav.up"),
        Binding("down,j", "select(1)", "next node", id="nav.down"),
        Binding("pageup", "scroll_answer(3)", "back in the answer", id="nav.pageup"),
        Binding("pagedown", "scroll_answer(-3)", "forward in the answer", id="nav.pagedown"),
    ]
    AUTO_FOCUS = ""

    def __init__(self, look: Look, glyphs: Glyphs, options: Options) -> None:
        super().__init__(look, glyphs)
        self._answer_height = 0
        self._defaults = (str(options.max_new_tokens), f"{options.temperature:g}", str(options.seed))

    def compose_middle(self) -> ComposeResult:
        """Panels, answer, prompt, settings."""
        styles = self._look.styles
        yield LineView(styles, id="body")
        yield LineView(styles, id="answer")
        with Horizontal(id="prompt-row"):
            yield self._label("prompt-label", " prompt > ")
            yield PromptField(id="prompt")
        with Horizontal(id="settings-row"):
            for (name, label, width), value in zip(SETTINGS, self._defaults, strict=True):
                yield self._label(f"{name}-label", label)
                field = TextField(value, max_length=width - 1, id=name)
                field.styles.width = width
                yield field
            yield LineView(styles, classes="one-row")

    def _label(self, label_id: str, text: str) -> LineView:
        view = LineView(self._look.styles, id=label_id, classes="one-row")
        view.styles.width = len(text)
        view.show((line(Span(text, "dim")),))
        return view

    # --- painting -------------------------------------------------------------------------------------------------
    def paint_middle(self, state: ConsoleState, canvas: Canvas) -> None:
        """Panels and the answer."""
        self._size_answer(answer_height(canvas.height, state.generation.state is not AnswerState.IDLE))
        self._show("body", overview_body(state, self._canvas_of("body", canvas)))
        self.paint_answer(state, canvas.now_s)

    def paint_answer(self, state: ConsoleState, now_s: float) -> None:
        """Only the answer: tokens come faster than anything else changes."""
        size = self.query_one("#answer", LineView).size
        canvas = Canvas(size.width, size.height, self._glyphs, now_s)
        self._show("answer", answer(state.generation, state.answer_scroll, canvas))

    def _size_answer(self, height: int) -> None:
        """Lay out anew only when the panel's height changes; the next paint then fills it."""
        if height != self._answer_height:
            self._answer_height = height
            self.query_one("#answer", LineView).styles.height = height
            self.call_after_refresh(self.app.paint_soon)

    def key_line(self, state: ConsoleState) -> tuple[Span, ...]:
        """Other keys while typing than while looking; a refusal comes before both."""
        if state.refusal:
            return line(Span(" ERROR", "error"), f" {state.refusal}", Span("   esc dismiss", "dim"))
        if isinstance(self.focused, Input):
            stop = "esc stop the answer" if state.generation.running else "esc leave the field"
            return line(Span(f" enter send   {stop}   tab settings   up last prompt   ctrl+c quit", "dim"))
        retry = "r retry   " if state.link.state is not LinkState.LIVE else ""
        stop = "esc stop   " if state.generation.running else ""
        hold = "space resume" if state.held else "space hold"
        return line(Span(f" enter prompt   {stop}{retry}up/down node   {hold}   t theme   ? help   q quit", "dim"))

    # --- keys -----------------------------------------------------------------------------------------------------
    def action_write(self) -> None:
        """Put the cursor into the prompt."""
        self.query_one("#prompt", PromptField).focus()

    def action_leave(self) -> None:
        """Dismiss an error first, then stop a running answer, then leave the field."""
        if self.app.state.refusal:
            self.app.dispatch(RefusalDismissed())
        elif not self.app.stop_answer():
            self.set_focus(None)
        self.app.paint_soon()

    def action_select(self, step: int) -> None:
        self.app.dispatch(NodeSelected(step))
        self.app.paint_soon()

    def action_scroll_answer(self, step: int) -> None:
        """Scroll, but never past the beginning of the text."""
        self.app.dispatch(AnswerScrolled(step))
        state, size = self.app.state, self.query_one("#answer", LineView).size
        canvas = Canvas(size.width, size.height, self._glyphs, 0.0)
        excess = state.answer_scroll - num_rows_back(state.generation, state.answer_scroll, canvas)
        self.app.dispatch(AnswerScrolled(-excess))
        self.app.paint_soon()

    def on_descendant_focus(self) -> None:
        """The key line depends on where the cursor is."""
        self.app.paint_soon()

    def on_descendant_blur(self) -> None:
        """See `on_descendant_focus`."""
        self.app.paint_soon()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Enter in a field: send the prompt, or go back from a setting to it."""
        event.stop()
        if not isinstance(event.input, PromptField):
            self.action_write()
        elif event.value.strip():
            self._send(event.input)

    def _send(self, field: PromptField) -> None:
        try:
            request = self._request(field.value)
            self.app.send(request)
        except NoodleError as error:
            self.app.dispatch(PromptRefused(str(error)))
        else:
            field.take()
        self.app.paint_soon()

    def _request(self, prompt: str) -> GenerateRequest:
        """The prompt with the settings as they stand; raises InvalidInput with the reason."""
        tokens, temperature, seed = (self.query_one(f"#{name}", TextField).value for name, _, _ in SETTINGS)
        sampling = Sampling(temperature=_number("temperature", temperature, float), seed=_number("seed", seed, int))
        return GenerateRequest(prompt, max_new_tokens=_number("max tokens", tokens, int), sampling=sampling)


def _number(what: str, text: str, kind: Callable[[str], T]) -> T:
    try:
        return kind(text)
    except ValueError:
        raise InvalidInput(f"{what} {text!r} is not a number") from None
