"""One cluster with its API for all tests of this folder: `noodle-engine up --http`, as a user starts it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import openai
import pytest

from tests.service.nursery import ON_EVERY_WORKER
from tests.service.small_chat import small_chat

NAME = "small-chat"


@dataclass(frozen=True)
class Served:
    """Where it is, and what its user needs."""

    http: str
    address: str
    key: str
    folder: Path
    pids: dict[str, int]

    @property
    def base(self) -> str:
        return f"{self.http}/v1"

    def openai(self) -> openai.OpenAI:
        return openai.OpenAI(base_url=self.base, api_key=self.key, max_retries=0, timeout=120)

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.http, headers={"authorization": f"Bearer {self.key}"}, timeout=120)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_chat(tmp_path_factory.mktemp("models") / NAME)


def started(folder: Path, *words: str) -> tuple[subprocess.Popen[str], Served]:
    """`up` with the API; returns when it is ready."""
    command = [sys.executable, "-m", "engine", "up", "--model", str(folder), "--workers", "2", *ON_EVERY_WORKER, "--threads", "1"]
    command += ["--http", "0", "--json"]
    process = subprocess.Popen([*command, "--model-name", NAME, *words], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    said = json.loads(process.stdout.readline())
    return process, Served(said["http"], said["address"], Path(said["key_file"]).read_text(), folder, said["pids"])


@pytest.fixture(scope="session")
def served(folder: Path) -> Iterator[Served]:
    process, found = started(folder)
    yield found
    process.terminate()
    process.wait(60)
