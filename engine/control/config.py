"""The settings of a cluster."""

from __future__ import annotations

from dataclasses import dataclass, field

from engine.control.adaptation.rules import AdaptationSettings, Mode
from engine.control.nodes.members import LeaseRules
from engine.control.sessions.reuse.prefix_cache import PrefixSettings
from engine.control.sessions.scheduler import SchedulerLimits
from engine.planning.capability import MatchRules


@dataclass(frozen=True, slots=True)
class ClusterConfig:
    """How many workers to wait for before the first plan, and the limits that hold all the time."""

    num_workers_expected: int = 1
    strategy: str = "balanced"
    leases: LeaseRules = field(default_factory=LeaseRules)
    limits: SchedulerLimits = field(default_factory=SchedulerLimits)
    layers: tuple[int, ...] = ()  # items per stage instead of a search
    order: tuple[str, ...] = ()  # the nodes that take them; () = all, in order of their names
    rules: MatchRules = field(default_factory=MatchRules)  # whom an operator lets hold layers
    speculate: str = "off"  # what steps may carry on a guess: off, auto or always
    adaptation: AdaptationSettings = field(default_factory=lambda: AdaptationSettings(mode=Mode.OFF))
    prefix_cache: PrefixSettings = field(default_factory=PrefixSettings)
