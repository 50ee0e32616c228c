"""The console in a browser on this machine, through textual-serve: every tab is a console process of its own.

There is no password, so it listens on the loopback address and nowhere else.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence

HOST = "127.0.0.1"
HOW_TO = "--serve needs the package textual-serve: pip install 'noodlecore[serve]'"


def serve(port: int, arguments: Sequence[str]) -> int:
    """Serve until interrupted; 2 when the package is missing."""
    try:
        from textual_serve.server import Server
    except ImportError:
        print(HOW_TO, file=sys.stderr)
        return 2
    command = shlex.join([sys.executable, "-m", "noodle_tui", *without_serve(arguments)])
    Server(command, host=HOST, port=port, title="noodle-console").serve()
    return 0


def without_serve(arguments: Sequence[str]) -> list[str]:
    """The same command line for the process behind a tab."""
    kept: list[str] = []
    skip = False
    for i, argument in enumerate(arguments):
        if skip:
            skip = False
        elif argument == "--serve":
            skip = i + 1 < len(arguments) and arguments[i + 1].isdecimal()
        elif not argument.startswith("--serve="):
            kept.append(argument)
    return kept
