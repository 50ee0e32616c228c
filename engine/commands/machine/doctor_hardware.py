"""`noodle-engine doctor --hardware`: what this machine's CPU and GPUs are and what they reach, as text or JSON.

The measuring runs in a process of its own: a broken torch, or a probe that ends its process, is then a sentence.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import Any

from engine.commands.output import note, print_json, say, table
from engine.data.errors import NoodleError, Unavailable
from engine.printable import printable

_TIMEOUT_S = 120.0
_MODULE = "engine.model.hardware.report"


def run(as_json: bool) -> int:
    """Measure and print; raises Unavailable with the reason if the measuring process did not finish."""
    note("measuring this machine, a few seconds")
    began_s = time.perf_counter()
    report = measure()
    report["total_s"] = time.perf_counter() - began_s
    if as_json:
        print_json(report)
    else:
        say(as_text(report))
    return 0


def measure(module: str = _MODULE) -> dict[str, Any]:
    """The report of `engine.model.hardware.report` as a document."""
    try:
        done = subprocess.run([sys.executable, "-m", module], capture_output=True, text=True, errors="replace", timeout=_TIMEOUT_S)
    except subprocess.TimeoutExpired as error:
        raise Unavailable(f"measuring took more than {_TIMEOUT_S:.0f} s: end other programs and try again") from error
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or ["nothing was said"]
        ended = f"a signal ({-done.returncode})" if done.returncode < 0 else f"status {done.returncode}"
        raise Unavailable(f"measuring ended with {ended}; last words: {lines[-1][:200]}; `noodle-engine doctor` looks at the installation")
    try:
        report: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    except (ValueError, IndexError) as error:
        raise NoodleError("the measuring process printed no report: run `noodle-engine doctor`") from error
    return report


def as_text(report: dict[str, Any]) -> str:
    """The same facts for people; ASCII whatever the maker called the device."""
    lines = [*_cpu_lines(report["cpu"]), "", *_gpu_lines(report), "", _rates(report), ""]
    lines += [f"{p['device']} {p['dtype']}: {p['text']}" for p in report["probes"] if not p["works"]]
    lines.append(f"measured in {report['spent_s']:.1f} s; {report['total_s']:.1f} s with importing torch {report['torch_version']}")
    if report["load"] is not None and report["load"] > 0.5 * report["cpu"]["num_usable"]:
        lines.append(
            f"load was {report['load']:.1f} on {report['cpu']['num_usable']} cores: others were busy, and the rates are too low by that"
        )
    return "".join(c if c.isascii() else "?" for c in printable("\n".join(lines)))


def _cpu_lines(cpu: dict[str, Any]) -> list[str]:
    caches = [f"L{c['level']} {c['kind']} {_size(c['size_bytes'])}" for c in cpu["caches"]]
    physical = f", {cpu['num_physical']} physical" if cpu["num_physical"] else ""
    power = f"; {cpu['power_w']:.0f} W" if cpu["power_w"] else ""
    return [
        f"CPU     {cpu['name']}, {cpu['architecture']}{power}",
        f"cores   {cpu['num_usable']} usable of {cpu['num_logical']} logical{physical}",
        f"caches  {', '.join(caches) or 'not told by this system'}",
        f"vector  {' '.join(cpu['vector_units']) or 'not told by this system'}",
        f"memory  {_size(cpu['memory_free_bytes'])} of {_size(cpu['memory_total_bytes'])} free",
    ]


def _gpu_lines(report: dict[str, Any]) -> list[str]:
    if not report["gpus"]:
        return [f"GPU     none that torch {report['torch_version']} can use"]
    return [_gpu_line(gpu) for gpu in report["gpus"]]


def _gpu_line(gpu: dict[str, Any]) -> str:
    kind = "integrated, shares the CPU's memory" if gpu["device_type"] == "cuda_integrated" else "dedicated"
    memory = f"{_size(gpu['memory_free_bytes'])} of {_size(gpu['memory_total_bytes'])} free"
    power = f", {gpu['power_w']:.0f} W" if gpu["power_w"] else ""
    return f"GPU     {gpu['device']} {gpu['name']}, {kind}, {gpu['num_sms']} SMs, capability {gpu['compute_capability']}, {memory}{power}"


def _rates(report: dict[str, Any]) -> str:
    roofs = {c["node_id"]: c["rooflines"] for c in report["capabilities"]}
    rows = []
    for probe in report["probes"]:
        roof = roofs[probe["device"]].get(probe["dtype"])
        error = f"{probe['error']:.1e}" if probe["error"] >= 0 else "-"
        reached = (_giga(roof["flops_per_s"]), _giga(roof["bytes_per_s"]), f"{1e6 * roof['dispatch_s']:.2f}") if roof else ("-", "-", "-")
        rows.append((probe["device"], probe["dtype"], "yes" if probe["works"] else "NO", error, *reached))
    return table(("DEVICE", "DTYPE", "RUNS", "ERROR", "GFLOP/s", "GB/s", "us/OP"), rows)


def _giga(rate: float) -> str:
    return f"{rate / 1e9:.1f}" if rate < 1e11 else f"{rate / 1e9:.0f}"


def _size(num_bytes: float) -> str:
    for unit, factor in (("GiB", 2**30), ("MiB", 2**20)):
        if num_bytes >= factor:
            return f"{num_bytes / factor:.1f}".removesuffix(".0") + f" {unit}"
    return f"{num_bytes / 2**10:.0f} KiB"
