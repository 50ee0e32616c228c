"""What this machine offers a worker: a device, its name, threads, and memory. Knows nothing of models."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch

from engine.data.errors import InvalidInput
from engine.model.hardware.cpu import cache_bytes, cpu_name
from engine.model.hardware.limits import cpu_memory_bytes, num_cores

_HEADROOM = 0.9  # of what is free: the rest is for the interpreter, messages, activations and the neighbours
_BESIDE_ON_GPU_BYTES = 2**31  # what recorded steps, logits, parts of attention and libraries take there, however small the card
_KV_SHARE = 0.25
_MIN_KV_BYTES = 64 * 2**20
_MIN_MEMORY_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True)
class Hardware:
    """What a worker may use; the fields are those of NodeSpec that a machine decides."""

    device: str  # "cpu", "cuda:0", "mps"
    device_name: str
    num_threads: int  # of CPU work, also beside a GPU
    memory_bytes: int  # for weights and KV
    kv_budget_bytes: int  # the part of it meant for KV, when nothing else is said


def detect(device: str | None = None, memory_bytes: int | None = None, num_threads: int | None = None) -> Hardware:
    """The device asked for, or else the best one here; figures that are given are checked and kept.

    Raises InvalidInput for a device that is not there and for figures that this machine cannot meet.
    """
    chosen = check_device(device) if device is not None else default_device()
    total_bytes, free_bytes = _memory(chosen)
    memory = usable_memory(chosen)[0] if memory_bytes is None else memory_bytes
    if not _MIN_MEMORY_BYTES <= memory <= total_bytes:
        raise InvalidInput(
            f"memory of {memory:,} bytes is not possible on {chosen}: it must lie in [{_MIN_MEMORY_BYTES:,}, {total_bytes:,}]"
            f" ({free_bytes:,} are free now)"
        )
    return Hardware(chosen, device_name(chosen), _threads(num_threads), memory, default_kv_budget_bytes(memory))


def default_device() -> str:
    """The first GPU if torch can use one, else the CPU."""
    if torch.cuda.is_available():
        return "cuda:0"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def on_device(device: str) -> AbstractContextManager[object]:
    """The device is the thread's current one meanwhile: kernels of Triton and graphs run on that, wherever their tensors are."""
    return torch.cuda.device(device) if device.startswith("cuda") else nullcontext()


def check_device(device: str) -> str:
    """The device's full name, such as `cuda:0` for `cuda`. Raises InvalidInput, naming the devices that are here."""
    name = "cuda:0" if device == "cuda" else device
    if name not in (here := devices()):
        why = "" if not name.startswith("cuda") or torch.version.cuda else f"; torch {torch.__version__} was built without CUDA"
        raise InvalidInput(f"device {device!r} is not on this machine: use one of {', '.join(here)}{why}")
    return name


def devices() -> list[str]:
    """Every device that a worker could take here."""
    cuda = [f"cuda:{index}" for index in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    return ["cpu", *cuda, *(["mps"] if torch.backends.mps.is_available() else [])]


def device_name(device: str) -> str:
    """The name that its maker gave it."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(torch.device(device))
    return f"{cpu_name()} GPU" if device == "mps" else cpu_name()


def wait_for(device: str) -> None:
    """Return when the device has done all that it was told; a CPU does it at once."""
    if device != "cpu":
        torch.accelerator.synchronize(device)


def cache_bytes_of(device: str) -> int:
    """Size of the largest cache between the device and its memory."""
    return int(torch.cuda.get_device_properties(device).L2_cache_size) if device.startswith("cuda") else cache_bytes()


def default_kv_budget_bytes(memory_bytes: int) -> int:
    """A quarter of the memory, at least 64 MiB: what is left holds the weights, which are known before they load."""
    return min(memory_bytes, max(_MIN_KV_BYTES, int(memory_bytes * _KV_SHARE)))


def usable_memory(device: str) -> tuple[int, int]:
    """(usable, total) bytes: what a worker takes for weights and KV when nothing is said, and what the device has."""
    total, free = _memory(device)
    beside = _BESIDE_ON_GPU_BYTES if device.startswith("cuda") else 0
    return max(0, min(int(free * _HEADROOM), free - beside)), total


def _memory(device: str) -> tuple[int, int]:
    """(total, free) bytes of the device's memory."""
    if device.startswith("cuda"):
        free, total = torch.cuda.mem_get_info(torch.device(device))
        return total, free
    return cpu_memory_bytes()


def _threads(num_threads: int | None) -> int:
    cores = num_cores()
    if num_threads is None:
        return cores
    if not 1 <= num_threads <= 4 * cores:
        raise InvalidInput(f"num_threads {num_threads} is not allowed: this process may use {cores} cores, so give 1 to {4 * cores}")
    return num_threads
