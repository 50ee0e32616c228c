"""Real processes that start fast: a nursery imports torch once and forks every process of a test from itself.

Each child runs the very command line an operator would type. A worker takes 4 s of CPU to import torch and transformers; the
matrix of kills needs hundreds of workers.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ON_EVERY_WORKER = ("--strategy", "balanced", "--adapt", "off")  # `auto` leaves a tiny model on one worker, until the load says otherwise
_PROGRAM = """
import ctypes, importlib, json, os, platform, signal, sys
import torch, transformers.modeling_utils
import transformers.models.gpt2.modeling_gpt2, transformers.models.llama.modeling_llama
import engine.service.coordinator.coordinator, engine.service.worker.worker, engine.service.worker.stage_runner
from engine.cli import main
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
def deny(folder):
    def hook(event, args):
        if event == "open" and isinstance(args[0], (str, bytes)) and os.path.abspath(os.fsdecode(args[0])).startswith(folder):
            raise PermissionError(13, "this machine has no such folder", args[0])
    return hook
print("ready", flush=True)
for line in sys.stdin:
    order = json.loads(line)
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        if any(ctypes.CDLL(None).setns(os.open(path, os.O_RDONLY), 0) for path in order["namespaces"]):
            os._exit(71)
        if order["namespaces"]:
            platform._uname_cache = None  # torch has asked for the host's name already
        os.environ.update(order["env"])
        os.chdir(order["cwd"])
        if order["deny"]:
            sys.addaudithook(deny(order["deny"]))
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(os.open(order["out"], os.O_WRONLY | os.O_CREAT | os.O_APPEND), 1)
        os.dup2(os.open(order["err"], os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
        try:
            if order["prepare"]:
                importlib.import_module(order["prepare"]).install()
            code = main(order["argv"])
        except BaseException:
            import traceback
            traceback.print_exc()
            code = 70
        os._exit(code)
    print(pid, flush=True)
os._exit(0)  # torch takes its time to be taken down
"""
DEADLINE_S = 60.0


class Nursery:
    """Forks `noodle-engine ARGUMENTS`; every child is killed with it."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="nursery-"))
        environment = {**os.environ, "OMP_WAIT_POLICY": "passive", "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self.pids: list[int] = []
        self._logs: dict[int, Path] = {}
        self._num_started = 0
        assert self._read() == "ready"

    def start(
        self,
        *arguments: str,
        env: dict[str, str] | None = None,
        cwd: str = ".",
        deny: str = "",
        namespaces: tuple[str, ...] = (),
        prepare: str = "",
    ) -> tuple[int, dict[str, object]]:
        """Start a server, in the namespaces at those paths; returns its pid and what it announced. It cannot open anything below `deny`.

        `prepare` is a module whose `install()` is called first.
        """
        self._num_started += 1
        out, err = self.folder / f"{self._num_started}.out", self.folder / f"{self._num_started}.err"
        assert self._process.stdin is not None
        order = {"argv": arguments, "out": str(out), "err": str(err), "env": env or {}, "cwd": cwd, "deny": deny, "namespaces": namespaces}
        order["prepare"] = prepare
        print(json.dumps(order), file=self._process.stdin, flush=True)
        pid = int(self._read())
        self.pids.append(pid)
        self._logs[pid] = err
        started_s = time.monotonic()
        while not (out.exists() and "\n" in out.read_text()):
            if time.monotonic() - started_s > DEADLINE_S or not _is_alive(pid):
                raise AssertionError(f"{arguments[0]} did not start: {err.read_text()[-2000:] if err.exists() else ''}")
            time.sleep(0.01)
        return pid, json.loads(out.read_text().splitlines()[0])

    def log_of(self, pid: int, text: str, deadline_s: float) -> str:
        """What a process wrote to stderr, once that text is in it or the time is up."""
        started_s = time.monotonic()
        while text not in (log := self._logs[pid].read_text()) and time.monotonic() - started_s < deadline_s:
            time.sleep(0.02)
        return log

    def kill(self, pid: int) -> None:
        """SIGKILL, and wait until it is gone."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        self.pids = [p for p in self.pids if p != pid]
        while _is_alive(pid):
            time.sleep(0.002)

    def close(self) -> None:
        for pid in list(self.pids):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
            self.kill(pid)
        self._process.kill()  # it holds nothing; an orderly end with torch takes seconds on a busy machine
        self._process.wait()

    def _read(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


def _is_alive(pid: int) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False
