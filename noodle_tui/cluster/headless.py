"""Recording without a screen: `noodle-console --record FILE --headless --connect ADDR`, until interrupted."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import time
from pathlib import Path

from engine.data.errors import NoodleError
from engine.printable import one_line
from noodle_tui.cluster.link import Link
from noodle_tui.cluster.recording import Recorder
from noodle_tui.core.messages import FrameArrived, LinkLost, Message
from noodle_tui.options import Options


def record(options: Options) -> int:
    """Record until Ctrl-C or SIGTERM and return 0; raises NoodleError when the file cannot be written."""
    return asyncio.run(_record(options))


async def _record(options: Options) -> int:
    recorder = Recorder(Path(options.record or ""), options.connect or "embedded", time.time(), time.monotonic())
    ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def keep(message: Message) -> None:
        try:
            if isinstance(message, FrameArrived):
                recorder.frame(message.frame, message.wall_s, time.monotonic())
            elif isinstance(message, LinkLost):
                recorder.lost(message.error, time.time(), time.monotonic())
                print(one_line(f"{message.error}; trying again"), file=sys.stderr)
        except NoodleError as problem:
            if not ended.done():
                ended.set_exception(problem)

    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(NotImplementedError):
            asyncio.get_running_loop().add_signal_handler(number, _finish, ended, 0)
    link = Link(options, keep)
    running = asyncio.create_task(link.run())
    try:
        return await ended
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await link.stop()
        recorder.close()


def _finish(ended: asyncio.Future[int], code: int) -> None:
    if not ended.done():
        ended.set_result(code)
