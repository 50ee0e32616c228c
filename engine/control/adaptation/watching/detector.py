"""When does a measured time no longer fit its prediction? One detector per stage or link, prefill and decode apart.

It sees x = log(observed / predicted) of every step and keeps a *level*: what x has been lately. A bare threshold on x
fires thousands of times per million steps on plain noise, so the evidence is collected in four stages:

1. The median of 16 steps: pauses, spikes and heavy tails of up to seven steps in a row do not reach what follows.
2. Its distance from the level, scaled by the *long-run* deviation: the deviation of the medians times
   sqrt((1 + r) / (1 - r)) with their correlation r at lag one (an autoregression's spectrum at zero, Andrews 1991), so
   that slow wandering counts as noise and not as news. Both are estimated with winsorised residuals over some 8,000 steps.
3. Two-sided cumulative sums with reference k = 0.5 and limit h (Page 1954). For independent normal medians Siegmund's
   approximation of the average run length, (exp(2k(h + 1.166)) - 2k(h + 1.166) - 1) / 2k^2 blocks a side, is 1.1 million
   steps at h = 10.
4. On an alarm the level becomes the median since the change point, which is looked for since the sum last left zero.

A lasting threefold change need not wait for that: six steps in a row above 2.5 times the level are an alarm too, and so
are six below 1 / 2.5 of it, since a recovery is worth as much as the slowdown was.
The level follows the medians slowly (time constant 256 blocks) when nothing alarms, so a creeping drift shows in it.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

from engine.control.adaptation.watching.change_point import level_since, middle
from engine.control.adaptation.watching.trend import BLOCK_STEPS, WINDOWS

REFERENCE = 0.5  # k, in long-run deviations
LIMIT = 10.0  # h, in long-run deviations
FAST_LOG_RATIO = math.log(2.5)
FAST_STEPS = 6
CALIBRATION_BLOCKS = 4
_WINSOR = 2.5  # residuals count at most this many deviations
_WINSOR_VARIANCE = 0.978  # of a standard normal variable cut there
_SCALE_BLOCKS = 512  # memory of the deviation, in blocks
_LEVEL_BLOCKS = 256  # memory of the level, in blocks
_PRIOR_BLOCKS = 2.0  # what the first guess of the deviation weighs
_PRIOR_DEVIATION = 0.05
_MIN_DEVIATION = 0.01  # a shift of half a percent is nobody's news
_MAX_CORRELATION = 0.9
_DOUBT = LIMIT / 2.0  # beyond it nothing is learnt: a change must not be taken for noise before it alarms
_SUSPICION = 4.0  # the sums pass it once in 50 blocks or so by chance
_RUN_BLOCKS = 64  # medians kept since a sum left zero


@dataclass(frozen=True, slots=True)
class Alarm:
    """The level changed: natural logarithms of observed / predicted before and after, and how it was noticed."""

    before: float
    level: float
    z: float  # distance of the new level from the old one in long-run deviations
    num_steps: int  # steps since the estimated change point
    fast: bool  # seen by the fast lane


class Detector:
    """Feed it one logarithm per step; it answers with an Alarm when the level has changed."""

    __slots__ = (
        "_block",
        "_correlated",
        "_down",
        "_fast_run",
        "_limit",
        "_num_scale",
        "_previous",
        "_run_down",
        "_run_up",
        "_up",
        "_variance",
        "calibrated",
        "level",
        "medians",
        "num_blocks",
        "num_medians",
    )

    def __init__(self, num_channels: int = 1, level: float = 0.0) -> None:
        """`num_channels` detectors run side by side: the limit rises so that all together keep the false-alarm rate of one."""
        self.level = level
        self.num_blocks = 0.0  # weight of the level, in blocks
        self.calibrated = False  # the level stands on measurements
        self._limit = LIMIT + math.log(max(1, num_channels)) / (2.0 * REFERENCE)
        self.medians: deque[float] = deque(maxlen=WINDOWS[0])  # the last ones, whatever alarmed between them
        self.num_medians = 0
        self._block: list[float] = []
        self._run_up: list[float] = []  # medians since the upper sum left zero
        self._run_down: list[float] = []
        self._up = self._down = 0.0
        self._fast_run: list[float] = []
        self._variance = _PRIOR_DEVIATION**2
        self._correlated = 0.0  # covariance of neighbouring residuals
        self._previous = 0.0
        self._num_scale = _PRIOR_BLOCKS

    @property
    def doubtful(self) -> bool:
        """Something may be changing, but it is too early to say."""
        return max(self._up, self._down) > _SUSPICION or len(self._fast_run) >= FAST_STEPS // 2

    def deviation(self) -> float:
        """Long-run standard deviation of a block's median, with a margin while few blocks are known."""
        r = min(_MAX_CORRELATION, max(0.0, self._correlated / self._variance))
        margin = 1.0 + 1.0 / math.sqrt(self._num_scale) + 6.0 / self._num_scale
        return max(_MIN_DEVIATION, math.sqrt(self._variance * (1.0 + r) / (1.0 - r)) * margin)

    def add(self, x: float) -> Alarm | None:
        """One step's log(observed / predicted), a finite number."""
        block = self._block
        block.append(x)
        if abs(x - self.level) > FAST_LOG_RATIO:
            if self._fast_run and (x > self.level) != (self._fast_run[-1] > self.level):
                self._fast_run.clear()
            self._fast_run.append(x)
            if len(self._fast_run) >= FAST_STEPS and self.num_blocks >= 1:
                return self._jump(self._fast_run[-FAST_STEPS:])
        elif self._fast_run:
            self._fast_run.clear()
        return self._close() if len(block) == BLOCK_STEPS else None

    def expect_change(self) -> None:
        """The stage was cut anew: small differences belong to the new cut, so the level may move quickly for a while."""
        self._block.clear()
        self._reset()
        self.num_blocks = min(self.num_blocks, 1.0)

    def follow(self, level: float, num_blocks: float) -> None:
        """The level moves, and it is known to stand here now as well as so many blocks without a trend would tell it."""
        self._settle(level)
        self.num_blocks = max(1.0, num_blocks)

    def _jump(self, recent: list[float]) -> Alarm:
        level = middle(recent)
        alarm = Alarm(self.level, level, (level - self.level) / self.deviation(), FAST_STEPS, fast=True)
        self._block.clear()
        self._settle(level)
        return alarm

    def _close(self) -> Alarm | None:
        block, self._block = self._block, []
        median = middle(block)
        self.medians.append(median)
        self.num_medians += 1
        residual = median - self.level if self.num_blocks else 0.0
        spread = self.deviation()
        z = residual / (spread * math.sqrt(1.0 + 1.0 / self.num_blocks)) if self.num_blocks else 0.0
        self._up = _extended(self._up + z - REFERENCE, self._run_up, median)
        self._down = _extended(self._down - z - REFERENCE, self._run_down, median)
        if self.calibrated and max(self._up, self._down) > self._limit:
            level, steps = level_since(self._run_up if self._up > self._down else self._run_down, block, self.level)
            alarm = Alarm(self.level, level, (level - self.level) / spread, steps, fast=False)
            self._settle(level)
            return alarm
        if not self.calibrated or max(self._up, self._down) <= _DOUBT:
            self._learn(median, residual)
        return None

    def _settle(self, level: float) -> None:
        """The blocks that raised an alarm were chosen by it, so they weigh one block: if it was false, the next ones undo it."""
        self.level, self.num_blocks = level, 1.0
        self._reset()

    def _reset(self) -> None:
        self._up = self._down = self._previous = 0.0
        self._fast_run.clear()
        self._run_up.clear()
        self._run_down.clear()

    def _learn(self, median: float, residual: float) -> None:
        """Level and deviation move a little towards what was seen; far residuals count as 2.5 deviations."""
        if self.num_blocks:
            bound = _WINSOR * math.sqrt(self._variance)
            kept = min(bound, max(-bound, residual))
            self._num_scale = min(_SCALE_BLOCKS, self._num_scale + 1.0)
            self._variance += (kept * kept / _WINSOR_VARIANCE - self._variance) / self._num_scale
            self._correlated += (kept * self._previous - self._correlated) / self._num_scale
            self._previous = kept
        else:
            kept = median - self.level
        self.num_blocks = min(_LEVEL_BLOCKS, self.num_blocks + 1.0)
        self.level += kept / self.num_blocks
        self.calibrated = self.calibrated or self.num_blocks >= CALIBRATION_BLOCKS


def _extended(total: float, run: list[float], median: float) -> float:
    """A cumulative sum, and the medians since it left zero."""
    if total <= 0.0:
        run.clear()
        return 0.0
    run.append(median)
    del run[:-_RUN_BLOCKS]
    return total
