"""What a decode step takes if it carries more rows, learnt from the steps that came back. Pure.

    round trip(rows) = compute(rows) + what the wires take      period = max(slowest stage(rows), round trip(rows) / steps in flight)

That is the period of the planner (`engine/planning`), with times as they are now. Row counts that were seen have their median, others
lie on the line between their neighbours, and above all of them on the steeper of the last line and the one from the first to the last.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Sequence

from engine.data.generation import StageTiming

WINDOW_STEPS = 12
ROW_SHARE = 0.3  # of a step with one row: what another row is taken to cost until it was tried
MIN_STEPS = 2  # with one row, before anything is said: the first one of a plan is slow


class StepPrice:
    """Steps of the present plan in which one session decodes."""

    def __init__(self) -> None:
        self._compute_s: dict[int, deque[float]] = {}  # by rows: sums over the stages
        self._slowest_share: deque[float] = deque(maxlen=WINDOW_STEPS)  # of that sum, at the slowest stage
        self._wire_s: deque[float] = deque(maxlen=WINDOW_STEPS)

    def forget(self) -> None:
        """Another plan."""
        self._compute_s.clear()
        self._slowest_share.clear()
        self._wire_s.clear()

    def observe(self, num_rows: int, timings: Sequence[StageTiming], step_s: float) -> None:
        """One step, from sending it to its report; waiting behind other steps counts for nothing."""
        compute_s = sum(t.compute_s for t in timings)
        if compute_s <= 0.0:
            return
        self._compute_s.setdefault(num_rows, deque(maxlen=WINDOW_STEPS)).append(compute_s)
        self._slowest_share.append(max(t.compute_s for t in timings) / compute_s)
        self._wire_s.append(max(0.0, step_s - compute_s - sum(t.queue_s for t in timings)))

    @property
    def is_known(self) -> bool:
        return len(self._compute_s.get(1, ())) >= MIN_STEPS

    def periods_s(self, most_rows: int, num_in_flight: int) -> list[float]:
        """The time from one step to the next with 1, 2, ... `most_rows` rows; never falls. Nothing while it is not known."""
        if not self.is_known:
            return []
        computes_s = self._computes_s(most_rows)
        share, wire_s = _median(self._slowest_share), _median(self._wire_s)
        return [max(share * compute_s, (compute_s + wire_s) / num_in_flight) for compute_s in computes_s]

    def _computes_s(self, most_rows: int) -> list[float]:
        seen = sorted(self._compute_s)
        medians_s = [_median(self._compute_s[rows]) for rows in seen]
        found: list[float] = []
        for rows in range(1, most_rows + 1):
            compute_s = _on_lines(seen, medians_s, rows)
            found.append(max(compute_s, found[-1]) if found else compute_s)
        return found


def _on_lines(seen: list[int], medians_s: list[float], rows: int) -> float:
    above = bisect_left(seen, rows)
    if above < len(seen) and seen[above] == rows:
        return medians_s[above]
    if above == len(seen):
        if len(seen) == 1:
            slope_s = ROW_SHARE * medians_s[0]
        else:
            slope_s = max((medians_s[-1] - medians_s[k]) / (seen[-1] - seen[k]) for k in (0, -2))
        return medians_s[-1] + max(0.0, slope_s) * (rows - seen[-1])
    low, high = seen[above - 1], seen[above]
    return medians_s[above - 1] + (medians_s[above] - medians_s[above - 1]) * (rows - low) / (high - low)


def _median(values: deque[float]) -> float:
    return sorted(values)[len(values) // 2]
