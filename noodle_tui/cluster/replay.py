"""Replays a recording in place of the link to a cluster: the same messages, at the recorded pace or faster, back and forth.

It does not know widgets or the state. Gaps longer than `MAX_GAP_S` are shortened: nobody waits an hour for an outage.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from bisect import bisect_left
from collections.abc import AsyncIterator, Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.data.errors import NoodleError, Refused
from engine.data.generation import GenerateRequest
from engine.data.plan import Plan, Stage
from engine.data.watch_frame import WatchFrame
from noodle_tui.cluster.recording import Entry, Recording
from noodle_tui.core.messages import BootFailed, Dialling, FrameArrived, LinkLost, Message, ReplayMoved, SessionEnded
from noodle_tui.options import MAX_SPEED, MIN_SPEED, Options

if TYPE_CHECKING:
    from engine.service.client import ProfileProgress

MAX_GAP_S = 5.0
LEAD_S, MAX_LEAD = 12.0, 24  # what is wrong shows over seconds: so much is looked at before a jump's frame, in so many frames
NO_CLUSTER = "this is a replay: there is no cluster behind it"


class ReplayLink:
    """Plays one recording; `run` is its only task."""

    owns_cluster = False

    def __init__(self, options: Options, post: Callable[[Message], None]) -> None:
        self._path = Path(options.replay or "")
        self._post = post
        self._speed = options.speed
        self._paused = False
        self._recording: Recording | None = None
        self._index = -1
        self._turned = asyncio.Event()

    async def run(self) -> None:
        """Play to the end, then wait for a key that seeks."""
        try:
            self._recording = await asyncio.to_thread(Recording, self._path)
        except NoodleError as problem:
            self._post(BootFailed(str(problem)))
            return
        self._post(Dialling(str(self._path.name)))
        self._show(0)
        while True:
            self._turned.clear()
            wait_s = self._wait_s(self._recording)
            try:
                async with asyncio.timeout(wait_s):  # wait_for of Python 3.11 can swallow a cancellation
                    await self._turned.wait()
            except TimeoutError:
                self._show(self._index + 1)

    # --- keys -----------------------------------------------------------------------------------------------------
    def step(self, num_frames: int) -> None:
        """Move by frames; a replay that is stepped through stands still."""
        self._paused = True
        self._seek(self._index + num_frames)

    def seek_plan(self, direction: int) -> None:
        """Go to where the plan changed before (-1) or after (1) this moment."""
        if self._recording is None:
            return
        entries = [e for e in enumerate(self._recording.entries) if not e[1].lost]
        changes = [i for (_, before), (i, after) in pairwise(entries) if before.plan_version != after.plan_version]
        found = [i for i in changes if (i > self._index if direction > 0 else i < self._index)]
        if found:
            self._seek(found[0] if direction > 0 else found[-1])

    def seek_wall(self, wall_s: float) -> None:
        """Go to the first frame at or after a time of day."""
        if self._recording is not None:
            self._seek(bisect_left([entry.wall_s for entry in self._recording.entries], wall_s))

    def change_speed(self, factor: float) -> None:
        """Play faster or slower."""
        self._speed = max(MIN_SPEED, min(MAX_SPEED, self._speed * factor))
        self._tell()

    def pause(self) -> None:
        """Stand still, or go on."""
        self._paused = not self._paused
        self._tell()

    # --- what a link can do -----------------------------------------------------------------------------------------
    def retry_now(self) -> None:
        """Nothing to connect to."""

    async def generate(self, number: int, request: GenerateRequest, without_template: GenerateRequest | None = None) -> None:
        """Refused."""
        self._post(SessionEnded(number, NO_CLUSTER))

    async def plan(self, strategy: str, stages: Sequence[Stage] = (), without: Sequence[str] = (), including: Sequence[str] = ()) -> Plan:
        """Refused."""
        raise Refused(NO_CLUSTER)

    async def ask(self, call: str, *arguments: object) -> Any:
        """Refused."""
        raise Refused(NO_CLUSTER)

    def profile(self, worker_id: str) -> AsyncIterator[ProfileProgress]:
        """Refused."""
        raise Refused(NO_CLUSTER)

    async def act(self, call: str, arguments: tuple[object, ...]) -> object:
        """Refused."""
        raise Refused(NO_CLUSTER)

    async def stop(self) -> None:
        """Close the file."""
        self.kill()

    def kill(self) -> None:
        if self._recording is not None:
            self._recording.close()

    # --- moving -----------------------------------------------------------------------------------------------------
    def _wait_s(self, recording: Recording) -> float | None:
        """Until the next frame is due; None while there is none to wait for."""
        if self._paused or self._index + 1 >= len(recording):
            return None
        before, after = recording.entries[self._index], recording.entries[self._index + 1]
        return min(MAX_GAP_S, max(0.0, after.at_s - before.at_s)) / self._speed

    def _seek(self, index: int) -> None:
        if self._recording is not None:
            self._show(max(0, min(index, len(self._recording) - 1)))

    def _show(self, index: int) -> None:
        recording = self._recording
        if recording is None:
            return
        onward, self._index = index == self._index + 1 and index > 0, index
        entry = recording.entries[index]
        with contextlib.suppress(ValueError):  # the file was closed because the console is leaving
            self._post(self._message(recording, index, entry, onward))
            self._tell()

    def _message(self, recording: Recording, index: int, entry: Entry, onward: bool) -> Message:
        frame = recording.frame(index)
        if frame is None:
            return LinkLost(entry.lost, time.monotonic())
        if onward:
            return FrameArrived(frame, entry.wall_s)
        jumped = WatchFrame(frame.status, recording.events_until(index))
        return FrameArrived(jumped, entry.wall_s, anew=True, lead=lead_of(recording, index))

    def _tell(self) -> None:
        self._turned.set()
        if self._recording is not None and self._index >= 0:
            wall_s = self._recording.entries[self._index].wall_s
            self._post(ReplayMoved(self._index, len(self._recording), wall_s, self._speed, self._paused))


def lead_of(recording: Recording, index: int) -> tuple[tuple[WatchFrame, float], ...]:
    """The frames of the seconds before an entry."""
    entries = recording.entries
    before = range(max(0, index - MAX_LEAD), index)
    frames = ((recording.frame(i), entries[i].wall_s) for i in before if entries[index].at_s - entries[i].at_s <= LEAD_S)
    return tuple((frame, wall_s) for frame, wall_s in frames if frame is not None)
