"""Models as their makers publish them, served by real processes: one worker has the model's folder, the other gets its slice sent."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.commands.cluster.generate import transcribe
from engine.data.errors import Unavailable
from engine.data.model import ModelRef
from engine.data.status import Phase
from engine.model.sources.card import prepare
from engine.service.client import Client
from tests.model import published, tiny
from tests.model.test_wrappers import random_wrapper
from tests.service.matrix import ids
from tests.service.nursery import Nursery
from tests.service.test_live import ask, until

PROMPT = tuple(tiny.prompts((9,))[0])


def gguf_file(folder: Path) -> Path:
    published.write_gguf(published.model_of("qwen2"), folder / "m.gguf", ("Q8_0", "Q4_0", "F16"))
    return folder / "m.gguf"


def mxfp4_folder(folder: Path) -> Path:
    published.model_of("gpt_oss", intermediate_size=64).save_pretrained(folder)
    published.to_mxfp4(folder)
    return folder


def compiled_fp8_folder(folder: Path) -> Path:
    published.model_of("llama").save_pretrained(folder)
    published.to_fp8(folder)
    published.rename_tensors(folder, lambda name: f"_orig_mod.{name}")
    return folder


def image_folder(folder: Path) -> Path:
    random_wrapper("mistral3").save_pretrained(folder)
    return folder


@pytest.mark.parametrize("make", [gguf_file, mxfp4_folder, compiled_fp8_folder, image_folder])
def test_it_is_served_also_by_a_worker_that_cannot_open_it(make: Callable[[Path], Path], nursery: Nursery, tmp_path: Path) -> None:
    here, far = tmp_path / "here", tmp_path / "far"
    here.mkdir()
    far.mkdir()
    model = make(here)
    card = prepare(ModelRef(str(model)), here / "expected")
    expected = tiny.sliced(tiny.load_slices(Path(card.folder), (0, card.num_items)), [list(PROMPT)], 8)[0]
    options = ["--model", str(model), "--workers", "2", "--layers", "3,3", "--listen", "127.0.0.1:0", "--cache-dir", str(here / "cache")]
    pid, said = nursery.start("coordinator", *options, "--state-dir", str(here / "state"), "--log-level", "WARNING")
    pids, address = [pid], str(said["address"])
    for name, deny in (("near", ""), ("far", str(here))):
        home = {"HOME": str(tmp_path / name), "NOODLE_CACHE": "", "XDG_CACHE_HOME": ""}
        arguments = ["--join", address, "--id", name, "--threads", "1", "--memory", "500M", "--kv-memory", "50M", "--log-level", "WARNING"]
        pids.append(nursery.start("worker", *arguments, env=home, cwd=str(far), deny=deny)[0])

    async def work() -> Any:
        while True:
            with contextlib.suppress(Unavailable):  # a machine so busy that a ping is late
                async with Client(address) as client:
                    await until(client, lambda status: status.phase is Phase.SERVING)
                    return await transcribe(client, ask(PROMPT, 8))

    try:
        assert ids(asyncio.run(asyncio.wait_for(work(), 150))) == expected
        assert list((tmp_path / "far").rglob("tensors/*/*")), "the far worker was sent its slice"
        assert not list((tmp_path / "near").rglob("tensors/*/*"))
    finally:
        for pid in pids:
            nursery.kill(pid)


def without_its_head(folder: Path) -> Path:
    published.model_of("llama").save_pretrained(folder)
    published.rename_tensors(folder, lambda name: name.replace("lm_head", "score"))
    return folder


def pointer(folder: Path) -> Path:
    published.model_of("llama").save_pretrained(folder)
    (folder / published.FILE).write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 548105171\n")
    return folder


COMMANDS = (
    ("models", "describe", "MODEL", "--json"),
    ("profile", "MODEL", "--out", "OUT", "--json"),
    ("up", "--model", "MODEL", "--workers", "1", "--json"),
)


@pytest.mark.parametrize(("make", "said"), [(without_its_head, "scores or classifies"), (pointer, "git lfs pull")])
@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_every_command_says_the_same(command: tuple[str, ...], make: Callable[[Path], Path], said: str, tmp_path: Path) -> None:
    model, cache = make(tmp_path / "model"), str(tmp_path / "cache")
    words = {"MODEL": str(model), "OUT": str(tmp_path / "out")}
    arguments = [sys.executable, "-m", "engine", *(words.get(word, word) for word in command)]
    environment = {"NOODLE_CACHE": cache, "HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "PYTHONPATH": ":".join(filter(None, sys.path))}
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=170, check=False, env=environment)
    described = command[0] == "models" and make is without_its_head  # what the folder is can be told, and what it lacks
    assert done.returncode == 0 if described else done.returncode in (1, 2), done
    assert said in done.stderr and "Traceback" not in done.stdout + done.stderr
    assert len(done.stderr.replace(str(tmp_path), "")) < 900
    if described:
        assert said in json.loads(done.stdout)["missing"]


@pytest.mark.parametrize(("make", "said"), [(without_its_head, "scores or classifies"), (pointer, "git lfs pull")])
def test_a_coordinator_says_it_and_stays_to_be_asked(make: Callable[[Path], Path], said: str, nursery: Nursery, tmp_path: Path) -> None:
    model = make(tmp_path / "model")
    options = ["--model", str(model), "--workers", "1", "--listen", "127.0.0.1:0", "--cache-dir", str(tmp_path / "cache")]
    pid, _ = nursery.start("coordinator", *options, "--state-dir", str(tmp_path / "state"))
    try:
        log = nursery.log_of(pid, said, 120)
        assert said in log and "Traceback" not in log
    finally:
        nursery.kill(pid)
