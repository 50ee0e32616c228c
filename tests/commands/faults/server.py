"""Forks a process for every run: `python -m tests.commands.faults.server SHIM SOCKET` with the shim preloaded. JSON lines in and out.

The process has imported all of both programs, and no thread runs in it, so a forked one is what a new one would be after its imports.
The processes that a command starts are forked here too, at the request of `child.py`, and their file operations count with its own.
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
import runpy
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PACKAGES = ("engine", "noodle_tui")
LATE = ("tokenizers", "safetensors.torch", "transformers.modeling_utils", "prometheus_client", "plotly", "grpc.aio", "sqlite3")
ELSEWHERE = ("triton", "ray")  # comes with torch where there is a GPU; an extra that tests do not need
FAMILIES = ("transformers.models.llama.modeling_llama", "transformers.models.gpt2.modeling_gpt2")
POLL_S = 0.005
STOP_S = 10.0


def main() -> None:
    shim = ctypes.CDLL(sys.argv[1])
    _import_all()
    gc.freeze()
    shim.prepare()
    with socket.socket(socket.AF_UNIX) as requests:
        requests.bind(sys.argv[2])
        requests.listen(16)
        requests.setblocking(False)
        print(json.dumps({"ready": os.getpid()}), flush=True)
        for line in sys.stdin:
            order = json.loads(line)
            shim.reset()
            pid = _fork(lambda order=order: _command(shim, order))  # type: ignore[misc]
            print(json.dumps(Run(shim, requests, pid, order).watch()), flush=True)


def _import_all() -> None:
    for package in PACKAGES:
        for module in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}."):
            if not module.name.endswith("__main__"):
                try:
                    importlib.import_module(module.name)
                except ModuleNotFoundError as error:
                    if error.name not in ELSEWHERE:
                        raise
    for name in (*LATE, *FAMILIES):
        importlib.import_module(name)


def _fork(work: Callable[[], int]) -> int:
    pid = os.fork()
    if pid == 0:
        _leave(work)
    return pid


def _leave(work: Callable[[], int]) -> None:
    """What the interpreter does at its end, but for taking all modules apart, which would take longer than the command."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a suite that runs in the background may have been started without it
    tempfile.tempdir = None
    try:
        code = work()
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        code = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def _command(shim: Any, order: dict[str, Any]) -> int:
    """In the new process: become the command."""
    os.chdir(order["folder"])
    os.environ.update(order["environment"])
    _take_streams([os.open(path, flags, 0o600) for path, flags in order["streams"]])
    sys.argv, sys.executable = [order["program"], *order["argv"]], order["python"]
    for module, name, value in order["settings"]:
        setattr(importlib.import_module(module), name, value)
    from engine.cli import main as engine_main
    from noodle_tui.__main__ import main as console_main

    _arm(shim, order)
    return engine_main() if order["program"] == "noodle-engine" else console_main()


def _child(shim: Any, order: dict[str, Any], request: dict[str, Any], streams: list[int]) -> int:
    """In the new process: become what the command started, `python -m MODULE ...` or `python -c TEXT`."""
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    _take_streams(streams)
    flag, what, *arguments = request["argv"]
    sys.argv, sys.executable = [what, *arguments], order["python"]
    for module, name, value in order["settings"]:
        setattr(importlib.import_module(module), name, value)
    _arm(shim, order)
    if flag == "-m":
        runpy.run_module(what, run_name="__main__", alter_sys=False)
    else:
        exec(compile(what, "<text>", "exec"), {"__name__": "__main__"})
    return 0


def _take_streams(handles: list[int]) -> None:
    for number, handle in enumerate(handles):
        os.dup2(handle, number)
        os.close(handle)
    sys.stdin, sys.stdout, sys.stderr = (os.fdopen(n, mode, 1, "utf-8", closefd=False) for n, mode in enumerate("rww"))
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr


def _arm(shim: Any, order: dict[str, Any]) -> None:
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    shim.arm(order["folder"].encode(), order["fail_at"], order["errno"], order["sticky"], log)


class Run:
    """A command and the processes that it started, until all of them have ended."""

    def __init__(self, shim: Any, requests: socket.socket, pid: int, order: dict[str, Any]) -> None:
        self._shim, self._requests, self._pid, self._order = shim, requests, pid, order
        self._children: dict[int, socket.socket] = {}
        self._output = [Path(path) for path, _ in order["streams"][1:]]
        self._began_s, self._told_s, self._how = time.monotonic(), 0.0, "ended"

    def watch(self) -> dict[str, Any]:
        """Wait for the end; a server is stopped once it has said what it is waited for, whatever takes too long is interrupted."""
        while True:
            done, status = os.waitpid(self._pid, os.WNOHANG)
            self._serve_children()
            if done:
                left = self._end_children()
                return {"code": os.waitstatus_to_exitcode(status), "how": self._how, "left": left}
            self._hurry(time.monotonic())
            time.sleep(POLL_S)

    def _hurry(self, now_s: float) -> None:
        until = self._order["until"]
        if self._how == "ended" and until and any(re.search(until, path.read_text(errors="replace")) for path in self._output):
            self._how, self._told_s = "stopped", now_s
            os.kill(self._pid, signal.SIGTERM)
        elif self._how == "ended" and now_s - self._began_s > self._order["limit_s"]:
            self._how, self._told_s = "interrupted", now_s
            os.kill(self._pid, signal.SIGINT)
        elif self._how in ("stopped", "interrupted") and now_s - self._told_s > STOP_S:
            self._how = "hung"
            _kill(self._pid)

    # ------------------------------------------------------------------------------------------ what the command started
    def _serve_children(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                connection, _ = self._requests.accept()
                self._start_child(connection)
        for pid, connection in list(self._children.items()):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                self._tell(connection, os.waitstatus_to_exitcode(status))
                self._children.pop(pid).close()
            elif _is_closed(connection):  # killed, as nobody could be who has to ask others to die with it
                _kill(pid)

    def _start_child(self, connection: socket.socket) -> None:
        connection.setblocking(True)
        head, handles, _, _ = socket.recv_fds(connection, 4, 3)
        request = json.loads(connection.recv(int.from_bytes(head, "big"), socket.MSG_WAITALL))
        pid = _fork(lambda: _child(self._shim, self._order, request, handles))
        for handle in handles:
            os.close(handle)
        self._children[pid] = connection
        self._tell(connection, pid)

    def _tell(self, connection: socket.socket, number: int) -> None:
        with contextlib.suppress(OSError):
            connection.sendall(number.to_bytes(4, "big", signed=True))

    def _end_children(self) -> int:
        """How many did not end with the command."""
        deadline_s = time.monotonic() + STOP_S
        while self._children and time.monotonic() < deadline_s:
            self._serve_children()
            time.sleep(POLL_S)
        num_left = len(self._children)
        while self._children:
            for pid in self._children:
                _kill(pid)
            self._serve_children()
        return num_left


def _is_closed(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return connection.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True
    finally:
        connection.setblocking(True)


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


if __name__ == "__main__":
    main()
