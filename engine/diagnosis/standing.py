"""What is said, over time: a finding once it held for a while, and until it has been gone for a while. Pure; time is an argument."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from engine.data.status import ClusterStatus
from engine.diagnosis.finding import Finding, Keys, Kind, by_share

SAID_AFTER_S = 1.5
GONE_AFTER_S = 5.0
AT_ONCE = frozenset({Kind.COORDINATOR, Kind.DISK, Kind.MEMORY, Kind.KV, Kind.PROMPT, Kind.OLD_PLAN, Kind.RESTING})  # no noise in them
_LOST = "lost node"


@dataclass(frozen=True, slots=True)
class Known:
    """A finding as it was when it was last found."""

    finding: Finding
    first_s: float
    last_s: float
    said: bool = False


@dataclass(frozen=True, slots=True)
class Standing:
    """The findings of one reader of one cluster."""

    known: tuple[Known, ...] = field(default=())

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

        before = {known.finding.key: known for known in self.known if known.last_s <= now_s}
        keys = frozenset(key for key, known in before.items() if known.said)
        found = {finding.key: finding for finding in diagnose(status, keys)}
        kept = [known for key, known in before.items() if key not in found and known.said and now_s - known.last_s < GONE_AFTER_S]
        return Standing((*(_seen(before.get(key), finding, now_s) for key, finding in found.items()), *kept))


def _seen(before: Known | None, finding: Finding, now_s: float) -> Known:
    known = Known(finding, now_s, now_s) if before is None else replace(before, finding=finding, last_s=now_s)
    at_once = finding.kind in AT_ONCE or finding.what.startswith(_LOST)
    return replace(known, said=known.said or at_once or now_s - known.first_s >= SAID_AFTER_S)
