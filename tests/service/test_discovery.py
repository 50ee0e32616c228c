"""A worker finds the coordinator that says where it is, and believes nobody for saying so. Multicast stays on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("zeroconf", reason="zeroconf is not installed: pip install 'noodlecore[discovery]'")

from engine import cli
from engine.data.errors import InvalidInput, NotFound, Refused
from engine.service.trust import discovery
from engine.service.trust.discovery import Announcement, find
from tests.service.hosts import why_not

REASON = why_not()
PATIENCE_S = 60.0  # of the machine; what is there answers in a second
SHORT_S = 1.5  # where nobody is to answer


@pytest.fixture(autouse=True)
def loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery, "_own_hosts", lambda: ["127.0.0.1"])


@contextlib.asynccontextmanager
async def announced(address: str, cluster_id: str, says: str = "") -> AsyncIterator[None]:
    announcement = Announcement(address, cluster_id)
    announcement.address = says or announcement.address
    await announcement.open()
    try:
        yield
    finally:
        await announcement.close()


def test_what_is_announced_is_found_until_it_ends() -> None:
    async def work() -> None:
        async with announced("127.0.0.1:7070", "noodle-one"):
            assert await find(PATIENCE_S) == "127.0.0.1:7070"
        with pytest.raises(NotFound, match=r"within 2 s.*--announce, or give --join HOST:PORT"):
            await find(SHORT_S)

    asyncio.run(work())


def test_of_several_none_is_taken() -> None:
    async def work() -> None:
        async with announced("127.0.0.1:7070", "noodle-one"), announced("127.0.0.1:7071", "noodle-two"):
            with pytest.raises(InvalidInput, match=r"one of noodle-one at 127\.0\.0\.1:7070, noodle-two at 127\.0\.0\.1:7071"):
                await find(PATIENCE_S)

    asyncio.run(work())


@pytest.mark.parametrize("bytes_said", [b"unix:/tmp/trap", b"dns://elsewhere/head:7070", b"\xff\xfe:7070", b"", b"127.0.0.1:99999"])
def test_what_is_no_address_is_passed_over(bytes_said: bytes) -> None:
    assert discovery._address_in({b"at": bytes_said}) == "" and discovery._address_in({}) == ""
    assert discovery._address_in({b"at": b"10.0.0.1:7070"}) == "10.0.0.1:7070"


@pytest.mark.parametrize("address", ["unix:/tmp/c", "10.99.0.1:7070", "[::1]:7070"])
def test_an_address_that_nobody_could_find_is_refused(address: str) -> None:
    with pytest.raises(Refused, match="--announce"):
        Announcement(address, "c")


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("worker --join auto", "--join auto believes nobody: give --tls-cert, --tls-key and --tls-ca, or --token-file"),
        ("coordinator --model gpt2:tiny --listen 127.0.0.1:0 --announce", "--announce tells a whole network where this is"),
    ],
)
def test_without_a_way_to_know_others_it_is_refused(line: str, sentence: str) -> None:
    done = subprocess.run([sys.executable, "-m", "engine", *line.split()], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2 and sentence in done.stderr and done.stderr.count("\n") == 1


def test_it_is_off_by_default() -> None:
    assert cli.parse(["coordinator"])[1].coordinator.announce is False
    assert "--announce" not in cli.parsers()[1]["up"]._option_string_actions, "a cluster of one machine is for its user alone"


@pytest.mark.skipif(bool(REASON), reason=REASON)
@pytest.mark.timeout(300)
def test_a_worker_joins_what_it_found_and_nobody_of_another_authority(tmp_path: Path) -> None:
    """In a network of its own, which has a loopback and nothing else."""
    inside = f"ip link set lo up && exec {sys.executable} -m tests.service.nearby {tmp_path}"
    done = subprocess.run(["unshare", "--net", "sh", "-c", inside], capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    seen: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert seen["workers"] == ["gpu-a"]
    assert seen["stranger_code"] != 0 and "was not signed by the authority" in seen["stranger"]
