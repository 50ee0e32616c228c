"""`doctor --hardware` as a program: its two outputs, and processes that end before they have measured."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from engine.commands.machine import doctor_hardware
from engine.commands.machine.doctor_hardware import as_text, measure
from engine.data.errors import NoodleError, Unavailable

ROOT = Path(__file__).parents[2]


def engine(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "engine", *arguments], capture_output=True, text=True, cwd=ROOT)


def test_the_document_and_the_text_say_the_same() -> None:
    done = engine("doctor", "--hardware", "--json")
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    assert report["schema_version"] == 1 and 0 < report["spent_s"] < report["total_s"]
    assert "measuring this machine" in done.stderr
    text = as_text(report)
    assert text.isascii() and f"{report['cpu']['num_usable']} usable of" in text
    assert all(probe["dtype"] in text for probe in report["probes"])
    assert sum(line.startswith("cpu ") for line in text.splitlines()) == 4


SAY = "import os, sys; print"
REPORT = {
    "host": "h", "torch_version": "2.13", "spent_s": 1.0, "load": 3.5, "total_s": 3.0, "schema_version": 1,
    "cpu": {"name": "CPU \u00e9\x1b[31m", "architecture": "arm64", "num_logical": 8, "num_physical": 0, "num_usable": 4, "caches": [],
            "vector_units": [], "memory_total_bytes": 2**34, "memory_free_bytes": 2**33, "power_w": 15.0},
    "gpus": [{"device": "cuda:0", "name": "Orin", "device_type": "cuda_integrated", "num_sms": 16, "compute_capability": "8.7",
              "memory_total_bytes": 2**34, "memory_free_bytes": 3 * 2**31, "power_w": None}],
    "probes": [{"device": "cpu", "dtype": "float32", "works": True, "text": "ran", "error": 1e-7},
               {"device": "cuda:0", "dtype": "int8", "works": False, "text": "the product was refused: RuntimeError: no", "error": -1.0}],
    "capabilities": [{"node_id": "cpu", "rooflines": {"float32": {"flops_per_s": 5e10, "bytes_per_s": 2e10, "dispatch_s": 1e-6}}},
                     {"node_id": "cuda:0", "rooflines": {}}],
}  # fmt: skip


def test_a_machine_with_an_integrated_gpu_and_a_missing_dtype() -> None:
    text = as_text(REPORT)
    lines = text.splitlines()
    assert text.isascii() and "\x1b" not in text and lines[0] == "CPU     CPU ??[31m, arm64; 15 W"
    assert "cuda:0 Orin, integrated, shares the CPU's memory, 16 SMs, capability 8.7, 6 GiB of 16 GiB free" in text
    assert "not told by this system" in lines[2] and "4 usable of 8 logical" in lines[1] and "physical" not in text
    assert any(line.split() == ["cuda:0", "int8", "NO", "-", "-", "-", "-"] for line in lines)
    assert "load was 3.5 on 4 cores: others were busy" in lines[-1] and "busy" not in as_text({**REPORT, "load": 0.5})
    assert "cuda:0 int8: the product was refused: RuntimeError: no" in text


@pytest.mark.parametrize(
    ("body", "error", "words"),
    [
        (f"{SAY}('running products on cpu', file=sys.stderr, flush=True); os.abort()", Unavailable, "last words: running products on cpu"),
        ("raise ImportError('libtorch.so: cannot open')", Unavailable, "cannot open; `noodle-engine doctor`"),
        ("import sys; sys.exit(3)", Unavailable, "status 3; last words: nothing was said"),
        ("print('hello')", NoodleError, "printed no report"),
        ("pass", NoodleError, "printed no report"),
    ],
)  # fmt: skip
def test_a_measuring_process_that_ends_early_is_a_sentence(
    body: str, error: type[NoodleError], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_measure.py").write_text(body)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(ROOT)]))
    with pytest.raises(error, match=words):
        measure("broken_measure")


def test_a_process_that_never_ends_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "endless_measure.py").write_text("import threading; threading.Event().wait()")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(ROOT)]))
    monkeypatch.setattr(doctor_hardware, "_TIMEOUT_S", 0.5)
    with pytest.raises(Unavailable, match="took more than"):
        measure("endless_measure")
