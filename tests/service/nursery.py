"""Real processes that start fast: one process imports torch once, and every process of the tests is forked from it.

Each child runs the very command line an operator would type. A worker takes 4 s of CPU to import torch and transformers; the
matrix of kills needs hundreds of workers.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import inspect
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

ON_EVERY_WORKER = ("--strategy", "balanced", "--adapt", "off")  # `auto` leaves a tiny model on one worker, until the load says otherwise
DEADLINE_S = 60.0
ONE_THREAD = {"OMP_WAIT_POLICY": "passive", "OMP_NUM_THREADS": "1"}
READ_BY_IMPORTS = (
    "PYTHON",
    "LD_",
    "OMP_",
    "GOMP_",
    "MKL_",
    "KMP_",
    "OPENBLAS",
    "HF_",
    "TRANSFORMERS",
    "TRITON",
    "CUDA",
    "TORCH",
    "GRPC_",
    "NUMBA_",
)
COMMANDS = frozenset(  # whose imports take long, and are no matter of their tests
    {"worker", "coordinator", "up", "generate", "status", "events", "moves", "drain", "undrain", "forget", "rebalance", "slowdown"}
)
READ_LATER = ("PYTHONUNBUFFERED", "GRPC_VERBOSITY", "TORCHINDUCTOR_CACHE_DIR")  # the last is set by torch itself
_SET_CHILD_SUBREAPER = 36  # of <sys/prctl.h>


class Ready:
    """The process that has imported everything, and that ends with this one."""

    def __init__(self, orders: socket.socket) -> None:
        """`orders` leads to it."""
        self._orders, self.environment = orders, dict(os.environ)
        self._lock = threading.Lock()

    def fork(self, argv: Sequence[str], handles: Sequence[int], cwd: str, env: Mapping[str, str], **order: Any) -> int:
        """`noodle-engine ARGUMENTS` as a child of the ready process, with those handles as its streams; returns its pid."""
        nothing = {"parent": None, "is_session": False, "namespaces": (), "deny": "", "prepare": ""}
        text = json.dumps(nothing | {"argv": list(argv), "cwd": cwd, "env": dict(env)} | order).encode()
        with self._lock:
            socket.send_fds(self._orders, [len(text).to_bytes(4, "big")], list(handles))
            self._orders.sendall(text)
            return self.number()

    def fork_child(self, argv: Sequence[str], handles: Sequence[int], cwd: str, env: Mapping[str, str], is_session: bool) -> int:
        """The same as a child of this process, which waits for it as for any other."""
        ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        try:
            return self.fork(argv, handles, cwd, env, parent=os.getpid(), is_session=is_session)
        finally:
            ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 0, 0, 0, 0)

    def number(self) -> int:
        answer = self._orders.recv(4, socket.MSG_WAITALL)
        assert answer, "the process that forks the others is gone"
        return int.from_bytes(answer, "big")


@functools.cache
def environment_at_first() -> dict[str, str]:
    """As it was at the first call, before any test changed it."""
    return dict(os.environ)


@functools.cache
def ready() -> Ready:
    """One for all tests of this process."""
    orders, theirs = socket.socketpair()
    command = [sys.executable, "-m", "tests.service.ready_process", str(theirs.fileno())]
    where = {"cwd": Path(__file__).parents[2], "env": environment_at_first() | ONE_THREAD}
    subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, **where)  # type: ignore[call-overload]
    theirs.close()
    found = Ready(orders)
    found.number()
    return found


@contextlib.contextmanager
def ready_children(own: Ready | None = None) -> Iterator[None]:
    """Meanwhile each `python -m engine worker` and the like that this process starts is forked, where that makes no difference to it.

    It is a child of this process with the streams, folder, environment and session that it would have had. `own` is a ready process
    that is a child of this one; without it the first start makes it.
    """
    plain = subprocess.Popen._execute_child  # type: ignore[attr-defined]
    signature = inspect.signature(plain)
    usual = own.environment if own else environment_at_first()

    @functools.wraps(plain)
    def execute(self: Any, *values: Any) -> None:
        given = signature.bind(self, *values).arguments
        environment = os.environ if given["env"] is None else given["env"]
        if not _can_be_forked(given) or _read_by_imports(environment) != _read_by_imports(usual):
            plain(self, *values)
            return
        handles = [given[name] if given[name] != -1 else number for number, name in enumerate(("p2cread", "c2pwrite", "errwrite"))]
        argv, cwd = [*map(str, given["args"][3:])], os.path.abspath(given["cwd"] or ".")
        self.pid = (own or ready()).fork_child(argv, handles, cwd, environment, given["start_new_session"])
        self._child_created = True
        self._close_pipe_fds(*(given[name] for name in ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")))

    subprocess.Popen._execute_child = execute  # type: ignore[attr-defined]
    try:
        yield
    finally:
        subprocess.Popen._execute_child = plain  # type: ignore[attr-defined]


def _can_be_forked(given: Mapping[str, Any]) -> bool:
    """Whether this start of a program is one of ours that asks for nothing unusual."""
    args = given["args"]
    if sys.platform != "linux" or isinstance(args, str | bytes | os.PathLike) or [*args[:3]] != [sys.executable, "-m", "engine"]:
        return False
    return not COMMANDS.isdisjoint(args[3:4]) and not given["pass_fds"] and given["preexec_fn"] is None and given["process_group"] == -1


def _read_by_imports(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that a process sees only before its imports."""
    return {name: value for name, value in environment.items() if name.startswith(READ_BY_IMPORTS) and name not in READ_LATER}


class Nursery:
    """Forks `noodle-engine ARGUMENTS`; every child is killed with it."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="nursery-"))
        self.pids: list[int] = []
        self._logs: dict[int, Path] = {}
        self._num_started = 0
        self._environment = dict(os.environ)

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
        order = {"deny": deny, "namespaces": namespaces, "prepare": prepare}
        with open(os.devnull) as nothing, out.open("a") as printed, err.open("a") as complained:
            handles = [nothing.fileno(), printed.fileno(), complained.fileno()]
            pid = ready().fork(arguments, handles, os.path.abspath(cwd), self._environment | ONE_THREAD | (env or {}), **order)
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


def _is_alive(pid: int) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False
