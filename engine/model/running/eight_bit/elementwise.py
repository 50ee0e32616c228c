"""Functions of single numbers, such as an activation, whose bits do not depend on where a number lies in its tensor.

Torch computes them for some numbers at once, and what is left over at the end of a tensor, or of a thread's share of it, by other code
with other last bits. So they are called with pieces that leave nothing over and that one thread computes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.functional import pad

_AT_ONCE = 32  # numbers that torch's widest loop takes: two AVX512 registers of float32
_PIECE = 2**14  # numbers; torch shares a call among threads from 2^15 on
_POSITIONS = 64  # of one call of a rotary table


def in_pieces(function: Callable[[torch.Tensor], torch.Tensor], numbers: torch.Tensor) -> torch.Tensor:
    """`function` of every number, in the shape of `numbers`."""
    if numbers.device.type != "cpu":
        return function(numbers)
    size = numbers.shape[-1]
    if size % _AT_ONCE == 0 and numbers.numel() <= _PIECE and numbers.is_contiguous():
        return function(numbers)
    padded = numbers if size % _AT_ONCE == 0 else pad(numbers, (0, -size % _AT_ONCE))
    flat = padded.reshape(-1)
    found = function(flat) if len(flat) <= _PIECE else torch.cat([function(piece) for piece in flat.split(_PIECE)])
    return found.view(padded.shape)[..., :size]


def fix_positions(model: nn.Module, blocks: nn.Module) -> None:
    """Have a model's activations and rotary tables compute in pieces. Call it once their forwards are the ones that run."""
    from transformers.activations import ACT2CLS

    kinds = tuple(entry[0] if isinstance(entry, tuple) else entry for entry in ACT2CLS.values())
    for module in blocks.modules():
        if type(module) in kinds:
            module.forward = partial(in_pieces, module.forward)
    for module in model.modules():
        if hasattr(module, "inv_freq"):
            module.forward = partial(_rotary, module.forward)


def _rotary(forward: Callable[..., Any], hidden: torch.Tensor, position_ids: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
    """Cosines and sines [1, T, K] of positions [1, T], always of the same number of positions in a call."""
    num_tokens = position_ids.shape[1]
    pieces = pad(position_ids, (0, -num_tokens % _POSITIONS)).split(_POSITIONS, 1)
    found = [forward(hidden, piece, *args, **kwargs) for piece in pieces]
    return tuple(torch.cat(parts, 1)[:, :num_tokens] for parts in zip(*found, strict=True))
