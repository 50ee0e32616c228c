"""What a diagnosis consists of. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What can be wrong; the word is what /metrics and --json call it."""

    COORDINATOR = "coordinator"  # it is busy, or silent
    LOST_NODE = "lost-node"
    DISK = "disk"
    MEMORY = "memory"
    KV = "kv"
    SLOW_LINK = "slow-link"
    UNSTEADY_LINK = "unsteady-link"
    SLOW_NODE = "slow-node"
    BUSY_HOST = "busy-host"
    THROTTLED = "throttled"
    PROMPT = "prompt"
    OLD_PLAN = "old-plan"
    RESTING = "resting"  # adaptation leaves the plan alone


class Remedy(StrEnum):
    """What helps. Front ends have the key or the command for it."""

    COMPARE = "compare"  # what other plans would do
    WITHOUT = "without"  # plan without that node
    FORGET = "forget"  # strike a node off the list
    REPLAN = "replan"
    SESSIONS = "sessions"  # look at them, end one
    NODE = "node"  # look at it
    LOGS = "logs"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong: three short pieces for one line, the evidence in full, and what helps."""

    kind: Kind
    subject: str  # a node, a host, `a>b` for a link; empty for the whole cluster
    what: str
    why: str
    evidence: str
    do: Remedy
    share: float  # 0..1 of the step, or of what is short, that is lost to it: the most comes first
    node: str = ""  # where to look, if there is one

    @property
    def key(self) -> tuple[Kind, str]:
        return self.kind, self.subject


Keys = frozenset[tuple[Kind, str]]
NONE: Keys = frozenset()


def by_share(findings: list[Finding]) -> tuple[Finding, ...]:
    """The greatest loss first; equals in the order of the kinds and by name, so that nothing changes places by itself."""
    order = list(Kind)
    return tuple(sorted(findings, key=lambda f: (-round(f.share, 1), order.index(f.kind), f.subject)))


def ms(seconds: float) -> str:
    """Milliseconds for people: one decimal below 10."""
    value = 1e3 * seconds
    return f"{value:.1f}" if value < 10 else f"{value:.0f}"


def percent(share: float) -> str:
    return f"{100 * share:.0f}%"
