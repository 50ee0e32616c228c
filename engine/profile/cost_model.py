"""`time(item, phase, tokens, context, batch)`: what planner, simulator and detector expect a step to take.

    time = work(batch * tokens) + pair_s * pairs + behind_s * (a prompt's tokens stand behind earlier ones)

`work` is what the weights cost for the step's packed new tokens: a line through the token counts that were measured, for
kernels change with it in jumps (a vector product becomes a matrix product at 2 rows, blocks fill at 8) that no
polynomial follows. Between two counts it is interpolated, beyond the last it rises with the average slope of the
upper part. `pairs` counts the (query, key) pairs that attention visits, so its part is linear in the context: decode is
`f(batch) + c * batch * context`, prefill `f(tokens) + c * tokens^2 / 2`. A prompt's later chunk needs a mask that its first one does
not, a constant that is a fifth of a step where launching kernels is what takes time (GPT-2 on a large GPU).

All unknowns of an item and phase come from one non-negative least-squares fit of relative errors. Curvature of `work` is
penalised a little: a line plus pairs explains what it can, kinks remain where the measurements insist.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from engine.data.errors import InvalidInput
from engine.profile.least_squares import non_negative
from engine.profile.point import FORWARD, PREFILL, Point

_SMOOTHING = 0.03  # weight of a kink's relative size beside a measurement's relative error


@dataclass(frozen=True, slots=True)
class CostSample:
    """One measured step at a point: the median time of every item, in seconds."""

    point: Point
    item_s: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class ItemLaw:
    """One item in one phase: `work_s[k]` seconds for `PhaseLaws.num_tokens[k]` packed tokens, and seconds per pair."""

    work_s: tuple[float, ...]
    pair_s: float
    behind_s: float = 0.0  # more for a prompt's chunk that is not its first

    def __post_init__(self) -> None:
        if least_s := min(*self.work_s, self.pair_s, self.behind_s, 0.0):
            raise InvalidInput(f"a time of {least_s:g} s is below 0")


@dataclass(frozen=True, slots=True)
class PhaseLaws:
    """All items of one phase; they were measured at the same packed token counts."""

    phase: str
    num_tokens: tuple[int, ...]
    items: tuple[ItemLaw, ...]

    def __post_init__(self) -> None:
        counts = self.num_tokens
        if not counts or counts[0] < 1 or any(b <= a for a, b in pairwise(counts)):
            raise InvalidInput(f"token counts {counts[:8]} of {self.phase[:20]!r} do not rise from 1 or more")
        if not self.items or any(len(law.work_s) != len(counts) for law in self.items):
            raise InvalidInput(f"{self.phase[:20]!r} needs items with one time for each of its {len(counts)} token counts")


@dataclass(frozen=True, slots=True)
class FitError:
    """How far the model's whole steps are from measured ones: relative errors, 0.05 is 5 %."""

    phase: str
    held_out: bool  # measured at points that the fit did not see
    num_points: int
    median: float
    worst: float


@dataclass(frozen=True, slots=True)
class CostModel:
    """Predicts steps of one model on one machine with one number of threads and one dtype."""

    phases: tuple[PhaseLaws, ...]
    errors: tuple[FitError, ...] = ()

    def __post_init__(self) -> None:
        if len({len(laws.items) for laws in self.phases}) != 1:
            raise InvalidInput("a cost model needs phases that all have the same items")

    @classmethod
    def fit(cls, samples: Sequence[CostSample], held_out: Sequence[CostSample] = ()) -> CostModel:
        """Laws from `samples` alone, their error on both. Raises InvalidInput without samples or with unequal item counts."""
        if not samples or len({len(sample.item_s) for sample in (*samples, *held_out)}) != 1:
            raise InvalidInput("a cost model needs measured steps that all have the same items")
        phases = tuple(dict.fromkeys(sample.point.phase for sample in samples))
        model = cls(tuple(_fit_phase(phase, [s for s in samples if s.point.phase == phase]) for phase in phases))
        return cls(model.phases, (*model._errors(samples, False), *model._errors(held_out, True)))

    @property
    def num_items(self) -> int:
        return len(self.phases[0].items)

    def time_s(self, item: int, phase: str, tokens: int, context: int, batch: int) -> float:
        """Seconds that one item adds to a step; never negative, never falling with the context.

        Raises InvalidInput for a phase that was not measured or an item that is not there.
        """
        point, laws = Point(phase, tokens, context, batch), self.laws(phase)
        if not 0 <= item < len(laws.items):
            raise InvalidInput(f"item {item} is not in the cost model: it has items [0, {len(laws.items)})")
        return _time_s(laws.items[item], laws.num_tokens, point)

    def step_s(self, point: Point, start: int = 0, stop: int | None = None) -> float:
        """Seconds of the items [start, stop) in one step."""
        laws = self.laws(point.phase)
        return sum(_time_s(law, laws.num_tokens, point) for law in laws.items[start:stop])

    def laws(self, phase: str) -> PhaseLaws:
        """All items' laws of a phase. Raises InvalidInput for a phase that was not measured."""
        found = next((laws for laws in self.phases if laws.phase == phase), None)
        if found is None:
            raise InvalidInput(f"the cost model has no phase {phase!r}: it has {', '.join(laws.phase for laws in self.phases)}")
        return found

    def _errors(self, samples: Sequence[CostSample], held_out: bool) -> Iterable[FitError]:
        for phase in dict.fromkeys(sample.point.phase for sample in samples):
            errors = [abs(self.step_s(s.point) / sum(s.item_s) - 1.0) for s in samples if s.point.phase == phase]
            yield FitError(phase, held_out, len(errors), _median(errors), max(errors))


def _median(values: Sequence[float]) -> float:
    """`statistics.median`, whose module would load a random generator into the pure rooms."""
    ordered = sorted(values)
    return (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2


def num_pairs(point: Point) -> float:
    """(query, key) pairs that one attention head visits: causal, or all of them in an encoder."""
    if point.phase == FORWARD:
        return float(point.batch * point.tokens**2)
    return point.batch * (point.tokens * point.context + point.tokens * (point.tokens + 1) / 2)


def _time_s(law: ItemLaw, num_tokens: Sequence[int], point: Point) -> float:
    packed_s = work_s(law.work_s, num_tokens, point.batch * point.tokens)
    return packed_s + law.pair_s * num_pairs(point) + law.behind_s * _is_behind(point)


def _is_behind(point: Point) -> bool:
    return point.phase == PREFILL and point.context > 0


def work_s(work_s: Sequence[float], knots: Sequence[int], wanted: float) -> float:
    """Linear between the knots; below the first one its value, beyond the last on with the slope since a quarter of it."""
    right = bisect_right(knots, wanted)
    if right == 0:
        return work_s[0]
    if right < len(knots):
        share = (wanted - knots[right - 1]) / (knots[right] - knots[right - 1])
        return (1.0 - share) * work_s[right - 1] + share * work_s[right]
    near = min(range(len(knots)), key=lambda k: abs(knots[k] - knots[-1] / 4))
    run = knots[-1] - knots[near]
    slope_s = max(0.0, (work_s[-1] - work_s[near]) / run) if run else work_s[-1] / knots[-1]
    return work_s[-1] + slope_s * (wanted - knots[-1])


def _fit_phase(phase: str, samples: Sequence[CostSample]) -> PhaseLaws:
    knots = tuple(sorted({s.point.batch * s.point.tokens for s in samples}))
    return PhaseLaws(phase, knots, tuple(_fit_item(knots, samples, item) for item in range(len(samples[0].item_s))))


def _fit_item(knots: tuple[int, ...], samples: Sequence[CostSample], item: int) -> ItemLaw:
    """Rows are divided by their measured time, so that the squares are of relative errors."""
    rows: list[list[float]] = []
    targets: list[float] = []
    for sample in samples:
        weight = 1.0 / max(sample.item_s[item], 1e-9)
        row = [0.0] * (len(knots) + 2)
        row[knots.index(sample.point.batch * sample.point.tokens)] = weight
        row[-2] = weight * num_pairs(sample.point)
        row[-1] = weight * _is_behind(sample.point)
        rows.append(row)
        targets.append(weight * sample.item_s[item])
    rows += _kinks(knots, samples, item)
    targets += [0.0] * max(0, len(knots) - 2)
    *work_s, pair_s, behind_s = non_negative(rows, targets)
    return ItemLaw(tuple(work_s), pair_s, behind_s)


def _kinks(knots: tuple[int, ...], samples: Sequence[CostSample], item: int) -> Iterable[list[float]]:
    """For every inner knot: how far it lies from the line between its neighbours, relative to its time."""
    for k in range(1, len(knots) - 1):
        at_knot = [s.item_s[item] for s in samples if s.point.batch * s.point.tokens == knots[k]]
        weight = _SMOOTHING / max(sum(at_knot) / len(at_knot), 1e-9)
        share = (knots[k] - knots[k - 1]) / (knots[k + 1] - knots[k - 1])
        row = [0.0] * (len(knots) + 2)
        row[k - 1], row[k], row[k + 1] = -weight * (1.0 - share), weight, -weight * share
        yield row
