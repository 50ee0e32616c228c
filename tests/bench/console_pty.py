"""Measure the console on a pseudo-terminal: first paint, bytes and CPU per second, keys, a dialog, memory after an hour.

    python -m tests.bench.console_pty [--size 120x40] [--nodes 20] [--runs 5] [--seconds 20]

The frames come from a recording in which every row changes once a second, replayed at 1 Hz, so bytes are the same on every
machine; `tests/tui/test_budgets.py` gates them. Times are medians over the runs and depend on the machine; the first start is
dropped because it fills the bytecode cache.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from tests.tui import recordings
from tests.tui.pty_console import PtyConsole

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
HOUR_S = 3600


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="120x40")
    parser.add_argument("--nodes", type=int, default=20)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=20.0)
    options = parser.parse_args()
    size = tuple(int(part) for part in options.size.split("x"))
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), size, options.nodes, options.seconds)
        bench.start(options.runs)
        bench.steady("unchanged screen", bench.still)
        bench.steady(f"live, {options.nodes} nodes", bench.live)
        bench.steady("live, --low-bandwidth", bench.live, "--low-bandwidth")
        bench.steady("live, 200 nodes", bench.crowd)
        for key, back, name in (("\x1b[B", "\x1b[A", "cursor down"), ("R", "\x1b", "open a dialog"), ("2", "1", "another screen")):
            bench.key(key, back, name)
        bench.memory()


class Bench:
    """One terminal size and its recordings."""

    def __init__(self, folder: Path, size: Sequence[int], num_nodes: int, seconds: float) -> None:
        self._width, self._height = size
        self._seconds = seconds
        num_frames = int(seconds * 2) + 30
        self.live = recordings.write(folder / "live.jsonl", num_nodes, num_frames)
        self.still = recordings.write(folder / "still.jsonl", num_nodes, num_frames, still=True)
        self.crowd = recordings.write(folder / "crowd.jsonl", 200, num_frames)
        self._hour = recordings.write(folder / "hour.jsonl", num_nodes, HOUR_S)

    def _console(self, path: Path, *flags: str) -> PtyConsole:
        return PtyConsole(["--replay", str(path), *flags], width=self._width, height=self._height)

    def start(self, runs: int) -> None:
        """From starting the process to the truth line and the key line, and to the first frame."""
        paints, lives = [], []
        for _ in range(runs + 1):
            with self._console(self.live) as console:
                console.wait_for(lambda console=console: "noodle" in console.screen.display[0] and "quit" in console.screen.display[-1])
                paints.append(time.perf_counter() - console.started_s)
                console.wait_for("[REPLAY")
                lives.append(time.perf_counter() - console.started_s)
        print(f"{'first paint':<26}{statistics.median(paints[1:]):.3f} s   worst {max(paints[1:]):.3f}")
        print(f"{'first frame':<26}{statistics.median(lives[1:]):.3f} s   worst {max(lives[1:]):.3f}")

    def steady(self, name: str, path: Path, *flags: str) -> None:
        """Bytes per second and CPU share while frames come in."""
        with self._console(path, *flags) as console:
            console.wait_for("[REPLAY")
            if path is self.still:
                console.send(" ")
                console.wait_for("PAUSED")
            console.wait_for_silence(0.6)
            before, cpu_before_s, start_s = len(console.raw), cpu_s(console.pid), time.perf_counter()
            threading.Event().wait(self._seconds)
            elapsed_s = time.perf_counter() - start_s
            rate, cpu = (len(console.raw) - before) / elapsed_s, (cpu_s(console.pid) - cpu_before_s) / elapsed_s
            print(f"{name:<26}{rate:.0f} bytes/s   {cpu * 100:.2f} % of a core")

    def key(self, key: str, back: str, name: str, presses: int = 20) -> None:
        """From a key to its first and last byte, and how many bytes."""
        firsts, lasts, sizes = [], [], []
        with self._console(self.live, "--speed", "0.25") as console:
            console.wait_for("[REPLAY")
            console.send(" ")
            console.wait_for("PAUSED")
            for _ in range(presses):
                console.wait_for_silence(0.25)
                before, pressed_s = len(console.raw), time.perf_counter()
                console.send(key)
                console.wait_for(lambda console=console, before=before: len(console.raw) > before)
                firsts.append(console.last_byte_s - pressed_s)
                console.wait_for_silence(0.25)
                lasts.append(console.last_byte_s - pressed_s)
                sizes.append(len(console.raw) - before)
                before = len(console.raw)
                console.send(back)
                console.wait_for(lambda console=console, before=before: len(console.raw) > before)
        p95_s = sorted(lasts)[math.ceil(0.95 * len(lasts)) - 1]
        times = f"first byte {statistics.median(firsts) * 1000:.1f} ms   last p95 {p95_s * 1000:.1f} ms"
        print(f"{name:<26}{times}   {statistics.median(sizes):.0f} bytes")

    def memory(self) -> None:
        """Resident memory after an hour of frames, replayed as fast as allowed."""
        with self._console(self._hour, "--speed", "1024") as console:
            console.wait_for(f"{HOUR_S}/{HOUR_S}", 300)
            rss = psutil.Process(console.pid).memory_info().rss
            print(f"{'after an hour of frames':<26}{rss / 1e6:.0f} MB resident   {cpu_s(console.pid):.1f} s of CPU")


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


if __name__ == "__main__":
    main()
