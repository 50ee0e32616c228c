"""Random keys, clicks, pastes and sizes against a real cluster whose processes are killed: `python -m tests.tui.monkey [--minutes 10]`.

The console may leave when it is told to, with the exit code for that; it may never write a traceback, stand still, or keep a dialog or a
field open that `esc` was pressed for. `--replay FILE` plays on a recording. `--seed` repeats the keys; what the cluster does meanwhile is
its own.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from engine.service.local import LocalCluster
from engine.service.local_options import local_options
from noodle_tui.options import DEMO
from tests.tui.pty_console import ROOT, PtyConsole

SIZES = ((80, 24), (120, 40), (200, 60), (60, 15), (59, 14), (40, 8), (100, 30), (140, 24), (81, 25))
CHECK_EVERY, KILL_EVERY = 25, 120  # actions
ESCAPES = 12  # close everything that can be open, one by one
QUITS = {b"q": 0, b"\x03": 130, b"\x11": 130}
KEYS = (
    *(bytes((code,)) for code in range(0x21, 0x7F)),
    *(b"\x1b[A", b"\x1b[B", b"\x1b[C", b"\x1b[D", b"\x1b[5~", b"\x1b[6~", b"\x1b[H", b"\x1b[F", b"\x1b[Z", b"\x1bOQ", b"\x1bOR"),
    *(b"\r", b"\t", b" ", b"\x1b", b"\x7f", b"\x10", b"\x0a", b"\x15", b"\x17", b"\x01", b"\x05", "ü".encode(), "漢".encode()),
)
LIKELY = b"123456789yyPSRAHDXMK\t /:?jkvzmcnosw,.-+te"
COMMANDS = (
    *("filter w2", "filter !ok", "filter", "theme mono", "theme noodle-dark", "theme nothing", "plan 1", "plan 99999", "strategy balanced"),
    *("drain w2", "undrain w2", "forget w3", "adapt auto", "adapt off", "rollback", "rollback 1", "export csv", "export json", "shot"),
    *("record a.jsonl", "record off", "cancel s-1", "profile nothing.json", "new", "system be brief", "system -", "copy", "edit"),
    *("seek +10", "speed 4", "ctx 127.0.0.1:1", "ro", "rw", "acknowledge", "\x00", "x" * 300),
)
PASTES = ("hello", "a\nb\nc", "\x1b[31mred\x1b[0m", "漢字 ü é", "q" * 5000, "\t\t", "y", "")
_BAD = (b"Traceback", b"unexpected ", b"defect of this program", b"Unhandled")


class Cluster:
    """Three workers that can be killed, and a coordinator that comes back at the same address."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._address = "127.0.0.1:0"
        self._cluster = self._made()

    def start(self) -> str:
        self._address = self._await(self._cluster.start())
        return self._address

    def stop(self) -> None:
        self._await(self._cluster.stop())

    def hurt(self, rng: random.Random) -> str:
        """Kill one worker; where few are left, begin anew. Returns what was done."""
        alive = [name for name, pid in self._cluster.pids().items() if name != "coordinator" and _is_alive(pid)]
        if len(alive) < 2:
            self.stop()
            self._cluster = self._made()
            self.start()
            return "another cluster at the same address"
        name = rng.choice(alive)
        os.kill(self._cluster.pids()[name], signal.SIGKILL)
        return f"{name} killed"

    def _made(self) -> LocalCluster:
        return LocalCluster(
            local_options(model="gpt2:tiny", num_workers=3, num_threads=1, random_weights=0, listen=self._address, strategy="balanced")
        )

    def _await(self, work: object) -> str:
        return str(asyncio.run_coroutine_threadsafe(work, self._loop).result(120))  # type: ignore[arg-type]


def _is_alive(pid: int) -> bool:
    with contextlib.suppress(OSError, IndexError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


@dataclass
class Monkey:
    """Plays on one console after the other; what it finds is raised with the last actions and the screen."""

    arguments: tuple[str, ...]
    folder: Path
    rng: random.Random
    hurt: Callable[[random.Random], str] | None = None
    done: list[str] = field(default_factory=list)
    num_consoles: int = 0

    def play(self, is_over: Callable[[int], bool]) -> int:
        """Until `is_over` of the number of actions; returns that number."""
        count = 0
        while not is_over(count):
            self.num_consoles += 1
            with self._console() as console:
                while not is_over(count):
                    count += 1
                    if self.hurt is not None and count % KILL_EVERY == 0:
                        self.done.append(self.hurt(self.rng))
                    if not self._act(console):
                        break
                    if count % CHECK_EVERY == 0:
                        self._check(console)
        return count

    @contextlib.contextmanager
    def _console(self) -> Iterator[PtyConsole]:
        words = [*self.arguments, *(["--ascii"] if self.rng.random() < 0.3 else []), *(["--mouse"] if self.rng.random() < 0.5 else [])]
        env = {
            "PYTHONPATH": str(ROOT),
            "EDITOR": "true",
            "VISUAL": "",
            "HOME": str(self.folder),
            "XDG_STATE_HOME": str(self.folder / "state"),
        }
        self.done = [f"noodle-console {' '.join(words)}"]
        with PtyConsole(words, width=80, height=24, env=env, cwd=self.folder) as console:
            console.wait_for("1.OVER")
            yield console
            self._look(console)

    def _act(self, console: PtyConsole) -> bool:
        """One thing; False where the console was told to leave and did."""
        rng, chance = self.rng, self.rng.random()
        if chance < 0.004:
            key = rng.choice(list(QUITS))
            return self._quit(console, key)
        if chance < 0.05:
            width, height = rng.choice(SIZES)
            self.done.append(f"{width}x{height}")
            console.resize(width, height)
        elif chance < 0.09:
            self._send(console, b"\x1b[200~" + rng.choice(PASTES).encode() + b"\x1b[201~")
        elif chance < 0.16:
            self._send(console, b"\x1b:" + rng.choice(COMMANDS).encode() + b"\r")
        elif chance < 0.20:
            x, y, button = rng.randrange(1, 200), rng.randrange(1, 60), rng.choice((0, 0, 64, 65))
            self._send(console, f"\x1b[<{button};{x};{y}M\x1b[<{button};{x};{y}m".encode())
        elif chance < 0.6:
            self._send(console, bytes((rng.choice(LIKELY),)))
        else:
            self._send(console, b"".join(key for key in rng.choices(KEYS, k=rng.randrange(1, 6)) if key not in QUITS))
        if rng.random() < 0.3:
            console.wait_for_silence(0.05, at_most_s=1.0)
        return True

    def _send(self, console: PtyConsole, keys: bytes) -> None:
        self.done.append(repr(keys[:60]))
        with contextlib.suppress(OSError):  # it has left: what follows finds out whether it might
            console.send(keys)

    def _quit(self, console: PtyConsole, key: bytes) -> bool:
        """Ctrl-C ends it from everywhere; `q` is text in a field and a question while a change runs."""
        self._send(console, key)
        if key == b"q":
            self._check(console, may_be_gone=True)
            return console.poll() is None
        code = console.exit_code()
        if code not in (0, 130):
            raise self._defect(console, f"it ended with {code}")
        return False

    def _check(self, console: PtyConsole, may_be_gone: bool = False) -> None:
        """After enough `esc` it stands on the Overview with nothing open, and answers a key."""
        with contextlib.suppress(OSError):
            console.resize(120, 40)
            for _ in range(ESCAPES):
                self._send(console, b"\x1b")
                console.wait_for_silence(0.15, at_most_s=2.0)  # two at once would be one key with Alt
            self._send(console, b"1")
        try:
            console.wait_for(lambda: _is_calm(console) or console.poll() is not None, 60.0)
        except AssertionError:
            raise self._defect(console, "12 times esc, then 1: not on the Overview with nothing open") from None
        self._look(console)
        if console.poll() is not None and not (may_be_gone or console.poll() in (0, 130)):
            raise self._defect(console, f"it ended with {console.poll()}")

    def _look(self, console: PtyConsole) -> None:
        if any(word in console.raw for word in _BAD):
            raise self._defect(console, "a traceback")

    def _defect(self, console: PtyConsole, what: str) -> AssertionError:
        end = console.raw[-3000:].decode(errors="replace") if console.poll() is not None else ""
        return AssertionError("\n".join((what, "last actions:", *self.done[-60:], console.text, end)))


def _is_calm(console: PtyConsole) -> bool:
    rows = console.screen.display
    return "1.OVER" in rows[1] and "help" in rows[-1] and "quit" in rows[-1]


def play_live(rng: random.Random, is_over: Callable[[int], bool]) -> Monkey:
    """On a cluster of its own."""

    async def run() -> Monkey:
        cluster = Cluster(asyncio.get_running_loop())
        with tempfile.TemporaryDirectory() as folder:
            address = await asyncio.to_thread(cluster.start)
            monkey = Monkey(("--connect", address), Path(folder), rng, cluster.hurt)
            try:
                await asyncio.to_thread(monkey.play, is_over)
            finally:
                await asyncio.to_thread(cluster.stop)
            return monkey

    return asyncio.run(run())


def play_replay(rng: random.Random, is_over: Callable[[int], bool], path: Path = DEMO) -> Monkey:
    """On a recording."""
    with tempfile.TemporaryDirectory() as folder:
        monkey = Monkey(("--replay", str(path)), Path(folder), rng)
        monkey.play(is_over)
        return monkey


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--replay", type=Path, default=None)
    options = parser.parse_args()
    seed = random.randrange(10**6) if options.seed is None else options.seed
    until_s, counted = time.monotonic() + 60 * options.minutes, 0

    def is_over(count: int) -> bool:
        nonlocal counted
        counted = count
        return time.monotonic() >= until_s

    print(f"seed {seed}", flush=True)
    try:
        rng = random.Random(seed)
        monkey = play_live(rng, is_over) if options.replay is None else play_replay(rng, is_over, options.replay)
    except AssertionError as found:
        print(f"after {counted} actions: {found}", file=sys.stderr)
        return 1
    print(f"{counted} actions, {monkey.num_consoles} consoles: no traceback, nothing stood still, nothing stayed open")
    return 0


if __name__ == "__main__":
    sys.exit(main())
