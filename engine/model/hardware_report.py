"""Everything measured of this machine in one document: CPU, GPUs, probes that ran, micro-benchmarks, capabilities.

Run as a program (`python -m engine.model.hardware_report`) it prints the document as JSON on stdout and, line by line, what
it is doing on stderr: a probe that ends the process leaves its name there.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from time import perf_counter

import torch

from engine.model.cpu import Cpu, read_cpu
from engine.model.gpu import Gpu, read_gpus
from engine.model.hardware import usable_memory
from engine.model.measure import release_memory
from engine.model.probes import Probe, probe_all
from engine.model.roofline import measure_rooflines
from engine.planning.device import DeviceType, HardwareCapability
from engine.planning.profile import Roofline

BENCHMARK_BUDGET_S = 1.6  # over all devices; filling buffers and starting a GPU come on top
SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class HardwareReport:
    """What `noodle-engine doctor --hardware --json` prints."""

    host: str
    torch_version: str
    cpu: Cpu
    gpus: tuple[Gpu, ...]
    probes: tuple[Probe, ...]
    capabilities: tuple[HardwareCapability, ...]
    spent_s: float  # all of it, without importing torch
    load: float | None  # programs that wanted a core when it began, a minute's mean; None where the system does not tell
    schema_version: int = SCHEMA_VERSION


def examine_hardware(say: Callable[[str], None] = lambda _: None) -> HardwareReport:
    """Look, probe and measure, in less than three seconds on a machine that is not busy."""
    began_s = perf_counter()
    say("reading what the system tells of CPU and GPUs")
    cpu, load = read_cpu(), os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    torch.set_num_threads(cpu.num_usable)
    gpus = read_gpus()
    devices = ["cpu", *(gpu.device for gpu in gpus)]
    probes: list[Probe] = []
    capabilities = []
    for device in devices:
        say(f"running products on {device}")
        probes += probe_all(device)
        say(f"measuring {device}")
        works = [found.dtype for found in probes if found.device == device and found.works]
        capabilities.append(_capability(device, cpu, gpus, _rooflines(device, works, BENCHMARK_BUDGET_S / len(devices))))
    release_memory()
    spent_s = perf_counter() - began_s
    return HardwareReport(platform.node(), torch.__version__, cpu, gpus, tuple(probes), tuple(capabilities), spent_s, load)


def _rooflines(device: str, dtypes: list[str], budget_s: float) -> dict[str, Roofline]:
    if not dtypes:
        return {}
    measured = measure_rooflines(device, [getattr(torch, dtype) for dtype in dtypes], budget_s)
    return {dtype: measured[getattr(torch, dtype)] for dtype in dtypes}


def _capability(device: str, cpu: Cpu, gpus: tuple[Gpu, ...], rooflines: dict[str, Roofline]) -> HardwareCapability:
    gpu = next((gpu for gpu in gpus if gpu.device == device), None)
    usable, total = usable_memory(device)
    return HardwareCapability(
        node_id=device,
        device_type=gpu.device_type if gpu else DeviceType.CPU,
        device_name=gpu.name if gpu else cpu.name,
        num_cores=cpu.num_usable,
        num_sms=gpu.num_sms if gpu else 0,
        memory_bytes=usable,
        memory_total_bytes=total,
        rooflines=rooflines,
        power_w=gpu.power_w if gpu else cpu.power_w,
    )


if __name__ == "__main__":
    print(json.dumps(asdict(examine_hardware(lambda text: print(text, file=sys.stderr, flush=True))), ensure_ascii=True, allow_nan=False))
