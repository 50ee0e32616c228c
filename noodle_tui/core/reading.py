"""Since when the open dialog can be read: a `y` that was typed before nobody can have meant for it. Time is an argument."""

from __future__ import annotations

from dataclasses import replace

from noodle_tui.core.pages import Dialog, Leaving, Preview

READING_S = 0.5


class Reading:
    """The painter tells what stands on the screen; who acts on a `y` asks."""

    def __init__(self) -> None:
        self._dialog: Dialog | None = None
        self._since_s = 0.0

    def painted(self, dialog: Dialog | None, now_s: float) -> None:
        """`dialog` is on the screen now; another one, or other contents, begin anew."""
        shown = _content(dialog)
        if shown != self._dialog:
            self._dialog, self._since_s = shown, now_s

    def can_be_meant(self, dialog: Dialog, typed_s: float) -> bool:
        """Whether what was typed at `typed_s` can be an answer to `dialog`."""
        return _content(dialog) == self._dialog and typed_s - self._since_s >= READING_S


def _content(dialog: Dialog | None) -> Dialog | None:
    return replace(dialog, hasty=False) if isinstance(dialog, Preview | Leaving) else dialog
