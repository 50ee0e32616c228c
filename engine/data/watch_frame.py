"""One message of the watch stream, and how it leaves out the sessions that ended which its reader was told of already.

The list is of up to 50 sessions, newest first, and changes by what is put in front of it. A frame that is `shortened` against the
list of the one before it carries only these, and how many of the former list follow; `completed` gives the whole list back.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from engine.data.status import ClusterStatus, Event, SessionStatus


@dataclass(frozen=True, slots=True)
class WatchFrame:
    """The state now, and the events since the last frame."""

    status: ClusterStatus
    events: tuple[Event, ...]
    num_finished_kept: int = 0  # of the list of the frame before, follow those in `status.ended.latest`; 0: that is the whole list

    def with_finished(self, latest: tuple[SessionStatus, ...], num_kept: int = 0) -> WatchFrame:
        """The same frame with another list of sessions that ended."""
        status = replace(self.status, ended=replace(self.status.ended, latest=latest))
        return replace(self, status=status, num_finished_kept=num_kept)


def shortened(frame: WatchFrame, before: tuple[SessionStatus, ...]) -> WatchFrame:
    """A whole `frame` without what its reader knows from the list `before`."""
    finished = frame.status.ended.latest
    if not (kept := num_kept(finished, before)):
        return frame
    return frame.with_finished(finished[: len(finished) - kept], kept)


def completed(frame: WatchFrame, before: tuple[SessionStatus, ...]) -> WatchFrame:
    """The whole frame, if `before` is the list with which it was shortened."""
    if not frame.num_finished_kept:
        return frame
    kept = before[: max(0, frame.num_finished_kept)]
    return frame.with_finished((*frame.status.ended.latest, *kept))


def num_kept(finished: tuple[SessionStatus, ...], before: tuple[SessionStatus, ...]) -> int:
    """How many at the end of `finished` are the newest of `before`."""
    if not before or before[0] not in finished:
        return 0
    num_fresh = finished.index(before[0])
    kept = len(finished) - num_fresh
    return kept if finished[num_fresh:] == before[:kept] else 0
