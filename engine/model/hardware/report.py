"""Everything measured of this machine in one document: CPU, GPUs, probes that ran, micro-benchmarks, capabilities.

Run as a program (`python -m engine.model.hardware.report`) it prints the document as JSON on stdout and, line by line, what
it is doing on stderr: a probe that ends the process leaves its name there.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from time import perf_counter

import torch

from engine.data.json_text import json_text
from engine.model.hardware.cpu import Cpu, read_cpu
from engine.model.hardware.devices import usable_memory
from engine.model.hardware.freed_memory import release_memory
from engine.model.hardware.gpu import Gpu, read_gpus
from engine.model.hardware.probes import Probe, probe_all
from engine.model.hardware.roofline import measure_rooflines
from engine.profile.hardware import DeviceType, HardwareCapability
from engine.profile.profile import Roofline

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
        probed = probe_all(device)
        say(f"measuring {device}")
        rooflines, probed = _rooflines(device, probed, BENCHMARK_BUDGET_S / len(devices))
        probes += probed
        capabilities.append(_capability(device, cpu, gpus, rooflines))
    release_memory()
    spent_s = perf_counter() - began_s
    return HardwareReport(platform.node(), torch.__version__, cpu, gpus, tuple(probes), tuple(capabilities), spent_s, load)


def _rooflines(device: str, probes: tuple[Probe, ...], budget_s: float) -> tuple[dict[str, Roofline], tuple[Probe, ...]]:
    """Rates of the dtypes that work; one whose larger products fail works no longer."""
    dtypes = {probe.dtype: getattr(torch, probe.dtype) for probe in probes if probe.works}
    if not dtypes:
        return {}, probes
    found, failures = measure_rooflines(device, list(dtypes.values()), budget_s)
    told = tuple(_failed(probe, failures[dtypes[probe.dtype]]) if dtypes.get(probe.dtype) in failures else probe for probe in probes)
    return {name: found[dtype] for name, dtype in dtypes.items() if dtype in found}, told


def _failed(probe: Probe, error: Exception) -> Probe:
    reason = (str(error).strip().splitlines() or [""])[0][:200]
    return replace(probe, works=False, text=f"{probe.text}, but a larger one failed: {type(error).__name__}: {reason}")


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
    print(json_text(examine_hardware(lambda text: print(text, file=sys.stderr, flush=True))))
