"""Who may hold layers, why not, and the scores: properties over made-up machines."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.data.errors import InvalidInput
from engine.planning.capability import CapabilityMatcher, LayerRequirements, MatchRules
from engine.planning.strategies import STRATEGIES
from engine.profile.hardware import BFLOAT16, DTYPES, FLOAT32, DeviceType, HardwareCapability
from engine.profile.profile import Roofline

GB = 10**9
rates = st.floats(1e6, 1e15)
roofs = st.builds(Roofline, rates, rates, st.floats(0, 1e-3))


@st.composite
def machines(draw: st.DrawFn, node_id: str = "n") -> HardwareCapability:
    total = draw(st.integers(1, 10**12))
    return HardwareCapability(
        node_id,
        draw(st.sampled_from(DeviceType)),
        "a device",
        draw(st.integers(1, 512)),
        draw(st.integers(0, 200)),
        draw(st.integers(0, total)),
        total,
        draw(st.dictionaries(st.sampled_from(DTYPES), roofs)),
        draw(st.none() | st.floats(1, 1000)),
        draw(st.none() | st.floats(0, 10)),
        draw(st.none() | rates),
    )


@st.composite
def clusters(draw: st.DrawFn) -> list[HardwareCapability]:
    return [draw(machines(f"n{k}")) for k in range(draw(st.integers(0, 6)))]


layers = st.lists(
    st.builds(LayerRequirements, st.just("h"), st.sampled_from(DTYPES), st.floats(0, 1e12), st.floats(0, 1e15), st.floats(0, 1e12)),
    min_size=1,
    max_size=5,
)
rules = st.builds(MatchRules, st.frozensets(st.sampled_from(DeviceType)), st.floats(0, 1e12), st.floats(0, 10))
strategies = st.sampled_from(STRATEGIES)


def box(node_id: str = "box", **changes: object) -> HardwareCapability:
    roof = Roofline(1e11, 1e10, 1e-6)
    made = HardwareCapability(node_id, DeviceType.CPU, "a CPU", 8, 0, 8 * GB, 16 * GB, {FLOAT32: roof}, 65.0, 1e-3, 1e8)
    return replace(made, **changes)  # type: ignore[arg-type]


BLOCK = LayerRequirements("h.0", FLOAT32, 2 * GB, 1e9, 2 * GB, 3072)


@settings(max_examples=100)
@given(clusters(), layers, rules, strategies)
def test_every_node_is_judged_once_and_scored_within_0_and_1(
    nodes: list[HardwareCapability], chain: list[LayerRequirements], demands: MatchRules, strategy: str
) -> None:
    match = CapabilityMatcher(chain, demands).match(nodes, strategy)
    ids = [node.node_id for node in match.eligible]
    assert sorted(ids + [refusal.node_id for refusal in match.refusals]) == [node.node_id for node in nodes]
    assert all(0.0 <= score <= 1.0 for score in match.scores.values()) and match.scores.keys() == {node.node_id for node in nodes}
    assert all(match.scores[refusal.node_id] == 0.0 and refusal.reason.count("\n") == 0 for refusal in match.refusals)
    for node in match.eligible:
        runnable = [layer for layer in chain if layer.dtype in node.rooflines]
        assert runnable and node.memory_bytes >= max(demands.min_memory_bytes, min(layer.memory_bytes for layer in runnable))
        assert node.device_type in demands.device_types and (node.link_latency_s or 0.0) <= demands.max_link_latency_s
    if any(node.memory_bytes for node in match.eligible):
        assert max(match.scores.values()) == 1.0, "the best eligible node sets the scale"


@settings(max_examples=100)
@given(clusters(), layers, strategies, st.floats(1.01, 100))
def test_a_better_machine_never_scores_less(
    nodes: list[HardwareCapability], chain: list[LayerRequirements], strategy: str, factor: float
) -> None:
    matcher = CapabilityMatcher(chain)
    before = matcher.match(nodes, strategy)
    for better in before.eligible:
        roofs_of = {dtype: Roofline(r.flops_per_s * factor, r.bytes_per_s * factor) for dtype, r in better.rooflines.items()}
        memory = {"memory_bytes": 2 * better.memory_bytes, "memory_total_bytes": 2 * better.memory_total_bytes}
        improved = replace(better, rooflines=roofs_of, **memory)  # type: ignore[arg-type]
        after = matcher.match([improved if node is better else node for node in nodes], strategy)
        assert after.scores[better.node_id] >= before.scores[better.node_id] * (1 - 1e-12)


def test_each_strategy_prefers_what_it_is_after() -> None:
    gpu_roof = {FLOAT32: Roofline(1e13, 1e12)}
    near = box("near", link_latency_s=1e-4)
    big = box("big", memory_bytes=15 * GB)
    fast = box(
        "fast", device_type=DeviceType.CUDA, num_sms=80, rooflines=gpu_roof, memory_bytes=3 * GB, power_w=4000.0, link_latency_s=0.05
    )
    frugal = box("frugal", power_w=5.0)
    nodes = [near, big, fast, frugal]
    matcher = CapabilityMatcher([replace(BLOCK, memory_bytes=1.5 * GB)] * 2)

    def best(strategy: str) -> str:
        scores = matcher.match(nodes, strategy).scores
        return max(scores, key=scores.__getitem__)

    fast_ones = ("auto", "balanced", "bottleneck_first", "latency_optimized")
    assert {s: best(s) for s in STRATEGIES} == dict.fromkeys(fast_ones, "fast") | {"memory_aware": "big", "cost": "frugal"}
    far = [replace(node, link_latency_s=2.0) if node is fast else node for node in nodes]
    scores = matcher.match(far, "latency_optimized").scores
    assert max(scores, key=scores.__getitem__) == "near", "a link of seconds costs more than the GPU gains"


@pytest.mark.parametrize(
    ("node", "demands", "words"),
    [
        (box(rooflines={BFLOAT16: Roofline(1, 1)}), MatchRules(), ["cannot compute in float32, only in bfloat16", "--dtype"]),
        (box(rooflines={}), MatchRules(), ["only in nothing"]),
        (box(), MatchRules(frozenset({DeviceType.CUDA, DeviceType.CUDA_INTEGRATED})), ["type cpu, allowed are cuda, cuda_integrated"]),
        (box(memory_bytes=GB), MatchRules(), ["1000 MB free", "smallest layer h.0 needs 2000 MB", "free some memory"]),
        (box(), MatchRules(min_memory_bytes=9 * GB), ["8000 MB free, at least 9000 MB"]),
        (box(link_latency_s=0.2), MatchRules(max_link_latency_s=0.05), ["200 ms away, the limit is 50 ms"]),
    ],
)
def test_a_refusal_names_the_node_the_figure_and_the_way_out(node: HardwareCapability, demands: MatchRules, words: list[str]) -> None:
    reason = CapabilityMatcher([BLOCK], demands).refusal(node)
    assert reason.startswith("box (a CPU) ") and all(word in reason for word in words), reason


def test_a_node_is_not_refused_for_what_it_can_do() -> None:
    assert CapabilityMatcher([BLOCK]).refusal(box()) == ""
    assert CapabilityMatcher([BLOCK, replace(BLOCK, dtype=BFLOAT16)]).refusal(box()) == "", "it can hold the first layer"


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(InvalidInput, match="at least one"):
        CapabilityMatcher([])
    with pytest.raises(InvalidInput, match="'greedy' has no score: choose one of auto, balanced"):
        CapabilityMatcher([BLOCK]).match([box()], "greedy")
    with pytest.raises(InvalidInput, match="same id"):
        CapabilityMatcher([BLOCK]).match([box(), box()], "balanced")
    for changes in ({"memory_bytes": 17 * GB}, {"num_cores": 0}, {"power_w": 0.0}, {"power_w": math.nan}, {"link_latency_s": -1.0}):
        with pytest.raises(InvalidInput, match="'box'"):
            box(**changes)
    for roof in (Roofline(0.0, 1.0), Roofline(1.0, math.inf)):
        with pytest.raises(InvalidInput, match="measure it again"):
            box(rooflines={FLOAT32: roof})
    with pytest.raises(InvalidInput, match="float7"):
        box(rooflines={"float7": Roofline(1.0, 1.0)})
    with pytest.raises(InvalidInput, match="flops of nan"):
        replace(BLOCK, flops=math.nan)
