"""What a worker tells of its device so that the coordinator can judge it: its kind, the dtypes that work, whose memory it uses."""

from __future__ import annotations

import platform
from dataclasses import dataclass

import torch

from engine.model.eight_bit_products import best_kernel
from engine.model.hardware.devices import usable_memory
from engine.model.hardware.gpu import device_type
from engine.model.hardware.limits import host_pool_id
from engine.model.hardware.probes import probe
from engine.profile.hardware import BFLOAT16, FLOAT16, FLOAT32, INT8, DeviceType

_MODEL_DTYPES = (FLOAT32, BFLOAT16, FLOAT16, INT8)


@dataclass(frozen=True, slots=True)
class DeviceFacts:
    """The fields of NodeSpec by these names."""

    device_type: str
    dtypes: tuple[str, ...]
    pool_id: str
    pool_bytes: int
    arithmetic: str


def describe_device(device: str) -> DeviceFacts:
    """Look and probe; a few milliseconds. A dedicated GPU's memory is a pool too: two workers on it share it."""
    kind = device_type(device)
    dtypes = tuple(dtype for dtype in _MODEL_DTYPES if (dtype != INT8 or kind is DeviceType.CPU) and probe(device, dtype).works)
    pool_id = f"gpu-{_gpu_name(device)}" if kind is DeviceType.CUDA else host_pool_id()
    return DeviceFacts(str(kind), dtypes, pool_id, usable_memory(device)[0], arithmetic(device))


def arithmetic(device: str) -> str:
    """What the last bits of a result depend on: torch's build and, on a CPU, the instructions that it and the 8-bit products use."""
    parts = [f"torch {torch.__version__}", device_type(device)]
    if device_type(device) is DeviceType.CPU:
        parts += [platform.machine(), torch.backends.cpu.get_cpu_capability(), f"8 bits {best_kernel()}"]
    return ", ".join(map(str, parts))


def _gpu_name(device: str) -> str:
    """The driver's id of the GPU; without one, the device on this host."""
    uuid = getattr(torch.cuda.get_device_properties(torch.device(device)), "uuid", None)
    return str(uuid) if uuid is not None else f"{host_pool_id()}-{device.replace(':', '')}"
