"""Forks a process for every run: `python -m tests.commands.faults.server` with the shim preloaded. JSON lines in, JSON lines out.

The process has imported all of both programs, and no thread runs in it, so a forked one is what a new one would be after its imports.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import importlib
import json
import os
import pkgutil
import re
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

PACKAGES = ("engine", "noodle_tui")
LATE = ("tokenizers", "safetensors.torch", "transformers.modeling_utils", "prometheus_client", "plotly", "grpc.aio", "sqlite3")
POLL_S = 0.005
STOP_S = 10.0


def main() -> None:
    shim = ctypes.CDLL(sys.argv[1])
    _import_all()
    gc.freeze()
    print(json.dumps({"ready": os.getpid()}), flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _leave(_run(shim, order))
        print(json.dumps(_watch(pid, order)), flush=True)


def _leave(code: int) -> None:
    """What the interpreter does at its end, but for taking all modules apart, which would take longer than the command."""
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _import_all() -> None:
    for package in PACKAGES:
        for module in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    for name in LATE:
        importlib.import_module(name)


def _run(shim: Any, order: dict[str, Any]) -> int:
    """In the new process: become the command."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a suite that runs in the background may have been started without it
    os.chdir(order["folder"])
    os.environ.update(order["environment"])
    tempfile.tempdir = None
    for number, (path, flags) in enumerate(order["streams"]):
        handle = os.open(path, flags, 0o600)
        os.dup2(handle, number)
        os.close(handle)
    sys.stdin, sys.stdout, sys.stderr = (os.fdopen(n, mode, 1, "utf-8", closefd=False) for n, mode in enumerate("rww"))
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600) if order["log"] else -1
    sys.argv = [order["program"], *order["argv"]]
    from engine.cli import main as engine_main
    from noodle_tui.__main__ import main as console_main

    shim.arm(order["folder"].encode(), order["fail_at"], order["errno"], order["sticky"], log)
    return engine_main() if order["program"] == "noodle-engine" else console_main()


def _watch(pid: int, order: dict[str, Any]) -> dict[str, Any]:
    """Wait for the end; a server is stopped once it has said what it is waited for, whatever takes too long is interrupted."""
    began_s, how = time.monotonic(), "ended"
    output = [Path(path) for path, _ in order["streams"][1:]]
    told_s = 0.0
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        now_s = time.monotonic()
        if done:
            return {"code": os.waitstatus_to_exitcode(status), "how": how, "spent_s": now_s - began_s}
        if how == "ended" and order["until"] and any(re.search(order["until"], path.read_text(errors="replace")) for path in output):
            how, told_s = "stopped", now_s
            os.kill(pid, signal.SIGTERM)
        elif how == "ended" and now_s - began_s > order["limit_s"]:
            how, told_s = "interrupted", now_s
            os.kill(pid, signal.SIGINT)
        elif how in ("stopped", "interrupted") and now_s - told_s > STOP_S:
            how = "hung"
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
        time.sleep(POLL_S)


if __name__ == "__main__":
    main()
