"""What the machine says of this process and its device: memory, CPU, GPU, temperatures.

Reading is cheap enough for every heartbeat; what is slow to read (temperatures, the GPU's driver) is read every `SLOW_S`
only. A sensor that is missing, refused or broken is None, never a fault.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil

from engine.data.status import Gauges
from engine.service.machine_sensors import MachineSensors

SLOW_S = 1.0
_HELD_DOWN = ((0x04 | 0x80, "power"), (0x20 | 0x40, "heat"), (0x08, "slowdown by the hardware"))  # bits of NVIDIA's clock event reasons
_CPU_CHIPS = ("coretemp", "k10temp", "zenpower", "cpu_thermal", "acpitz")


class Sensors:
    """`gpu_uuid` may be set later, when torch has said which GPU the worker has; it is used by one thread at a time."""

    def __init__(self) -> None:
        self.gpu_uuid = ""
        self.machine = MachineSensors()
        self._process = psutil.Process()
        self._process.cpu_percent()
        self._core_wait = CoreWait()
        self._slow_at_s = -SLOW_S
        self._slow = Gauges()
        self._gpu: Any = None

    def read(self) -> Gauges:
        """One look; what a worker counts itself stays 0."""
        now_s = time.monotonic()
        if now_s - self._slow_at_s >= SLOW_S:
            used, gpu_c = self._read_gpu()
            machine = replace(self.machine.read(), **self._read_gpu_power())
            self._slow = Gauges(
                gpu_utilisation=used,
                gpu_temperature_c=gpu_c,
                cpu_temperature_c=cpu_temperature_c(),
                machine=machine,
                core_wait=self._core_wait.read(),
            )
            self._slow_at_s = now_s
        memory = self._process.memory_info()
        return replace(self._slow, resident_bytes=memory.rss, cpu_utilisation=self._process.cpu_percent() / 100.0)

    def _read_gpu(self) -> tuple[float | None, float | None]:
        """(utilisation, temperature) of the worker's GPU."""
        if not self.gpu_uuid:
            return None, None
        try:
            import pynvml

            if self._gpu is None:
                pynvml.nvmlInit()
                self._gpu = pynvml.nvmlDeviceGetHandleByUUID(self.gpu_uuid)
        except Exception:  # no library, no driver, no permission: figures less, not a fault
            return None, None
        used = _nvml(lambda: pynvml.nvmlDeviceGetUtilizationRates(self._gpu).gpu / 100.0)
        return used, _nvml(lambda: float(pynvml.nvmlDeviceGetTemperature(self._gpu, pynvml.NVML_TEMPERATURE_GPU)))

    def _read_gpu_power(self) -> dict[str, Any]:
        """What it draws, what it may, and what holds its clock down; of a GPU that `_read_gpu` found."""
        if self._gpu is None:
            return {}
        import pynvml

        reasons = _nvml(lambda: pynvml.nvmlDeviceGetCurrentClocksThrottleReasons(self._gpu))
        power, limit = (
            _nvml(lambda: pynvml.nvmlDeviceGetPowerUsage(self._gpu)),
            _nvml(lambda: pynvml.nvmlDeviceGetEnforcedPowerLimit(self._gpu)),
        )
        held = None if reasons is None else ", ".join(name for bits, name in _HELD_DOWN if int(reasons) & bits)
        return {
            "gpu_power_w": None if power is None else power / 1e3,
            "gpu_power_limit_w": None if limit is None else limit / 1e3,
            "gpu_throttled": held,
        }


class CoreWait:
    """How many threads of this process waited for a core, on average since the look before; Linux tells it per thread."""

    def __init__(self) -> None:
        self._at_s = time.monotonic()
        self._waited_s = _waited_s()

    def read(self) -> float | None:
        """Only threads that both looks saw count. None where the machine does not tell."""
        now_s, waited_s, before_s = time.monotonic(), _waited_s(), self._waited_s
        elapsed_s, self._at_s, self._waited_s = now_s - self._at_s, now_s, waited_s
        if not waited_s or elapsed_s <= 0.0:
            return None
        return sum(max(0.0, waited_s[thread] - before_s[thread]) for thread in waited_s.keys() & before_s.keys()) / elapsed_s


def _waited_s() -> dict[str, float]:
    """By thread: how long it could run and had no core (Documentation/scheduler/sched-stats.rst of Linux)."""
    found: dict[str, float] = {}
    for file in Path("/proc/self/task").glob("*/schedstat"):
        with suppress(OSError, ValueError, IndexError):  # a thread that ended meanwhile
            found[file.parent.name] = int(file.read_text().split()[1]) / 1e9
    return found


def _nvml(read: Any) -> float | None:
    try:
        return float(read())
    except Exception:  # a slice of a GPU has no utilisation of its own, for instance
        return None


def gpu_uuid(device: str) -> str:
    """The GPU's name in NVIDIA's driver library, whatever CUDA_VISIBLE_DEVICES calls it; empty for anything else."""
    if not device.startswith("cuda"):
        return ""
    try:
        import torch

        uuid = str(torch.cuda.get_device_properties(torch.device(device)).uuid)
    except Exception:  # an older torch or another maker's GPU has none
        return ""
    return uuid if uuid.startswith("GPU-") else f"GPU-{uuid}"


def cpu_temperature_c() -> float | None:
    """The hottest reading of the CPU's own sensor."""
    try:
        found = psutil.sensors_temperatures()
    except Exception:  # not on this system (AttributeError), or its files are unreadable
        return None
    for chip in _CPU_CHIPS:
        if readings := [float(r.current) for r in found.get(chip, []) if r.current]:
            return max(readings)
    return None
