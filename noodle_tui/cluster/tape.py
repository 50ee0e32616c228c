"""Owns the file that is being recorded: begins and ends it, and writes what arrives into it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from engine.data.errors import NoodleError, Refused

if TYPE_CHECKING:
    from noodle_tui.app import ConsoleApp
    from noodle_tui.cluster.recording import Recorder
    from noodle_tui.core.messages import Message


class Tape:
    """Belongs to one app."""

    def __init__(self, app: ConsoleApp) -> None:
        self._app = app
        self._recorder: Recorder | None = None

    def begin(self, path: Path) -> None:
        """Record to a new file from now on, beginning with what is known; raises NoodleError."""
        from noodle_tui.cluster.recording import Recorder  # not for the first paint
        from noodle_tui.core.messages import RecordingChanged

        if self._app.options.replay is not None:
            raise Refused("a replay is a recording already")
        if self._recorder is not None:
            raise Refused(f"{self._recorder.path} is being recorded: `record off` first")
        self._recorder = Recorder(path, self._app.state.link.address or "embedded", time.time(), time.monotonic())
        self._app.dispatch(RecordingChanged(str(path)))

    def end(self) -> None:
        """The file is complete; raises Refused when there is none."""
        from noodle_tui.core.messages import RecordingChanged, Said

        if self._recorder is None:
            raise Refused("nothing is being recorded: `record FILE` begins")
        path = self._recorder.path
        self.close()
        self._app.dispatch(RecordingChanged(""))
        self._app.dispatch(Said(f"the recording is in {path}: noodle-console --replay {path}"))

    def take(self, message: Message) -> None:
        """Write what belongs into a recording; a disk that refuses ends it, and that is said."""
        if self._recorder is None:
            return
        from noodle_tui.core.messages import FrameArrived, LinkLost, RecordingChanged

        try:
            if isinstance(message, FrameArrived):
                self._recorder.frame(message.frame, message.wall_s, time.monotonic())
            elif isinstance(message, LinkLost):
                self._recorder.lost(message.error, time.time(), time.monotonic())
        except NoodleError as problem:
            self.close()
            self._app.dispatch(RecordingChanged("", str(problem)))

    def close(self) -> None:
        """No more is written."""
        if self._recorder is not None:
            self._recorder.close()
            self._recorder = None
