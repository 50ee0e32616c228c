"""What the nodes and links really do, fed back into planning: corrected item times, and a plan seen in their light.

A level counts only when it stands four standard errors and two percent from what is believed so far; the belief then
jumps to it. So the table changes rarely, every change is beyond doubt, and recoveries are believed like slowdowns.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from engine.control.adaptation.watching.detector import FAST_LOG_RATIO
from engine.control.adaptation.watching.metrics import RuntimeMetrics, Track
from engine.control.adaptation.watching.problem import assumed_hop_s, corrected, joins, link_name, links_of, measured_s
from engine.control.nodes.load_law import LoadLaw
from engine.data.plan import Stage
from engine.planning.problem import Problem
from engine.profile.point import DECODE

_STANDARD_ERRORS = 4.0
_MIN_CHANGE = 0.02
_SETTLING_BLOCKS = 64  # after an alarm


@dataclass(frozen=True, slots=True)
class HeterogeneousPlan:
    """A plan with the times that its nodes and links really take for one row, at `in_flight` steps in the pipeline; `served_s` is its
    period at the load that is served, where that is known."""

    stages: tuple[Stage, ...]
    stage_s: tuple[float, ...]
    hop_s: tuple[float, ...]  # from each stage to the next, the last back to the coordinator
    in_flight: int
    served_s: float | None = None

    @property
    def bottleneck_s(self) -> float:
        return max(*self.stage_s, *self.hop_s)

    @property
    def round_trip_s(self) -> float:
        return math.fsum(self.stage_s) + math.fsum(self.hop_s)

    @property
    def period_s(self) -> float:
        """Seconds per step: the bottleneck, or the round trip shared by the steps in flight."""
        return self.served_s if self.served_s is not None else max(self.bottleneck_s, self.round_trip_s / self.in_flight)

    @property
    def imbalance_s(self) -> float:
        return max(self.stage_s) - min(self.stage_s)


class Beliefs:
    """Logarithms of real / measured time per node, and seconds per link; what planning assumes from now on."""

    def __init__(self) -> None:
        self.levels: dict[str, float] = {}
        self.link_s: dict[str, float] = {}
        self._first_link_s: dict[str, float] = {}

    def update(self, metrics: RuntimeMetrics) -> bool:
        """Take over what is beyond doubt; True if anything changed that the plan may depend on."""
        changed = False
        for channel, track in metrics.tracks().items():
            if channel.kind == "link" and channel.phase == DECODE and track.reference_s:
                self._first_link_s.setdefault(channel.name, track.reference_s)
                believed_s = self.link_s.setdefault(channel.name, track.reference_s)
                believed = math.log(believed_s / track.reference_s)
                if _beyond_doubt(track, believed):
                    self.link_s[channel.name] = track.reference_s * math.exp(track.detector.level)
                    changed = True
            elif channel.kind == "stage" and metrics.stage_track(channel.name) is track:
                believed = self.levels.setdefault(channel.name, 0.0)
                trend = track.trend
                if trend is not None:
                    if abs(trend.level - believed) > _MIN_CHANGE:
                        track.detector.follow(trend.level, trend.weight)
                        self.levels[channel.name] = trend.level
                        changed = True
                elif _beyond_doubt(track, believed):
                    self.levels[channel.name] = track.detector.level
                    changed = True
        return changed

    def with_neighbours(self, stages: Sequence[Stage], home: Mapping[str, str]) -> Beliefs:
        """The same, where nodes that rest are no better than those at work beside them on the same cores (`home`: by node, the host).

        Nobody observes a node that rests. What slows its neighbours, such as another program on their machine, slows it as well once it
        works: without this every busy minute of a machine would move all layers from one of its workers to the next.
        """
        at_work, known = {s.node_id for s in stages}, self._copy()
        for node_id, host in home.items():
            beside = [other for other in at_work if home.get(other) == host]
            if node_id in at_work or not beside:
                continue
            known.levels[node_id] = max(self.levels.get(node_id, 0.0), min(self.levels.get(other, 0.0) for other in beside))
            for name, hop_s in self.link_s.items():
                ends = name.split(">")
                if any(end in beside for end in ends) and node_id not in ends:
                    mine = ">".join(node_id if end in beside else end for end in ends)
                    known.link_s[mine] = max(known.link_s.get(mine, 0.0), hop_s)
        return known

    def ahead(self, metrics: RuntimeMetrics) -> Beliefs:
        """The same, where stages with a trend are as far as it will soon have taken them: what a plan is made for."""
        soon = self._copy()
        for node_id in self.levels:
            track = metrics.stage_track(node_id)
            if track is not None and track.trend is not None:
                soon.levels[node_id] = track.trend.ahead
        return soon

    def _copy(self) -> Beliefs:
        copy = Beliefs()
        copy.levels, copy.link_s, copy._first_link_s = dict(self.levels), dict(self.link_s), dict(self._first_link_s)
        return copy

    def forget(self, node_id: str) -> None:
        self.levels.pop(node_id, None)
        self.forget_links(node_id)

    def forget_links(self, node_id: str) -> None:
        """A worker that joins measures its links anew: what steps had shown of them is in the problem then."""
        for link in [name for name in self.link_s if joins(name, node_id)]:
            self.link_s.pop(link)
            self._first_link_s.pop(link, None)

    def factor(self, node_id: str) -> float:
        return math.exp(self.levels.get(node_id, 0.0))

    def link_factors(self) -> dict[str, float]:
        """How much slower than at first links are, beyond what all of them are: time spent waiting shows on every one."""
        ratios = {name: link_s / self._first_link_s[name] for name, link_s in self.link_s.items() if name in self._first_link_s}
        common = max(1.0, min(ratios.values(), default=1.0))
        return {name: ratio / common for name, ratio in ratios.items() if ratio > common * (1.0 + _MIN_CHANGE)}

    def errors(self, metrics: RuntimeMetrics, stages: tuple[Stage, ...]) -> dict[str, float]:
        """Relative standard errors of the stages' levels, by node."""
        tracks = {s.node_id: metrics.stage_track(s.node_id) for s in stages}
        return {node_id: _standard_error(track) for node_id, track in tracks.items() if track is not None}

    def known_within(self, metrics: RuntimeMetrics, stages: tuple[Stage, ...]) -> dict[str, float]:
        """How far a stage's true time can still be from what is believed, by node, once its level stands on measurements."""
        tracks = ((s.node_id, metrics.stage_track(s.node_id)) for s in stages)
        known = ((node_id, track) for node_id, track in tracks if track is not None and track.detector.calibrated)
        return {node_id: max(_MIN_CHANGE, _STANDARD_ERRORS * _standard_error(track)) for node_id, track in known}

    def hop_s(self, link: str, otherwise_s: float) -> float:
        """A link that was never used is taken for the median of those that were."""
        known = sorted(self.link_s.values())
        return self.link_s.get(link, known[len(known) // 2] if known else otherwise_s)


def _beyond_doubt(track: Track, believed: float) -> bool:
    """That something changed takes four standard errors; where it ended up, once that is sure, two."""
    detector = track.detector
    if not detector.num_blocks or not (detector.calibrated or track.alarm):
        return False
    settling = track.alarm is not None and detector.num_blocks <= _SETTLING_BLOCKS
    num_errors, least = (2.0, _MIN_CHANGE / 4.0) if settling else (_STANDARD_ERRORS, _MIN_CHANGE)
    return abs(detector.level - believed) > max(num_errors * _standard_error(track), least)


def _standard_error(track: Track) -> float:
    """Of the level. After an alarm of the fast lane two of them do not reach back over its limit, for every step of it was beyond
    that: on a noisy machine this is known long before the noise is."""
    detector, alarm = track.detector, track.alarm
    error = detector.deviation() / math.sqrt(max(1.0, detector.num_blocks))
    if alarm is None or not alarm.fast or detector.num_blocks > 1.0:
        return error
    return min(error, (abs(alarm.level - alarm.before) - FAST_LOG_RATIO) / 2.0)


def plan_under(
    stages: tuple[Stage, ...],
    problem: Problem,
    beliefs: Beliefs,
    levels: Mapping[str, float],
    in_flight: int,
    law: LoadLaw | None = None,
) -> HeterogeneousPlan:
    """`stages` with the times that `levels` (by node) and the believed links give them; the nodes must be in `problem`. With a `law` the
    period is that of the load."""
    stage_s = tuple(measured_s(problem, s) * math.exp(levels.get(s.node_id, 0.0)) for s in stages)
    hop_s = tuple(beliefs.hop_s(link_name(source, target), assumed_hop_s(problem)) for source, target in links_of(stages))
    if law is None:
        return HeterogeneousPlan(stages, stage_s, hop_s, in_flight)
    index = {node.node_id: u for u, node in enumerate(problem.nodes)}
    cuts = [(index[s.node_id], s.start, s.stop) for s in stages]
    return HeterogeneousPlan(stages, stage_s, hop_s, in_flight, law.period_s(corrected(problem, levels), cuts, hop_s))
