"""Text fields: the prompt and its settings, safe for pasted text and quiet on the wire."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import ClassVar

from rich.style import Style
from textual.binding import Binding, BindingType
from textual.geometry import Offset
from textual.widgets import Input

from noodle_tui.core.draft import NEAR, Draft, Drafts, at_end
from noodle_tui.core.generation import MAX_PROMPT_CHARS
from noodle_tui.text.field_rows import Row, cell_of, graphemes, row_of, rows_of
from noodle_tui.text.lines import Line, Span, line
from noodle_tui.text.safe_text import safe_text
from noodle_tui.widgets.line_view import LineView

PROMPT_LABEL = " prompt > "
WRITE = "write, then enter sends"
MAX_ROWS = 5
MAX_SENT = 100  # prompts that up brings back
MIN_CELLS = 10
TAB_CELLS = 4


def _edits(bindings: Iterable[BindingType]) -> dict[str, str]:
    """The stock field's own keys and their actions."""
    known = (binding for binding in bindings if isinstance(binding, Binding) and binding.action not in ("submit", "paste"))
    return {key.strip(): binding.action for binding in known for key in binding.key.split(",")}


class TextField(Input):
    """One row, no border, a cursor that does not blink. Its keys come from `keyboard.py`."""

    EDITS: ClassVar[dict[str, str]] = _edits(Input.BINDINGS)

    def __init__(self, value: str = "", placeholder: str = "", *, max_length: int, id: str) -> None:
        super().__init__(value, placeholder, max_length=max_length, select_on_focus=False, compact=True, id=id)
        self.cursor_blink = False

    def write(self, text: str) -> None:
        """Typed or pasted, in the place of what is selected, as one safe line: a newline becomes a space, controls do not get in."""
        start, stop = sorted(self.selection)
        room = (self.max_length or MAX_PROMPT_CHARS) - len(self.value) + stop - start
        self.replace(safe_text(text, max(0, room)), start, stop)

    def paste(self, text: str) -> None:
        """What is around it is left out."""
        self.write(text.strip())

    async def edit(self, key: str) -> None:
        """A key that moves the cursor or deletes; one that means nothing here does nothing."""
        if key in self.EDITS:
            await self.run_action(self.EDITS[key])


class PromptField(LineView, can_focus=True):
    """The prompt: several lines, of which up to `MAX_ROWS` rows are seen. Up and down leave it into what was sent before.

    Drawn by rows and not by a stock field, which repaints all of itself for every key. `resized` is called for more or fewer rows.
    """

    NEW_LINE: ClassVar[frozenset[str]] = frozenset({"alt+enter", "ctrl+j", "shift+enter"})

    def __init__(self, styles_by_name: Mapping[str, Style], invitation: str, resized: Callable[[], None], *, id: str) -> None:
        super().__init__(styles_by_name, id=id)
        self._resized = resized
        self._invitation = invitation
        self._draft = Draft()
        self._drafts = Drafts()
        self._first_row = 0  # that is seen

    @property
    def value(self) -> str:
        """What is written."""
        return self._draft.text

    @property
    def num_rows(self) -> int:
        """How many are seen."""
        return min(MAX_ROWS, len(rows_of(self._draft.text, self._width)))

    @property
    def _width(self) -> int:
        """Counted, because the layout of a field that is not shown yet has none."""
        return max(MIN_CELLS, self.app.size.width - len(PROMPT_LABEL))

    def write(self, text: str) -> None:
        """At the cursor; newlines stay, controls do not get in."""
        self._set(self._draft.with_text(safe_text(text, max(0, MAX_PROMPT_CHARS - len(self.value)), multiline=True)))

    def paste(self, text: str) -> None:
        """Its lines stay lines, whatever a terminal ends them with, and indented."""
        self.write(text.replace("\r\n", "\n").replace("\r", "\n").strip("\n").expandtabs(TAB_CELLS))

    def fill(self, text: str) -> None:
        """In place of what is written."""
        self._draft = Draft()
        self.paste(text)

    async def edit(self, key: str) -> None:
        """A key that moves the cursor, deletes, begins a line or brings back a prompt; one that means nothing here does nothing."""
        if key in self.NEW_LINE:
            self.write("\n")
        elif key in ("up", "down"):
            self._step(-1 if key == "up" else 1)
        else:
            self._set(self._draft.edited(key))

    def _step(self, num_rows: int) -> None:
        """Within the text; at its edges to the prompt before or after this one."""
        moved = self._draft.moved(num_rows, self._width)
        if moved is None and (browsed := self._drafts.browsed(self.value, num_rows)) is not None:
            self._drafts, moved = browsed, at_end(browsed.texts[browsed.index])
        if moved is not None:
            self._set(moved)

    def take(self) -> str:
        """The prompt as written; the field is empty afterwards."""
        text = self.value
        self._drafts = self._drafts.sent(text, MAX_SENT)
        self._set(Draft())
        return text

    def on_focus(self) -> None:
        """Say what to do now."""
        self.draw()

    def on_blur(self) -> None:
        """Say how to come back."""
        self.draw()

    def _set(self, draft: Draft) -> None:
        before, self._draft = self.num_rows, draft
        if self.num_rows == before:
            self.draw()
        else:
            self._resized()

    def draw(self) -> None:
        """The rows around the cursor; the cursor itself only while the window has the focus."""
        rows, text = rows_of(self.value, self._width), self.value
        row = row_of(rows, self._draft.at)
        self._first_row = max(row - self.num_rows + 1, min(self._first_row, row, len(rows) - self.num_rows))
        seen = range(self._first_row, self._first_row + self.num_rows)
        self.show(tuple(self._row(text, rows[i], is_here=i == row and self.has_focus) for i in seen) if text else (self._hint(),))
        if self.has_focus:
            self.app.cursor_position = self.region.offset + Offset(cell_of(text, rows, self._draft.at), row - self._first_row)

    def _row(self, text: str, row: Row, *, is_here: bool) -> Line:
        start, stop = row
        if not is_here:
            return line(text[start:stop])
        at = self._draft.at
        under = text[at : min(stop, at + NEAR)]
        end = at + next((end for _, end, _ in graphemes(under)), 0)
        return line(text[start:at], Span(text[at:end] or " ", "cursor"), text[end:stop])

    def _hint(self) -> Line:
        if not self.has_focus:
            return line(Span(self._invitation, "dim"))
        return line(Span(WRITE[0], "cursor"), Span(WRITE[1:], "dim"))
