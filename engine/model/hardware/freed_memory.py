"""Gives freed memory back to the system; the C library and torch keep it for themselves otherwise."""

from __future__ import annotations

import ctypes
import gc
from contextlib import suppress

import torch


def release_memory() -> None:
    """Hand back all that can be had, whoever freed it: garbage, CUDA's cached blocks, the C library's buffers."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return_freed_buffers()


def give_back_beyond(num_bytes: int, device: str) -> None:
    """Hand a GPU's freed memory back if torch keeps more than that of it: the device stands still for a moment."""
    if device.startswith("cuda") and torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device) > num_bytes:
        torch.cuda.empty_cache()


def return_freed_buffers() -> None:
    """Ask the C library to give freed buffers back; glibc keeps those of a conversion otherwise, as large as a block."""
    with suppress(OSError, AttributeError, TypeError):  # other platforms have no malloc_trim and need none
        ctypes.CDLL(None).malloc_trim(0)
