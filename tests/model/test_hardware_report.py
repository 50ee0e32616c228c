"""What `doctor --hardware` measures: probes that run, rates that are real, and machines that lack things."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch

from engine.data.typed_json import decode
from engine.model.hardware import cpu, gpu, probes, roofline
from engine.model.hardware import report as hardware_report
from engine.model.hardware.cpu import Cache, caches, read_cpu, size_in_bytes
from engine.model.hardware.probes import Probe, probe
from engine.model.hardware.report import examine_hardware
from engine.model.hardware.roofline import measure_rooflines
from engine.profile.hardware import DTYPES, FLOAT32, INT8, DeviceType, HardwareCapability

NOTHING = Path("/nowhere")


def test_this_machine_is_examined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware_report, "BENCHMARK_BUDGET_S", 0.2)
    monkeypatch.setattr(hardware_report, "read_gpus", lambda: ())
    said: list[str] = []
    threads = torch.get_num_threads()
    try:
        report = examine_hardware(said.append)
    finally:
        torch.set_num_threads(threads)
    assert said == ["reading what the system tells of CPU and GPUs", "running products on cpu", "measuring cpu"]
    (capability,) = report.capabilities
    assert capability.device_type is DeviceType.CPU and capability.num_sms == 0 and capability.device_name == report.cpu.name
    assert capability.num_cores == report.cpu.num_usable <= report.cpu.num_logical
    assert capability.supports(FLOAT32) and set(capability.rooflines) == {p.dtype for p in report.probes if p.works}
    assert [p.dtype for p in report.probes] == list(DTYPES)
    for roof in capability.rooflines.values():
        assert 1e6 < roof.flops_per_s < 1e16 and 1e6 < roof.bytes_per_s < 1e14 and 0 < roof.dispatch_s < 1
    document = json.loads(json.dumps(asdict(report), allow_nan=False))
    assert decode(HardwareCapability, document["capabilities"][0], "capability", "measure again") == capability


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_probe_runs_the_product(dtype: str) -> None:
    found = probe("cpu", dtype)
    assert found.works and 0 <= found.error <= probes._TOLERANCE[dtype], found


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (
            lambda a, b: (_ for _ in ()).throw(NotImplementedError("\"addmm\" not implemented for 'Half'\nmore")),
            "refused: NotImplementedError",
        ),
        (lambda a, b: torch.full((len(a), b.shape[1]), float("nan")), "not finite"),
        (lambda a, b: (a.double() @ b.double()) * 1.05, "largest error 5.0e-02, at most 4.0e-03 is right"),
        (lambda a, b: torch.zeros(len(a), b.shape[1]), "largest error 1.0e+00"),
    ],
)
def test_a_device_that_computes_wrongly_does_not_support_the_dtype(monkeypatch: pytest.MonkeyPatch, wrong: object, words: str) -> None:
    monkeypatch.setattr(probes, "product", wrong)
    found = probe("cpu", FLOAT32)
    assert not found.works and words in found.text and "\n" not in found.text


def test_a_dtype_that_does_not_work_gets_no_rates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        hardware_report, "probe_all", lambda device: (Probe(device, FLOAT32, False, "no"), Probe(device, INT8, False, "no"))
    )
    monkeypatch.setattr(hardware_report, "read_gpus", lambda: ())
    (capability,) = examine_hardware().capabilities
    assert capability.rooflines == {}


def test_int8_rates_are_those_of_int8(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: set[torch.dtype] = set()
    prepared = roofline.prepared

    def spy(left: torch.Tensor, right: torch.Tensor) -> Callable[[], torch.Tensor]:
        seen.add(left.dtype)
        return prepared(left, right)

    monkeypatch.setattr(roofline, "prepared", spy)
    monkeypatch.setattr(roofline, "_GEMM_SIZE", {"cpu": 128})
    found, failures = measure_rooflines("cpu", [torch.int8], 0.01)
    assert seen == {torch.int8} and found[torch.int8].bytes_per_s > 0 and not failures


def test_a_dtype_whose_larger_products_fail_is_no_support(monkeypatch: pytest.MonkeyPatch) -> None:
    prepared = roofline.prepared

    def fail(left: torch.Tensor, right: torch.Tensor) -> Callable[[], torch.Tensor]:
        if left.dtype == torch.int8:
            raise RuntimeError("CUBLAS_STATUS_NOT_SUPPORTED\nat line 7")
        return prepared(left, right)

    monkeypatch.setattr(hardware_report, "BENCHMARK_BUDGET_S", 0.05)
    monkeypatch.setattr(roofline, "prepared", fail)
    monkeypatch.setattr(hardware_report, "read_gpus", lambda: ())
    report = examine_hardware()
    assert not report.capabilities[0].supports(INT8) and report.capabilities[0].supports(FLOAT32)
    (told,) = [p for p in report.probes if p.dtype == INT8]
    assert not told.works and "a larger one failed: RuntimeError: CUBLAS_STATUS_NOT_SUPPORTED" in told.text and "\n" not in told.text


def test_a_slow_dtype_keeps_to_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock of the test's own: a product of this dtype takes 20 ms for each 128 x 128 x 128."""
    now_s, runs = [0.0], []

    def product(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        runs.append((left.shape[0], left.shape[1], right.shape[1]))
        now_s[0] += 0.02 * (left.shape[0] * left.shape[1] * right.shape[1]) / 128**3
        return left

    monkeypatch.setattr(roofline, "product", product)
    monkeypatch.setattr(roofline, "perf_counter", lambda: now_s[0])
    rate = roofline._product_flops_per_s("cpu", torch.float32, 0.2)
    assert rate == pytest.approx(2 * 128**3 / 0.02) and now_s[0] < 1.2 * 0.2
    assert max(rows for rows, _, _ in runs) == 128, "a size whose runs would not fit is not tried"


# --- the CPU as the system tells it -----------------------------------------------------------------------------------
def test_the_cpu_is_read_from_linux_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for index, (level, kind, size, shared) in enumerate(
        [(1, "Data", "48K", "0-1"), (3, "Unified", "32M", "0-7,16-23"), (2, "Unified", "", "0")]
    ):
        folder = tmp_path / "cpu0" / "cache" / f"index{index}"
        folder.mkdir(parents=True)
        for name, value in (("level", level), ("type", kind), ("size", size), ("shared_cpu_list", shared)):
            (folder / name).write_text(f"{value}\n")
    (tmp_path / "cpuinfo").write_text("processor : 0\nmodel name\t: A CPU \x1b[31m\nflags\t\t: fpu avx2 amx_int8 avx512f\n")
    for name, limit in (("intel-rapl:0", "65000000"), ("intel-rapl:0:0", "9"), ("intel-rapl:1", "35000000"), ("intel-rapl:2", "x")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "constraint_0_power_limit_uw").write_text(limit)
    monkeypatch.setattr(cpu, "_CPU", tmp_path)
    monkeypatch.setattr(cpu, "_CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(cpu, "_POWERCAP", tmp_path)
    found = read_cpu()
    assert found.name == "A CPU \x1b[31m", "names are data, whoever shows them cleans them"
    assert found.caches == (Cache(1, "data", 48 * 2**10, 2), Cache(3, "unified", 32 * 2**20, 16)), "an unreadable one is left out"
    assert found.vector_units == ("avx2", "avx512f", "amx_int8") and found.power_w == 100.0


def test_a_system_that_tells_nothing_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_CPU", "_CPUINFO", "_POWERCAP"):
        monkeypatch.setattr(cpu, name, NOTHING)
    monkeypatch.setattr(psutil, "cpu_count", lambda logical=True: None)
    found = read_cpu()
    assert (found.caches, found.vector_units, found.power_w, found.num_physical) == ((), (), None, 0)
    assert found.name and found.num_logical == 1 and caches() == ()


@pytest.mark.parametrize(("text", "size"), [("48K", 49152), ("1M\n", 2**20), ("64", 64)])
def test_sizes(text: str, size: int) -> None:
    assert size_in_bytes(text) == size


# --- GPUs, with torch played by the test --------------------------------------------------------------------------------
def play_gpu(monkeypatch: pytest.MonkeyPatch, **facts: object) -> None:
    values = {"name": "Card", "multi_processor_count": 16, "major": 8, "minor": 7, "uuid": "0a0b", **facts}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(**values))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (6 * 2**30, 8 * 2**30))


@pytest.mark.parametrize(
    ("facts", "kind"),
    [({"is_integrated": 1}, DeviceType.CUDA_INTEGRATED), ({"is_integrated": 0}, DeviceType.CUDA), ({}, DeviceType.CUDA)],
)
def test_integrated_and_dedicated_gpus(monkeypatch: pytest.MonkeyPatch, facts: dict[str, object], kind: DeviceType) -> None:
    monkeypatch.setattr(gpu.ctypes, "CDLL", lambda _: (_ for _ in ()).throw(OSError("no driver")))
    play_gpu(monkeypatch, **facts)
    (found,) = gpu.read_gpus()
    assert found.device_type is kind and gpu.device_type("cuda:0") is kind and gpu.device_type("cpu") is DeviceType.CPU
    assert (found.device, found.num_sms, found.compute_capability, found.power_w) == ("cuda:0", 16, "8.7", None)


def test_an_older_torch_asks_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    def get_attribute(value: object, attribute: int, device: object) -> int:
        value._obj.value = int(attribute == 18)  # type: ignore[attr-defined]
        return 0

    monkeypatch.setattr(gpu.ctypes, "CDLL", lambda _: SimpleNamespace(cuDeviceGet=lambda *_: 0, cuDeviceGetAttribute=get_attribute))
    play_gpu(monkeypatch)
    assert gpu.device_type("cuda:0") is DeviceType.CUDA_INTEGRATED


def test_no_gpu_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.read_gpus() == ()


def test_a_first_product_that_starts_a_library_does_not_end_the_climb(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU the first one of a process takes a fraction of a second, as long as the whole budget of a dtype. The clock is the test's."""
    now_s, sizes, budget_s = [0.0], list[int](), 0.5

    def product(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        now_s[0] += 1e-3 if sizes else budget_s
        sizes.append(len(left))
        return left

    monkeypatch.setattr(roofline, "product", product)
    monkeypatch.setattr(roofline, "perf_counter", lambda: now_s[0])
    roofline._product_flops_per_s("cpu", torch.float32, budget_s)
    assert max(sizes) == 1024 and sizes[0] == 128
