"""Whether a device computes in a dtype: a matrix product is really run, and its result is compared with the exact one.

A flag or a compute capability says what should work. Builds without the kernel, emulation that raises only when it is
called, and cards that answer nonsense are found by running. A probe may end the process (an illegal instruction): run it
in one that may end.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from engine.model.hardware.roofline import product
from engine.profile.hardware import BFLOAT16, DTYPES, FLOAT16, FLOAT32, INT8

_ROWS, _INNER, _COLUMNS = 32, 64, 48  # int8 on CUDA wants more than 16 rows and multiples of 8
# Largest error of a sum of 64 products of numbers in [-1, 1], relative to the largest result. TF32 has float16's mantissa.
_TOLERANCE = {FLOAT32: 4e-3, BFLOAT16: 3e-2, FLOAT16: 4e-3, INT8: 0.0}


@dataclass(frozen=True, slots=True)
class Probe:
    """One dtype on one device. `error` is relative to the largest entry of the exact product; -1 when nothing came."""

    device: str
    dtype: str
    works: bool
    text: str  # a sentence
    error: float = -1.0


@torch.inference_mode()
def probe(device: str, dtype: str) -> Probe:
    """Run the product and check it. Never raises for what a device cannot do."""
    left, right = _matrices(dtype)
    exact = left.double() @ right.double()
    try:
        found = product(left.to(device), right.to(device)).cpu().double()
    except Exception as error:  # torch raises RuntimeError, NotImplementedError, and its own kinds of both
        reason = (str(error).strip().splitlines() or [""])[0][:200]
        return Probe(device, dtype, False, f"the product was refused: {type(error).__name__}: {reason}")
    if not bool(torch.isfinite(found).all()):
        return Probe(device, dtype, False, "the product is not finite")
    largest = float((found - exact).abs().max() / exact.abs().max())
    works = largest <= _TOLERANCE[dtype]
    text = f"the product ran, largest error {largest:.1e}"
    return Probe(device, dtype, works, text if works else f"{text}, at most {_TOLERANCE[dtype]:.1e} is right", largest)


def probe_all(device: str) -> tuple[Probe, ...]:
    """Every dtype that NoodleCore knows."""
    return tuple(probe(device, dtype) for dtype in DTYPES)


def _matrices(dtype: str) -> tuple[torch.Tensor, torch.Tensor]:
    """[_ROWS, _INNER] and [_INNER, _COLUMNS], the same every time, no row or column like another."""
    generator = torch.Generator().manual_seed(1)
    left = torch.rand(_ROWS, _INNER, generator=generator) * 2 - 1
    right = (torch.rand(_COLUMNS, _INNER, generator=generator) * 2 - 1).t()  # long side contiguous, as weights are kept
    if dtype == INT8:
        return (left * 127).round().to(torch.int8), (right * 127).round().to(torch.int8)
    wanted: torch.dtype = getattr(torch, dtype)
    return left.to(wanted), right.to(wanted)
