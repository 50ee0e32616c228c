"""The edge of both programs: whatever happens inside, its user reads sentences and gets an exit code, never a traceback.

0 done, 1 failed, 2 bad usage or refused, 130 interrupted. With NOODLE_TRACEBACK=1 an unexpected error shows where it comes from.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from engine.data.errors import Bug, InvalidInput, NoodleError, NotSupported
from engine.files import failure, shown
from engine.printable import one_line

INTERRUPTED = 130
TRACEBACK_VARIABLE = "NOODLE_TRACEBACK"
# which part of the package a module comes with
EXTRAS = {"textual": "console", "rich": "console", "prompt_toolkit": "console", "zeroconf": "discovery"}


def run_program(name: str, command: Callable[[Sequence[str]], int], argv: Sequence[str] | None = None) -> int:
    """Run `command` with the arguments of this process, or with `argv`; returns the exit code."""
    prepare_streams()
    if argv is None:
        _name_output()
        _prepare_hooks(name)
    try:
        arguments = list(sys.argv[1:] if argv is None else argv)
        check_text(arguments, os.environ)
        code = _exit_code(command, arguments)
        sys.stdout.flush()
    except KeyboardInterrupt:
        code = INTERRUPTED
    except BrokenPipeError:
        code = 1  # the reader of our output went away: nobody is left to tell
    except Exception as error:
        code = _tell(name, error)
    _drop_unwritten_output()
    return code


def prepare_streams() -> None:
    """Every character can be printed, and a stream that was closed before the start swallows what is written to it."""
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is None:
            _open_nothing(number)
            setattr(sys, name, os.fdopen(number, mode, encoding="utf-8", closefd=False))
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError):
            stream.reconfigure(errors="replace")  # type: ignore[union-attr]


class _Output(io.FileIO):
    """Standard output, whose failures say so; argparse would swallow an OSError."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data) or 0
        except BrokenPipeError:
            raise
        except OSError as error:
            raise failure(error, "standard output") from error


def _name_output() -> None:
    stream = sys.stdout
    with contextlib.suppress(AttributeError, OSError, ValueError):
        raw = io.BufferedWriter(_Output(stream.fileno(), "w", closefd=False))
        at_once = bool(getattr(stream, "line_buffering", False) or getattr(stream, "write_through", False))
        sys.stdout = io.TextIOWrapper(raw, stream.encoding, "replace", line_buffering=at_once)


def _open_nothing(number: int) -> None:
    """Else the next file that is opened would be standard input or output, and be read or written as such."""
    nothing = os.open(os.devnull, os.O_RDWR)
    if nothing != number:
        os.dup2(nothing, number)
        os.close(nothing)


def check_text(arguments: Sequence[str], environment: Any) -> None:
    """Raises InvalidInput for an argument, or a variable of ours, that is not text in the encoding of this system."""
    ours = [(f"the variable {name}", value) for name, value in environment.items() if name.startswith("NOODLE_")]
    for what, text in (*((f"argument {number}", text) for number, text in enumerate(arguments, 1)), *ours):
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            byte = ord(text[error.start]) & 0xFF
            raise InvalidInput(f"{what} is not UTF-8 text: byte 0x{byte:02x} in '{shown(text[:80])}'; convert it to UTF-8") from None


def _exit_code(command: Callable[[Sequence[str]], int], arguments: Sequence[str]) -> int:
    try:
        return int(command(arguments) or 0)
    except SystemExit as error:  # --help, and what argparse refuses
        return error.code if isinstance(error.code, int) else int(bool(error.code))


def _tell(name: str, error: Exception) -> int:
    """One sentence on stderr; returns the exit code."""
    told = explained(error)
    with contextlib.suppress(OSError, ValueError):
        if isinstance(told, Bug) and os.environ.get(TRACEBACK_VARIABLE):
            traceback.print_exception(error, file=sys.stderr)
        print(one_line(f"{name}: {told}"), file=sys.stderr, flush=True)
    return told.exit_code


def explained(error: BaseException) -> NoodleError:
    """Any exception as one sentence; what is neither the user's nor the machine's fault names its place in the code."""
    if isinstance(error, NoodleError):
        return error
    if isinstance(error, OSError):
        return failure(error)
    if isinstance(error, ModuleNotFoundError) and (extra := EXTRAS.get((error.name or "").partition(".")[0])):
        return NotSupported(f"this needs {error.name}, which is not installed: pip install 'noodlecore[{extra}]'")
    if isinstance(error, MemoryError):
        return NoodleError("the memory of this machine is exhausted: end other programs, or choose a smaller model")
    steps = traceback.extract_tb(error.__traceback__)
    place = f" at {os.path.basename(steps[-1].filename)}:{steps[-1].lineno}" if steps else ""
    text = " ".join(str(error).split())[:200]
    return Bug(f"internal error{place}: {type(error).__name__}: {text}; report it, with what {TRACEBACK_VARIABLE}=1 shows")


def _drop_unwritten_output() -> None:
    """The interpreter flushes once more at its end, and would complain."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, NoodleError):
            with contextlib.suppress(OSError, ValueError):
                nothing = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nothing, stream.fileno())
                os.close(nothing)


def _prepare_hooks(name: str) -> None:
    """Threads, loggers and finalizers have no caller to raise to: they say a sentence, or nothing."""
    logging.raiseExceptions = False  # a log that cannot be written is no reason to print about it
    threading.excepthook = lambda args: _say_bug(name, args.exc_value)
    if not os.environ.get(TRACEBACK_VARIABLE):
        sys.unraisablehook = lambda args: None


def _say_bug(name: str, error: BaseException | None) -> None:
    if isinstance(error, Exception):
        _tell(name, error)
