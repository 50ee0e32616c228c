"""Hidden states to bytes and back, checked. Worker side only: this file imports torch.

Tensors travel as row-major little-endian bytes with a closed set of dtypes, an explicit shape and a crc32; no pickle.
"""

from __future__ import annotations

import math
import zlib
from typing import NoReturn

import torch

from engine.data.errors import Corrupt, InvalidInput
from protos import noodle_pb2 as pb

_DTYPES: dict[int, torch.dtype] = {
    pb.DTYPE_FLOAT32: torch.float32,
    pb.DTYPE_BFLOAT16: torch.bfloat16,
    pb.DTYPE_FLOAT16: torch.float16,
    pb.DTYPE_INT8: torch.int8,
}
_NUMBERS = {dtype: number for number, dtype in _DTYPES.items()}


def dtype_of(number: int) -> torch.dtype:
    """Raises InvalidInput for a number that means none."""
    dtype = _DTYPES.get(number)
    if dtype is None:
        raise InvalidInput(f"dtype number {number} is unknown: this version knows {sorted(_DTYPES)}")
    return dtype


def number_of(dtype: torch.dtype) -> int:
    """As it travels."""
    return _NUMBERS[dtype]


def encode(tensor: torch.Tensor) -> tuple[int, bytes]:
    """(dtype number, bytes) of a CPU or device tensor."""
    flat = tensor.detach().to("cpu").contiguous().view(torch.uint8)
    return _NUMBERS[tensor.dtype], flat.numpy().tobytes()


def decode(payload: bytes, dtype_number: int, shape: tuple[int, ...], crc32: int, expected_shape: tuple[int, ...]) -> torch.Tensor:
    """The tensor in `payload`; raises InvalidInput if it does not have `expected_shape`, Corrupt if the bytes are damaged."""
    dtype = dtype_of(dtype_number)
    if shape != expected_shape:
        raise InvalidInput(f"hidden states of shape {shape} arrived, this stage expects {expected_shape}")
    num_bytes = math.prod(shape) * dtype.itemsize
    if num_bytes != len(payload):
        raise Corrupt(f"{len(payload)} payload bytes arrived, shape {shape} of {dtype} needs {num_bytes}")
    if zlib.crc32(payload) != crc32:
        raise Corrupt(f"the checksum of {len(payload)} payload bytes is wrong: they were damaged on the way")
    return torch.frombuffer(bytearray(payload), dtype=dtype).reshape(shape)


def checked_on_host(tensor: torch.Tensor, where: str) -> torch.Tensor:
    """The tensor in the host's memory; raises Corrupt as `check_finite`. Of a GPU's the answer and the values come by one wait."""
    if not tensor.is_cuda:
        check_finite(tensor, where)
        return tensor
    is_finite = torch.isfinite(tensor).all()
    here, answer = (torch.empty(t.shape, dtype=t.dtype, pin_memory=True) for t in (tensor, is_finite))
    here.copy_(tensor, non_blocking=True)
    answer.copy_(is_finite, non_blocking=True)
    torch.cuda.current_stream(tensor.device).synchronize()
    if not answer:
        raise_non_finite(where)
    return here


def check_finite(tensor: torch.Tensor, where: str) -> None:
    """Raise Corrupt if a value is infinite or not a number."""
    if not torch.isfinite(tensor).all():
        raise_non_finite(where)


def raise_non_finite(where: str) -> NoReturn:
    """`where` names the stage that made them. Raises Corrupt."""
    raise Corrupt(f"{where} produced non-finite values: the weights or this dtype's range are at fault; try --dtype float32")
