"""Runs the guide of the service room word by word: its commands, each on its own host. Prints what was seen, as JSON.

`python -m tests.service.guide`, as root. This process becomes the laptop of the guide; it leaves this machine's network alone.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.service.hosts import Hosts, enter_new_namespace

ROOT = Path(__file__).parent.parent.parent
GUIDE = (ROOT / "engine/service/README.md").read_text().split("## Running over several machines, safely")[1].split("\n## ")[0]
HOSTS = ["head", "gpu-a", "laptop"]
PROGRAMS = {"noodle-engine": "engine", "noodle-console": "noodle_tui"}
FILES = {"head": "head", "gpu-a": "gpu-a", "laptop": "ann"}  # whose certificate each machine has
LIMIT_S = 120.0


def commands() -> list[tuple[str, list[str]]]:
    """Host and words of each command in the guide, in order."""
    found, host = [], ""
    for block in re.findall(r"```\n(.*?)```", GUIDE, flags=re.DOTALL):
        for line in block.splitlines():
            if line.startswith("# on "):
                host = line.removeprefix("# on ")
            else:
                found.append((host, shlex.split(line)))
    return found


class Stage:
    """Three machines, each with a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.hosts = Hosts(HOSTS, "laptop", 0.001, 1e9)
        self.folder = folder
        self.servers: list[subprocess.Popen[str]] = []
        for host in HOSTS:
            (folder / host).mkdir()

    def words(self, host: str, words: list[str]) -> list[str]:
        """The command as this machine can run it: with this interpreter, a model that needs no download, and our addresses."""
        plain = [w.replace("10.0.0.1", self.hosts.address("head")) for w in words]
        if "--model" in plain:
            plain[plain.index("--model") + 1] = "gpt2:tiny"
            plain += ["--random-weights", "0"]
        enter = (
            []
            if host == "laptop"
            else ["nsenter", *(f"--{k}={p}" for k, p in zip(("net", "uts"), self.hosts.namespaces(host), strict=True))]
        )
        return [*enter, sys.executable, "-m", PROGRAMS[plain[0]], *plain[1:]]

    def run(self, host: str, words: list[str]) -> str:
        done = subprocess.run(self.words(host, words), cwd=self.folder / host, capture_output=True, text=True, timeout=LIMIT_S, check=False)
        assert done.returncode == 0, f"{words}: {done.stderr}"
        return done.stdout

    def serve(self, host: str, words: list[str]) -> dict[str, Any]:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": sys.stderr}  # it ends with us, however we end
        process = subprocess.Popen([*self.words(host, words), "--exit-with-parent"], cwd=self.folder / host, text=True, **pipes)
        self.servers.append(process)
        assert process.stdout is not None
        announced: dict[str, Any] = json.loads(process.stdout.readline())
        return announced

    def hand_out(self) -> None:
        """What the guide says each machine needs."""
        for host, name in FILES.items():
            (self.folder / host / "certs").mkdir(exist_ok=True)
            for file in ("ca.pem", "revoked.pem", f"{name}.pem", f"{name}.key"):
                if host != "head":
                    shutil.copy(self.folder / "head" / "certs" / file, self.folder / host / "certs" / file)

    def close(self) -> None:
        for process in self.servers:
            process.kill()
            process.wait(10)
        self.hosts.close()


def play(stage: Stage) -> dict[str, Any]:
    """Every command of the guide; returns what the operator saw."""
    from tests.tui.pty_console import PtyConsole

    seen: dict[str, Any] = {"served": [], "console": "", "after": ""}
    for host, words in commands():
        if words[0] == "pkill":
            stage.hand_out()  # the new list
            for process in stage.servers:
                process.send_signal(signal.SIGHUP)
        elif words[0] == "noodle-console":
            there = ["sh", "-c", 'cd "$0" && exec "$@"', str(stage.folder / host)]
            with PtyConsole(stage.words(host, words), command=there, width=120, height=40) as console:
                console.wait_for("nodes 1/1", LIMIT_S)
                seen["console"] = "\n".join(console.screen.display)
        elif words[1] == "certs":
            seen["certs"] = stage.run(host, words)
            stage.hand_out() if "ann" in words and "node" in words else None
        elif words[1] in ("coordinator", "worker"):
            seen["served"].append(stage.serve(host, words)["address"])
        elif words[1] == "status":
            started_s = time.monotonic()
            while "serving" not in (status := stage.run(host, words)):
                assert time.monotonic() - started_s < LIMIT_S, status
            seen["status"] = status
        else:
            seen["answer"] = stage.run(host, words)
    command = next(w for _, w in commands() if w[1:2] == ["status"])
    done = subprocess.run(stage.words("laptop", command), cwd=stage.folder / "laptop", capture_output=True, text=True, check=False)
    return {**seen, "after": done.stderr, "after_code": done.returncode}


def main() -> int:
    enter_new_namespace()
    with tempfile.TemporaryDirectory() as folder:
        stage = Stage(Path(folder))
        try:
            print(json.dumps(play(stage)))
        finally:
            stage.close()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
