"""Text fields: the prompt and its settings. Stock input fields, made safe for pasted text and quiet on the wire."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.widgets import Input

from noodle_tui.core.generation import MAX_PROMPT_CHARS
from noodle_tui.text.safe_text import safe_text


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

    async def edit(self, key: str) -> None:
        """A key that moves the cursor or deletes; one that means nothing here does nothing."""
        if key in self.EDITS:
            await self.run_action(self.EDITS[key])


class PromptField(TextField):
    """The prompt; `up` brings the last one back."""

    EDITS: ClassVar[dict[str, str]] = {**TextField.EDITS, "up": "recall"}

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
