"""A worker profiles the model it serves, in a process of its own, while a session goes on; later plans use the times."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from engine.commands.generate import Transcript, transcribe
from engine.data.errors import NotFound
from engine.profile.profile import Profile
from engine.service.client import ProfileProgress
from tests.service.running import Running, running


@pytest.fixture(scope="module")
def cluster() -> Iterator[Running]:
    with running("gpt2:tiny", 2, slowdowns=(1.0, 3.0)) as started:
        yield started


async def _profile(cluster: Running, worker_id: str) -> list[ProfileProgress]:
    return [answer async for answer in cluster.client.profile(worker_id, quick=True)]


def test_a_node_is_profiled_while_it_serves(cluster: Running) -> None:
    long = cluster.request((1, 2, 3), max_new_tokens=120, ignore_eos=True)
    session = cluster.spawn(transcribe(cluster.client, long))
    answers = cluster.wait(_profile(cluster, "w2"))
    assert [a.progress for a in answers] and {bool(a.profile_json) for a in answers[:-1]} == {False}
    profile = Profile.from_json(answers[-1].profile_json)
    assert profile.random_weights and profile.model == "gpt2:tiny (random weights, seed 0)"
    assert len(profile.items) == 6 and profile.environment.num_threads == 1
    assert tokens(session.result(60)) == tokens(cluster.generate(long))
    text = next(t for t in cluster.events() if t.startswith("profiled: decode"))
    assert "item times" in text or "noise" in text


def tokens(transcript: Transcript) -> list[int]:
    return [chunk.token_id for chunk in transcript.chunks if chunk.index >= 0]


def test_an_unknown_node_is_named(cluster: Running) -> None:
    with pytest.raises(NotFound, match="w9"):
        cluster.wait(_profile(cluster, "w9"))


def test_the_command_writes_the_files_of_a_profile(cluster: Running, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "engine", "profile", "--node", "w1", "--quick", "--connect", cluster.address, "--out", str(tmp_path)]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["random_weights"] is True
    assert {f.name for f in tmp_path.iterdir()} == {"profile.json", "profile.jsonl", "profile.csv", "dashboard.html"}


def test_the_process_ends_when_nobody_waits_any_more(cluster: Running) -> None:
    async def leave() -> None:
        answers = cluster.client.profile("w1", quick=True)
        await anext(answers)
        await answers.aclose()

    cluster.wait(leave())
    worker = psutil.Process(cluster.cluster.pids()["w1"])
    _, alive = psutil.wait_procs(worker.children(recursive=True), timeout=120)
    assert not alive, f"still running: {alive}"
