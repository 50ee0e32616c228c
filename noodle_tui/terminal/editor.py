"""A text in the user's own editor. The terminal is given back meanwhile, as for Ctrl-Z; the cluster goes on."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from engine.data.errors import Refused

if TYPE_CHECKING:
    from noodle_tui.app import ConsoleApp

DEFAULT_EDITOR = "vi"
_TERMINALS_OWN = (signal.SIGINT, signal.SIGQUIT) if hasattr(signal, "SIGQUIT") else (signal.SIGINT,)


def edited(app: ConsoleApp, text: str) -> str:
    """`text` as the editor left it. Raises Refused where none can run, and for one that fails."""
    command = os.environ.get("VISUAL") or os.environ.get("EDITOR") or DEFAULT_EDITOR
    driver = app._driver
    if driver is None or not driver.can_suspend:
        raise Refused("this terminal cannot be given to an editor: write in the field")
    try:
        words = shlex.split(command)
    except ValueError as problem:
        raise Refused(f"EDITOR is no command ({problem}): {command[:80]!r}; set it to one") from None
    with tempfile.TemporaryDirectory(prefix="noodle-") as folder:
        path = Path(folder) / "prompt.md"
        path.write_text(text, "utf-8")
        with app.suspend(), _signals_are_the_editors():
            wrong = _run([*words, str(path)])
        if wrong:
            raise Refused(f"the editor {wrong}: the text is as it was; EDITOR is {command[:80]!r}")
        return path.read_text("utf-8", "replace").removesuffix("\n")


def _run(command: list[str]) -> str:
    """Until it ends; what went wrong. Nothing may be raised here, or the terminal is not taken back."""
    try:
        code = subprocess.call(command)
    except OSError as error:
        return f"did not run ({error.strerror or error})"
    return f"ended with code {code}" if code else ""


@contextmanager
def _signals_are_the_editors() -> Iterator[None]:
    """Ctrl-C in the editor is its own affair. A handler and not SIG_IGN, which the editor would inherit."""
    before = {number: signal.signal(number, lambda *_: None) for number in _TERMINALS_OWN}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
