"""What breaks is said clearly, the rest serves on, and nothing is left behind: real processes, real signals."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from engine.data.errors import Unavailable
from engine.data.status import NodeState, Phase
from tests.service.nursery import ON_EVERY_WORKER
from tests.service.reference import folder_of, reference
from tests.service.running import Running, running

MODEL = "llama:tiny"
PROMPT = (5, 6, 7, 8)
UP = [sys.executable, "-m", "engine", "up", "--model", MODEL, "--random-weights", "0", "--workers", "2", *ON_EVERY_WORKER, "--json"]


def tokens_of(cluster: Running, num_tokens: int = 8) -> list[int]:
    transcript = cluster.generate(cluster.request(PROMPT, num_tokens, ignore_eos=True))
    return [c.token_id for c in transcript.chunks if c.index >= 0]


def test_a_stopped_worker_is_suspected_then_lost_and_joins_again_when_it_wakes() -> None:
    with running(MODEL, 2) as cluster:
        pid = cluster.cluster.pids()["w1"]
        os.kill(pid, signal.SIGSTOP)
        try:
            cluster.until(lambda s: s.nodes[0].state in (NodeState.SUSPECT, NodeState.LOST), "w1 suspected")
            cluster.until(lambda s: s.nodes[0].state is NodeState.LOST and s.phase is Phase.SERVING, "w1 lost, w2 serving")
            assert tokens_of(cluster) == reference(MODEL, PROMPT, 8)
        finally:
            os.kill(pid, signal.SIGCONT)
        cluster.until(lambda s: len(s.stages) == 2 and s.phase is Phase.SERVING, "w1 back in the plan")
        assert tokens_of(cluster) == reference(MODEL, PROMPT, 8)


def test_workers_of_a_lost_coordinator_join_the_next_one(tmp_path: Path) -> None:
    """A coordinator that ends takes no worker with it: they join whoever listens on that address next."""
    command = [sys.executable, "-m", "engine", "coordinator", "--model", MODEL, "--random-weights", "0", "--exit-with-parent"]
    first = subprocess.Popen([*command, "--listen", "127.0.0.1:0"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert first.stdout is not None
    address = json.loads(first.stdout.readline())["address"]
    worker = subprocess.Popen(
        [sys.executable, "-m", "engine", "worker", "--join", address, "--id", "w1", "--exit-with-parent"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    )
    try:
        assert serving(address)
        first.kill()
        first.wait()
        second = subprocess.Popen([*command, "--listen", address], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            assert serving(address)
            assert generated(address) == reference(MODEL, PROMPT, 8)
        finally:
            second.kill()
            second.wait()
    finally:
        worker.kill()
        worker.wait()


def serving(address: str) -> bool:
    from engine.service.client import Client

    async def wait() -> bool:
        for _ in range(1500):
            try:
                async with Client(address) as client:
                    async for frame in client.watch(min_interval_s=0.1):
                        if frame.status.phase is Phase.SERVING:
                            return True
            except Unavailable:
                await asyncio.sleep(0.1)
        return False

    return asyncio.run(asyncio.wait_for(wait(), 150))


def generated(address: str) -> list[int]:
    ids = ",".join(map(str, PROMPT))
    done = engine("generate", "--prompt-ids", ids, "--max-new-tokens", "8", "--ignore-eos", "--json", "--connect", address)
    assert done.returncode == 0, done.stderr
    return list(json.loads(done.stdout)["token_ids"])


def engine(*arguments: str, timeout_s: float = 150) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "engine", *arguments], capture_output=True, text=True, timeout=timeout_s, check=False)


def broken_copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder_of(MODEL), tmp_path / "model"))


def test_a_truncated_weight_file_is_named_and_up_ends_with_1(tmp_path: Path) -> None:
    folder = broken_copy(tmp_path)
    weights = next(folder.glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1000])
    done = engine("up", "--model", str(folder), "--workers", "2", *ON_EVERY_WORKER, "--json")
    assert done.returncode == 1 and done.stdout == ""
    assert weights.name in done.stderr and "Traceback" not in done.stderr


def test_a_missing_tensor_is_named_and_up_ends_with_1(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = broken_copy(tmp_path)
    weights = next(folder.glob("*.safetensors"))
    tensors = load_file(weights)
    name = next(n for n in tensors if "layers.1" in n and "q_proj" in n)
    del tensors[name]
    save_file(tensors, weights, metadata={"format": "pt"})
    done = engine("up", "--model", str(folder), "--workers", "2", *ON_EVERY_WORKER, "--json")
    assert done.returncode == 1 and done.stdout == ""
    assert "layers.1" in done.stderr and "q_proj" in done.stderr and "Traceback" not in done.stderr


def test_remote_code_is_refused(tmp_path: Path) -> None:
    folder = broken_copy(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModelForCausalLM": "evil.Model"}
    (folder / "config.json").write_text(json.dumps(config))
    done = engine("up", "--model", str(folder), "--workers", "1", "--json")
    assert done.returncode in (1, 2) and "auto_map" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("up", "--workers", "0"), 2, "--workers: '0' is not allowed"),
        (("up", "--model", "/no/such/folder", "--workers", "1"), 1, "/no/such/folder"),
        (("up", "--model", "mamba", "--random-weights", "0", "--workers", "1"), 1, "mamba"),
        (("worker", "--join", "nonsense"), 2, "HOST:PORT"),
        (("worker", "--join", "127.0.0.1:1", "--slowdown", "0.5"), 2, "factor from 1 to 1000"),
        (("worker", "--join", "127.0.0.1:1", "--memory", "lots"), 2, "size 'lots'"),
        (("coordinator", "--listen", "0.0.0.0:0", "--model", "gpt2"), 2, "--insecure"),
        (("coordinator", "--strategy", "fastest", "--listen", "127.0.0.1:0"), 2, "choose one of"),
        (("generate", "hi", "--connect", "127.0.0.1:1"), 1, "cannot reach the coordinator at 127.0.0.1:1"),
        (("generate", "hi", "--prompt-ids", "1", "--connect", "127.0.0.1:1"), 2, "not both"),
        (("generate", "--connect", "127.0.0.1:1"), 2, "prompt"),
        (("generate", "hi", "--temperature", "-1"), 2, "temperature -1.0 is not allowed"),
        (("generate", "hi", "--temperature", "nan"), 2, "temperature nan"),
        (("status", "--connect", "here"), 2, "HOST:PORT"),
        (("no-such-command",), 2, "there is no command 'no-such-command'"),
        ((), 2, "COMMAND"),
    ],
)
def test_bad_usage_ends_with_its_code_and_a_sentence(arguments: tuple[str, ...], code: int, text: str) -> None:
    done = engine(*arguments)
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert text in done.stderr and "Traceback" not in done.stderr and done.stderr.isascii()


def test_a_taken_port_is_said() -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = engine("coordinator", "--model", MODEL, "--random-weights", "0", "--listen", address)
    assert done.returncode == 1 and address in done.stderr and "taken" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_whatever_ends_up_takes_its_children_along(number: signal.Signals) -> None:
    up = subprocess.Popen(
        UP,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert up.stdout is not None
    pids = json.loads(up.stdout.readline())["pids"]
    children = [psutil.Process(pid) for pid in pids.values()]
    assert len(children) == 3
    up.send_signal(number)
    up.wait(60)
    _gone, alive = psutil.wait_procs(children, timeout=120)
    assert not alive


def test_interrupting_a_start_leaves_nothing_behind() -> None:
    up = subprocess.Popen(
        UP,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert up.stderr is not None
    assert "waiting for" in up.stderr.readline()
    children = psutil.Process(up.pid).children(recursive=True)
    up.send_signal(signal.SIGINT)
    assert up.wait(60) == 130
    assert children and not psutil.wait_procs(children, timeout=120)[1]
