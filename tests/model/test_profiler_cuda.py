"""The profiler on a CUDA GPU: events instead of clocks, whose sum is the un-hooked step. Skipped without a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from engine.data.model import ModelRef
from engine.folders import cache_folder
from engine.model.hardware.clocks import CudaClock
from engine.model.profiling.collector import MetricsCollector
from engine.model.profiling.profile_assembly import profile_of
from engine.model.profiling.profiler import WorkloadProfiler
from engine.model.profiling.roles import select_layers
from engine.model.profiling.workload import CausalWorkload, load_workload
from engine.profile.point import DECODE, PREFILL, Point
from engine.profile.profile import Profile, Role

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")

DEVICE = "cuda:0"


@pytest.fixture(scope="module")
def gpt2() -> CausalWorkload:
    workload = load_workload(ModelRef("gpt2", 0), cache_dir=cache_folder(), device=DEVICE)
    assert isinstance(workload, CausalWorkload)
    return workload


@pytest.fixture(scope="module")
def profile(gpt2: CausalWorkload) -> Iterator[Profile]:
    yield profile_of(gpt2, WorkloadProfiler(gpt2, budget_s=15.0).run(), depth="layer")


def test_the_items_sum_to_the_unhooked_step(profile: Profile) -> None:
    print(profile.honesty, profile.environment.roofline)
    for step in profile.steps:
        print(step.point.label, step.plain_p50_s, step.hooked_p50_s, step.items_s)
    assert profile.honesty.coverage == pytest.approx(1.0, abs=0.05)


def test_layers_items_and_device(profile: Profile) -> None:
    assert [len(profile.layers), len(profile.items)] == [40, 14]
    assert {layer.device for layer in profile.layers} == {DEVICE}
    assert "cuda" in profile.environment.libraries
    assert profile.environment.roofline.flops_per_s > 1e12 and profile.environment.roofline.bytes_per_s > 1e11
    assert all(f.p50_s > 0 and f.self_s >= 0 for layer in profile.layers for f in layer.figures)
    assert Profile.from_json(profile.to_json()) == profile


def test_predicted_steps_of_unseen_points(profile: Profile) -> None:
    assert profile.cost_model is not None
    errors = {error.phase: error for error in profile.cost_model.errors if error.held_out}
    print(errors)
    for step in profile.steps:
        print(step.point.label, f"{1e3 * step.plain_p50_s:.3f} {1e3 * profile.cost_model.step_s(step.point):.3f} cv {step.cv:.3f}")
    noise = profile.honesty.noise_cv  # a host whose steps vary by a third cannot show how good a law is
    for phase in (PREFILL, DECODE):
        assert errors[phase].median < max(0.05, noise) and errors[phase].worst < max(0.15, noise)


@pytest.mark.parametrize("depth", ["item", "layer", "leaf"])
def test_a_hooked_model_answers_bit_by_bit_as_before(gpt2: CausalWorkload, depth: str) -> None:
    point = Point(DECODE, 1, 12, 3)
    gpt2.reserve([point])
    answers: list[Any] = []
    step = gpt2.step_at(point)
    answers.append(step())
    gpt2.step_at(point)
    MetricsCollector(select_layers(gpt2.model, gpt2.blocks, depth), CudaClock(DEVICE)).hooked(lambda: answers.append(step()))
    assert torch.equal(*answers)


def test_nothing_synchronises_between_layers(gpt2: CausalWorkload, monkeypatch: pytest.MonkeyPatch) -> None:
    """One synchronise before the step and one behind it, however many layers have hooks."""
    calls: list[int] = []
    synchronize = torch.cuda.synchronize

    def count(*args: Any) -> None:
        calls.append(1)
        synchronize(*args)

    collector = MetricsCollector(select_layers(gpt2.model, gpt2.blocks, "leaf"), CudaClock(DEVICE))
    gpt2.reserve([point := Point(PREFILL, 16, 0, 1)])
    step = gpt2.step_at(point)
    monkeypatch.setattr(torch.cuda, "synchronize", count)
    spans = collector.hooked(step)
    assert len(calls) == 2 and spans.step_s > 0
    assert len(collector.items_s(gpt2.step_at(point))) == 14 and len(calls) == 4


def test_slow_kernels_are_charged_to_their_layer(gpt2: CausalWorkload, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels run behind the program's back: a clock on the CPU would charge them to whoever waits."""
    collector = MetricsCollector(select_layers(gpt2.model, gpt2.blocks, "layer"), CudaClock(DEVICE))
    code = next(c for c, layer in enumerate(collector.layers) if layer.role is Role.MLP and layer.block == 5)
    victim = collector.layers[code].module
    forward = victim.forward

    def spin(*args: Any, **kwargs: Any) -> Any:
        torch.cuda._sleep(50_000_000)  # cycles: about 30 ms on the GPU, nothing on the CPU
        return forward(*args, **kwargs)

    gpt2.reserve([point := Point(DECODE, 1, 16, 1)])
    gpt2.step_at(point)()
    monkeypatch.setattr(victim, "forward", spin)
    spans = collector.hooked(gpt2.step_at(point))
    assert max(spans.self_s, key=lambda c: spans.self_s[c]) == code
    assert spans.self_s[code] > 0.5 * spans.step_s
