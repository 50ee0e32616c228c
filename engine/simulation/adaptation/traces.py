"""Traces to judge adaptation by: what nodes and links really do, step by step, as piecewise constant conditions.

A trace knows no plan and no policy. Lengths are in steps, factors multiply the times that workers measured.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from engine.profile.point import DECODE, Point

NODES = ("w1", "w2", "w3")
STEADY_NOISE = ((0.03, 0.5), (0.05, 0.5), (0.1, 0.5), (0.2, 0.8))  # (deviation, correlation from step to step)
_SHORT = Point(DECODE, 1, 16, 1)


@dataclass(frozen=True, slots=True)
class Noise:
    """Logarithms of `deviation` with correlation `rho` from step to step, and single spikes of `spike_factor`.

    With `heavy_tails` every step's own part is drawn from Student's t(2), whose variance is infinite.
    """

    deviation: float = 0.05
    rho: float = 0.5
    spike_share: float = 0.0
    spike_factor: float = 5.0
    heavy_tails: bool = False


@dataclass(frozen=True, slots=True)
class Condition:
    """What holds for a while. Nodes and links that are not named run as measured."""

    nodes: tuple[str, ...] = NODES
    factors: Mapping[str, float] = field(default_factory=dict)
    link_factors: Mapping[str, float] = field(default_factory=dict)
    point: Point = _SHORT
    leak_bytes: Mapping[str, float] = field(default_factory=dict)
    cliffs: Mapping[str, tuple[int, float]] = field(default_factory=dict)  # node: beyond so many items it is so much slower


@dataclass(frozen=True, slots=True)
class Trace:
    """`segments` are (steps, condition); `change` says what kind it is: none, single, oscillation or other."""

    name: str
    change: str
    segments: tuple[tuple[int, Condition], ...]
    noise: Noise = Noise()
    started_with: tuple[str, ...] = NODES
    strategy: str = "balanced"

    @property
    def num_steps(self) -> int:
        return sum(steps for steps, _ in self.segments)


def steady(noise: Noise, num_steps: int = 10_000) -> Trace:
    return Trace(f"steady, noise {100 * noise.deviation:.0f} %, rho {noise.rho:g}", "none", ((num_steps, Condition()),), noise)


def step(factor: float, noise: Noise = Noise(), before: int = 1500, after: int = 3000) -> Trace:
    """One node gets slower for good."""
    return Trace(f"one node x{factor:g}", "single", ((before, Condition()), (after, Condition(factors={"w2": factor}))), noise)


def ramp(to: float = 2.0, num_parts: int = 50, steps: int = 40) -> Trace:
    parts = tuple((steps, Condition(factors={"w2": 1.0 + (to - 1.0) * (k + 1) / num_parts})) for k in range(num_parts))
    return Trace(
        f"ramp to x{to:g} in {num_parts * steps} steps", "other", ((1500, Condition()), *parts, (2000, Condition(factors={"w2": to})))
    )


def sinusoid(period_steps: int = 6000, to: float = 2.0, num_cycles: float = 3.0, num_parts: int = 60) -> Trace:
    """A node that slows down and recovers evenly, as its neighbours on a shared machine come and go."""
    steps = period_steps // num_parts
    heights = (0.5 - 0.5 * math.cos(2.0 * math.pi * (k + 0.5) / num_parts) for k in range(round(num_cycles * num_parts)))
    parts = tuple((steps, Condition(factors={"w2": 1.0 + (to - 1.0) * height})) for height in heights)
    return Trace(f"sinusoid to x{to:g}, {period_steps} steps", "drift", ((1500, Condition()), *parts))


def staircase(levels: tuple[float, ...] = (1.1, 1.2, 1.35, 1.5, 1.75, 2.0), steps: int = 600, num_cycles: int = 2) -> Trace:
    """A node that throttles its clock one notch after the other as it warms up, and steps back as it cools."""
    parts = tuple((steps, Condition(factors={"w2": level})) for level in (*levels, *levels[-2::-1], 1.0))
    return Trace(f"thermal staircase to x{max(levels):g}, {steps} steps each", "drift", ((1500, Condition()), *(parts * num_cycles)))


def wandering(deviation: float = 0.05, rho: float = 0.99, num_steps: int = 10_000) -> Trace:
    """Each node's noise stays for 1 / (1 - rho) steps: too short to move for, long enough to look like news."""
    return replace(steady(Noise(deviation, rho), num_steps), name=f"wandering {100 * deviation:.0f} %, rho {rho:g}")


def heavy_tails(deviation: float = 0.05, num_steps: int = 10_000) -> Trace:
    return replace(steady(Noise(deviation, 0.0, heavy_tails=True), num_steps), name=f"t(2) noise of {100 * deviation:.0f} %")


def spikes(share: float = 0.02) -> Trace:
    return Trace(f"spikes x5 in {100 * share:g} % of steps", "none", ((10_000, Condition()),), Noise(spike_share=share))


def square(half_steps: int, factor: float = 2.0, num_cycles: int = 20) -> Trace:
    cycle = ((half_steps, Condition()), (half_steps, Condition(factors={"w2": factor})))
    return Trace(f"square x{factor:g}, {half_steps} steps each", "oscillation", ((1500, Condition()), *(cycle * num_cycles)))


def link_slow(factor: float = 40.0) -> Trace:
    """Every plan that uses all nodes uses that link: there is nothing to gain."""
    slow = Condition(link_factors={"w1>w2": factor})
    return Trace(f"link x{factor:g}, all nodes needed", "single", ((1500, Condition()), (3000, slow)))


def link_avoidable(factor: float = 40.0) -> Trace:
    """A node may be left out, and so the link to it."""
    return replace(link_slow(factor), name=f"link x{factor:g}, nodes may be left out", strategy="bottleneck_first")


def recovery(factor: float = 2.0) -> Trace:
    return Trace(
        f"x{factor:g} for 2000 steps, then well again",
        "single",
        ((1500, Condition()), (2000, Condition(factors={"w2": factor})), (3000, Condition())),
    )


def join() -> Trace:
    two = Condition(nodes=NODES[:2])
    return Trace("a node joins", "single", ((1500, two), (3000, Condition())), started_with=NODES[:2])


def leave() -> Trace:
    return Trace("a node leaves", "single", ((1500, Condition()), (3000, Condition(nodes=NODES[:2]))))


def leak(to_bytes: float = 9e8, num_parts: int = 100, steps: int = 300) -> Trace:
    parts = tuple((steps, Condition(leak_bytes={"w2": to_bytes * (k + 1) / num_parts})) for k in range(num_parts))
    return Trace("memory leak", "other", ((1500, Condition()), *parts, (3000, Condition(leak_bytes={"w2": to_bytes}))))


def cliff() -> Trace:
    """A node slows down, and the one that could take over has less cache than its measured items say."""
    edge = {"w1": (10, 3.0), "w3": (10, 3.0)}
    slow = Condition(factors={"w2": 2.0}, cliffs=edge)
    return Trace("x2, and the others cannot take more", "other", ((1500, Condition(cliffs=edge)), (8000, slow)))


def prompt_mix() -> Trace:
    long = Condition(point=Point(DECODE, 1, 900, 4))
    return Trace("prompt mix: 4 sessions, long contexts", "none", ((2000, Condition()), (4000, long), (2000, Condition())))


def all_slow(factor: float = 1.6) -> Trace:
    return Trace(f"all nodes x{factor:g}", "none", ((1500, Condition()), (4000, Condition(factors=dict.fromkeys(NODES, factor)))))


def all_traces(steady_steps: int = 10_000) -> Iterable[Trace]:
    """The table of the documentation, in its order."""
    yield from (steady(Noise(deviation, rho), steady_steps) for deviation, rho in STEADY_NOISE)
    yield from (wandering(num_steps=steady_steps), heavy_tails(num_steps=steady_steps))
    yield from (step(factor) for factor in (1.15, 1.3, 2.0, 4.0))
    yield from (sinusoid(), staircase())
    yield from (ramp(), spikes(), recovery(), link_slow(), link_avoidable(), join(), leave(), leak(), cliff(), prompt_mix(), all_slow())
    yield from (square(half) for half in (40, 100, 250, 1000))
