"""How keys and values are kept: in the dtype that a stage computes in, in a smaller one, or in 8 bits with a scale.

In 8 bits each head's key or value of a token is rounded by itself: its numbers, then the 4 bytes of their float32 scale, which is
their largest / 127. Nothing depends on the tokens or heads beside it, so what is kept has the same bits whoever computed it and when.

Shapes: H heads, n tokens, K numbers of a head.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch.linalg import vector_norm

from engine.data.errors import InvalidInput
from engine.data.precision import KV_SCALE_BYTES

_LARGEST = 127
_LEAST_SCALE = 1e-30  # of a head of zeros
KEPT_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "int8": torch.int8}


def kept_torch_dtype(kv_dtype: str) -> torch.dtype:
    """The torch dtype of that name. Raises InvalidInput for one that KV cannot be kept in."""
    if kv_dtype not in KEPT_DTYPES:
        raise InvalidInput(f"KV dtype {kv_dtype[:80]!r} is not known: use auto, {', '.join(KEPT_DTYPES)}")
    return KEPT_DTYPES[kv_dtype]


@dataclass(frozen=True, slots=True)
class KVFormat:
    """From the dtype that a stage computes in to the one in which it keeps KV, and back."""

    computed: torch.dtype
    kept: torch.dtype

    @property
    def is_plain(self) -> bool:
        """Nothing is rounded."""
        return self.kept == self.computed

    def kept_size(self, size: int) -> int:
        """Numbers of `kept` that a head's `size` numbers of one token take."""
        return size + KV_SCALE_BYTES if self.kept == torch.int8 else size

    def to_kept(self, numbers: torch.Tensor) -> torch.Tensor:
        """[H, n, K] as it is kept, [H, n, kept_size(K)]."""
        if self.kept != torch.int8:
            return numbers if numbers.dtype == self.kept else numbers.to(self.kept)
        exact = numbers.float()
        scales = vector_norm(exact, math.inf, -1, keepdim=True).div_(_LARGEST).clamp_min_(_LEAST_SCALE)  # [H, n, 1]
        return torch.cat(((exact / scales).round_().to(torch.int8), scales.view(torch.int8)), -1)

    def to_computed(self, kept: torch.Tensor) -> torch.Tensor:
        """[H, n, kept_size(K)] as it is computed with, [H, n, K]; the very tensor if nothing was rounded."""
        if self.kept != torch.int8:
            return kept if kept.dtype == self.computed else kept.to(self.computed)
        scales = kept[..., -KV_SCALE_BYTES:].clone(memory_format=torch.contiguous_format).view(torch.float32)  # [H, n, 1], aligned
        return (kept[..., :-KV_SCALE_BYTES] * scales).to(self.computed)
