"""GPUs as torch and the driver's library describe them: SMs, memory, integrated or dedicated, power limit."""

from __future__ import annotations

import ctypes
from contextlib import suppress
from dataclasses import dataclass

import torch

from engine.profile.hardware import DeviceType

_ATTRIBUTE_INTEGRATED = 18  # CU_DEVICE_ATTRIBUTE_INTEGRATED of cuda.h


@dataclass(frozen=True, slots=True)
class Gpu:
    """One CUDA device."""

    device: str  # "cuda:0"
    name: str
    device_type: DeviceType
    num_sms: int
    compute_capability: str  # "9.0"
    memory_total_bytes: int
    memory_free_bytes: int
    power_w: float | None


def read_gpus() -> tuple[Gpu, ...]:
    """Every CUDA device that torch can use."""
    if not torch.cuda.is_available():
        return ()
    return tuple(_read(index) for index in range(torch.cuda.device_count()))


def device_type(device: str) -> DeviceType:
    """What kind of device a name such as `cuda:1` stands for."""
    if not device.startswith("cuda"):
        return DeviceType.MPS if device == "mps" else DeviceType.CPU
    index = torch.device(device).index or 0
    return DeviceType.CUDA_INTEGRATED if _is_integrated(index) else DeviceType.CUDA


def _read(index: int) -> Gpu:
    device = f"cuda:{index}"
    facts = torch.cuda.get_device_properties(index)
    free, total = torch.cuda.mem_get_info(index)
    capability = f"{facts.major}.{facts.minor}"
    return Gpu(device, facts.name, device_type(device), facts.multi_processor_count, capability, total, free, _power_w(str(facts.uuid)))


def _is_integrated(index: int) -> bool:
    """By torch where it tells, else by the driver; a GPU that neither calls integrated is dedicated."""
    told = getattr(torch.cuda.get_device_properties(index), "is_integrated", None)
    if told is not None:
        return bool(told)
    with suppress(Exception):  # no driver library by that name, or one without these functions
        driver, value, handle = ctypes.CDLL("libcuda.so.1"), ctypes.c_int(0), ctypes.c_int(0)
        if driver.cuDeviceGet(ctypes.byref(handle), index) == 0:
            driver.cuDeviceGetAttribute(ctypes.byref(value), _ATTRIBUTE_INTEGRATED, handle)
            return value.value == 1
    return False


def _power_w(uuid: str) -> float | None:
    """The enforced limit; None where the driver's library does not tell (no library, a slice of a GPU, no right)."""
    with suppress(Exception):
        import pynvml

        pynvml.nvmlInit()
        try:
            handle = pynvml.nvmlDeviceGetHandleByUUID(uuid if uuid.startswith("GPU-") else f"GPU-{uuid}")
            return float(pynvml.nvmlDeviceGetEnforcedPowerLimit(handle)) / 1e3
        finally:
            pynvml.nvmlShutdown()
    return None
