"""Text fields: the prompt and its settings. Stock input fields, made safe for pasted text and quiet on the wire."""

from __future__ import annotations

from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.widgets import Input

from noodle_tui.generation import MAX_PROMPT_CHARS
from noodle_tui.safe_text import safe_text


class TextField(Input):
    """One row, no border, a cursor that does not blink."""

    def __init__(self, value: str = "", placeholder: str = "", *, max_length: int, id: str) -> None:
        super().__init__(value, placeholder, max_length=max_length, select_on_focus=False, compact=True, id=id)
        self.cursor_blink = False

    def _on_paste(self, event: events.Paste) -> None:
        """Paste as one safe line: a newline becomes a space, control characters do not get in."""
        event.stop()
        event.prevent_default()
        room = (self.max_length or MAX_PROMPT_CHARS) - len(self.value)
        self.insert_text_at_cursor(safe_text(event.text.strip(), max(0, room)))


class PromptField(TextField):
    """The prompt; `up` brings the last one back."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("up", "recall", "Last prompt again", id="prompt.recall", show=False)]

    def __init__(self, invitation: str, *, id: str) -> None:
        super().__init__(placeholder=invitation, max_length=MAX_PROMPT_CHARS, id=id)
        self._invitation = invitation
        self._last = ""

    def on_focus(self) -> None:
        """Say what to do now."""
        self.placeholder = "write, then enter sends"

    def on_blur(self) -> None:
        """Say how to come back."""
        self.placeholder = self._invitation

    def take(self) -> str:
        """The prompt as written; the field is empty afterwards."""
        self._last, self.value = self.value, ""
        return self._last

    def action_recall(self) -> None:
        """Put the last prompt back into an empty field."""
        if not self.value:
            self.value = self._last
            self.cursor_position = len(self.value)
