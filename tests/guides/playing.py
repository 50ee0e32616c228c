"""Plays a guide: writes its files, types its commands in one shell, keeps its servers running, and compares what is printed.

A home folder of its own, so that it is a new user's; other ports than the guide's, so that nobody else's are needed.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
GUIDES = ROOT / ".github" / "guides"
SERVER = "# a terminal of its own"
PORTS = ("7070", "8000", "8443")
LIMIT_S = 150.0
ORDERLY = (0, 130, -signal.SIGINT)
PROGRAMS = {"noodle-engine": "engine", "noodle-console": "noodle_tui"}


@dataclass(frozen=True)
class Typed:
    """A command and the lines that the guide shows below it."""

    words: str
    shown: tuple[str, ...]


@dataclass(frozen=True)
class Block:
    """Of a guide: a file if `name` says so, else commands, which are servers or not."""

    name: str
    text: str
    is_server: bool
    typed: tuple[Typed, ...]


def blocks(guide: str) -> list[Block]:
    """In order."""
    text = (GUIDES / guide).read_text()
    return [_block(info, body) for info, body in re.findall(r"^```(\S[^\n]*)\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)]


def _block(info: str, body: str) -> Block:
    _, _, name = info.partition(" ")
    if name:
        return Block(name, body, False, ())
    found: list[tuple[str, list[str]]] = []
    for line in body.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        elif found and found[-1][0].endswith("\\"):
            found[-1] = (f"{found[-1][0]}\n{line}", [])
        elif line != SERVER:
            found[-1][1].append(line)
    return Block("", body, body.startswith(SERVER), tuple(Typed(words, tuple(shown)) for words, shown in found))


def differs(shown: tuple[str, ...], printed: list[str]) -> str:
    """Where the lines part; empty if they agree. `...` in a line is anything, and alone it is any number of lines."""
    if _agree(list(shown), printed):
        return ""
    return "the guide shows\n  " + "\n  ".join(shown) + "\nand this was printed\n  " + "\n  ".join(printed)


def _agree(shown: list[str], printed: list[str]) -> bool:
    if not shown:
        return not printed
    if shown[0] == "...":
        return any(_agree(shown[1:], printed[i:]) for i in range(len(printed) + 1))
    return bool(printed) and _line_agrees(shown[0], printed[0]) and _agree(shown[1:], printed[1:])


def _line_agrees(shown: str, printed: str) -> bool:
    return re.fullmatch(".*".join(map(re.escape, shown.split("..."))), printed.rstrip()) is not None


class Player:
    """One reader who follows a guide; `folder` is where they sit."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
        self._environment = self._of_new_user()
        self._servers: list[subprocess.Popen[bytes]] = []
        self._shell = subprocess.Popen(["bash"], cwd=folder, env=self._environment, stdin=-1, stdout=-1, stderr=subprocess.STDOUT)

    def follow(self, guide: str) -> None:
        """From top to bottom; AssertionError names the command that did something else."""
        for block in blocks(guide):
            if block.name:
                (self.folder / block.name).write_text(self._ours(block.text))
            for typed in block.typed:
                self._serve(typed) if block.is_server else self._type(typed)

    def close(self) -> None:
        """Ctrl-C in every terminal; each program ends in order."""
        ended = [(server.args, _interrupted(server)) for server in reversed(self._servers)]
        self._shell.kill()
        self._shell.wait()
        assert all(code in ORDERLY for _, code in ended), ended

    def _type(self, typed: Typed) -> None:
        stdin, mark = self._shell.stdin, "the command is over:"
        assert stdin is not None
        stdin.write(f"{self._ours(typed.words)}\ncode=$?; echo; echo '{mark}' $code\n".encode())
        stdin.flush()
        *printed, end = self._read(self._shell, lambda lines: bool(lines) and lines[-1].startswith(mark), typed.words)
        printed = printed[:-1] if printed and not printed[-1] else printed
        printed = [line for line in printed if not re.match(r"\[\d+\]", line)]
        shown = tuple(self._ours(line) for line in typed.shown)
        assert not (wrong := differs(shown, printed)), f"$ {typed.words}\n{wrong}"
        is_refused = bool(shown) and shown[0].startswith("noodle-engine: ")
        assert (int(end.removeprefix(mark)) != 0) == is_refused, f"$ {typed.words}\nended with{end.removeprefix(mark)}"

    def _serve(self, typed: Typed) -> None:
        words = ["bash", "-c", f"exec {self._ours(typed.words)}"]
        server = subprocess.Popen(words, cwd=self.folder, env=self._environment, stdin=-1, stdout=-1, stderr=subprocess.STDOUT)
        self._servers.append(server)
        shown = tuple(self._ours(line) for line in typed.shown)
        self._read(server, lambda lines: not differs(shown, lines), typed.words)

    def _read(self, process: subprocess.Popen[bytes], is_enough: object, words: str) -> list[str]:
        assert process.stdout is not None and callable(is_enough)
        text, started_s = b"", time.monotonic()
        while not is_enough(lines := text.decode(errors="replace").splitlines()):
            left_s = started_s + LIMIT_S - time.monotonic()
            assert left_s > 0 and process.poll() is None, f"$ {words}\nstopped after\n" + "\n".join(lines)
            if select.select([process.stdout], [], [], min(left_s, 0.5))[0]:
                text += os.read(process.stdout.fileno(), 65536)
        return lines

    def _ours(self, text: str) -> str:
        for port, other in self.ports.items():
            text = re.sub(rf"(?<=[:_ ]){port}\b", str(other), text)
        return text

    def _of_new_user(self) -> Mapping[str, str]:
        """Nothing but what a shell of a new user has, and the two programs in its path."""
        (programs := self.folder / "bin").mkdir()
        for name, module in PROGRAMS.items():
            (programs / name).write_text(f'#!/bin/sh\nexec {sys.executable} -m {module} "$@"\n')
            (programs / name).chmod(0o755)
        kept = {name: value for name in ("PYTHONPATH", "NOODLE_CACHE", "LANG", "TMPDIR") if (value := os.environ.get(name))}
        path = f"{programs}{os.pathsep}{os.environ['PATH']}"
        return {**kept, "PATH": path, "HOME": str(self.folder), "NOODLE_CONNECT": f"127.0.0.1:{self.ports['7070']}"}


def _interrupted(server: subprocess.Popen[bytes]) -> int:
    """Its exit code; what does not end is killed, and nothing stays behind."""
    server.send_signal(signal.SIGINT)
    try:
        return server.wait(60)
    except subprocess.TimeoutExpired:
        server.kill()
        return server.wait()


@contextlib.contextmanager
def played(guide: str, folder: Path) -> Iterator[Player]:
    """A guide that was followed to its end, its servers still running; they end in order."""
    player = Player(folder)
    try:
        player.follow(guide)
        yield player
    finally:
        player.close()


def free_ports(number: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(number)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]


def missing(*programs: str) -> str:
    """What a machine lacks for a guide; empty if nothing."""
    found = [program for program in programs if shutil.which(program) is None]
    return f"not installed: {', '.join(found)}" if found else ""
