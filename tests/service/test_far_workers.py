"""Workers on machines without the model's folder: real processes in empty homes that cannot open it.

A far worker is an ordinary one in a process that is denied every `open` below the coordinator's model folder, with a home and a
working directory of its own. Its cache is therefore its own too, and what lies in it is what travelled.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import subprocess
import time
import urllib.request
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from engine.commands.cluster.generate import transcribe
from engine.data.errors import Exhausted
from engine.data.plan import Stage
from engine.data.status import ClusterStatus, Phase
from engine.model.running.loading import names_needed
from engine.model.weights.cached_weights import CachedWeights
from engine.model.weights.manifest import Manifest, manifest_of
from engine.model.weights.weight_cache import WeightCache
from engine.service.client import Client
from tests.service.matrix import MODEL, NUM_ITEMS, PROMPT, PROMPTS, WORKERS, Matrix, ids, moved
from tests.service.nursery import Nursery
from tests.service.reference import folder_of, reference
from tests.service.test_live import ask, events, until


@dataclass
class Far(Matrix):
    """A cluster whose workers are far from the coordinator's folder."""

    homes: Path = Path()
    state: str = "state"
    cut: list[str] = field(default_factory=list)
    options: dict[str, list[str]] = field(default_factory=dict)
    metrics: dict[str, str] = field(default_factory=dict)

    def start_coordinator(self) -> None:
        arguments = [
            "--model",
            MODEL,
            "--random-weights",
            "0",
            "--workers",
            "3",
            "--strategy",
            "balanced",
            "--listen",
            self.address,
            *self.cut,
        ]
        arguments += ["--state-dir", str(self.homes / self.state), "--log-level", "WARNING"]
        self.pids["coordinator"], said = self.nursery.start("coordinator", *arguments)
        self.address = str(said["address"])

    def start_worker(self, worker_id: str) -> None:
        home = self.homes / worker_id
        home.mkdir(exist_ok=True)
        arguments = ["--join", self.address, "--id", worker_id, "--threads", "1", "--memory", "500M", "--kv-memory", "50M"]
        arguments += ["--metrics-port", "0", "--log-level", "WARNING", *self.options.get(worker_id, [])]
        env = {"HOME": str(home), "NOODLE_CACHE": "", "XDG_CACHE_HOME": ""}
        self.pids[worker_id], said = self.nursery.start("worker", *arguments, env=env, cwd=str(home), deny=str(folder_of(MODEL)))
        self.metrics[worker_id] = str(said["metrics_address"])

    def cache(self, worker_id: str) -> WeightCache:
        return WeightCache(self.homes / worker_id / ".cache" / "noodlecore" / "weights")

    def kept(self, worker_id: str) -> set[str]:
        return {p.name for p in (self.cache(worker_id).folder / "tensors").glob("??/*")}

    def counted(self, worker_id: str, name: str) -> int:
        with urllib.request.urlopen(f"http://{self.metrics[worker_id]}/metrics", timeout=120) as page:
            found = re.search(rf"^noodle_worker_weights_{name}_bytes_total\{{.*\}} (\S+)$", page.read().decode(), re.M)
        assert found is not None
        return int(float(found[1]))

    def manifest(self) -> Manifest:
        return manifest_of(folder_of(MODEL), self.homes)

    def needed(self, start: int, stop: int) -> dict[str, int]:
        """Hash and bytes of the tensors that a slice needs."""
        manifest = self.manifest()
        names = names_needed(CachedWeights(manifest, WeightCache(self.homes / "other")), start, stop, "float32")
        return {t.sha256.hex(): t.num_bytes for t in manifest.tensors if t.name in names}


@pytest.fixture
def far(nursery: Nursery, tmp_path: Path) -> Iterator[Far]:
    nursery.folder = tmp_path
    far = Far(nursery, homes=tmp_path)
    yield far
    for pid in list(far.pids.values()):
        nursery.kill(pid)


def run(far: Far, work: Callable[[Client], Coroutine[Any, Any, Any]]) -> Any:
    async def connected() -> Any:
        async with Client(far.address) as client:
            return await asyncio.wait_for(work(client), 120)

    return asyncio.run(connected())


async def told(client: Client, text: str) -> list[str]:
    """The events that contain the text, each with its subject."""
    return [f"{e.subject}: {e.text}" for e in await events(client) if text in e.text]


def test_far_workers_answer_like_one_process_hold_their_slices_alone_and_start_again_from_their_caches(far: Far) -> None:
    far.cut = ["--layers", "2,2,2"]
    far.start()

    async def work(client: Client) -> list[str]:
        await far.ready(client)
        assert ids(await transcribe(client, ask(PROMPT, 24))) == reference(MODEL, PROMPT, 24)
        return [f"{e.subject}: {e.text}" for e in await events(client)]

    said = run(far, work)
    assert sum("fetched" in e and "from coordinator" in e for e in said) == 3
    for event in (e for e in said if "memory rose by" in e):
        assert float(event.split("memory rose by ")[1].split(" MB")[0]) < 150, "weights pass through in chunks"
    slices = {worker_id: far.needed(2 * n, 2 * n + 2) for n, worker_id in enumerate(WORKERS)}
    for worker_id, needed in slices.items():
        assert far.kept(worker_id) == set(needed)
        assert far.counted(worker_id, "fetched") == sum(needed.values()) > 0

    for pid in far.pids.values():
        far.nursery.kill(pid)
    victim = far.cache("w2").path(bytes.fromhex(min(far.kept("w2"))))  # rots meanwhile
    whole = victim.read_bytes()
    victim.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
    far.address, far.state = "127.0.0.1:0", "another-state"
    far.start()
    said = run(far, work)
    assert any(e.startswith("w2: the cached copy of") and "was damaged" in e for e in said)
    assert victim.read_bytes() == whole
    assert {w: far.counted(w, "fetched") for w in WORKERS} == {"w1": 0, "w2": len(whole), "w3": 0}
    assert {w: far.kept(w) for w in WORKERS} == {w: set(needed) for w, needed in slices.items()}


def test_live_moves_and_a_failover_fetch_what_they_need_while_tokens_come(far: Far) -> None:
    far.start()

    async def work(client: Client) -> None:
        status = await far.ready(client)
        num_tokens = 250
        answers = [asyncio.create_task(transcribe(client, ask(p, num_tokens))) for p in PROMPTS]
        await until(client, lambda s: len(s.sessions) == 8 and min(x.num_generated for x in s.sessions) > 3)
        stages = [Stage("w3", 0, 2), Stage("w1", 2, 5), Stage("w2", 5, NUM_ITEMS)]
        await client.apply(status.plan_version, "", stages)
        assert (await moved(client, 1))[-1].outcome == "done"
        fetches = await told(client, "fetched")
        assert any(re.search(r"fetched .* MB from w\d", e) for e in fetches), "a worker that has them sends them too"
        far.nursery.kill(far.pids["w1"])
        await until(client, lambda s: s.phase is Phase.SERVING and len(s.stages) == 2)
        assert [ids(await a) for a in answers] == [reference(MODEL, p, num_tokens) for p in PROMPTS]
        assert sum(far.counted(w, "sent") for w in ("w2", "w3")) > 0
        covered = await client.status()
        for stage in covered.stages:
            assert set(far.needed(stage.start, stage.stop)) <= far.kept(stage.worker_id)

    run(far, work)


@pytest.mark.parametrize("victim", ["w1", "coordinator"])
def test_a_source_that_dies_while_weights_travel_delays_and_changes_nothing(far: Far, victim: str) -> None:
    """The victim goes as soon as the first tensor has arrived."""
    far.start()

    async def work(client: Client) -> None:
        status = await far.ready(client)
        answer = asyncio.create_task(transcribe(client, ask(PROMPT, 300)))
        await until(client, lambda s: bool(s.sessions) and s.sessions[0].num_generated > 3)
        kept = {w: len(far.kept(w)) for w in WORKERS}

        def grew() -> None:
            while all(len(far.kept(w)) == kept[w] for w in ("w2", "w3")):
                time.sleep(0.001)

        await client.apply(status.plan_version, "", [Stage("w3", 0, 3), Stage("w2", 3, NUM_ITEMS)])
        await asyncio.to_thread(grew)
        far.nursery.kill(far.pids[victim])
        restart = far.start_coordinator if victim == "coordinator" else lambda: far.start_worker(victim)
        await asyncio.to_thread(restart)
        assert ids(await answer) == reference(MODEL, PROMPT, 300)

    run(far, work)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with 64 MiB; skipped where nobody may mount one."""
    folder = tmp_path / "small-disk"
    folder.mkdir()
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64M", "noodle-test", str(folder)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"this machine lets nobody mount a file system: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_worker_whose_disk_is_full_is_left_out_stays_alive_and_serves_once_there_is_space(far: Far, small_disk: Path) -> None:
    far.options["w2"] = ["--cache-dir", str(small_disk)]
    far.start()

    def make_space() -> None:
        assert list(small_disk.rglob("tensors/*/*")) == [], "nothing half-written"
        subprocess.run(["mount", "-o", "remount,size=256M", str(small_disk)], check=True)

    async def work(client: Client) -> None:
        def serve(*names: str) -> Callable[[ClusterStatus], bool]:
            return lambda s: s.phase is Phase.SERVING and {x.worker_id for x in s.stages} == {*names}

        await until(client, serve("w1", "w3"))
        assert ids(await transcribe(client, ask(PROMPT, 8))) == reference(MODEL, PROMPT, 8)
        (why,) = await told(client, "bytes of weights are missing here")
        assert re.search(rf"^w2: left out: \d+ bytes .* {re.escape(str(small_disk))}\S* has \d+ free: free some space, or choose", why)
        os.kill(far.pids["w2"], 0)  # it is alive
        await asyncio.to_thread(make_space)
        far.nursery.kill(far.pids["w2"])
        await asyncio.to_thread(far.start_worker, "w2")
        await until(client, serve(*WORKERS))
        assert ids(await transcribe(client, ask(PROMPT, 8))) == reference(MODEL, PROMPT, 8)

    run(far, work)


def test_a_journal_on_a_full_disk_ends_sessions_with_the_reason_and_goes_on_once_there_is_space(far: Far, small_disk: Path) -> None:
    far.state = small_disk.name
    far.start()
    ballast = small_disk / "ballast"

    def fill() -> None:
        with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as stream:
            while True:
                stream.write(bytes(4096))

    async def work(client: Client) -> None:
        await far.ready(client)
        got = list[int]()
        with pytest.raises(Exhausted, match=r"the journal .* cannot be written .* free disk space or choose another --state-dir"):
            async for chunk in client.generate(ask(PROMPT, 400)):
                if chunk.index == 3:
                    await asyncio.to_thread(fill)
                if chunk.index >= 0:
                    got.append(chunk.token_id)
        assert 4 <= len(got) < 400 and got == reference(MODEL, PROMPT, 400)[: len(got)]
        with pytest.raises(Exhausted, match="cannot be written"):
            await transcribe(client, ask(PROMPT, 8))
        await asyncio.to_thread(ballast.unlink)
        assert ids(await transcribe(client, ask(PROMPT, 24))) == reference(MODEL, PROMPT, 24)

    run(far, work)


def test_a_worker_whose_cache_is_too_small_is_left_out_and_says_why(far: Far) -> None:
    far.options["w2"] = ["--cache-limit", "10K"]
    far.start()

    async def work(client: Client) -> None:
        def two_serve(status: ClusterStatus) -> bool:
            return status.phase is Phase.SERVING and len(status.stages) == 2

        status = await until(client, two_serve)
        assert {s.worker_id for s in status.stages} == {"w1", "w3"}
        assert ids(await transcribe(client, ask(PROMPT, 8))) == reference(MODEL, PROMPT, 8)
        (why,) = await told(client, "--cache-limit allows 10000")
        assert why.startswith("w2: left out: this stage needs")

    run(far, work)
