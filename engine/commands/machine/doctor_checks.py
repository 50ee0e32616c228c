"""What `noodle-engine doctor` finds: whether this machine can run NoodleCore, and how to mend what is wrong.

Every check runs alone and may fail alone. torch is imported in a process of its own: a broken one may end the process
that imports it, and this one must live to say so. All text is ASCII.
"""

from __future__ import annotations

import importlib
import json
import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from enum import StrEnum
from importlib import metadata
from pathlib import Path
from typing import Any

from engine.data.errors import NoodleError
from engine.folders import cache_folder, run_folder, settings_path, state_folder
from engine.program import explained

TORCH_INSTALL = "pip install torch --index-url https://download.pytorch.org/whl/cpu"
# The same floors as pyproject.toml; a test compares them.
MINIMUM_VERSIONS = {
    "torch": "2.6", "transformers": "5.24", "tokenizers": "0.21", "safetensors": "0.5", "grpcio": "1.85.1",
    "grpcio-health-checking": "1.85.1", "protobuf": "7.35", "psutil": "6", "nvidia-ml-py": "12", "textual": "8.2", "rich": "14.3",
    "prompt_toolkit": "3.0.43", "plotly": "6",
}  # fmt: skip
EXTRAS = {
    "textual": "console",
    "rich": "console",
    "prompt_toolkit": "console",
    "plotly": "report",
}  # not missed where nobody asked for them
_PROBE = """
import json, torch, transformers
def attention(cuda):
    if not cuda:
        return ""
    from engine.model.running.accelerator.attending import probed
    return probed("cuda:0", torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16).text
from engine.model.row_kernels.kernels import row_kernels
cuda = torch.cuda.is_available()
print(json.dumps({
    "torch": torch.__version__, "built_with_cuda": torch.version.cuda, "threads": torch.get_num_threads(),
    "gpus": [[torch.cuda.get_device_name(i), torch.cuda.mem_get_info(i)[0]] for i in range(torch.cuda.device_count())] if cuda else [],
    "attention": attention(cuda), "row_kernels": row_kernels().names,
    "mps": torch.backends.mps.is_available(), "sum": torch.ones(1000).sum().item()}))
"""
_PROBE_TIMEOUT_S = 120
_MIN_DISK_BYTES = 2 * 2**30
_MIN_MEMORY_BYTES = 2 * 2**30
_MAX_TICK_S = 1e-3
_ROUND_TRIP_TIMEOUT_S = 10


class Level(StrEnum):
    OK = "ok"
    WARN = "warn"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at: how it is, and, when it is not well, how to mend it."""

    check: str
    level: Level
    text: str
    mend: str = ""


def examine(cache_dir: Path | None = None) -> list[Finding]:
    """Run every check; never raises. Takes as long as importing torch once."""
    folder = cache_dir or cache_folder()
    checks: dict[str, Callable[[], Iterator[Finding]]] = {
        "python": _python,
        "packages": _packages,
        "torch": _torch,
        "protobuf": _protobuf,
        "grpc": _grpc,
        "cache": lambda: _cache(folder),
        "weights": lambda: _weights(folder),
        "folders": _folders,
        "memory": _memory,
        "threads": _threads,
        "clock": _clock,
        "terminal": _terminal,
    }
    return [finding for name, check in checks.items() for finding in _safely(name, check)]


def exit_code(findings: list[Finding]) -> int:
    """1 if anything is an error, else 0."""
    return int(any(finding.level is Level.ERROR for finding in findings))


def as_document(findings: list[Finding]) -> dict[str, Any]:
    """What `doctor --json` prints."""
    return {"ok": exit_code(findings) == 0, "findings": [asdict(finding) for finding in findings]}


def as_text(findings: list[Finding]) -> str:
    """One line per finding, with the remedy below it; ASCII whatever the messages of other libraries hold."""
    lines = []
    for finding in findings:
        lines.append(f"{finding.level.upper():5}  {finding.check:10}  {_plain(finding.text)}")
        if finding.mend:
            lines.append(f"{'':19}-> {_plain(finding.mend)}")
    return "\n".join(lines)


def _plain(text: str) -> str:
    """Printable ASCII: other characters, line ends and escape codes among them, as Python writes them in a literal."""
    return "".join(c if c.isascii() and c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _safely(name: str, check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    try:
        yield from check()
    except Exception as error:  # a check that breaks is a finding, and the others still run
        yield Finding(name, Level.ERROR, f"this check failed: {explained(error)}", "see the message; reinstall noodlecore if it persists")


def _python() -> Iterator[Finding]:
    yield Finding("python", Level.OK, f"Python {platform.python_version()} on {platform.platform()}")


def _packages() -> Iterator[Finding]:
    good = []
    for name, minimum in MINIMUM_VERSIONS.items():
        install = TORCH_INSTALL if name == "torch" else f"pip install '{name}>={minimum}'"
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            if extra := EXTRAS.get(name):
                yield Finding("packages", Level.OK, f"{name} is not installed: it belongs to noodlecore[{extra}], which workers do without")
            else:
                yield Finding("packages", Level.ERROR, f"{name} is not installed", install)
            continue
        if _release(version) < _release(minimum):
            yield Finding("packages", Level.ERROR, f"{name} {version} is older than {minimum}", install)
        else:
            good.append(f"{name} {version}")
    yield Finding("packages", Level.OK, ", ".join(good) or "none of ours is installed")


def _release(version: str) -> tuple[int, ...]:
    """The numbers of a version, up to the first part that is not one: 2.13.0+cpu is (2, 13, 0)."""
    numbers: list[int] = []
    for part in version.split("+")[0].split("."):
        if not part.isdigit():
            break
        numbers.append(int(part))
    return tuple(numbers)


def _torch() -> Iterator[Finding]:
    try:
        process = subprocess.run([sys.executable, "-c", _PROBE], capture_output=True, text=True, errors="replace", timeout=_PROBE_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        took = f"importing torch took more than {_PROBE_TIMEOUT_S:g} s"
        yield Finding("torch", Level.ERROR, took, "end other programs and try again; reinstall torch if it persists")
        return
    if process.returncode != 0:
        reason = (process.stderr.strip().splitlines() or [f"the process ended with status {process.returncode}"])[-1]
        yield Finding("torch", Level.ERROR, f"torch and transformers cannot be imported: {reason}", TORCH_INSTALL)
        return
    facts = json.loads(process.stdout.strip().splitlines()[-1])
    gpus = [f"cuda:{index} {name} ({free / 2**30:.1f} GiB free)" for index, (name, free) in enumerate(facts["gpus"])]
    devices = ["cpu", *gpus, *(["mps"] if facts["mps"] else [])]
    yield Finding("torch", Level.OK, f"torch {facts['torch']} works with {facts['threads']} threads; devices: {', '.join(devices)}")
    if facts["row_kernels"]:
        yield Finding("kernels", Level.OK, f"compiled for this CPU, with the bits of torch: {', '.join(facts['row_kernels'])}")
    else:
        why = "no row kernels are compiled here: the same answers, slower on a CPU"
        yield Finding("kernels", Level.OK, why, "pip install 'noodlecore[compiled]'")
    if facts["attention"]:
        yield Finding("attention", Level.OK, f"cuda:0 attends with {facts['attention']}")
    if not gpus and shutil.which("nvidia-smi"):
        why = "its driver does not answer torch" if facts["built_with_cuda"] else "this torch was built without CUDA"
        mend = "install torch without the CPU index, and a driver that is new enough for it"
        yield Finding("torch", Level.WARN, f"an NVIDIA driver is installed, but {why}", mend)


def _protobuf() -> Iterator[Finding]:
    try:
        messages = importlib.import_module("protos.noodle_pb2")
        importlib.import_module("protos.noodle_pb2_grpc")
        sent = messages.NodeSpec(node_id="doctor", memory_bytes=2**40)
        if messages.NodeSpec.FromString(sent.SerializeToString()) != sent:
            raise ValueError("a message did not survive a round trip")
    except Exception as error:  # VersionError, RuntimeError and ImportError all mean that code and runtime do not fit
        mend = f"pip install 'protobuf>={MINIMUM_VERSIONS['protobuf']}' 'grpcio>={MINIMUM_VERSIONS['grpcio']}'"
        yield Finding("protobuf", Level.ERROR, f"the generated messages do not match the runtime: {error}", mend)
    else:
        yield Finding("protobuf", Level.OK, f"the generated messages match protobuf {metadata.version('protobuf')}")


def _grpc() -> Iterator[Finding]:
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
    except OSError as error:
        yield Finding("grpc", Level.ERROR, f"no loopback port can be bound: {error}", "allow 127.0.0.1 in the firewall or sandbox")
        return
    try:
        took_s = _round_trip_s()
    except Exception as error:  # grpc.RpcError, ImportError, or a port that another process took
        reason = getattr(error, "details", lambda: None)() or f"{type(error).__name__}: {error}"
        proxies = [name for name in ("grpc_proxy", "http_proxy", "https_proxy") if os.environ.get(name)]
        mend = f"{', '.join(proxies)} is set: add no_proxy=localhost,127.0.0.1" if proxies else "allow 127.0.0.1 in the firewall or sandbox"
        yield Finding("grpc", Level.ERROR, f"a gRPC call over loopback failed: {reason}", mend)
    else:
        yield Finding("grpc", Level.OK, f"loopback works (port {port} was free); a gRPC round trip takes {took_s * 1e3:.2f} ms")


def _round_trip_s() -> float:
    """The quickest of ten calls to a server of this process's own."""
    import grpc

    echo = grpc.unary_unary_rpc_method_handler(lambda request, _: request)
    with ThreadPoolExecutor(1) as pool:
        server = grpc.server(pool, handlers=[grpc.method_handlers_generic_handler("noodle.Doctor", {"Echo": echo})])
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
                call = channel.unary_unary("/noodle.Doctor/Echo")
                return min(_timed(lambda: call(b"ping", timeout=_ROUND_TRIP_TIMEOUT_S)) for _ in range(10))
        finally:
            server.stop(None).wait()


def _timed(action: Callable[[], object]) -> float:
    began_s = time.perf_counter()
    action()
    return time.perf_counter() - began_s


def _cache(folder: Path) -> Iterator[Finding]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"noodle")
        free_bytes = shutil.disk_usage(folder).free
    except OSError as error:
        yield Finding("cache", Level.ERROR, f"{folder} cannot be written: {error}", "set NOODLE_CACHE to a folder that can")
        return
    text = f"{folder} can be written, {free_bytes / 2**30:.1f} GiB are free"
    if free_bytes < _MIN_DISK_BYTES:
        yield Finding("cache", Level.WARN, text, "free some space, or set NOODLE_CACHE to a larger disk: GPT-2 alone takes 0.5 GiB")
    else:
        yield Finding("cache", Level.OK, text)


def _folders() -> Iterator[Finding]:
    settings = settings_path("console.toml").parent
    text = f"settings in {settings}, profiles and history in {state_folder()}, ways into clusters in {run_folder()}"
    yield Finding("folders", Level.OK, text)


def _weights(folder: Path) -> Iterator[Finding]:
    from engine.model.weights.weight_cache import CACHE_FOLDER, WeightCache  # needs psutil, which may be what is missing

    try:
        size = WeightCache(folder / CACHE_FOLDER).size()
    except (OSError, NoodleError) as error:
        yield Finding("weights", Level.ERROR, str(explained(error)), "set NOODLE_CACHE to a folder that can be read")
        return
    text = f"{size.num_entries} tensors that workers fetched from others take {size.num_bytes / 2**30:.2f} GiB in {folder / CACHE_FOLDER}"
    yield Finding("weights", Level.OK, f"{text}; `worker --cache-limit SIZE` bounds them, the least recently used go first")


def _memory() -> Iterator[Finding]:
    from engine.model.hardware.limits import cpu_memory_bytes  # needs psutil, which may be what is missing

    total, free = cpu_memory_bytes()
    text = f"{free / 2**30:.1f} of {total / 2**30:.1f} GiB are free, within the limits of this container if there is one"
    if free < _MIN_MEMORY_BYTES:
        yield Finding("memory", Level.WARN, text, "end other programs, or use small models such as `gpt2:tiny`")
    else:
        yield Finding("memory", Level.OK, text)


def _threads() -> Iterator[Finding]:
    from engine.model.hardware.limits import num_cores

    cores = num_cores()
    settings = [f"{name}={os.environ[name]}" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS") if name in os.environ]
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    text = f"{cores} cores for this process, load {load:.1f}{', ' + ', '.join(settings) if settings else ''}"
    omp = os.environ.get("OMP_NUM_THREADS", "1")
    if omp.isdigit() and int(omp) > cores:
        mend = f"unset OMP_NUM_THREADS, or set it to at most {cores}: more threads than cores wait for each other"
        yield Finding("threads", Level.WARN, text, mend)
    elif load > cores * 0.75:
        mend = "other programs are busy: give workers fewer threads, since a step waits for its slowest thread"
        yield Finding("threads", Level.WARN, text, mend)
    else:
        yield Finding("threads", Level.OK, text)


def _clock() -> Iterator[Finding]:
    tick_s = max(_tick_s(time.monotonic), _tick_s(time.perf_counter))
    text = f"the clocks tick every {tick_s * 1e6:.2f} us"
    if tick_s > _MAX_TICK_S:
        yield Finding("clock", Level.WARN, text, "hop and step times below that are guesses; use Python 3.13 or newer on Windows")
    else:
        yield Finding("clock", Level.OK, text)


def _tick_s(clock: Callable[[], float]) -> float:
    """The smallest step that the clock was seen to take, which may be coarser than it claims."""
    steps = []
    for _ in range(5):
        began_s = now_s = clock()
        while now_s == began_s:
            now_s = clock()
        steps.append(now_s - began_s)
    return min(steps)


def _terminal() -> Iterator[Finding]:
    encoding = getattr(sys.stdout, "encoding", None) or "none"
    term = os.environ.get("TERM", "not set")
    text = f"output encoding {encoding}, TERM {term}, {'a terminal' if sys.stdout.isatty() else 'not a terminal'}"
    if encoding.lower().replace("-", "") not in {"utf8", "utf8sig"}:
        yield Finding("terminal", Level.WARN, text, "set PYTHONUTF8=1 or a UTF-8 locale, or start the console with --ascii")
    elif sys.stdout.isatty() and term in {"dumb", "not set"} and os.name != "nt":
        yield Finding("terminal", Level.WARN, text, "the console moves the cursor: set TERM to your terminal's, such as xterm-256color")
    else:
        yield Finding("terminal", Level.OK, text)
