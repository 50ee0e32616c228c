"""Processes that stand still at a chosen point with the interpreter lock held, as they do on a busy machine while a large library
is loaded: no line of Python runs there, no signal handler either."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

HOLD_S = 120
_SITE = f"""
import ctypes, os, sys
_what, _name, _done = os.environ["HOLD_AT"].split(":")[0], os.environ["HOLD_AT"].split(":")[1], os.environ["HOLD_DONE"]
def _hook(event, args):
    if event == _what and str(args[0]).endswith(_name) and not os.path.exists(_done):
        open(_done, "w").close()
        ctypes.PyDLL(None).sleep({HOLD_S})
sys.addaudithook(_hook)
"""


class Holding:
    """`at` is an audit event and the end of its first argument, e.g. `import:torch`; the first process that gets there stays there."""

    def __init__(self, folder: Path, at: str) -> None:
        self.mark = folder / "held"
        (folder / "sitecustomize.py").write_text(_SITE)
        path = f"{folder}{os.pathsep}{os.environ.get('PYTHONPATH', os.getcwd())}"
        self.env = {**os.environ, "PYTHONPATH": path, "HOLD_AT": at, "HOLD_DONE": str(self.mark)}

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "engine", *arguments], env=self.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def wait(self, deadline_s: float = 90.0) -> None:
        """Until a process has got there."""
        began_s = time.monotonic()
        while not self.mark.exists():
            if time.monotonic() - began_s > deadline_s:
                raise AssertionError(f"no process got to {self.env['HOLD_AT']}")
            time.sleep(0.02)
