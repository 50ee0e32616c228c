"""Time to the first paint of the console, beside the smallest app of the same library and, if asked, another tree of this project.

    python -m tests.bench.console_start [--rounds 9] [--size 120x40] [--against TREE]

The programs take turns, every other round the other way round, so that a busy minute meets all of them; the first round is dropped
because it fills the bytecode caches, which are this run's own: a shell that forbids them would measure the compiler. A program has
painted when the first line and the last one show what they are to show. The second time is the processor time that the program took for
it, which other work on the machine hardly changes.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from tests.tui.pty_console import ROOT, PtyConsole

NOBODY = "127.0.0.1:1"  # the console begins to connect after its first paint
STOCK = """
from textual.app import App
from textual.widgets import Static

class Stock(App):
    CSS = "#bottom {dock: bottom}"
    def compose(self):
        yield Static("noodle")
        yield Static("quit", id="bottom")

Stock().run()
"""


def main() -> None:
    """Print one line for each program."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--size", default="120x40")
    parser.add_argument("--against", metavar="TREE", type=Path, help="another checkout")
    options = parser.parse_args()
    width, height = (int(part) for part in options.size.split("x"))
    console = ("-P", "-m", "noodle_tui", "--connect", NOBODY)
    programs = {"stock app": (("-P", "-c", STOCK), ROOT), "console": (console, ROOT)}
    if options.against is not None:
        programs["console there"] = (console, options.against)
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in programs}
    with tempfile.TemporaryDirectory() as cache:
        bytecode = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": cache}
        for round_number in range(options.rounds + 1):
            in_turn = list(programs.items())
            for name, (words, tree) in in_turn[:: 1 if round_number % 2 else -1]:
                environment = {"PYTHONPATH": str(tree.resolve()), **bytecode}
                times[name].append(_first_paint_s(words, environment, width, height))
    for name, (_, *rest) in times.items():
        columns = (_column(times_s) for times_s in zip(*rest, strict=True))
        print(f"{name:<16}{'; processor '.join(columns)}")
    if options.against is not None:
        rounds = zip(times["console"][1:], times["console there"][1:], strict=True)
        ratios = [(here[0] / there[0], here[1] / there[1]) for here, there in rounds]
        clock, processor = (statistics.median(column) for column in zip(*ratios, strict=True))
        print(f"here to there   {clock:.3f}x; processor {processor:.3f}x (medians of {len(ratios)} rounds)")
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


def _column(times_s: tuple[float, ...]) -> str:
    return f"{statistics.median(times_s):.3f} s ({min(times_s):.3f} to {max(times_s):.3f})"


def _first_paint_s(words: tuple[str, ...], environment: dict[str, str], width: int, height: int) -> tuple[float, float]:
    """Seconds by the clock, and of the processor."""
    with PtyConsole(words, width=width, height=height, env=environment, command=(sys.executable,)) as program:
        program.wait_for(lambda: "noodle" in program.screen.display[0] and "quit" in program.screen.display[-1])
        clock_s = time.perf_counter() - program.started_s
        fields = Path(f"/proc/{program.pid}/stat").read_text().rpartition(")")[2].split()
        return clock_s, (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
