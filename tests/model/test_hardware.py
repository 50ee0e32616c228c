"""What a machine offers: limits of containers, devices that are not there, and the KV rule."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.data.errors import InvalidInput
from engine.model.hardware import limits
from engine.model.hardware.devices import check_device, default_kv_budget_bytes, detect
from engine.model.hardware.limits import cpu_memory_bytes, num_cores

GIB = 2**30


@pytest.fixture
def cgroup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A container of this test's making, with 8 GiB in the machine around it."""
    inner = tmp_path / "pod" / "box"
    inner.mkdir(parents=True)
    monkeypatch.setattr(limits, "_CGROUP", tmp_path)
    monkeypatch.setattr(limits, "_cgroup_folders", lambda: [inner, tmp_path / "pod", tmp_path])
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=8 * GIB, available=6 * GIB))
    return tmp_path


def limit(folder: Path, **files: object) -> None:
    folder.mkdir(exist_ok=True)
    for name, value in files.items():
        (folder / name.replace("_", ".", 1)).write_text(str(value))


def test_without_a_container_the_machine_is_the_limit(cgroup: Path) -> None:
    limit(cgroup / "pod", memory_max="max", memory_current=GIB)
    assert cpu_memory_bytes() == (8 * GIB, 6 * GIB)


def test_the_tightest_cgroup_binds_and_file_cache_gives_way(cgroup: Path) -> None:
    limit(cgroup / "pod", memory_max=2 * GIB, memory_current=GIB, memory_stat=f"anon 5\ninactive_file {GIB // 2}\n")
    limit(cgroup / "pod" / "box", memory_max=4 * GIB, memory_current=0)
    assert cpu_memory_bytes() == (2 * GIB, 3 * GIB // 2)


def test_the_older_cgroup_layout_counts_too(cgroup: Path) -> None:
    limit(cgroup / "memory", memory_limit_in_bytes=GIB, memory_usage_in_bytes=2 * GIB)
    assert cpu_memory_bytes() == (GIB, 0), "over the limit is nothing free, not less than nothing"


@pytest.mark.parametrize(("quota", "cores"), [("max 100000", 8), ("250000 100000", 2), ("50000 100000", 1), ("garbage", 8)])
def test_a_cpu_quota_limits_the_threads(cgroup: Path, monkeypatch: pytest.MonkeyPatch, quota: str, cores: int) -> None:
    monkeypatch.setattr(limits.os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    limit(cgroup / "pod" / "box", cpu_max=quota)
    assert num_cores() == cores


def test_detection_fits_this_machine() -> None:
    found = detect("cpu")
    assert found.device == "cpu" and found.device_name
    assert found.num_threads == num_cores() >= 1
    assert 0 < found.memory_bytes <= psutil.virtual_memory().total
    assert 0 < found.kv_budget_bytes <= found.memory_bytes


def test_given_figures_are_kept() -> None:
    found = detect("cpu", memory_bytes=512 * 2**20, num_threads=1)
    assert (found.memory_bytes, found.num_threads, found.kv_budget_bytes) == (512 * 2**20, 1, 128 * 2**20)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("cpu", 10**18, None), r"memory of 1,000,000,000,000,000,000 bytes is not possible on cpu: .* free now"),
        (("cpu", 5, None), "memory of 5 bytes"),
        (("cpu", None, 0), "num_threads 0"),
        (("cpu", None, 100_000), "num_threads 100000"),
        (("cuda:77", None, None), r"device 'cuda:77' is not on this machine: use one of cpu"),
        (("tpu", None, None), "device 'tpu'"),
    ],
)
def test_what_the_machine_lacks_is_refused_with_its_limits(arguments: tuple[str, int | None, int | None], text: str) -> None:
    with pytest.raises(InvalidInput, match=text):
        detect(*arguments)


def test_a_gpu_is_taken_when_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"Card {device.index}")
    for free, usable in ((60 * GIB, int(60 * GIB * 0.9)), (6 * GIB, 4 * GIB)):  # a small card keeps room for what is as large on any
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _, free=free: (free, 80 * GIB))
        found = detect()
        assert (found.device, found.device_name, found.memory_bytes) == ("cuda:0", "Card 0", usable)
    assert check_device("cuda:1") == "cuda:1" and check_device("cuda") == "cuda:0"
    with pytest.raises(InvalidInput, match="use one of cpu, cuda:0, cuda:1"):
        check_device("cuda:2")


@given(st.integers(64 * 2**20, 2**45))
def test_the_kv_budget_never_exceeds_the_memory(memory_bytes: int) -> None:
    budget = default_kv_budget_bytes(memory_bytes)
    assert 64 * 2**20 <= budget <= memory_bytes
    assert budget <= max(64 * 2**20, memory_bytes // 4)
