"""Shortened forwards compute what the modules' own do, for any number of rows and however the weights lie."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from engine.model.running import rows
from engine.model.running.loading import empty_weight
from engine.model.running.rows import FEWEST_ROWS, MOST_ROWS, shorten_forwards

COUNTS = (1, 2, FEWEST_ROWS - 1, FEWEST_ROWS, 8, MOST_ROWS, MOST_ROWS + 1)
SHAPES = ((48, 16), (16, 48), (24, 24))  # in, out


def filled(module: nn.Module) -> nn.Module:
    """`module` with its weight in memory as a stage lays it out."""
    weight = empty_weight(module.weight.shape, torch.float32, "cpu", long_side_contiguous=True)
    with torch.no_grad():
        module.weight = nn.Parameter(weight.copy_(torch.randn(module.weight.shape)), requires_grad=False)
        module.bias.copy_(torch.randn(module.bias.shape))
    return module


@pytest.mark.parametrize("kind", [nn.Linear, lambda n_in, n_out: Conv1D(n_out, n_in)], ids=["Linear", "Conv1D"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_linear_layers_compute_the_same(kind: type, shape: tuple[int, int]) -> None:
    module = filled(kind(*shape))
    hidden = [torch.randn(1, n, shape[0]) for n in COUNTS]
    expected = [module(h) for h in hidden]
    shorten_forwards(module)
    with torch.inference_mode():
        for h, want in zip(hidden, expected, strict=True):
            torch.testing.assert_close(module(h), want, rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(not rows._suits_onednn(torch.zeros(2, 2)), reason="this machine's torch multiplies without oneDNN")
def test_a_few_rows_take_onednn_where_the_weight_lies_that_way(monkeypatch: pytest.MonkeyPatch) -> None:
    module, calls = filled(nn.Linear(48, 16)), []
    shorten_forwards(module)
    monkeypatch.setattr(rows, "linear", lambda h, w, b: calls.append(h.shape[1]))
    for n in COUNTS:
        module(torch.randn(1, n, 48))
    assert calls == [1, 2, FEWEST_ROWS - 1, MOST_ROWS + 1]
    tall = filled(nn.Linear(16, 48))
    shorten_forwards(tall)
    assert "forward" not in vars(tall), "it lies along its longer side, which is the better way for one row"
