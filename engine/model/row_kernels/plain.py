"""The row kernels as chains of torch's operations: what the compiled ones are compared with, and what runs where those are missing.

Shapes: T rows or tokens, D or K numbers of a row, N outputs of a product, H heads. All is float32.
"""

from __future__ import annotations

import math

import torch
from torch.linalg import vector_norm


def rms_norm(hidden: torch.Tensor, weight: torch.Tensor, eps: float, one_plus: bool) -> torch.Tensor:
    """Rows [.., D] over the root of their mean square, times `weight` [D], or 1 + `weight`."""
    scaled = hidden * torch.rsqrt(hidden.pow(2).mean(-1, keepdim=True) + eps)
    return scaled * (1.0 + weight) if one_plus else weight * scaled


def round_rows(rows: torch.Tensor, largest: int, num_parts: int, least: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows [T, K] to whole numbers of at most `largest`, each `num_parts` x upper + lower.

    Returns the upper part of every row, then the lower part of every row [2T, K], and scales [T, 1], at least `least`. With further
    dimensions before K the first one is doubled.
    """
    scales = torch.add(least, vector_norm(rows, math.inf, -1, keepdim=True), alpha=1 / largest)
    return in_parts((rows / scales).round_(), num_parts), scales


def in_parts(whole: torch.Tensor, num_parts: int) -> torch.Tensor:
    """Whole numbers [T, K], each `num_parts` x upper + lower: the upper parts, then the lower parts [2T, K]."""
    upper = torch.mul(whole, 1 / num_parts).round_()
    return torch.cat((upper, torch.sub(whole, upper, alpha=num_parts)))


def put_together(sums: torch.Tensor, scales: torch.Tensor, num_parts: int) -> torch.Tensor:
    """A product [T, N] of the sums [2T, N] of both parts: `num_parts` x upper + lower, scaled."""
    upper, lower = sums.chunk(2)
    return torch.add(lower, upper, alpha=num_parts).mul_(scales)


def put_token(heads: torch.Tensor, token: int, target: torch.Tensor, position: int) -> None:
    """Write one token of heads [H, T, K] to a position of the target [H, L, K]."""
    target[:, position] = heads[:, token]


def rotary(heads: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Heads [1, H, T, K], whose halves are turned against each other by cos and sin [1, T, K]."""
    first, second = heads.chunk(2, -1)
    return heads * cos.unsqueeze(1) + torch.cat((-second, first), -1) * sin.unsqueeze(1)
