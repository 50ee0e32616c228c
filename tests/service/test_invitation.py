"""An invitation lets one machine in, once, for a while, and tells nothing to a stranger."""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import subprocess
import sys
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.data.errors import InvalidInput, NoodleError, Refused, Unauthorized, Unavailable
from engine.service.options import Role
from engine.service.trust import certificates
from engine.service.trust import invitation as invitation_module
from engine.service.trust.invitation import Desk, Invitation, accept, read_invitation

JOIN, HERE = "127.0.0.1:7070", "127.0.0.1:0"
DEADLINE_S = 120.0
FIELDS = "a" * 64 + "," + "b" * 43


@pytest.fixture
def head(tmp_path: Path) -> Path:
    """The folder of an authority."""
    certificates.make_authority(tmp_path / "head", "of the test")
    return tmp_path / "head"


def talk(head: Path, work: Callable[[Desk, Invitation], Coroutine[Any, Any, None]], name: str = "") -> None:
    async def run() -> None:
        desk = Desk(head, JOIN, name)
        await asyncio.wait_for(work(desk, await desk.open(HERE)), DEADLINE_S)

    asyncio.run(run())


def test_a_machine_gets_a_certificate_for_a_key_that_never_travels(head: Path, tmp_path: Path) -> None:
    async def work(desk: Desk, invitation: Invitation) -> None:
        found = await accept(read_invitation(str(invitation)), "laptop", tmp_path / "laptop")
        assert await desk.used(DEADLINE_S) == found.name == "laptop" and found.join == JOIN
        assert found.key.stat().st_mode & 0o777 == 0o600 and not (head / "laptop.key").exists()
        said = certificates.read_certificate(found.certificate)
        assert (said.name, said.role) == ("laptop", "worker") and said in certificates.issued(head)
        assert found.authority.read_bytes() == (head / "ca.pem").read_bytes() and (tmp_path / "laptop" / "revoked.pem").exists()
        ssl.create_default_context(cafile=found.authority).load_cert_chain(found.certificate, found.key)  # they belong together

    talk(head, work)


def test_whoever_invites_may_name_the_machine(head: Path, tmp_path: Path) -> None:
    async def work(desk: Desk, invitation: Invitation) -> None:
        assert (await accept(invitation, "as-it-likes", tmp_path / "new")).name == "gpu-a"

    talk(head, work, name="gpu-a")


def test_one_that_was_used_or_is_over_is_refused(head: Path, tmp_path: Path) -> None:
    async def used(desk: Desk, invitation: Invitation) -> None:
        await accept(invitation, "first", tmp_path / "first")
        with pytest.raises(NoodleError, match="was used already"):
            await accept(invitation, "second", tmp_path / "second")
        await desk.used(DEADLINE_S)
        with pytest.raises(Unavailable, match=r"nobody answers the invitation .* was used already or is over"):
            await accept(invitation, "third", tmp_path / "third")
        assert [c.name for c in certificates.issued(head)] == ["first"]

    async def over(desk: Desk, invitation: Invitation) -> None:
        with pytest.raises(Unavailable, match="nobody used the invitation, and it is over"):
            await desk.used(0.0)
        with pytest.raises(Unavailable, match="is over"):
            await accept(invitation, "late", tmp_path / "late")
        assert not (tmp_path / "late").exists()

    talk(head, used)
    talk(head, over)


def test_of_two_who_come_in_one_moment_one_gets_in(head: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second one shows the token while the first one's certificate is still on its way."""
    going, sent, send = asyncio.Event(), asyncio.Event(), invitation_module._send

    async def slow(writer: asyncio.StreamWriter, document: Any) -> None:
        if "certificate" in document:
            going.set()
            await sent.wait()
        await send(writer, document)

    async def work(desk: Desk, invitation: Invitation) -> None:
        first = asyncio.create_task(accept(invitation, "first", tmp_path / "first"))
        await going.wait()
        with pytest.raises(NoodleError, match="was used already"):
            await accept(invitation, "second", tmp_path / "second")
        sent.set()
        assert (await first).name == await desk.used(DEADLINE_S) == "first"
        assert [c.name for c in certificates.issued(head)] == ["first"]

    monkeypatch.setattr(invitation_module, "_send", slow)
    talk(head, work)


@pytest.mark.parametrize(
    "said", [b"[" * 60_000 + b"\n", b"a" * 200_000, b"\xff\n", b"[]\n", b"{", b""], ids=["deep", "long", "bytes", "list", "half", "none"]
)
def test_what_is_no_request_ends_its_own_call_alone(head: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, said: bytes) -> None:
    async def work(desk: Desk, invitation: Invitation) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        reader, writer = await asyncio.open_connection(*invitation.at.split(":"), ssl=context, limit=2**20)
        await reader.readline()
        writer.write(said)
        writer.close()
        assert (await accept(invitation, "w", tmp_path / "w")).name == "w"
        await desk.used(DEADLINE_S)

    talk(head, work)
    assert not caplog.records, caplog.text


def test_a_stranger_who_answers_is_told_nothing(head: Path, tmp_path: Path) -> None:
    """Another authority; and one that shows the right authority's certificate without having its key."""
    certificates.make_authority(tmp_path / "foreign", "of somebody else")

    async def work(desk: Desk, invitation: Invitation) -> None:
        heard: list[bytes] = []
        desk._reply = lambda asked: heard.append(b"asked") or ({}, "")  # type: ignore[method-assign,func-returns-value]
        right = certificates.authority(head)
        with pytest.raises(Refused, match="belongs to another authority than the one that invited"):
            await accept(replace(invitation, fingerprint="0" * 64), "w", tmp_path / "w")
        with pytest.raises(Refused, match="belongs to another authority"):
            desk._authority = right  # what it says, not what it can sign with
            fingerprint = Desk(head, JOIN)._authority.fingerprint(right.signature_hash_algorithm).hex()  # type: ignore[arg-type]
            await accept(replace(invitation, fingerprint=fingerprint), "w", tmp_path / "w")
        assert heard == [] and not (tmp_path / "w").exists()

    talk(tmp_path / "foreign", work)


def test_guessing_ends_it(head: Path, tmp_path: Path) -> None:
    async def work(desk: Desk, invitation: Invitation) -> None:
        waiting = asyncio.create_task(desk.used(DEADLINE_S))
        wrong = replace(invitation, token="x" * 43)
        for _ in range(5):
            with pytest.raises(Refused, match="the token is not the one of this invitation"):
                await accept(wrong, "w", tmp_path / "w")
        with pytest.raises(Unauthorized, match="another token"):
            await waiting
        assert certificates.issued(head) == ()

    talk(head, work)


def test_a_name_that_is_taken_and_a_folder_of_another_cluster_are_refused_and_the_line_stays_good(head: Path, tmp_path: Path) -> None:
    certificates.issue(head, "w1", Role.WORKER, [])
    certificates.make_authority(tmp_path / "other", "of another cluster")

    async def work(desk: Desk, invitation: Invitation) -> None:
        with pytest.raises(Refused, match="w1 has a certificate already"):
            await accept(invitation, "w1", tmp_path / "w1")
        with pytest.raises(Refused, match="holds another authority: set NOODLE_CERTS"):
            await accept(invitation, "w2", tmp_path / "other")
        await accept(invitation, "w2", tmp_path / "w2")

    talk(head, work)


@pytest.mark.parametrize(
    "line", ["", "a:1,c,d", "127.0.0.1:1", f"127.0.0.1:x,{FIELDS}", f"unix:/a,{FIELDS}", FIELDS[1:], f"a:1,b:2,{FIELDS}"]
)
def test_half_a_line_is_refused(line: str) -> None:
    with pytest.raises(InvalidInput, match=r"not whole|not allowed"):
        read_invitation(f"noodle:{line}")


@pytest.mark.timeout(900)
def test_one_paste_adds_a_machine_to_a_cluster(tmp_path: Path) -> None:
    """As the guide says it: an authority, a coordinator, an invitation, and on the other machine the line."""
    environment = {**os.environ, "NOODLE_CERTS": str(tmp_path / "head")}
    elsewhere = {**os.environ, "NOODLE_CERTS": str(tmp_path / "laptop")}
    started: list[subprocess.Popen[str]] = []

    def start(env: dict[str, str], *words: str) -> str:
        process = subprocess.Popen([sys.executable, "-m", "engine", *words], env=env, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None
        return process.stdout.readline().strip()

    def typed(env: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "engine", *words]
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=300, check=False)

    def run(*words: str) -> str:
        done = typed(environment, *words)
        assert done.returncode == 0, done.stderr
        return done.stdout

    try:
        run("certs", "init")
        run("certs", "node", "head", "--role", "coordinator", "--host", "127.0.0.1")
        run("certs", "node", "ann", "--role", "operator")
        folder = tmp_path / "head"
        pair = [f"--tls-cert={folder}/head.pem", f"--tls-key={folder}/head.key", f"--tls-ca={folder}/ca.pem"]
        address = json.loads(start(environment, "coordinator", "--model", "llama:tiny", "--random-weights", "0", "--listen", HERE, *pair))[
            "address"
        ]
        line = start(environment, "invite", "--join", address)
        assert line.startswith("noodle-engine worker --join noodle:127.0.0.1:")
        joined = json.loads(start(elsewhere, *line.split()[1:], "--id", "laptop", "--threads", "1"))
        assert joined["worker_id"] == "laptop" and started[1].wait(60) == 0
        own = [f"--tls-cert={folder}/ann.pem", f"--tls-key={folder}/ann.key", f"--tls-ca={folder}/ca.pem"]
        asked = ("generate", "--prompt-ids", "1,2,3", "--max-new-tokens", "4", "--connect", address, "--json", *own)
        while "is being prepared" in typed(environment, *asked).stderr:
            pass
        answer = json.loads(run(*asked))
        assert len(answer["token_ids"]) == 4 and [s["worker_id"] for s in answer["stages"]] == ["laptop"]
        again = typed(elsewhere, *line.split()[1:])
        assert again.returncode == 1 and "was used already or is over" in again.stderr and "Traceback" not in again.stderr
    finally:
        for process in started:
            process.kill()
            process.wait()
