"""A cluster that a user started on this machine answers that user alone."""

from __future__ import annotations

import asyncio
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine import folders
from engine.data.errors import NoodleError, Refused, Unauthorized
from engine.service.client import Client
from engine.service.options import Role
from engine.service.trust import certificates
from engine.service.trust.access import Access, access_of_client, own_access
from engine.service.trust.local_tokens import find_token, leave_papers, leave_token, make_tokens, remove_papers, remove_tokens
from engine.service.trust.options import AccessOptions
from tests.service.running import Running, running

NOBODY = 65534


@pytest.fixture(scope="module")
def cluster() -> Iterator[Running]:
    with running("gpt2:tiny", 1, num_threads=1) as started:
        yield started


def test_nothing_is_read_or_changed_without_the_token(cluster: Running) -> None:
    async def attempt() -> list[str]:
        said = []
        async with Client(cluster.address, Access()) as stranger:
            for call in (
                stranger.status,
                stranger.links,
                stranger.problem_json,
                lambda: stranger.cancel("s-1"),
                lambda: stranger.drain("w1"),
            ):
                with pytest.raises(Unauthorized) as found:
                    await call()
                said.append(str(found.value))
        return said

    assert all("asks for a token" in text for text in asyncio.run(attempt()))


_AS_ANOTHER = """
import contextlib, io, os, sys
from engine.cli import main
with contextlib.redirect_stdout(io.StringIO()):  # what it needs is read while this is still the user that installed it
    assert main(["status", "--connect", sys.argv[2]]) == 0
os.setgroups([]); os.setgid(int(sys.argv[1])); os.setuid(int(sys.argv[1]))
raise SystemExit(main(["status", "--connect", sys.argv[2]]))
"""


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize(("user", "code"), [(NOBODY, 2), (0, 0)])
def test_another_user_of_the_machine_finds_no_token(cluster: Running, user: int, code: int) -> None:
    """The same program in the same environment; only the user differs."""
    command = [sys.executable, "-c", _AS_ANOTHER, str(user), cluster.address]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == code and bool(done.stdout) == (code == 0), done
    assert code == 0 or "asks for a token" in done.stderr


def test_the_worker_asks_as_well(cluster: Running) -> None:
    from protos import noodle_pb2 as pb
    from protos import noodle_pb2_grpc as rpc

    async def attempt() -> None:
        address = next(n.address for n in (await cluster.client.status()).nodes)
        async with Access().channel(address) as channel:
            with pytest.raises(Exception, match="asks for a token"):
                await rpc.StageServiceStub(channel).GetStageStatus(pb.GetStageStatusRequest())

    cluster.wait(attempt())


# --- the files --------------------------------------------------------------------------------------------------------
@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(folders.RUN_VARIABLE, str(tmp_path / "run"))
    return tmp_path / "run"


def test_only_the_user_can_read_them(folder: Path) -> None:
    tokens = make_tokens()
    leave_token(tokens, "127.0.0.1:7070")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600} and len([*folder.iterdir()]) == 2
    assert find_token("127.0.0.1:7070") == tokens.operator and find_token("127.0.0.1:7071") is None
    remove_tokens(tokens, "127.0.0.1:7070")
    assert [*folder.iterdir()] == [] and find_token("127.0.0.1:7070") is None


def test_addresses_become_names_of_files(folder: Path) -> None:
    tokens = make_tokens()
    for address in ("unix:/tmp/../x y", "[::1]:7070", "localhost:1"):
        leave_token(tokens, address)
        assert find_token(address) == tokens.operator
    assert all(path.parent == folder for path in folder.rglob("*"))


def test_a_token_that_is_there_and_cannot_be_read_is_named(folder: Path) -> None:
    tokens = make_tokens()
    leave_token(tokens, "127.0.0.1:7070")
    path = folder / "127.0.0.1_7070.token"
    path.write_bytes(b"caf\xe9")
    with pytest.raises(NoodleError, match=r"127\.0\.0\.1_7070\.token, a token, is not UTF-8 text"):
        find_token("127.0.0.1:7070")
    path.unlink()
    path.mkdir()
    with pytest.raises(NoodleError, match=r"127\.0\.0\.1_7070\.token cannot be used \(Is a directory\)"):
        find_token("127.0.0.1:7070")


def test_where_no_token_can_be_there_is_none(folder: Path) -> None:
    folder.write_text("a file in place of the folder")
    assert find_token("127.0.0.1:7070") is None


def test_a_folder_that_others_can_enter_is_refused(folder: Path) -> None:
    folder.mkdir(mode=0o755)
    folder.chmod(0o755)
    with pytest.raises(Refused, match=r"not a folder of this user alone: `chmod 700` it"):
        make_tokens()


def test_a_folder_that_leads_elsewhere_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(NoodleError, match="not a folder of this user alone"):
        make_tokens()
    assert [*(tmp_path / "elsewhere").iterdir()] == []


def test_a_certificate_that_was_left_is_found_by_the_address_and_shown_there_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOODLE_RUN_DIR", str(tmp_path / "run"))
    certificates.make_authority(tmp_path / "certs", "lab")
    certificate, key = certificates.issue(tmp_path / "certs", "ann", Role.OPERATOR, [])
    authority = tmp_path / "certs" / "ca.pem"
    papers = leave_papers("10.0.0.1:7070", certificate.read_bytes(), key.read_bytes(), authority.read_bytes())
    assert {stat.S_IMODE(path.stat().st_mode) for path in papers.certificate.parent.iterdir()} == {0o600}
    nothing = dict.fromkeys(("token", "token_file", "tls_ca", "tls_cert", "tls_key"))
    for found in (own_access("10.0.0.1:7070"), access_of_client(AccessOptions(tls=False, **nothing), "10.0.0.1:7070")):
        assert found.token is None and found.trusted is not None
        assert (found.trusted.certificate, found.trusted.roots) == (certificate.read_bytes(), authority.read_bytes())
    assert own_access("10.0.0.1:7071").trusted is None
    said = access_of_client(AccessOptions(**{**nothing, "token": "t" * 16, "tls": True}), "10.0.0.1:7070")
    assert said.token == "t" * 16 and said.trusted is not None and not said.trusted.certificate, "what is said by hand counts"
    remove_papers("10.0.0.1:7070")
    assert [*(tmp_path / "run").iterdir()] == [] and own_access("10.0.0.1:7070").trusted is None
