"""The doctor on a healthy machine, and on machines made ill one organ at a time."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest

from engine.commands.machine import doctor_checks
from engine.commands.machine.doctor_checks import Finding, Level, as_document, as_text, exit_code
from engine.model.hardware import limits
from engine.model.weights.weight_cache import WeightCache

ROOT = Path(__file__).parents[2]


def one(findings: list[Finding], check: str) -> Finding:
    (found,) = [finding for finding in findings if finding.check == check and finding.level is not Level.OK] or [
        finding for finding in findings if finding.check == check
    ]
    return found


def run(check: str) -> Finding:
    return one(list(doctor_checks._safely(check, getattr(doctor_checks, f"_{check}"))), check)


def test_this_machine_passes_and_every_check_reports(tmp_path: Path) -> None:
    findings = doctor_checks.examine(tmp_path)
    assert exit_code(findings) == 0, as_text(findings)
    assert {f.check for f in findings} == {
        "python", "packages", "torch", "kernels", "protobuf", "grpc", "cache", "weights", "folders", "memory", "threads", "clock",
        "terminal",
    }  # fmt: skip
    assert next(f for f in findings if f.check == "kernels").text.startswith("compiled for this CPU")
    assert all(f.mend for f in findings if f.level is not Level.OK), "what is wrong comes with a way out"
    assert as_document(findings)["ok"] is True and len(as_document(findings)["findings"]) == len(findings)


def test_the_floors_are_those_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    lines = [*project["dependencies"], *extras["console"], *extras["report"]]
    floors = dict(re.match(r"([\w-]+)>=([\d.]+)", line).groups() for line in lines)  # type: ignore[union-attr]
    assert {name: floors[name] for name in doctor_checks.MINIMUM_VERSIONS} == doctor_checks.MINIMUM_VERSIONS


def test_a_missing_or_old_package_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name == "torch":
            raise metadata.PackageNotFoundError(name)
        return "1.9.9" if name == "grpcio" else "99.0"

    monkeypatch.setattr(doctor_checks.metadata, "version", version)
    wrong = {f.text: f.mend for f in doctor_checks._packages() if f.level is Level.ERROR}
    assert wrong == {
        "torch is not installed": doctor_checks.TORCH_INSTALL,
        "grpcio 1.9.9 is older than 1.85.1": "pip install 'grpcio>=1.85.1'",
    }


@pytest.mark.parametrize("body", ["raise ImportError('libtorch.so: cannot open')", "import os; os.abort()"])
def test_a_broken_torch_does_not_break_the_doctor(body: str, tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text(body)
    program = "import engine.commands.machine.doctor_checks as d; f = d.examine(); print(d.as_text(f)); raise SystemExit(d.exit_code(f))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)]), "NOODLE_CACHE": str(tmp_path / "cache")}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert "ERROR  torch" in done.stdout and doctor_checks.TORCH_INSTALL in done.stdout
    assert "OK     grpc" in done.stdout, "the other checks still ran"


def test_a_torch_that_takes_too_long_is_a_sentence_without_its_source(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_checks, "_PROBE", "import time; time.sleep(600)")
    monkeypatch.setattr(doctor_checks, "_PROBE_TIMEOUT_S", 0.5)
    found = run("torch")
    assert (found.level, found.text) == (Level.ERROR, "importing torch took more than 0.5 s")
    assert found.mend == "end other programs and try again; reinstall torch if it persists"


def test_the_doctor_itself_imports_neither_torch_nor_grpc() -> None:
    program = (
        "import sys, engine.commands.machine.doctor_checks; print({'torch', 'transformers', 'grpc', 'psutil', 'google'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip() == "set()"


def test_messages_that_do_not_fit_the_runtime_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> object:
        raise RuntimeError("Detected incompatible Protobuf Gencode/Runtime versions")

    monkeypatch.setattr(doctor_checks.importlib, "import_module", refuse)
    found = run("protobuf")
    assert found.level is Level.ERROR and "incompatible" in found.text and "protobuf>=7.35" in found.mend


def test_a_proxy_that_swallows_loopback_is_blamed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_checks, "_round_trip_s", lambda: (_ for _ in ()).throw(TimeoutError("no answer")))
    monkeypatch.setenv("http_proxy", "http://proxy.example:3128")
    found = run("grpc")
    assert found.level is Level.ERROR and "no answer" in found.text and "http_proxy is set: add no_proxy=" in found.mend


def test_a_sandbox_without_sockets_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_checks.socket, "create_server", lambda _: (_ for _ in ()).throw(PermissionError("not permitted")))
    assert run("grpc").level is Level.ERROR


def test_a_cache_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (found,) = doctor_checks._cache(tmp_path / "file" / "cache")
    assert found.level is Level.ERROR and "NOODLE_CACHE" in found.mend
    (found,) = doctor_checks._cache(tmp_path / "new")
    assert found.level is Level.OK and list((tmp_path / "new").iterdir()) == [], "the probe leaves nothing behind"


def test_a_cache_that_cannot_be_read_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(cache: WeightCache) -> None:
        raise PermissionError(13, "Permission denied", str(cache.folder))

    monkeypatch.setattr(WeightCache, "size", refuse)
    (found,) = doctor_checks._safely("weights", lambda: doctor_checks._weights(tmp_path))
    assert found.level is Level.ERROR and str(tmp_path) in found.text and found.mend == "set NOODLE_CACHE to a folder that can be read"


def test_little_disk_and_memory_are_warnings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2**20))
    monkeypatch.setattr(limits, "cpu_memory_bytes", lambda: (2**33, 2**28))
    assert next(doctor_checks._cache(tmp_path)).level is Level.WARN
    assert run("memory").level is Level.WARN


@pytest.mark.parametrize(
    ("omp", "load", "level"), [(None, 0.0, Level.OK), ("2", 0.0, Level.OK), ("64", 0.0, Level.WARN), (None, 3.9, Level.WARN)]
)
def test_threads_that_would_wait_for_each_other_are_a_warning(
    monkeypatch: pytest.MonkeyPatch, omp: str | None, load: float, level: Level
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if omp:
        monkeypatch.setenv("OMP_NUM_THREADS", omp)
    monkeypatch.setattr(limits, "num_cores", lambda: 4)
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 0.0, 0.0), raising=False)
    assert run("threads").level is level


def test_a_coarse_clock_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter(x * 0.0156 for x in range(1000))
    monkeypatch.setattr(doctor_checks.time, "monotonic", lambda: next(ticks))
    found = run("clock")
    assert found.level is Level.WARN and "15600.00 us" in found.text


@pytest.mark.parametrize(
    ("encoding", "tty", "term", "level"),
    [
        ("utf-8", True, "xterm", Level.OK),
        ("cp1252", False, "xterm", Level.WARN),
        ("utf-8", True, "dumb", Level.WARN),
        ("utf-8", False, "dumb", Level.OK),
    ],
)
def test_terminals_that_the_console_cannot_use(monkeypatch: pytest.MonkeyPatch, encoding: str, tty: bool, term: str, level: Level) -> None:
    monkeypatch.setattr(doctor_checks.sys, "stdout", SimpleNamespace(encoding=encoding, isatty=lambda: tty))
    monkeypatch.setenv("TERM", term)
    found = list(doctor_checks._terminal())
    monkeypatch.undo()
    assert found[0].level is level


def test_a_check_that_breaks_is_a_finding() -> None:
    def broken() -> list[Finding]:
        raise KeyError("surprise")

    (found,) = doctor_checks._safely("memory", broken)  # type: ignore[arg-type]
    assert found.level is Level.ERROR and "KeyError: 'surprise'" in found.text


def test_text_is_ascii_and_shows_the_remedy() -> None:
    findings = [Finding("torch", Level.ERROR, "caf\u00e9 \u2717 \x1b[31m", "mend \u2192 it"), Finding("grpc", Level.OK, "fine")]
    text = as_text(findings)
    assert text.isascii() and "\x1b" not in text
    assert text.splitlines()[1].strip().startswith("-> mend")
    assert (exit_code(findings), exit_code(findings[1:])) == (1, 0)
