"""How long commands say how far they are: a bar drawn over itself on a terminal, a line for every tenth into a file."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from engine.commands.output import note
from engine.printable import one_line, printable

Progress = Callable[[float, str], None]
_BAR_CELLS = 28
_TENTHS = 10


@contextmanager
def shown_progress(what: str) -> Iterator[Progress]:
    """`show(done, text)` for the block, with `done` from 0 to 1, or outside of that where nobody knows."""
    if not sys.stderr.isatty():
        yield progress_lines(what)
        return
    try:
        yield progress_bar()
    finally:
        print(file=sys.stderr)


def progress_lines(what: str) -> Progress:
    """One line on stderr whenever another tenth is done; where `done` falls, the next part of the work has begun."""
    told = 0

    def show(done: float, text: str) -> None:
        nonlocal told
        tenth = int(_TENTHS * done + 1e-9) if 0.0 <= done <= 1.0 else told
        is_news, told = tenth > told, tenth
        if is_news:
            note(f"{what}: {100 * tenth // _TENTHS} %, {one_line(text)[:80]}")

    return show


def progress_bar() -> Progress:
    """One line on stderr, drawn over itself; ASCII, and only when the picture changes."""
    drawn: dict[str, Any] = {"line": "", "fraction": 0.0}

    def show(done: float, text: str) -> None:
        fraction = done if 0.0 <= done <= 1.0 else drawn["fraction"]
        cells = round(fraction * _BAR_CELLS)
        line = f"[{'#' * cells}{'.' * (_BAR_CELLS - cells)}] {100 * fraction:3.0f} %  {printable(text)[:60]}"
        if line != drawn["line"]:
            print(f"\r{line:<{len(drawn['line'])}}", end="", file=sys.stderr, flush=True)
        drawn.update(line=line, fraction=fraction)

    return show


@contextmanager
def ended_like_interrupted() -> Iterator[None]:
    """Inside the block a SIGTERM raises KeyboardInterrupt, as Ctrl-C does, so that a command can leave what it has."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
