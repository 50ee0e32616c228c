"""Twelve architectures over three real worker processes; the workers stay, the coordinator is replaced by the next model's."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from engine.commands.cluster.generate import transcribe
from engine.data.generation import GenerateRequest
from engine.service.client import Client
from tests.service.reference import folder_of, reference
from tests.service.test_failures import serving

FAMILIES = ("gpt2", "llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text", "phi3", "gpt_neox", "opt", "bloom", "qwen2_moe")
PROMPTS = ((1, 2, 3), (9,), tuple(range(4, 34)))


@contextlib.contextmanager
def process(*arguments: str) -> Iterator[dict[str, object]]:
    started = subprocess.Popen(
        [sys.executable, "-m", "engine", *arguments, "--exit-with-parent"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert started.stdout is not None
        yield json.loads(started.stdout.readline())
    finally:
        started.terminate()
        started.wait(20)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Three workers that join whatever coordinator listens on one address."""
    with contextlib.ExitStack() as stack:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            join = f"127.0.0.1:{probe.getsockname()[1]}"
        for i in range(3):
            stack.enter_context(process("worker", "--join", join, "--id", f"w{i + 1}", "--threads", "1", "--memory", "1G"))
        yield join


@pytest.mark.parametrize("family", FAMILIES)
def test_tokens_over_three_workers_equal_generate(address: str, family: str) -> None:
    model = f"{family}:tiny"
    folder_of(model)
    with process("coordinator", "--model", model, "--random-weights", "0", "--workers", "3", "--strategy", "balanced", "--listen", address):
        assert serving(address)
        documents = asyncio.run(generate_all(address))
    for prompt, document in zip(PROMPTS, documents, strict=True):
        assert document["token_ids"] == reference(model, prompt, 12)
        assert sorted(s["worker_id"] for s in document["stages"]) == ["w1", "w2", "w3"]


async def generate_all(address: str) -> list[dict[str, Any]]:
    """All prompts at once on one cluster."""
    async with Client(address) as client:
        requests = [GenerateRequest(prompt_ids=p, max_new_tokens=12, ignore_eos=True) for p in PROMPTS]
        return [t.document() for t in await asyncio.gather(*(transcribe(client, r) for r in requests))]
