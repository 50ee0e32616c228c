"""Two hosts of one network (`hosts`): a coordinator that announces itself, and on the other one a worker of its authority, one of another
authority, and one that pastes an invitation. `python -m tests.service.nearby FOLDER`, as root, prints what was seen as one line of JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from engine.service.options import Role
from engine.service.trust.certificates import issue, make_authority
from tests.service.hosts import Hosts, enter_new_namespace

DEADLINE_S = 120.0
HEAD, LAPTOP = "head", "laptop"
EVERYWHERE = "--listen=0.0.0.0:0"


class Network:
    """This process is on the host `head`."""

    def __init__(self, folder: Path) -> None:
        self.hosts = Hosts([HEAD, LAPTOP], HEAD, 0.001, 1e9)
        self.own, self.other, self.brought = folder / "own", folder / "other", folder / "brought"
        self._processes: list[subprocess.Popen[str]] = []

    def start(self, host: str, *words: str) -> subprocess.Popen[str]:
        enter = [] if host == HEAD else ["nsenter", f"--net={self.hosts.namespaces(host)[0]}"]
        environment = {**os.environ, "NOODLE_CERTS": str(self.own if host == HEAD else self.brought)}
        command = [*enter, sys.executable, "-m", "engine", *words]
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self._processes.append(process)
        return process

    def first_line(self, host: str, *words: str) -> str:
        process = self.start(host, *words)
        assert process.stdout is not None and process.stderr is not None
        return process.stdout.readline().strip() or process.stderr.read()

    def close(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()
        self.hosts.close()


def shown(folder: Path, name: str) -> list[str]:
    return [f"--tls-cert={folder / name}.pem", f"--tls-key={folder / name}.key", f"--tls-ca={folder / 'ca.pem'}"]


def main(folder: Path) -> None:
    enter_new_namespace()
    network = Network(folder)
    own, other = network.own, network.other
    for place in (own, other):
        make_authority(place, place.name)
        issue(place, "gpu-a", Role.WORKER, [])
    issue(own, "head", Role.COORDINATOR, [network.hosts.address(HEAD)])
    issue(own, "ann", Role.OPERATOR, [])
    try:
        listen = f"--listen={network.hosts.address(HEAD)}:0"
        model = ("--model=gpt2:tiny", "--random-weights=0")
        address = json.loads(network.first_line(HEAD, "coordinator", *model, listen, "--announce", *shown(own, "head")))["address"]
        stranger = network.start(LAPTOP, "worker", "--join=auto", EVERYWHERE, *shown(other, "gpu-a"))
        assert stranger.stderr is not None
        said = ""
        while "was not signed by the authority" not in said and (line := stranger.stderr.readline()):
            said += line
        stranger.kill()
        code = stranger.wait()
        network.start(LAPTOP, "worker", "--join=auto", EVERYWHERE, *shown(own, "gpu-a"))
        line = network.first_line(HEAD, "invite", "--join=auto")
        network.start(LAPTOP, *line.split()[1:], "--id=laptop")
        workers = list[str]()
        end_s = time.monotonic() + DEADLINE_S
        while len(workers) < 2 and time.monotonic() < end_s:
            asked = network.start(HEAD, "status", "--json", f"--connect={address}", *shown(own, "ann"))
            workers = sorted(node["worker_id"] for node in json.loads(asked.communicate(timeout=60)[0])["workers"])
        print(json.dumps({"workers": workers, "line": line, "stranger": said, "stranger_code": code}))
    finally:
        network.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
