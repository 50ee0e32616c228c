"""What is said, over time: a finding once it held for a while, and until it has been gone for a while. Pure; time is an argument.

A trouble at the edge of a limit is found in most looks and not in every one: looks without it count against it, they do not begin
anew. What the coordinator says already stands for everybody at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from engine.data.status import ClusterStatus
from engine.diagnosis.finding import Finding, Keys, Kind, by_share

SAID_AFTER_S = 1.5
GONE_AFTER_S = 5.0
AT_ONCE = frozenset({Kind.COORDINATOR, Kind.DISK, Kind.MEMORY, Kind.KV, Kind.PROMPT, Kind.OLD_PLAN, Kind.RESTING})  # no noise in them
OF_PLAN = frozenset({Kind.SLOW_LINK, Kind.UNSTEADY_LINK, Kind.SLOW_NODE, Kind.OLD_PLAN, Kind.RESTING})  # over when another plan serves
_LOST = "lost node"


@dataclass(frozen=True, slots=True)
class Known:
    """A finding as it was when it was last found."""

    finding: Finding
    last_s: float
    held_s: float = 0.0  # how much longer it was there than away
    said: bool = False


@dataclass(frozen=True, slots=True)
class Standing:
    """The findings of one reader of one cluster."""

    known: tuple[Known, ...] = field(default=())
    looked_s: float = 0.0
    plan_version: int = 0

    @property
    def said(self) -> tuple[Finding, ...]:
        """What stands, the greatest loss first."""
        return by_share([known.finding for known in self.known if known.said])

    @property
    def keys(self) -> Keys:
        return frozenset(known.finding.key for known in self.known if known.said)

    def after(self, status: ClusterStatus, now_s: float) -> Standing:
        """With one look more, at `now_s` on any clock that does not go back; one that did begins anew."""
        from engine.diagnosis.diagnose import diagnose  # a console that has nothing to look at yet does without

        before = {known.finding.key: known for known in self.known} if self.looked_s <= now_s else {}
        if status.plan_version != self.plan_version:
            before = {key: known for key, known in before.items() if known.finding.kind not in OF_PLAN}
        passed_s = now_s - self.looked_s if before else 0.0
        told = _told(status)
        keys = frozenset(key for key, known in before.items() if known.said) | told
        found = {finding.key: finding for finding in diagnose(status, keys)}
        seen = [_seen(before.get(key), finding, now_s, passed_s, key in told) for key, finding in found.items()]
        missed = [replace(known, held_s=known.held_s - passed_s) for key, known in before.items() if key not in found]
        kept = [known for known in missed if (now_s - known.last_s < GONE_AFTER_S if known.said else known.held_s >= 0.0)]
        return Standing((*seen, *kept), now_s, status.plan_version)


def _told(status: ClusterStatus) -> Keys:
    """What the coordinator says; a kind that is not known here is of a later version."""
    return frozenset((Kind(trouble.kind), trouble.subject) for trouble in status.alarms.troubles if trouble.kind in list(Kind))


def _seen(before: Known | None, finding: Finding, now_s: float, passed_s: float, is_told: bool) -> Known:
    held_s = before.held_s + passed_s if before else 0.0
    at_once = is_told or finding.kind in AT_ONCE or finding.what.startswith(_LOST)
    said = at_once or held_s >= SAID_AFTER_S or (before is not None and before.said)
    return Known(finding, now_s, min(held_s, SAID_AFTER_S), said)
