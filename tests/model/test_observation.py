"""ObservabilityEngine over modules of any kind: what it reads, and that nothing of it stays behind."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from engine.data.errors import InvalidInput
from engine.model.profiling.observation import ObservabilityEngine


class Stubborn(nn.Module):
    """Swallows what one of its parts raises, and calls another one twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.bad, self.last = nn.Linear(4, 4), Refusing(), nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> Any:
        try:
            x = self.bad(self.first(x))
        except RuntimeError:
            x = x + 1
        return self.last(self.last(x))


class Refusing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.asked += 1
        if self.asked % 2 == 0:
            raise RuntimeError("not every time")
        return x


def chain() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Sequential(nn.Linear(16, 16), nn.Linear(16, 2)))


def hooks_of(module: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in module.modules())


def test_a_block_sees_every_call_and_leaves_nothing() -> None:
    model, x = chain(), torch.randn(3, 8)
    alone = model(x)
    with ObservabilityEngine(model) as watched:
        answers = [model(x) for _ in range(4)]
        assert hooks_of(model) == 2 * (4 + 1) + 1
    assert all(torch.equal(answer, alone) for answer in answers) and hooks_of(model) == 0
    model(x)
    assert watched.num_steps == 4 and [layer.path for layer in watched.layers] == ["0", "1", "2.0", "2.1"]
    first = watched.layers[0]
    assert first.num_steps == 4 and 0 < first.p50_s <= first.worst_s and first.param_bytes == 4 * (8 * 16 + 16)
    assert watched.text().count("!!") == 1 and "4 steps" in watched.text() and watched.text().isascii()


def test_an_exception_leaves_no_hook_and_no_half_step() -> None:
    model = chain()
    with pytest.raises(RuntimeError), ObservabilityEngine(model) as watched:
        model(torch.randn(3, 8))
        model(torch.randn(3, 9))
    assert hooks_of(model) == 0 and watched.num_steps == 1
    with watched:
        model(torch.randn(3, 8))
    assert watched.num_steps == 2, "a second block goes on where the first one stopped"


def test_a_model_that_survives_its_parts_exceptions_still_answers() -> None:
    model, x = Stubborn(), torch.randn(2, 4)
    with ObservabilityEngine(model) as watched:
        for _ in range(4):
            assert model(x).shape == (2, 4)
    assert hooks_of(model) == 0
    assert watched.num_steps == 2, "steps in which a part raised are left out"
    last = next(layer for layer in watched.layers if layer.path == "last")
    assert last.num_steps == 2


def test_one_block_at_a_time() -> None:
    engine = ObservabilityEngine(chain())
    with engine, pytest.raises(InvalidInput, match="is watched already"):
        engine.__enter__()
    assert hooks_of(engine.model) == 0 and engine.text() == "Sequential: no call has ended yet"


def test_what_parts_hold_can_be_watched_too() -> None:
    model = nn.Module()
    model.body = nn.ModuleList([nn.TransformerEncoderLayer(8, 2, 16, batch_first=True) for _ in range(2)])  # type: ignore[assignment]
    model.forward = lambda x: model.body[1](model.body[0](x))  # type: ignore[assignment, index, operator]
    with ObservabilityEngine(model, inside=True) as watched:
        model(torch.randn(1, 3, 8))
    paths = [layer.path for layer in watched.layers]
    assert {"body.0", "body.0.linear1", "body.1.norm2"} <= set(paths) and hooks_of(model) == 0
    outer, inner = (next(layer for layer in watched.layers if layer.path == path) for path in ("body.0", "body.0.linear1"))
    assert inner.p50_s <= outer.p50_s and outer.self_s < outer.p50_s


def test_a_chain_becomes_a_profile_whose_items_are_its_parts() -> None:
    model, x = chain(), torch.randn(3, 8)
    made = ObservabilityEngine(model, name="mine").profile(lambda: model(x), num_steps=8)
    assert made.model == "mine" and made.phases == ("forward",) and hooks_of(model) == 0
    assert [item.name for item in made.items] == ["0", "1", "2.0", "2.1"]
    assert [item.weight_bytes for item in made.items] == [4 * (8 * 16 + 16), 0, 4 * (16 * 16 + 16), 4 * (16 * 2 + 2)]
    assert [item.output_bytes_per_token for item in made.items] == [4 * 3 * 16] * 3 + [4 * 3 * 2]
    (point,) = made.points
    items_s = sum(figures.time_s for item in made.items if (figures := item.at(point)))
    assert math.isclose(items_s, made.step(point).items_s) and items_s > 0
    assert made.layers[0].figures[0].flops == 2 * 3 * 8 * 16 and [layer.item for layer in made.layers] == [0, 1, 2, 3]
    assert type(made).from_json(made.to_json()) == made


def test_what_is_no_chain_or_no_part_is_refused() -> None:
    model = Stubborn()
    with pytest.raises(InvalidInput, match=r"\(first, bad, last\) are not called once each and in this order"):
        ObservabilityEngine(model).profile(lambda: model(torch.randn(2, 4)))
    assert hooks_of(model) == 0
    with pytest.raises(InvalidInput, match="Stubborn has no part 'nose': it has bad, first, last"):
        ObservabilityEngine(model, parts=["nose"])
    with pytest.raises(InvalidInput, match="nothing to tell apart"):
        ObservabilityEngine(nn.ReLU())
    failing = chain()
    with pytest.raises(ZeroDivisionError):
        ObservabilityEngine(failing).profile(lambda: 1 / 0)
    assert hooks_of(failing) == 0
