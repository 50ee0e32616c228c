"""A worker finds the coordinator that says where it is, and believes nobody for saying so. Multicast stays on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("zeroconf", reason="zeroconf is not installed: pip install 'noodlecore[discovery]'")

from engine import cli
from engine.data.errors import InvalidInput, NotFound, Refused
from engine.service.trust import discovery
from engine.service.trust.certificates import make_authority
from engine.service.trust.discovery import COORDINATORS, INVITATIONS, Announcement, find_coordinator, find_invitation
from engine.service.trust.invitation import Desk
from engine.service.worker.admission import admitted
from engine.service.worker.options import WorkerOptions
from tests.service.hosts import why_not

REASON = why_not()
PATIENCE_S = 60.0  # of the machine; what is there answers in a second
SHORT_S = 1.5  # where nobody is to answer


@pytest.fixture(autouse=True)
def loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery, "_own_hosts", lambda: ["127.0.0.1"])


@contextlib.asynccontextmanager
async def announced(address: str, name: str, kind: str = COORDINATORS) -> AsyncIterator[None]:
    announcement = Announcement(kind, name, address)
    await announcement.open()
    try:
        yield
    finally:
        await announcement.close()


def test_what_is_announced_is_found_until_it_ends() -> None:
    async def work() -> None:
        async with announced("127.0.0.1:7070", "noodle-one"):
            assert await find_coordinator(PATIENCE_S) == "127.0.0.1:7070"
        with pytest.raises(NotFound, match=r"within 2 s.*--announce, or give --join HOST:PORT"):
            await find_coordinator(SHORT_S)

    asyncio.run(work())


def test_of_several_none_is_taken() -> None:
    async def work() -> None:
        async with announced("127.0.0.1:7070", "noodle-one"), announced("127.0.0.1:7071", "noodle-two"):
            with pytest.raises(InvalidInput, match=r"one of noodle-one at 127\.0\.0\.1:7070, noodle-two at 127\.0\.0\.1:7071"):
                await find_coordinator(PATIENCE_S)

    asyncio.run(work())


@pytest.mark.parametrize("bytes_said", [b"unix:/tmp/trap", b"dns://elsewhere/head:7070", b"\xff\xfe:7070", b"", b"127.0.0.1:99999"])
def test_what_is_no_address_is_passed_over(bytes_said: bytes) -> None:
    assert discovery._address_in({b"at": bytes_said}) == "" and discovery._address_in({}) == ""
    assert discovery._address_in({b"at": b"10.0.0.1:7070"}) == "10.0.0.1:7070"


@pytest.mark.parametrize("address", ["unix:/tmp/c", "10.99.0.1:7070", "[::1]:7070"])
def test_an_address_that_nobody_could_find_is_refused(address: str) -> None:
    with pytest.raises(Refused, match="others could look for it: give --listen"):
        Announcement(COORDINATORS, "c", address)


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


def test_an_invitation_without_an_address_is_found_until_it_was_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a name of its own: another one waits beside it. The coordinator's address comes with the certificate."""
    make_authority(tmp_path / "head", "of the test")
    monkeypatch.setenv("NOODLE_CERTS", str(tmp_path / "laptop"))

    async def work() -> None:
        desk, other = (Desk(tmp_path / "head", "127.0.0.1:7070") for _ in range(2))
        mine, its = await desk.open("127.0.0.1:0"), await other.open("127.0.0.1:0")
        async with announced(its.at, its.public_name, INVITATIONS):
            async with announced(mine.at, mine.public_name, INVITATIONS):
                found = await admitted(WorkerOptions(join=str(replace(mine, at="")), worker_id="laptop"))
                assert await desk.used(PATIENCE_S) == "laptop" and not other._is_granted
            assert (found.join, found.server.security.tls_ca) == ("127.0.0.1:7070", tmp_path / "laptop" / "ca.pem")
            with pytest.raises(NotFound, match="nobody of this network waits for this invitation: it was used already or is over"):
                await find_invitation(mine.public_name, SHORT_S)

    asyncio.run(work())


def test_who_says_to_be_where_an_invitation_is_answered_is_told_nothing_without_its_authority(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("own", "foreign"):
        make_authority(tmp_path / name, name)
    monkeypatch.setenv("NOODLE_CERTS", str(tmp_path / "laptop"))

    async def work() -> None:
        invitation = await Desk(tmp_path / "own", "127.0.0.1:7070").open("127.0.0.1:0")
        trap = Desk(tmp_path / "foreign", "127.0.0.1:7070")
        heard: list[object] = []
        trap._reply = lambda asked: heard.append(asked) or ({}, "")  # type: ignore[method-assign,func-returns-value]
        async with announced((await trap.open("127.0.0.1:0")).at, invitation.public_name, INVITATIONS):
            with pytest.raises(Refused, match="belongs to another authority than the one that invited: nothing was told it"):
                await admitted(WorkerOptions(join=str(replace(invitation, at=""))))
        assert heard == [] and invitation.token not in invitation.public_name and not (tmp_path / "laptop").exists()

    asyncio.run(work())


@pytest.mark.skipif(bool(REASON), reason=REASON)
@pytest.mark.timeout(300)
def test_workers_of_another_host_join_what_they_found_and_nobody_of_another_authority(tmp_path: Path) -> None:
    """One by its own certificate, one by an invitation that has no address."""
    command = [sys.executable, "-m", "tests.service.nearby", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    seen: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert seen["workers"] == ["gpu-a", "laptop"]
    assert seen["line"].startswith("noodle-engine worker --join noodle:") and seen["line"].count(",") == 1 and "10.77" not in seen["line"]
    assert seen["stranger_code"] != 0 and "was not signed by the authority" in seen["stranger"]
