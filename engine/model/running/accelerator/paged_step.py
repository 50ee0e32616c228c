"""The numbers of one step over pages, on the device.

Everything about a step that a kernel must know is in tensors, so that a recorded step can be replayed with other numbers.

Shapes: T packed tokens, R rows, N tiles of prompt tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

_ALIGNMENT = 16  # int64 numbers: kernels are compiled for pointers that are multiples of 16 bytes


@dataclass(frozen=True, slots=True)
class PagedStep:
    """Numbers of a step, int64 on the device."""

    token_ids: torch.Tensor  # [T]
    positions: torch.Tensor  # [T]
    rows: torch.Tensor  # [T], of the page table
    num_rows: int
    lone: torch.Tensor | None = None  # packed positions of rows with one token; None if all rows have one
    tiles: torch.Tensor | None = None  # [N, 2]: first packed token and number of tokens, of longer rows; None if there are none
    last: torch.Tensor | None = None  # packed positions of the tokens whose logits are wanted; None if all rows have one token

    @property
    def num_tokens(self) -> int:
        return self.token_ids.shape[0]

    @classmethod
    def of(
        cls, numbers: Sequence[Sequence[int]], sizes: Sequence[int], tile_tokens: int, device: str, num_logits: Sequence[int] | None = None
    ) -> PagedStep:
        """A step of any rows: `numbers` are token ids, positions and table rows of its tokens, `sizes` tokens of each row, `num_logits`
        for how many of each row's last tokens logits are wanted; one of each if it is None."""
        if all(size == 1 for size in sizes):
            token_ids, positions, rows = upload(numbers, device)
            return cls(token_ids, positions, rows, len(sizes))
        starts, start = [], 0
        for size in sizes:
            starts.append(start)
            start += size
        lone = [at for at, size in zip(starts, sizes, strict=True) if size == 1]
        tiles = [
            number
            for at, size in zip(starts, sizes, strict=True)
            if size > 1
            for tile in range(0, size, tile_tokens)
            for number in (at + tile, min(tile_tokens, size - tile))
        ]
        wanted = num_logits or [1] * len(sizes)
        last = [at + size - n + i for at, size, n in zip(starts, sizes, wanted, strict=True) for i in range(n)]
        ids, positions, rows, lone_at, tiles_at, last_at = upload([*numbers, lone, tiles, last], device)
        return cls(ids, positions, rows, len(sizes), lone_at, tiles_at.view(-1, 2), last_at)


def upload(lists: Sequence[Sequence[int]], device: str) -> list[torch.Tensor]:
    """Lists of numbers as int64 tensors on the device, by one copy."""
    padded = [-(-len(numbers) // _ALIGNMENT) * _ALIGNMENT for numbers in lists]
    flat = torch.tensor([n for numbers, size in zip(lists, padded, strict=True) for n in (*numbers, *([0] * (size - len(numbers))))])
    there = flat.to(device, torch.int64)
    parts, at = [], 0
    for numbers, size in zip(lists, padded, strict=True):
        parts.append(there[at : at + len(numbers)])
        at += size
    return parts
