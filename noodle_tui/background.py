"""Work that runs beside the screen, in the app's own loop."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from textual.app import App
from textual.worker import Worker


def begin(
    app: App[Any], work: Callable[..., Coroutine[Any, Any, None]], *arguments: object, group: str, exclusive: bool = False
) -> Worker[None]:
    """Run `work(*arguments)` soon; if `exclusive`, in the place of what runs in its group. What it raises does not end the app.

    It takes the function, and not its coroutine: that of a worker which is replaced, or whose app ends, before its turn would be dropped.
    """
    started: Worker[None] = app.run_worker(partial(work, *arguments), group=group, exclusive=exclusive, exit_on_error=False)
    return started
