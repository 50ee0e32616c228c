"""What this console has changed on the cluster that it is joined to, the newest last, and what takes each change back."""

from __future__ import annotations

from noodle_tui.changes.actions import ACTIONS, title_of
from noodle_tui.core.pages import Preview

MAX_KEPT = 20


class Undoing:
    """Belongs to one app; another cluster begins with an empty one."""

    def __init__(self) -> None:
        self._done: list[Preview] = []

    def newest(self, before: Preview | None = None) -> Preview | None:
        """The change that was done last, or last before another; the oldest is followed by the newest. None where nothing was changed."""
        return self._done[self._place(before) - 1] if self._done else None

    def took_effect(self, preview: Preview) -> None:
        """A change was done: it can be taken back, unless it took one back itself."""
        if preview.undoes is None and opposite(preview):
            self._done = [*self._done, preview][-MAX_KEPT:]
        self._done = [change for change in self._done if change is not preview.undoes]

    def about(self, change: Preview) -> str:
        """Which change that is, and which way the others are."""
        place = f": change {len(self._done) - self._place(change)} of {len(self._done)}, the newest first; {{cluster.undo}} = the next one"
        return f"{title_of(change)}" + (place if len(self._done) > 1 else "")

    def _place(self, wanted: Preview | None) -> int:
        return next((i for i, change in enumerate(self._done) if change is wanted), 0)


def opposite(preview: Preview) -> tuple[str, ...]:
    """The action that takes a change back, and its targets; nothing for one that cannot be."""
    if preview.action == "cluster.drain":
        return ("cluster.undrain", *preview.names)
    if preview.action == "cluster.undrain":
        return ("cluster.drain", *preview.names)
    if preview.action == "cluster.auto":
        return "cluster.auto", preview.mode
    return ("cluster.rollback", str(preview.plan_version)) if ACTIONS[preview.action].plans and preview.plan_version else ()
