"""Leaving because a signal says so: the cluster's processes end and the terminal is restored, whatever state we are in."""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from noodle_tui.app import ConsoleApp

GRACE_S = 10.0  # an orderly exit needs less; after it the process ends no matter what hangs


def install_signal_handlers(app: ConsoleApp) -> None:
    """Turn SIGINT, SIGTERM and SIGHUP into an orderly exit with code 128 + number."""

    def leave(number: int, frame: FrameType | None) -> None:
        if number == getattr(signal, "SIGHUP", None):
            app.link.kill()  # the terminal is gone: painting may block for ever, so do first what must happen
        if app.loop is None:
            sys.exit(128 + number)
        _exit_for_sure(app, 128 + number)
        app.loop.call_soon_threadsafe(app.call_later, app.leave, 128 + number)

    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None:
            signal.signal(number, leave)


def _exit_for_sure(app: ConsoleApp, exit_code: int) -> None:
    """A daemon timer that ends the process if the orderly way hangs, for example on a terminal that is gone."""

    def give_up() -> None:
        app.link.kill()
        os._exit(exit_code)

    timer = threading.Timer(GRACE_S, give_up)
    timer.daemon = True
    timer.start()
