"""Tensors as bytes: exact round trips, and each kind of damage is refused with its numbers."""

from __future__ import annotations

import zlib

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.data.errors import Corrupt, InvalidInput
from engine.service.worker import payload

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(DTYPES), st.integers(1, 7), st.integers(1, 9), st.integers(0, 2**31))
def test_round_trip_is_exact(dtype: torch.dtype, rows: int, columns: int, seed: int) -> None:
    tensor = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)).to(dtype)
    number, raw = payload.encode(tensor.t().contiguous().t())
    back = payload.decode(raw, number, (rows, columns), zlib.crc32(raw), (rows, columns))
    assert back.dtype == dtype and torch.equal(back, tensor)


@pytest.mark.parametrize("seed", range(3))
def test_8_bit_keys_and_values_cross_as_they_are_kept(seed: int) -> None:
    kept = torch.randint(-128, 128, (3, 5, 12), dtype=torch.int8, generator=torch.Generator().manual_seed(seed))
    number, raw = payload.encode(kept)
    assert len(raw) == kept.numel() and torch.equal(payload.decode(raw, number, kept.shape, zlib.crc32(raw), kept.shape), kept)


def test_damage_is_refused() -> None:
    number, raw = payload.encode(torch.ones(2, 3))
    crc, flipped = zlib.crc32(raw), bytes([raw[0] ^ 1]) + raw[1:]
    with pytest.raises(Corrupt, match="checksum"):
        payload.decode(flipped, number, (2, 3), crc, (2, 3))
    with pytest.raises(Corrupt, match="20 payload bytes arrived, shape"):
        payload.decode(raw[:-4], number, (2, 3), crc, (2, 3))
    with pytest.raises(InvalidInput, match=r"\(3, 2\) arrived, this stage expects \(2, 3\)"):
        payload.decode(raw, number, (3, 2), crc, (2, 3))
    with pytest.raises(InvalidInput, match="dtype number 9"):
        payload.decode(raw, 9, (2, 3), crc, (2, 3))
    with pytest.raises(Corrupt, match="stage 0-3 produced non-finite"):
        payload.check_finite(torch.tensor([1.0, float("inf")]), "stage 0-3")
