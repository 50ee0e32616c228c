"""How a worker is told to end: the first SIGTERM asks it to hand over what it holds, the second ends it.

Until it has held a stage there is nothing to hand over, and the kernel ends it, even while an import holds the interpreter lock.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from typing import NoReturn

log = logging.getLogger(__name__)


class Departure:
    """At most `limit_s` pass between the signal and the end; 0: SIGTERM ends it at once."""

    def __init__(self, limit_s: float) -> None:
        self.limit_s = limit_s
        self._loop, self._asked = asyncio.get_running_loop(), asyncio.Event()

    async def asked(self, holds_stage: asyncio.Event) -> None:
        """Return once it is to leave; that can be asked from its first stage on."""
        await holds_stage.wait()
        if self.limit_s > 0:
            try:
                self._loop.add_signal_handler(signal.SIGTERM, self._ask)
            except NotImplementedError:  # Windows ends processes without asking
                log.debug("this platform has no SIGTERM")
        await self._asked.wait()

    def _ask(self) -> None:
        self._loop.remove_signal_handler(signal.SIGTERM)  # the next one ends the process
        log.info("told to end: handing over what it holds, for at most %g s; a second SIGTERM ends it at once", self.limit_s)
        self._asked.set()


def end_by_signal() -> NoReturn:
    """End as if nobody had handled the signal."""
    os.kill(os.getpid(), signal.SIGTERM)
    raise AssertionError("the process ended")
