"""A coordinator that announces itself, a worker of its authority, and one of another: `python -m tests.service.nearby FOLDER`, in a network
of its own. Prints what was seen as one line of JSON.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

from engine.service.options import Role
from engine.service.trust.certificates import issue, make_authority

DEADLINE_S = 120.0


def start(*words: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-m", "engine", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def shown(folder: Path, name: str) -> list[str]:
    return [f"--tls-cert={folder / name}.pem", f"--tls-key={folder / name}.key", f"--tls-ca={folder / 'ca.pem'}"]


def main(folder: Path) -> None:
    own, other = folder / "own", folder / "other"
    for place in (own, other):
        make_authority(place, place.name)
        issue(place, "gpu-a", Role.WORKER, [])
    issue(own, "head", Role.COORDINATOR, ["127.0.0.1"])
    issue(own, "ann", Role.OPERATOR, [])
    head = start("coordinator", "--model=gpt2:tiny", "--random-weights=0", "--listen=127.0.0.1:0", "--announce", *shown(own, "head"))
    processes = [head]
    try:
        assert head.stdout is not None
        address = json.loads(head.stdout.readline())["address"]
        stranger = start("worker", "--join=auto", *shown(other, "gpu-a"))
        processes.append(stranger)
        assert stranger.stderr is not None
        said = ""
        while "was not signed by the authority" not in said and (line := stranger.stderr.readline()):
            said += line
        stranger.kill()
        code = stranger.wait()
        processes.append(start("worker", "--join=auto", *shown(own, "gpu-a")))
        workers = list[str]()
        end_s = time.monotonic() + DEADLINE_S
        while not workers and time.monotonic() < end_s:
            asked = start("status", "--json", f"--connect={address}", *shown(own, "ann"))
            document = json.loads(asked.communicate(timeout=60)[0])
            workers = [node["worker_id"] for node in document["workers"]]
        print(json.dumps({"workers": workers, "stranger": said, "stranger_code": code}))
    finally:
        for process in processes:
            process.kill()
            process.wait()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
