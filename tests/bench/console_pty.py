"""Measure the console on a pseudo-terminal: first paint, idle and live bytes per second, CPU, keypress to paint.

    python -m tests.bench.console_pty [--size 120x40] [--runs 5] [--seconds 10]

A fake coordinator in this process serves the frames over real gRPC. Medians over the runs; the first start is dropped
because it fills the bytecode cache.
"""

from __future__ import annotations

import argparse
import os
import statistics
import threading
import time
from pathlib import Path

from tests.tui.fake_coordinator import FakeCoordinator, lively
from tests.tui.frames import frame
from tests.tui.pty_console import PtyConsole

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="120x40")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10.0)
    options = parser.parse_args()
    width, height = (int(part) for part in options.size.split("x"))
    with FakeCoordinator() as fake:
        paints = [first_paint(fake, width, height) for _ in range(options.runs + 1)][1:]
        lives = [connected(fake, width, height) for _ in range(options.runs)]
        print(f"{'first paint s':<34}{statistics.median(paints):.3f}   worst {max(paints):.3f}")
        print(f"{'connected and LIVE s':<34}{statistics.median(lives):.3f}   worst {max(lives):.3f}")
        for name, hz in (("idle (nothing changes), 1 Hz", 0.0), ("live (all rows change), 1 Hz", 1.0)):
            num_bytes, cpu = steady(fake, width, height, options.seconds, hz)
            print(f"{name:<34}{num_bytes:.0f} bytes/s   {cpu:.2f} % of a core")
        for key, marker in (("down", b"\x1b[B"), ("help", b"?")):
            first, last, size = key_latency(fake, width, height, marker)
            print(f"{'key ' + key:<34}first byte {first * 1000:.1f} ms   last {last * 1000:.1f} ms   {size:.0f} bytes")


def first_paint(fake: FakeCoordinator, width: int, height: int) -> float:
    """From starting the process to a screen with the truth line and the key line on it."""
    with PtyConsole(["--connect", fake.address], width=width, height=height) as console:
        console.wait_for(lambda: "noodle" in console.screen.display[0] and "quit" in console.screen.display[-1])
        return time.perf_counter() - console.started_s


def connected(fake: FakeCoordinator, width: int, height: int) -> float:
    """From starting the process to the first frame on the screen."""
    with PtyConsole(["--connect", fake.address], width=width, height=height) as console:
        console.wait_for("LIVE")
        return time.perf_counter() - console.started_s


def steady(fake: FakeCoordinator, width: int, height: int, seconds: float, hz: float) -> tuple[float, float]:
    """Bytes per second and CPU share while frames come in; with `hz` 0 every frame is the same."""
    fake.publish(frame())
    with PtyConsole(["--connect", fake.address], width=width, height=height) as console:
        console.wait_for("LIVE")
        settle(console)
        before, cpu_before, start = len(console.raw), cpu_s(console.pid), time.perf_counter()
        tick = 0
        while time.perf_counter() - start < seconds:
            tick += 1
            if hz:
                fake.publish(lively(tick))
            threading.Event().wait(1 / hz if hz else 0.5)
        elapsed = time.perf_counter() - start
        return (len(console.raw) - before) / elapsed, (cpu_s(console.pid) - cpu_before) / elapsed * 100


def key_latency(fake: FakeCoordinator, width: int, height: int, key: bytes, presses: int = 20) -> tuple[float, float, float]:
    """Medians of first byte, last byte before 0.25 s of silence, and bytes, for one key."""
    fake.publish(frame())
    firsts, lasts, sizes = [], [], []
    with PtyConsole(["--connect", fake.address], width=width, height=height) as console:
        console.wait_for("LIVE")
        settle(console)
        for _ in range(presses):
            before, pressed = len(console.raw), time.perf_counter()
            console.send(key)
            console.wait_for(lambda before=before: len(console.raw) > before)
            firsts.append(console.last_byte_s - pressed)
            settle(console)
            lasts.append(console.last_byte_s - pressed)
            sizes.append(len(console.raw) - before)
            key = b"\x1b[A" if key == b"\x1b[B" else b"\x1b[B" if key == b"\x1b[A" else key
    return statistics.median(firsts), statistics.median(lasts), statistics.median(sizes)


def settle(console: PtyConsole) -> None:
    """Until nothing was written for a while."""
    console.wait_for_silence(0.25)


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


if __name__ == "__main__":
    main()
