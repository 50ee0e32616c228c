"""RuntimeMetrics: what a cluster observes of its stages, links and memory, compared with what was predicted.

Every (stage or link, phase) is a channel with a detector of its own. A stage's channel belongs to its node and survives a
new plan, for a node that is slow stays slow; its level is relative to the item times that the worker measured. A link is
compared with its own first steps, since nobody measures links beforehand.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

from engine.control.adaptation.watching.detector import Alarm, Detector
from engine.control.adaptation.watching.law import StageLaw, stage_law
from engine.control.adaptation.watching.memory import MemoryTrend
from engine.control.adaptation.watching.problem import joins, link_name, links_of
from engine.control.adaptation.watching.trend import BLOCK_STEPS, Trend, trend_of
from engine.control.adaptation.watching.view import AdaptationView, MemorySample, StepSample
from engine.control.sessions.window import quantile
from engine.data.plan import Stage
from engine.planning.problem import Problem
from engine.profile.point import DECODE

_RECENT_STEPS = 64
_MIN_LINK_S = 1e-6
_TREND_BLOCKS = 4  # from one look for a trend to the next


@dataclass(frozen=True, slots=True, order=True)
class Channel:
    """`name` is a node, or `node>next` for a link."""

    kind: str  # "stage" or "link"
    name: str
    phase: str


@dataclass(slots=True)
class Track:
    """One channel's detector and what it saw since the plan began."""

    channel: Channel
    detector: Detector
    recent: list[float] = field(default_factory=list)  # the first 64 logarithms since the plan began
    queue_s: deque[float] = field(default_factory=lambda: deque(maxlen=_RECENT_STEPS))
    reference_s: float = 0.0  # of a link: the median of its first 16 steps
    alarm: Alarm | None = None  # the newest one
    trend: Trend | None = None  # of a stage
    _num_medians: int = 0

    def look_for_trend(self) -> None:
        """Every few medians: a trend does not come or go with one of them."""
        detector = self.detector
        if detector.num_medians >= self._num_medians + _TREND_BLOCKS:
            self._num_medians = detector.num_medians
            self.trend = trend_of(list(detector.medians), detector.deviation()) if detector.calibrated else None


@dataclass(slots=True)
class _StageFeed:
    stage: Stage
    law: StageLaw
    tracks: dict[str, Track] = field(default_factory=dict)  # by phase


@dataclass(slots=True)
class _LinkFeed:
    name: str
    tracks: dict[str, Track] = field(default_factory=dict)  # by phase


@dataclass(frozen=True, slots=True)
class ChannelFigures:
    """A channel for people: `ratio` is observed / predicted, `deviation` the long-run noise of a 16-step median."""

    channel: Channel
    ratio: float
    deviation: float
    queue_p50_s: float
    calibrated: bool


class RuntimeMetrics:
    """Feed it steps and memory samples; ask it for levels, alarms and memory trends."""

    def __init__(self) -> None:
        self.plan_version = 0
        self.num_decode_steps = 0  # since the plan began
        self.num_alarms = 0
        self.memory: dict[str, MemoryTrend] = {}
        self._tracks: dict[Channel, Track] = {}
        self._measured: dict[str, tuple[float, ...]] = {}  # by node: its base, then its items
        self._stages: tuple[_StageFeed, ...] = ()
        self._links: tuple[_LinkFeed, ...] = ()
        self._alarms: list[tuple[Channel, Alarm]] = []

    def start_plan(self, view: AdaptationView) -> None:
        """Steps of `view.plan` are expected from now on; steps of other plans are dropped."""
        self._measured |= {n.node_id: (n.base_s, *n.time_s) for n in view.problem.nodes}
        self.plan_version, self.num_decode_steps = view.plan.plan_version, 0
        stages = view.plan.stages
        self._stages = tuple(
            _StageFeed(stage, stage_law(view.problem, stage, view.cost_model, view.rows_of(stage.node_id))) for stage in stages
        )
        self._links = tuple(_LinkFeed(link_name(source, target)) for source, target in links_of(stages))
        for track in self._tracks.values():
            track.recent.clear()
            track.detector.expect_change()

    def measured_anew(self, problem: Problem) -> tuple[str, ...]:
        """Nodes whose measured times are not those of the last plan: what was observed of them described the old ones."""
        now = {n.node_id: (n.base_s, *n.time_s) for n in problem.nodes}
        return tuple(node_id for node_id, times in now.items() if self._measured.get(node_id, times) != times)

    def forget(self, node_id: str) -> None:
        """A node's past; call `start_plan` afterwards."""
        self._tracks = {c: t for c, t in self._tracks.items() if not (c.kind == "stage" and c.name == node_id)}
        self.forget_links(node_id)
        self.memory.pop(node_id, None)
        self._measured.pop(node_id, None)

    def forget_links(self, node_id: str) -> None:
        """The past of the links from and to a node."""
        self._tracks = {c: t for c, t in self._tracks.items() if not (c.kind == "link" and joins(c.name, node_id))}

    def add_step(self, sample: StepSample) -> None:
        """One step; alarms are kept until `take_alarms`."""
        if sample.plan_version != self.plan_version or len(sample.timings) != len(self._stages):
            return
        phase = sample.point.phase
        self.num_decode_steps += phase == DECODE
        for feed, timing in zip(self._stages, sample.timings, strict=True):
            predicted_s = feed.law.predict_s(sample.point)
            if timing.worker_id != feed.stage.node_id or timing.compute_s <= 0.0 or predicted_s <= 0.0:
                continue
            track = feed.tracks.get(phase)
            if track is None:
                track = feed.tracks[phase] = self._track(Channel("stage", timing.worker_id, phase))
            track.queue_s.append(timing.queue_s)
            self._add(track, math.log(timing.compute_s / predicted_s))
            track.look_for_trend()
        for link, hop_s in zip(self._links, sample.hop_s, strict=False):
            self._add_hop(link.tracks.get(phase) or self._link_track(link, phase), max(hop_s, _MIN_LINK_S))

    def _link_track(self, link: _LinkFeed, phase: str) -> Track:
        track = link.tracks[phase] = self._track(Channel("link", link.name, phase))
        return track

    def _add_hop(self, track: Track, hop_s: float) -> None:
        if track.reference_s:
            self._add(track, math.log(hop_s / track.reference_s))
            return
        track.queue_s.append(hop_s)
        if len(track.queue_s) == BLOCK_STEPS:
            track.reference_s = quantile(list(track.queue_s), 0.5)
            track.queue_s.clear()

    def _add(self, track: Track, x: float) -> None:
        if len(track.recent) < _RECENT_STEPS:
            track.recent.append(x)
        alarm = track.detector.add(x)
        if alarm:
            track.alarm = alarm
            self.num_alarms += 1
            self._alarms.append((track.channel, alarm))

    def _track(self, channel: Channel) -> Track:
        track = self._tracks.get(channel)
        if track is None:
            track = self._tracks[channel] = Track(channel, Detector(num_channels=4 * len(self._stages)))
        return track

    def take_alarms(self) -> list[tuple[Channel, Alarm]]:
        taken, self._alarms = self._alarms, []
        return taken

    def add_memory(self, sample: MemorySample, now_s: float) -> None:
        self.memory.setdefault(sample.node_id, MemoryTrend()).add(sample, now_s)

    def tracks(self) -> dict[Channel, Track]:
        """Every channel seen so far."""
        return self._tracks

    def stage_track(self, node_id: str) -> Track | None:
        """The node's decode channel, or its prefill channel while it has not decoded."""
        for phase in (DECODE, "prefill"):
            track = self._tracks.get(Channel("stage", node_id, phase))
            if track and track.detector.num_blocks:
                return track
        return None

    def figures(self) -> tuple[ChannelFigures, ...]:
        """All channels, in order."""
        return tuple(
            ChannelFigures(c, math.exp(t.detector.level), t.detector.deviation(), quantile(list(t.queue_s), 0.5), t.detector.calibrated)
            for c, t in sorted(self._tracks.items())
        )
