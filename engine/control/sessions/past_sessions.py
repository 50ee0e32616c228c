"""Sessions that ended: the last of them as they were then, and how many there were. Pure; a value that outlives the coordinator."""

from __future__ import annotations

from dataclasses import dataclass

from engine.data.status import SessionStatus

MAX_FINISHED = 50
FAILED = "failed"


@dataclass(frozen=True, slots=True)
class PastSessions:
    """`latest` is newest first and bounded; the counts are of all there ever were."""

    latest: tuple[SessionStatus, ...] = ()
    num_done: int = 0
    num_failed: int = 0

    def followed_by(self, ended: SessionStatus) -> PastSessions:
        """With one more."""
        failed = ended.state == FAILED
        return PastSessions((ended, *self.latest)[:MAX_FINISHED], self.num_done + (not failed), self.num_failed + failed)

    def corrected(self, ended: SessionStatus) -> PastSessions:
        """With another end of one of the latest, which was counted as done and has failed after all."""
        latest = tuple(ended if s.session_id == ended.session_id else s for s in self.latest)
        return PastSessions(latest, self.num_done - 1, self.num_failed + 1)


NO_PAST = PastSessions()
