"""The detector against a batch recomputation from its definition, its symmetries, its false alarms and its delays."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.control.adaptation.watching.detector import Detector

# the definition, written down once more
BLOCK, K, H, FAST, FAST_RUN = 16, 0.5, 10.0, math.log(2.5), 6


def reference(xs: list[float]) -> list[tuple[int, float]]:
    """(index, new level) of every alarm. Sums over all suffixes instead of recursions, sorted copies instead of state."""
    alarms: list[tuple[int, float]] = []
    level, weight, calibrated = 0.0, 0.0, False
    variance, covariance, scale_blocks, previous = 0.05**2, 0.0, 2.0, 0.0
    medians: list[float] = []  # since the last reset
    zs: list[float] = []
    first = 0  # index where the current block begins
    over: list[int] = []  # -1: far below the level
    since = 0  # index after the last reset of the fast lane
    for i in range(len(xs)):
        over.append((xs[i] - level > FAST) - (xs[i] - level < -FAST))  # the level of its time, not of now
        lately = xs[max(since, i + 1 - FAST_RUN) : i + 1]
        if weight >= 1 and len(lately) == FAST_RUN and abs(sum(over[-FAST_RUN:])) == FAST_RUN:
            level, weight, previous = statistics.median(lately), 1.0, 0.0
            alarms.append((i, level))
            medians, zs, first, since = [], [], i + 1, i + 1
            continue
        if i + 1 - first < BLOCK:
            continue
        median, first = statistics.median(xs[first : i + 1]), i + 1
        r = min(0.9, max(0.0, covariance / variance))
        deviation = max(0.01, math.sqrt(variance * (1 + r) / (1 - r)) * (1 + 1 / math.sqrt(scale_blocks) + 6 / scale_blocks))
        residual = median - level if weight else 0.0
        zs.append(residual / (deviation * math.sqrt(1 + 1 / weight)) if weight else 0.0)
        medians.append(median)
        up = max(0.0, *(math.fsum(z - K for z in zs[j:]) for j in range(len(zs))))
        down = max(0.0, *(math.fsum(-z - K for z in zs[j:]) for j in range(len(zs))))
        if calibrated and max(up, down) > H:
            run = suffix_above_zero(zs if up > down else [-z for z in zs], medians)
            num = strongest(run, level)
            block = xs[i + 1 - BLOCK : i + 1]
            level = statistics.median(run[-num:][1:] if num > 1 else block[-max(4, strongest(block, level)) :])
            weight, previous = 1.0, 0.0
            alarms.append((i, level))
            medians, zs, since = [], [], i + 1
            continue
        if calibrated and max(up, down) > H / 2:
            continue
        if weight:
            bound = 2.5 * math.sqrt(variance)
            kept = min(bound, max(-bound, residual))
            scale_blocks = min(512.0, scale_blocks + 1)
            variance += (kept**2 / 0.978 - variance) / scale_blocks
            covariance += (kept * previous - covariance) / scale_blocks
            previous = kept
        else:
            kept = median - level
        weight = min(256.0, weight + 1)
        level += kept / weight
        calibrated = calibrated or weight >= 4
    return alarms


def strongest(values: list[float], level: float) -> int:
    """Length of the suffix that one new level explains best."""
    explained = [math.fsum(v - level for v in values[-n:]) ** 2 / n for n in range(1, len(values) + 1)]
    return 1 + explained.index(max(explained))


def suffix_above_zero(zs: list[float], medians: list[float]) -> list[float]:
    """The medians since the cumulative sum last was zero."""
    total, start = 0.0, 0
    for i, z in enumerate(zs):
        total = max(0.0, total + z - K)
        if total == 0.0:
            start = i + 1
    return medians[start:][-64:]


def noise(seed: int, num: int, deviation: float = 0.05, rho: float = 0.5) -> Iterator[float]:
    rng, fresh = random.Random(seed), deviation * math.sqrt(1.0 - rho * rho)
    x = rng.gauss(0.0, deviation)
    for _ in range(num):
        yield x
        x = rho * x + rng.gauss(0.0, fresh)


def alarms_of(xs: list[float], detector: Detector | None = None) -> list[tuple[int, float]]:
    detector = detector or Detector()
    found = ((i, detector.add(x)) for i, x in enumerate(xs))
    return [(i, alarm.level) for i, alarm in found if alarm]


@st.composite
def changing_series(draw: st.DrawFn) -> list[float]:
    """Noise around levels that change a few times, by little or by much."""
    xs: list[float] = []
    for _ in range(draw(st.integers(1, 4))):
        level = draw(st.floats(-1.5, 1.5))
        deviation, rho = draw(st.sampled_from([0.01, 0.05, 0.2])), draw(st.sampled_from([0.0, 0.5, 0.9]))
        xs += [level + x for x in noise(draw(st.integers(0, 10_000)), draw(st.integers(1, 400)), deviation, rho)]
    return xs


@settings(max_examples=100, deadline=None)
@given(changing_series())
def test_it_does_what_its_definition_says(xs: list[float]) -> None:
    found, expected = alarms_of(xs), reference(xs)
    assert [i for i, _ in found] == [i for i, _ in expected]
    assert [level for _, level in found] == pytest.approx([level for _, level in expected], abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(changing_series(), st.floats(-3.0, 3.0))
def test_a_constant_factor_on_all_times_changes_nothing_but_the_level(xs: list[float], shift: float) -> None:
    """log(observed / predicted) of a prediction that is wrong by a factor from the beginning."""
    shifted = alarms_of([x + shift for x in xs])
    assert [i for i, _ in shifted] == [i for i, _ in alarms_of(xs)]
    assert [level - shift for _, level in shifted] == pytest.approx([level for _, level in alarms_of(xs)], abs=1e-9)


def test_slower_and_faster_are_noticed_alike() -> None:
    xs = [*noise(1, 1600), *(0.4 + x for x in noise(2, 200))]
    mirrored = alarms_of([-x for x in xs])
    assert mirrored == [(i, -level) for i, level in alarms_of(xs)] and len(mirrored) == 1


@pytest.mark.parametrize(("ratio", "within"), [(1.3, 50), (2.0, 32), (3.2, 10), (1 / 3.2, 10)])
def test_changes_are_noticed_in_time_at_any_phase_of_a_block(ratio: float, within: int) -> None:
    """5 % noise with correlation 0.5; twelve detectors side by side: three stages, their links, prefill and decode."""
    for phase in range(BLOCK):
        change = 1600 + phase
        xs = [x + (math.log(ratio) if i >= change else 0.0) for i, x in enumerate(noise(phase, change + within))]
        detector = Detector(num_channels=12)
        assert [i >= change for i, _ in alarms_of(xs, detector)][:1] == [True], f"phase {phase}"
        assert math.exp(detector.level) == pytest.approx(ratio, rel=0.15)


def test_seven_slow_steps_of_sixteen_are_no_change() -> None:
    xs = list(noise(3, 3200))
    for start in range(0, len(xs), BLOCK):
        for k in range(7):
            xs[start + 2 * k] += 2.0
    assert alarms_of(xs) == []


def test_a_creeping_drift_shows_in_the_level() -> None:
    detector = Detector()
    xs = [x + 0.3 * i / 30_000 for i, x in enumerate(noise(4, 30_000))]
    alarms_of(xs, detector)
    assert detector.level == pytest.approx(0.3, abs=0.05)


def test_the_noise_it_reports_is_that_of_a_median_of_sixteen() -> None:
    detector = Detector()
    alarms_of(list(noise(5, 20_000, 0.05, 0.0)), detector)
    assert detector.deviation() == pytest.approx(0.05 * math.sqrt(math.pi / 2) / 4, rel=0.15)


def test_young_detectors_do_not_cry_wolf() -> None:
    """120 starts with 20 % noise that wanders: 240,000 steps, and the deviation is hardly known."""
    assert [alarms_of(list(noise(seed, 2000, 0.2, 0.8))) for seed in range(120)] == [[]] * 120
