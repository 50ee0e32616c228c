"""An ordinary `python -m engine ...` process that an actor starts, and that ends with it.

A process of its own, so that torch, its threads and its GPU are in a program that nobody forked and that Ray's worker does not share:
the actor answers while the process computes, and outlives it. The process holds the reading end of a pipe to the actor as its stdin:
however the actor ends, by `kill -9` too, it ends.
"""

from __future__ import annotations

import collections
import contextlib
import json
import queue
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import IO, Any

from engine.data.errors import NoodleError, Unavailable
from engine.service.local import STOP_TIMEOUT_S, TAIL_LINES, child_environment, obituary

START_LIMIT_S = 60.0
_OF_RAY = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")  # of the CPUs reserved; --threads says it to a worker


class Child:
    """Started at once; every line it writes to stderr goes to the actor's log."""

    def __init__(self, name: str, arguments: Sequence[str]) -> None:
        self.name = name
        self.process = subprocess.Popen(
            [sys.executable, "-m", "engine", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=_environment(child_environment()),
            start_new_session=True,
        )
        self._tail: collections.deque[str] = collections.deque(maxlen=TAIL_LINES)
        self._first: queue.Queue[bytes] = queue.Queue()
        self._readers = [threading.Thread(target=work, daemon=True) for work in (self._read_output, self._read_errors)]
        for reader in self._readers:
            reader.start()

    def announced(self) -> Mapping[str, Any]:
        """The document that it prints once its address is bound. Raises NoodleError with the end of its log if it ends before."""
        try:
            line = self._first.get(timeout=START_LIMIT_S)
        except queue.Empty:
            self.stop()
            raise Unavailable(f"{self.name} did not say its address within {START_LIMIT_S:.0f} s: {' '.join(self._tail)}") from None
        if not line:
            raise NoodleError(self.ended())
        found: Mapping[str, Any] = json.loads(line)
        return found

    def ended(self) -> str:
        """Waits for its end; a sentence with the end of its log."""
        code = self.process.wait()
        for reader in self._readers:
            reader.join(STOP_TIMEOUT_S)
        return obituary(self.name, self.process.pid, code, self._tail)

    def stop(self) -> None:
        """Politely, then by force; returns when it is gone."""
        with contextlib.suppress(OSError):
            _pipe(self.process.stdin).close()
        self.process.terminate()
        try:
            self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _read_output(self) -> None:
        output = _pipe(self.process.stdout)
        self._first.put(output.readline())
        while output.readline():
            pass

    def _read_errors(self) -> None:
        for line in _pipe(self.process.stderr):
            self._tail.append(line.decode(errors="replace").rstrip())
            print(f"{self.name}: {self._tail[-1]}", file=sys.stderr, flush=True)


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    if stream is None:
        raise AssertionError("the pipe was asked for")
    return stream


def _environment(found: Mapping[str, str]) -> dict[str, str]:
    """Without what Ray sets in its own processes for libraries that compute there."""
    return {name: value for name, value in found.items() if name not in _OF_RAY}
