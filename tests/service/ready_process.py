"""The process from which others are forked: `python -m tests.service.ready_process SOCKET_HANDLE`. It has torch and the engine imported.

Orders come as a length, JSON and handles; each is answered with the new process's id. No thread runs here, so a forked process is what
a new one would be after its imports. A process may be a child of this one, or, as if it had been started there, of the one that orders.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import importlib
import json
import os
import platform
import signal
import socket
import sys
import threading
import time
from typing import Any, NoReturn

from tests.service import nursery

READY = (
    "torch",
    "transformers.modeling_utils",
    "transformers.models.gpt2.modeling_gpt2",
    "transformers.models.llama.modeling_llama",
    "engine.service.coordinator.coordinator",
    "engine.service.worker.worker",
    "engine.service.worker.stage_runner",
    "engine.commands.serving.serve",
    "engine.commands.cluster.generate",
    "engine.commands.cluster.inspect",
    "engine.commands.cluster.operate",
)
REFUSED = 71


STARTERS = {"up", "bench"}  # they start workers, which are forked too


def main() -> None:
    for name in READY:
        importlib.import_module(name)
    with contextlib.suppress(Exception):  # as the engine does: an extra, and not for every CPU
        importlib.import_module("engine.model.row_kernels.compiled")
    gc.freeze()
    orders = socket.socket(fileno=int(sys.argv[1]))
    tell(orders, os.getpid())
    obey(orders)


def obey(orders: socket.socket) -> NoReturn:
    """Fork until nobody is left to give orders."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while head := orders_head(orders):
        size, handles = head
        order = json.loads(orders.recv(size, socket.MSG_WAITALL))
        if order["parent"] is None:
            if (pid := os.fork()) == 0:
                become(orders, order, handles)
            tell(orders, pid)
        elif os.fork() == 0:  # its child is an orphan as soon as it ends, and goes to the one that orders
            if os.fork() == 0:
                while os.getppid() != order["parent"]:
                    time.sleep(0.0005)
                tell(orders, os.getpid())
                become(orders, order, handles)
            os._exit(0)
        for handle in handles:
            os.close(handle)
    os._exit(0)  # torch takes its time to be taken down


def orders_head(orders: socket.socket) -> tuple[int, list[int]] | None:
    """How long the next order is, and its handles; None when nobody is left to give one."""
    head, handles, _, _ = socket.recv_fds(orders, 4, 3)
    return (int.from_bytes(head, "big"), list(handles)) if head else None


def tell(orders: socket.socket, pid: int) -> None:
    orders.sendall(pid.to_bytes(4, "big"))


def become(orders: socket.socket, order: dict[str, Any], handles: list[int]) -> NoReturn:
    """In the new process: be `python -m engine ARGUMENTS`, to its end."""
    orders.close()
    own = ready_for_children(handles) if order["argv"][:1] and order["argv"][0] in STARTERS else None
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if any(ctypes.CDLL(None).setns(os.open(path, os.O_RDONLY), 0) for path in order["namespaces"]):
        os._exit(REFUSED)
    if order["namespaces"]:
        platform._uname_cache = None  # type: ignore[attr-defined]  # torch has asked for the host's name already
    if order["is_session"]:
        os.setsid()
    os.environ.clear()
    os.environ.update(order["env"])
    os.chdir(order["cwd"])
    if order["deny"]:
        sys.addaudithook(deny(order["deny"]))
    take_streams(handles)
    sys.argv = ["noodle-engine", *order["argv"]]
    with nursery.ready_children(nursery.Ready(own)) if own else contextlib.nullcontext():
        end(order)


def ready_for_children(handles: list[int]) -> socket.socket:
    """One more process like this one, as long as no thread runs; returns where it takes its orders."""
    orders, theirs = socket.socketpair()
    if os.fork() == 0:
        orders.close()
        for handle in handles:
            os.close(handle)
        obey(theirs)
    theirs.close()
    return orders


def deny(folder: str) -> Any:
    def hook(event: str, args: Any) -> None:
        if event == "open" and isinstance(args[0], (str, bytes)) and os.path.abspath(os.fsdecode(args[0])).startswith(folder):
            raise PermissionError(13, "this machine has no such folder", args[0])

    return hook


def take_streams(handles: list[int]) -> None:
    for number, handle in enumerate(handles):
        os.dup2(handle, number)
        os.close(handle)
    at_once = bool(os.environ.get("PYTHONUNBUFFERED"))
    sys.stdin, sys.stdout, sys.stderr = (os.fdopen(n, mode, encoding="utf-8", closefd=False) for n, mode in enumerate("rww"))
    sys.stdout.reconfigure(write_through=at_once, line_buffering=os.isatty(1))
    sys.stderr.reconfigure(errors="backslashreplace", line_buffering=True)
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr  # type: ignore[misc]


def end(order: dict[str, Any]) -> NoReturn:
    """What the interpreter does, but for taking all modules apart, which takes seconds with torch."""
    from engine.cli import main

    try:
        if order["prepare"]:
            importlib.import_module(order["prepare"]).install()
        code = main()
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        code = 70
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
