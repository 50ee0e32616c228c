"""Cheaper forwards for modules that every decode row passes through; the arithmetic stays the same.

At one row per step a small model spends much of its time between kernels; norms and rotary positions are one call each where row kernels
with the same bits are compiled. For some rows at once oneDNN is faster than the product that torch takes, if the weight lies as [out,
in]: GPT-2's 3072 x 768 takes 0.47 instead of 0.63 ms for eight rows on two cores, Llama's 5632 x 2048 on one core 5.5 instead of 9.7 ms.
For fewer than four it is slower. Modules are matched by their exact class, so a subclass that does something else keeps its own forward.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.functional import gelu, linear

from engine.model.row_kernels import plain
from engine.model.row_kernels.kernels import row_kernels
from engine.model.running.pieces import find_norm, tried, with_rotary

FEWEST_ROWS, MOST_ROWS = 4, 64  # for which oneDNN is the faster one


def _same(hidden: torch.Tensor) -> torch.Tensor:
    return hidden


def _conv1d(weight: torch.Tensor, bias: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    """`transformers.pytorch_utils.Conv1D`: a linear layer whose weight is [in, out]."""
    if hidden.dim() != 3:
        return torch.addmm(bias, hidden.reshape(-1, weight.shape[0]), weight).view(*hidden.shape[:-1], weight.shape[1])
    return torch.addmm(bias, hidden[0], weight).unsqueeze(0) if hidden.shape[0] == 1 else hidden @ weight + bias


def _linear(weight: torch.Tensor, bias: torch.Tensor | None, hidden: torch.Tensor) -> torch.Tensor:
    """A linear layer whose weight is [out, in] and lies in memory like that."""
    if FEWEST_ROWS <= hidden.numel() // weight.shape[1] <= MOST_ROWS:
        product: torch.Tensor = torch.ops.mkldnn._linear_pointwise(hidden, weight, bias, "none", [], "")
        return product
    return linear(hidden, weight, bias)


def _row_or_rows(weight: torch.Tensor, bias: torch.Tensor, rows: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    """Conv1D with a weight that lies as its transpose `rows`, [out, in]."""
    many = hidden.dim() == 3 and FEWEST_ROWS <= hidden.shape[0] * hidden.shape[1] <= MOST_ROWS
    return _linear(rows, bias, hidden) if many else _conv1d(weight, bias, hidden)


def _row_norm(module: Any) -> Callable[[torch.Tensor], torch.Tensor] | None:
    """The forward of a root-mean-square norm as one call, if its bits are the same."""
    weight, own = module.weight, module.forward
    if weight.dim() != 1 or weight.device.type != "cpu" or weight.dtype is not torch.float32:
        return None
    kernel = row_kernels().rms_norm
    found = None if kernel is plain.rms_norm else find_norm(module, kernel, 0.0)
    if found is None:
        return None
    eps, one_plus = found

    def forward(hidden: torch.Tensor) -> torch.Tensor:
        return kernel(hidden, weight, eps, one_plus) if hidden.dtype is torch.float32 else own(hidden)

    return forward


def _rotary(query: torch.Tensor, key: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    turn = row_kernels().rotary
    return turn(query, cos, sin), turn(key, cos, sin)


def shorten_forwards(model: nn.Module) -> None:
    """Replace the forwards of filled modules in place. Call it once the weights are there: the forwards hold them."""
    for module in model.modules():
        forward = _shorter(module)
        if forward is not None:
            module.forward = forward


def turn_in_one_call(blocks: nn.Module) -> None:
    """Have blocks that compute in float32 on the CPU turn heads by their positions in one call, where its bits are the same."""
    if row_kernels().rotary is plain.rotary:
        return
    for module in blocks.modules():
        forward = tried(lambda module: with_rotary(module, _rotary, torch.zeros(0), 0.0), module)
        if forward is not None:
            module.forward = forward


def _shorter(module: Any) -> Callable[[torch.Tensor], torch.Tensor] | None:
    name = type(module).__name__
    if (norm := tried(_row_norm, module)) is not None:
        return norm
    if type(module) is nn.Dropout:
        return _same  # a stage never trains
    if type(module) is nn.Linear and _suits_onednn(module.weight):
        return partial(_linear, module.weight, module.bias)
    if name == "Conv1D" and not module.weight.is_meta:
        if _suits_onednn(module.weight.t()):
            return partial(_row_or_rows, module.weight, module.bias, module.weight.t())
        return partial(_conv1d, module.weight, module.bias)
    if name == "NewGELUActivation":
        return partial(gelu, approximate="tanh")
    return None


def _suits_onednn(weight: torch.Tensor) -> bool:
    """Whether a filled weight [out, in] lies as oneDNN wants it, on a machine where that was found to be faster."""
    is_plain = weight.dtype == torch.float32 and weight.device.type == "cpu" and weight.is_contiguous()
    return is_plain and platform.machine() in ("x86_64", "AMD64") and hasattr(torch.ops.mkldnn, "_linear_pointwise")
