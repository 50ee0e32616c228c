"""Those who watch the cluster: all see the same look at it, made once, and no role can take all the room."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator

from engine.data.errors import Exhausted
from engine.data.status import ClusterStatus, Event, SessionStatus
from engine.data.watch_frame import WatchFrame, shortened
from engine.service import wire
from engine.service.options import Role
from protos import noodle_pb2 as pb

SHARED_S = 0.1  # a look is as good for so long; nobody is shown more often than that
MOST_WATCHERS = {Role.VIEWER: 256, Role.OPERATOR: 256, Role.WORKER: 64, Role.COORDINATOR: 512}


class Watchers:
    """`look` makes a status."""

    def __init__(self, look: Callable[[], ClusterStatus]) -> None:
        self._look, self._made_s = look, -1.0
        self._status: ClusterStatus | None = None
        self._messages: dict[int, pb.ClusterStatus] = {}  # by how many of the sessions that ended are in it
        self._count: Counter[Role] = Counter()

    @contextlib.contextmanager
    def watching(self, role: Role) -> Iterator[None]:
        """Raises Exhausted for one too many of a role."""
        if self._count[role] >= MOST_WATCHERS[role]:
            raise Exhausted(f"{self._count[role]} callers with the role {role.name.lower()} watch already, which is the limit: close some")
        self._count[role] += 1
        try:
            yield
        finally:
            self._count[role] -= 1

    def status(self) -> ClusterStatus:
        """The newest look, made now if the last one is too old."""
        now_s = time.monotonic()
        if self._status is None or now_s - self._made_s >= SHARED_S:
            self._status, self._made_s, self._messages = self._look(), now_s, {}
        return self._status

    def frame(self, events: tuple[Event, ...], keeps_finished: bool, known: tuple[SessionStatus, ...]) -> pb.WatchFrame:
        """The newest look and `events`, for a watcher that has seen `known` of the sessions that ended."""
        whole = WatchFrame(self.status(), events)
        sent = shortened(whole, known) if keeps_finished else whole
        num_fresh = len(sent.status.ended.latest)
        if num_fresh not in self._messages:
            self._messages[num_fresh] = wire.to_message(sent.status, pb.ClusterStatus())
        frame = pb.WatchFrame(status=self._messages[num_fresh], num_finished_kept=sent.num_finished_kept)
        for event in events:
            wire.to_message(event, frame.events.add())
        return frame
