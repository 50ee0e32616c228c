"""What the doctor finds on a real CUDA GPU, against what torch and the card's own limits say. Skipped without one."""

from __future__ import annotations

import pytest
import torch

from engine.model.hardware import gpu, probes
from engine.model.hardware.probes import probe, probe_all
from engine.model.hardware.report import examine_hardware
from engine.profile.hardware import BFLOAT16, DTYPES, FLOAT16, FLOAT32, INT8, DeviceType

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")


def test_the_gpu_is_read_as_torch_knows_it() -> None:
    found, facts = gpu.read_gpus()[0], torch.cuda.get_device_properties(0)
    assert (found.device, found.name, found.num_sms) == ("cuda:0", facts.name, facts.multi_processor_count)
    assert found.memory_total_bytes >= found.memory_free_bytes > 0 and found.compute_capability == f"{facts.major}.{facts.minor}"
    assert found.device_type is (DeviceType.CUDA_INTEGRATED if facts.is_integrated else DeviceType.CUDA)
    print(found)
    assert found.power_w is None or 1 < found.power_w < 5000


def test_the_driver_agrees_with_torch_on_integrated(monkeypatch: pytest.MonkeyPatch) -> None:
    told = gpu.device_type("cuda:0")
    facts = torch.cuda.get_device_properties(0)

    class Untold:
        def __getattr__(self, name: str) -> object:
            if name == "is_integrated":
                raise AttributeError(name)
            return getattr(facts, name)

    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: Untold())
    assert gpu.device_type("cuda:0") is told


def test_products_run_in_every_dtype_that_this_generation_has() -> None:
    found = {p.dtype: p for p in probe_all("cuda:0")}
    print(found)
    assert found[FLOAT32].works and found[FLOAT16].works
    if torch.cuda.get_device_capability(0) >= (8, 0):
        assert found[BFLOAT16].works and found[INT8].works


def test_a_gpu_that_computes_wrongly_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "product", lambda a, b: (a @ b) * 1.01)
    assert not probe("cuda:0", FLOAT32).works


def test_the_whole_machine_in_less_than_its_time() -> None:
    torch.cuda.synchronize()
    report = examine_hardware()
    print(report.spent_s, report.capabilities)
    cpu, *cards = report.capabilities
    card = cards[0]
    assert card.node_id == "cuda:0" and card.num_sms > 0 and card.device_type is not DeviceType.CPU and card.num_cores == cpu.num_cores
    assert set(card.rooflines) == {p.dtype for p in report.probes if p.device == "cuda:0" and p.works} <= set(DTYPES)
    if card.device_type is DeviceType.CUDA:
        assert card.rooflines[FLOAT16].flops_per_s > cpu.rooflines[FLOAT32].flops_per_s
        assert card.rooflines[FLOAT32].bytes_per_s > cpu.rooflines[FLOAT32].bytes_per_s
    assert 1e-7 < card.rooflines[FLOAT32].dispatch_s < 1e-3
    assert torch.cuda.memory_allocated() < 2**28, "the buffer was given back"
