"""The profiler: what it hooks, that hooks change nothing and never stay, that times and counts are right."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from time import perf_counter, thread_time, thread_time_ns
from typing import Any

import pytest
import torch
from torch import nn
from transformers import GPT2Config

from engine.data.errors import Bug, InvalidInput, NotSupported
from engine.data.model import ModelRef
from engine.model.hardware import clocks
from engine.model.hardware.clocks import CpuClock, clock_for
from engine.model.hardware.roofline import explain
from engine.model.profiling import collector as collector_module
from engine.model.profiling import profiler
from engine.model.profiling.collector import MetricsCollector
from engine.model.profiling.profile_assembly import profile_of
from engine.model.profiling.profiler import WorkloadProfiler
from engine.model.profiling.roles import select_layers
from engine.model.profiling.spans import BEGIN, END, fold, tile
from engine.model.profiling.traffic import count_step
from engine.model.profiling.workload import CausalWorkload, Workload, load_workload
from engine.model.running.slicing import build_chain
from engine.profile.point import DECODE, FORWARD, PREFILL, Point
from engine.profile.profile import Bound, Profile, Role, Roofline


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Two threads that wait for each other on a busy machine take a hundred times as long."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def gpt2(cache: Path) -> CausalWorkload:
    workload = load_workload(ModelRef("gpt2:tiny", 0), cache_dir=cache)
    assert isinstance(workload, CausalWorkload)
    return workload


def collector(workload: Workload, depth: str = "leaf") -> MetricsCollector:
    return MetricsCollector(select_layers(workload.model, workload.blocks, depth), CpuClock())


# --- which layers -------------------------------------------------------------------------------------------------
def test_gpt2_has_forty_layers_and_sixteen_without_the_parts_of_blocks() -> None:
    model, chain = build_chain(GPT2Config(), torch.float32)
    blocks = chain.blocks
    layers = select_layers(model, blocks, "layer")
    assert len(layers) == 40
    assert [layer.path for layer in layers if layer.depth == 0 and layer.role is not Role.BLOCK] == [
        "transformer.wte", "transformer.wpe", "transformer.ln_f", "lm_head",
    ]  # fmt: skip
    assert [layer.role for layer in layers].count(Role.ATTENTION) == [layer.role for layer in layers].count(Role.MLP) == 12
    assert len(select_layers(model, blocks, "item")) == 16
    assert len(select_layers(model, blocks, "leaf")) > 150
    with pytest.raises(InvalidInput, match="depth 'all'"):
        select_layers(model, blocks, "all")


@pytest.mark.parametrize("name", ["llama:tiny", "opt:tiny", "gemma2:tiny", "mixtral:tiny", "gpt_neox:tiny", "bloom:tiny", "bert:tiny"])
def test_roles_follow_the_families_own_words(name: str, cache: Path) -> None:
    workload = load_workload(ModelRef(name, 0), cache_dir=cache)
    layers = select_layers(workload.model, workload.blocks, "layer")
    num_blocks = 1 + max(layer.block for layer in layers if layer.block is not None)
    for block in range(num_blocks):
        roles = [layer.role for layer in layers if layer.block == block]
        assert roles[0] is Role.BLOCK and Role.ATTENTION in roles and Role.MLP in roles, f"{name}, block {block}: {roles}"
    assert layers[0].role is Role.EMBEDDING
    assert layers[-1].role is Role.HEAD
    assert {layer.parent for layer in layers if layer.depth == 1} == {f"{workload.blocks}.{block}" for block in range(num_blocks)}


# --- hooks --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("depth", ["item", "layer", "leaf"])
@pytest.mark.parametrize("point", [Point(PREFILL, 9, 4, 1), Point(DECODE, 1, 12, 3)])
def test_a_hooked_model_answers_bit_by_bit_as_before(gpt2: CausalWorkload, depth: str, point: Point) -> None:
    gpt2.reserve([point])
    answers = []

    def keep(step: Any) -> None:
        answers.append(step())

    step = gpt2.step_at(point)
    keep(step)
    gpt2.step_at(point)  # back to the same context; the first step, with its token ids, is taken again
    collector(gpt2, depth).hooked(lambda: keep(step))
    assert answers[0].shape == (point.batch, 512)
    assert torch.equal(*answers)


@pytest.mark.parametrize("error", [RuntimeError("device lost"), KeyboardInterrupt(), SystemExit(3)])
def test_no_hook_stays_behind_an_exception(gpt2: CausalWorkload, error: BaseException) -> None:
    hooked = collector(gpt2)
    point = Point(DECODE, 1, 5, 1)
    gpt2.reserve([point])
    before = count_hooks(gpt2.model)
    victim = gpt2.model.get_submodule("transformer.h.2.mlp")
    seen: list[int] = []

    def fail(*_: Any) -> None:
        seen.append(count_hooks(gpt2.model))
        raise error

    handle = victim.register_forward_pre_hook(fail)
    with pytest.raises(type(error)):
        hooked.hooked(gpt2.step_at(point))
    handle.remove()
    assert seen[0] > before + 100, "the hooks were there when it failed"
    assert count_hooks(gpt2.model) == before
    began_s = perf_counter()
    spans = hooked.hooked(gpt2.step_at(point))
    assert len(spans.layer_s) > 50 and spans.step_s < perf_counter() - began_s, "marks of the failed step are forgotten"
    assert count_hooks(gpt2.model) == before


def count_hooks(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


def test_a_slow_layer_is_the_one_that_is_found(gpt2: CausalWorkload, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock of the test's own, by which every mark takes a microsecond."""
    now_ns = [0]

    def tick() -> int:
        now_ns[0] += 1000
        return now_ns[0]

    monkeypatch.setattr(clocks, "perf_counter_ns", tick)
    hooked = collector(gpt2, "layer")
    code = next(c for c, layer in enumerate(hooked.layers) if layer.path == "transformer.h.1.mlp")
    slow = gpt2.model.get_submodule("transformer.h.1.mlp.c_fc")
    forward = slow.forward

    def take_long(hidden: torch.Tensor) -> torch.Tensor:
        now_ns[0] += 50_000_000
        return forward(hidden)

    monkeypatch.setattr(slow, "forward", take_long)
    gpt2.reserve([point := Point(DECODE, 1, 3, 1)])
    spans = hooked.hooked(gpt2.step_at(point))
    assert spans.layer_s[code] >= 0.05 and max(spans.self_s, key=lambda c: spans.self_s[c]) == code
    item_s = hooked.items_s(gpt2.step_at(point))
    assert max(range(6), key=lambda item: item_s[item]) == 2, "block 1 is item 2"


def test_items_are_timed_with_one_hook_a_block(gpt2: CausalWorkload) -> None:
    hooked = collector(gpt2)
    gpt2.reserve([point := Point(DECODE, 1, 3, 1)])
    step, before = gpt2.step_at(point), count_hooks(gpt2.model)
    seen: list[int] = []

    def count() -> Any:
        seen.append(count_hooks(gpt2.model) - before)
        return step()

    item_s = hooked.items_s(count)
    assert seen == [4 + 1] and count_hooks(gpt2.model) == before
    assert len(item_s) == 6 and min(item_s) > 0


# --- spans --------------------------------------------------------------------------------------------------------
def test_items_tile_the_step() -> None:
    marks = [(BEGIN, 0.0), (1, 3.0), (3, 7.0), (~3, 9.0), (END, 12.0)]
    assert tile(marks, [1, 3]) == (3.0, 4.0, 2.0, 3.0)


@pytest.mark.parametrize("blocks", [[], [1], [3, 1], [1, 3, 4]])
def test_blocks_called_otherwise_make_no_items(blocks: list[int]) -> None:
    with pytest.raises(Bug):
        tile([(BEGIN, 0.0), (1, 3.0), (3, 7.0), (~3, 9.0), (END, 12.0)], blocks)
    with pytest.raises(Bug):
        tile([(1, 3.0), (~1, 7.0)], [1])


def test_self_times_add_up() -> None:
    # embedding 0; block 1 with part 2, called twice; block 3; head 4. Times in seconds.
    marks = [(BEGIN, 0.0), (0, 1.0), (~0, 2.0), (1, 3.0), (2, 3.5), (~2, 4.0), (2, 4.0), (~2, 5.0), (~1, 6.0)]
    marks += [(3, 7.0), (~3, 9.0), (4, 9.5), (~4, 11.5), (END, 12.0)]
    spans = fold(marks)
    assert spans.step_s == 12.0
    assert spans.layer_s == {0: 1.0, 1: 3.0, 2: 1.5, 3: 2.0, 4: 2.0}
    assert spans.self_s == {0: 1.0, 1: 1.5, 2: 1.5, 3: 2.0, 4: 2.0}
    assert spans.entered == (0, 1, 2, 3, 4)


@pytest.mark.parametrize(
    "marks",
    [
        [],
        [(BEGIN, 0.0)],
        [(BEGIN, 0.0), (0, 1.0), (END, 2.0)],
        [(BEGIN, 0.0), (~0, 1.0), (END, 2.0)],
        [(BEGIN, 0.0), (0, 1.0), (1, 2.0), (~0, 3.0), (~1, 4.0), (END, 5.0)],
    ],
)
def test_marks_that_make_no_step_are_refused(marks: list[tuple[int, float]]) -> None:
    with pytest.raises(Bug):
        fold(marks)


def test_a_device_whose_queue_cannot_be_timed_is_refused() -> None:
    with pytest.raises(NotSupported, match="'mps'"):
        clock_for("mps")


# --- counts -------------------------------------------------------------------------------------------------------
def test_flops_bytes_and_shapes_of_a_linear_layer(gpt2: CausalWorkload) -> None:
    layers = select_layers(gpt2.model, gpt2.blocks, "leaf")
    gpt2.reserve([point := Point(PREFILL, 7, 0, 1)])
    counts = {layers[code].path: found for code, found in count_step(gpt2.step_at(point), layers).items()}
    linear = counts["transformer.h.0.mlp.c_fc"]
    assert linear.flops == 2 * 7 * 64 * 256
    assert linear.moved_bytes == 4 * (64 * 256 + 256 + 7 * 64 + 7 * 256)
    assert linear.activation_bytes == linear.peak_memory_change_bytes == 4 * 7 * 256
    assert linear.inputs[0].shape == (1, 7, 64) and linear.outputs[0].shape == (1, 7, 256)
    assert counts["transformer.wte"].moved_bytes == 2 * 4 * 7 * 64, "a lookup reads its rows, not the table"
    attention = counts["transformer.h.0.attn"]
    assert attention.flops == 2 * 7 * 64 * 192 + 2 * 7 * 64 * 64 + 2 * 7 * 7 * (64 + 64)
    assert counts["transformer.h.0"].flops == attention.flops + counts["transformer.h.0.mlp"].flops
    assert counts["lm_head"].flops == 2 * 64 * 512, "only the last token's logits"
    block = counts["transformer.h.0"]
    assert block.peak_memory_change_bytes >= counts["transformer.h.0.mlp"].peak_memory_change_bytes > linear.peak_memory_change_bytes


def test_grouped_heads_are_counted(cache: Path) -> None:
    mistral = load_workload(ModelRef("mistral:tiny", 0), cache_dir=cache)
    mistral.reserve([point := Point(DECODE, 1, 9, 1)])
    layers = select_layers(mistral.model, mistral.blocks, "layer")
    counts = {layers[code].path: found for code, found in count_step(mistral.step_at(point), layers).items()}
    assert counts["model.layers.0.self_attn"].inputs[0].shape == (1, 1, 64), "given by keyword"
    heads, size = 4, 16
    linear = 2 * 64 * (2 * 64 + 2 * 2 * size)
    assert counts["model.layers.0.self_attn"].flops == linear + 2 * heads * 10 * 2 * size


def test_the_roofline_says_why() -> None:
    roof = Roofline(flops_per_s=1e12, bytes_per_s=1e10)
    assert explain(1.2e-2, 10**9, 10**8, roof)[0] is Bound.MEMORY
    assert explain(1.2e-2, 10**10, 10**6, roof)[0] is Bound.COMPUTE
    bound, why = explain(1e-1, 10**9, 10**8, roof)
    assert bound is Bound.OVERHEAD and "100,000 us" in why and "10,000 us" in why


# --- the whole ----------------------------------------------------------------------------------------------------
def test_steps_are_taken_at_their_points(gpt2: CausalWorkload, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[tuple[int, list[int], list[int]]] = []
    stage = gpt2._stage
    forward = stage.forward

    def spy(rows: Any, hidden: Any) -> Any:
        taken.append((len(rows), [stage.length(s) for s, _ in rows], [len(ids) for _, ids in rows]))
        return forward(rows, hidden)

    monkeypatch.setattr(stage, "forward", spy)
    points = [Point(DECODE, 1, 40, 2), Point(PREFILL, 8, 16, 1), Point(DECODE, 1, 3, 3), Point(DECODE, 1, 60, 1)]
    gpt2.reserve(points)
    allocated = stage.kv.used_bytes
    for point in points * 2:
        gpt2.step_at(point)()
    assert taken == [(p.batch, [p.context] * p.batch, [p.tokens] * p.batch) for p in points * 2]
    assert stage.kv.used_bytes == allocated, "no step makes a buffer larger, which would be timed with it"
    stage.kv.check()


@pytest.fixture(scope="module")
def profile(gpt2: CausalWorkload) -> Iterator[Profile]:
    """All times, the budget too, are what the thread computed: a machine that is busy with other things tells the same."""
    said: list[float] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clocks, "perf_counter_ns", thread_time_ns)
        for module in (collector_module, profiler):
            patch.setattr(module, "perf_counter", thread_time)
        engine = WorkloadProfiler(gpt2, quick=True, budget_s=4.0, on_progress=lambda done, _: said.append(done))
        yield profile_of(gpt2, engine.run(), depth="layer")
    assert said == sorted(said) and said[-1] == 1.0


def test_a_profile_of_a_decoder_is_whole(profile: Profile) -> None:
    assert [len(profile.layers), len(profile.items)] == [16, 6]
    assert profile.phases == (PREFILL, DECODE)
    assert Profile.from_json(profile.to_json()) == profile
    assert [layer.item for layer in profile.layers] == [0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4, 5, 5]
    assert [layer.kv_bytes_per_token for layer in profile.layers[:6]] == [0, 0, 512, 512, 0, 512]
    for step in profile.steps:
        assert step.plain_p50_s > 0 and step.num_samples >= 2
        assert all(0 < item.at(step.point).time_s <= step.items_s for item in profile.items)  # type: ignore[union-attr]
    assert sum(item.at(step.point).time_s for item in profile.items) == pytest.approx(step.items_s)  # type: ignore[union-attr]


def test_a_profile_says_how_far_to_trust_it(profile: Profile) -> None:
    honesty = profile.honesty
    assert -0.5 < honesty.overhead < 1.0 and 0 < honesty.overhead_error < 1.0
    assert 0.5 < honesty.coverage < 2.0 and 0 < honesty.layer_coverage < 2.0
    assert honesty.num_steps > 2 * len(profile.steps) and honesty.spent_s > 0
    assert profile.environment.libraries["torch"] == torch.__version__
    assert profile.environment.num_threads == torch.get_num_threads()
    assert profile.random_weights and "random weights" in profile.model
    assert profile.cost_model is not None and {e.held_out for e in profile.cost_model.errors} == {True, False}


def test_layers_inside_a_block_take_no_longer_than_it(profile: Profile) -> None:
    point = profile.reference_point(DECODE)
    for block in (layer for layer in profile.layers if layer.role is Role.BLOCK):
        inside = [layer.at(point).self_s for layer in profile.layers if layer.parent == block.path]  # type: ignore[union-attr]
        assert len(inside) == 2 and block.at(point).self_s > 0  # type: ignore[union-attr]
        assert sum(inside) < block.at(point).total_s  # type: ignore[union-attr]


def test_an_encoder_is_profiled_forward_only(cache: Path) -> None:
    workload = load_workload(ModelRef("bert:tiny", 0), cache_dir=cache)
    profile = profile_of(workload, WorkloadProfiler(workload, quick=True, budget_s=1.0).run(), depth="layer")
    assert profile.phases == (FORWARD,)
    assert [item.name for item in profile.items] == ["embed", "layer.0", "layer.1", "layer.2", "layer.3", "head"]
    assert profile.items[1].weight_bytes > 0 and profile.items[1].kv_bytes_per_token == 0
    assert profile.bottleneck(FORWARD).share > 0
    assert profile.layers[-1].path == "pooler.dense" or profile.layers[-1].role is Role.HEAD


def test_the_same_seed_gives_the_same_encoder(cache: Path) -> None:
    first, second, other = (load_workload(ModelRef("bert:tiny", seed), cache_dir=cache).model for seed in (1, 1, 2))
    name, weight = next((n, p) for n, p in first.named_parameters() if p.dim() == 2)
    assert torch.equal(weight, second.get_parameter(name))
    assert not torch.equal(weight, other.get_parameter(name))


@pytest.mark.parametrize(("name", "error"), [("t5", NotSupported), ("vit", NotSupported), ("nonesuch", InvalidInput)])
def test_what_cannot_be_profiled_is_refused(name: str, error: type[Exception], cache: Path) -> None:
    with pytest.raises(error):
        load_workload(ModelRef(f"{name}:tiny", 0), cache_dir=cache)


def test_an_interrupt_of_the_served_steps_leaves_the_layers_and_no_cost_model(
    gpt2: CausalWorkload, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(gpt2, "served", interrupted)
    stops: list[str] = []
    found = profile_of(gpt2, WorkloadProfiler(gpt2, quick=True, budget_s=1.0, on_stop=lambda: stops.append("stop")).run(), depth="layer")
    assert stops == ["stop"] and found.layers and found.cost_model is None
    assert Profile.from_json(found.to_json()) == found
    with pytest.raises(KeyboardInterrupt):
        WorkloadProfiler(gpt2, quick=True, budget_s=1.0).run()
