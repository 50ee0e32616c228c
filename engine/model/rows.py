"""Cheaper forwards for modules that every decode row passes through; the arithmetic stays the same.

At one row per step a small model spends a tenth of its time between kernels. Modules are matched by their exact class,
so a subclass that does something else keeps its own forward.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.functional import gelu


def _same(hidden: torch.Tensor) -> torch.Tensor:
    return hidden


def _conv1d(weight: torch.Tensor, bias: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    """`transformers.pytorch_utils.Conv1D`: a linear layer whose weight is [in, out]."""
    if hidden.dim() != 3:
        return torch.addmm(bias, hidden.reshape(-1, weight.shape[0]), weight).view(*hidden.shape[:-1], weight.shape[1])
    return torch.addmm(bias, hidden[0], weight).unsqueeze(0) if hidden.shape[0] == 1 else hidden @ weight + bias


def shorten_forwards(model: nn.Module) -> None:
    """Replace the forwards of filled modules in place. Call it once the weights are there: the forwards hold them."""
    for module in model.modules():
        forward = _shorter(module)
        if forward is not None:
            module.forward = forward


def _shorter(module: Any) -> Callable[[torch.Tensor], torch.Tensor] | None:
    name = type(module).__name__
    if type(module) is nn.Dropout:
        return _same  # a stage never trains
    if name == "Conv1D" and not module.weight.is_meta:
        return partial(_conv1d, module.weight, module.bias)
    if name == "NewGELUActivation":
        return partial(gelu, approximate="tanh")
    return None
