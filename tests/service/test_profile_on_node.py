"""A worker profiles the model it serves, in a process of its own, while a session goes on; later plans use the times."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path

import psutil
import pytest

from engine.commands.cluster.generate import Transcript, transcribe
from engine.data.errors import InvalidInput, NoodleError, NotFound, Refused
from engine.data.generation import FinishReason
from engine.profile.profile import Profile
from engine.service.client import ProfileProgress
from engine.service.worker.profiling import take_profile
from protos import noodle_pb2 as pb
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
    assert "item times" in text or "too noisy to use" in text


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


def test_a_profile_is_in_nobodys_way_but_another_ones_of_its_node(cluster: Running) -> None:
    """Sessions are cancelled and plans are changed while it runs; a second one would measure the first, and is refused."""

    async def work() -> None:
        client = cluster.client
        async with contextlib.aclosing(client.profile("w1", quick=True)) as answers:
            await anext(answers)
            with pytest.raises(Refused, match="w1 is being profiled already"):
                await _first(client.profile("w1", quick=True))
            async with contextlib.aclosing(client.generate(cluster.request((1, 2, 3), 100, ignore_eos=True))) as chunks:
                header = await anext(chunks)
                await client.cancel(header.session_id)
                assert [c.finish_reason async for c in chunks][-1] is FinishReason.CANCELLED
            plan = await client.drain("w2")
            assert [s.node_id for s in plan.stages] == ["w1"]
            await _until(cluster, plan.plan_version)
            assert (await client.undrain("w2")).plan_version > plan.plan_version
            await _until(cluster, plan.plan_version + 1)
            assert await anext(answers) is not None  # it went on all the time
        await _accepted(cluster, "w1")

    cluster.wait(work())


async def _first(answers: AsyncGenerator[ProfileProgress, None]) -> None:
    async with contextlib.aclosing(answers):
        await anext(answers)


async def _accepted(cluster: Running, worker_id: str) -> None:
    """The process of a profile that was given up is ended first."""
    while True:
        try:
            return await _first(cluster.client.profile(worker_id, quick=True))
        except Refused:
            await asyncio.sleep(0.1)


async def _until(cluster: Running, plan_version: int) -> None:
    async with contextlib.aclosing(cluster.client.watch(min_interval_s=0.1)) as frames:
        async for frame in frames:
            if frame.status.plan_version >= plan_version:
                return


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (pb.ProfileNodeRequest(device="cpu\x00"), "zero character"),
        (pb.ProfileNodeRequest(device="cpu", num_threads=1), "--dtype"),
        (pb.ProfileNodeRequest(device="cpu", num_threads=1, model=pb.ModelRef(dtype="F32")), "'F32'"),
    ],
)
def test_what_no_program_can_be_given_is_the_callers_fault(asked: pb.ProfileNodeRequest, said: str) -> None:
    async def first() -> None:
        await anext(take_profile(asked, Path("."), only_config=False))

    with pytest.raises(InvalidInput, match=said):
        asyncio.run(first())


def test_a_worker_that_is_terminated_takes_the_process_along(cluster: Running) -> None:
    async def begin() -> list[psutil.Process]:
        answers = cluster.client.profile("w2", quick=True)
        await anext(answers)
        children = psutil.Process(cluster.cluster.pids()["w2"]).children(recursive=True)
        psutil.Process(cluster.cluster.pids()["w2"]).terminate()
        with contextlib.suppress(NoodleError):
            async for _ in answers:
                pass
        return children

    children = cluster.wait(begin())
    assert children and not psutil.wait_procs(children, timeout=20)[1]
