"""Who gets in, what a mistake is called, and what is cut: a real server with real certificates, tried by real clients."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from engine.cli import main
from engine.data.errors import InvalidInput, NoodleError, Refused, Unauthorized
from engine.service import wire
from engine.service.addresses import is_loopback
from engine.service.client import Client
from engine.service.options import Role, SecurityOptions
from engine.service.process import Server
from engine.service.trust import certificates
from engine.service.trust.access import Access, access_of_client
from engine.service.trust.certificates import issue, issued, make_authority, revoke
from engine.service.trust.guard import Guard
from engine.service.trust.options import AccessOptions
from engine.service.worker.worker import check_own_certificate
from protos import noodle_pb2 as pb
from protos import noodle_pb2_grpc as rpc
from tests.tui.frames import status

VIEWER, OPERATOR, WORKER = "v" * 20, "o" * 20, "w" * 20
NOTHING: dict[str, Any] = {"token": None, "token_file": None, "tls": False, "tls_ca": None, "tls_cert": None, "tls_key": None}
TOKENS = f"viewer {VIEWER}\noperator {OPERATOR}\nworker {WORKER}\n"


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two authorities and nodes of each; `old` and `early` do not count today, `strange` listens under another name."""
    folder = tmp_path_factory.mktemp("pki")
    for authority in ("ours", "theirs"):
        make_authority(folder / authority, authority)
    for name, role in (("c1", Role.COORDINATOR), ("w1", Role.WORKER), ("w2", Role.WORKER), ("ann", Role.OPERATOR), ("bob", Role.VIEWER)):
        issue(folder / "ours", name, role, ["127.0.0.1"] if name != "bob" else [])
    issue(folder / "ours", "strange", Role.COORDINATOR, ["node7.example.org", "10.9.8.7"])
    issue(folder / "theirs", "c1", Role.COORDINATOR, ["127.0.0.1"])
    issue(folder / "theirs", "ann", Role.OPERATOR, [])
    shift = datetime.timedelta(days=400)
    for name, by in (("old", -shift), ("early", shift)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(certificates, "datetime", _Clock(by))
            issue(folder / "ours", name, Role.COORDINATOR, ["127.0.0.1"])
    (folder / "tokens").write_text(TOKENS)
    (folder / "one-token").write_text(f"{OPERATOR}\n")
    return folder


class _Clock:
    """`datetime` for an authority whose clock is `by` off."""

    UTC, timedelta = datetime.UTC, datetime.timedelta

    def __init__(self, by: datetime.timedelta) -> None:
        self.datetime = self
        self._by = by

    def now(self, tz: datetime.tzinfo) -> datetime.datetime:
        return datetime.datetime.now(tz) + self._by


def security(pki: Path, name: str = "c1", authority: str = "ours", mutual: bool = False, tokens: bool = False) -> SecurityOptions:
    folder = pki / authority
    return SecurityOptions(
        tls_cert=folder / f"{name}.pem",
        tls_key=folder / f"{name}.key",
        tls_ca=folder / "ca.pem" if mutual else None,
        token_file=pki / "tokens" if tokens else None,
    )


def access(pki: Path, name: str = "", authority: str = "ours", **more: Any) -> AccessOptions:
    own = {} if not name else {"tls_cert": pki / authority / f"{name}.pem", "tls_key": pki / authority / f"{name}.key"}
    return AccessOptions(
        **{"token": None, "token_file": None, "tls": False, "tls_ca": None, "tls_cert": None, "tls_key": None, **own, **more}
    )


class Echoing(rpc.ControlServicer):
    """Answers so that a test sees what reached it."""

    async def GetStatus(self, request: pb.GetStatusRequest, context: grpc.aio.ServicerContext) -> pb.ClusterStatus:
        return wire.to_message(status(cluster_id="here"), pb.ClusterStatus())

    async def Cancel(self, request: pb.CancelRequest, context: grpc.aio.ServicerContext) -> pb.CancelReply:
        return pb.CancelReply()

    async def Watch(self, request: pb.WatchRequest, context: grpc.aio.ServicerContext) -> AsyncIterator[pb.WatchFrame]:
        while True:
            yield pb.WatchFrame(status=await self.GetStatus(pb.GetStatusRequest(), context))
            await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def serving(guard: Guard) -> AsyncIterator[str]:
    server = Server(guard)
    rpc.add_ControlServicer_to_server(Echoing(), server.grpc)
    address = await server.start("127.0.0.1:0")
    try:
        yield address
    finally:
        await server.stop()


def answer_of(options: SecurityOptions, given: AccessOptions, call: Callable[[Client], Awaitable[Any]] = Client.status) -> str:
    """What a client with `given` gets from a server with `options`: `ok`, or the sentence, its address left out."""

    async def run() -> str:
        async with serving(Guard(options)) as address:
            try:
                async with Client(address, access_of_client(given, address)) as client:
                    await call(client)
                return "ok"
            except NoodleError as e:
                return str(e).replace(address, "HERE")

    return asyncio.run(run())


def cancel(client: Client) -> Awaitable[None]:
    return client.cancel("s-1")


# --- mistakes at the start, each with its sentence --------------------------------------------------------------------
REACH = "cannot reach the coordinator at HERE: "
MISTAKES: dict[str, tuple[Callable[[Path], SecurityOptions], Callable[[Path], AccessOptions], str]] = {
    "TLS there, none here": (security, access, f"{REACH}HERE speaks TLS: give --tls-ca FILE"),
    "TLS here, none there": (lambda p: SecurityOptions(), lambda p: access(p, tls_ca=p / "ours/ca.pem"), f"{REACH}HERE does not speak TLS"),
    "system's TLS here, none there": (lambda p: SecurityOptions(), lambda p: access(p, tls=True), f"{REACH}HERE does not speak TLS"),
    "another authority": (security, lambda p: access(p, tls_ca=p / "theirs/ca.pem"), "was not signed by the authority in --tls-ca"),
    "an authority that the system does not know": (security, lambda p: access(p, tls=True), "not signed by an authority that this system"),
    "another host name": (
        lambda p: security(p, "strange"),
        lambda p: access(p, tls_ca=p / "ours/ca.pem"),
        "the certificate of HERE is for strange, node7.example.org, 10.9.8.7: connect by one of these",
    ),
    "expired": (lambda p: security(p, "old"), lambda p: access(p, tls_ca=p / "ours/ca.pem"), "the certificate of HERE expired on 20"),
    "not yet": (lambda p: security(p, "early"), lambda p: access(p, tls_ca=p / "ours/ca.pem"), "the certificate of HERE counts from 20"),
    "no certificate of one's own": (
        lambda p: security(p, mutual=True),
        lambda p: access(p, tls_ca=p / "ours/ca.pem"),
        "HERE asks its callers for a certificate: give --tls-cert and --tls-key",
    ),
    "a certificate of another authority": (
        lambda p: security(p, mutual=True),
        lambda p: access(p, "ann", "theirs", tls_ca=p / "ours/ca.pem"),
        "HERE does not accept this program's certificate",
    ),
    "an expired certificate of one's own": (
        lambda p: security(p, mutual=True),
        lambda p: access(p, "old", tls_ca=p / "ours/ca.pem"),
        "HERE does not accept this program's certificate",
    ),
    "no token": (lambda p: SecurityOptions(token_file=p / "tokens"), access, "this cluster asks for a token: give --token-file, --token"),
    "an unknown token": (
        lambda p: SecurityOptions(token_file=p / "tokens"),
        lambda p: access(p, token="x" * 20),
        "does not know the token",
    ),
    "two tokens": (
        SecurityOptions,
        lambda p: access(p, token="x" * 20, token_file=p / "tokens"),
        "--token and --token-file (or NOODLE_TOKEN and NOODLE_TOKEN_FILE) name two tokens",
    ),
    "a token file that is missing": (SecurityOptions, lambda p: access(p, token_file=p / "nowhere"), "--token-file: "),
    "a token file without a token": (
        SecurityOptions,
        lambda p: access(p, token_file=p / "ours/ca.pem"),
        "expected 'viewer|operator|worker TOKEN'",
    ),
    "a token with other characters": (
        SecurityOptions,
        lambda p: access(p, token="t\u00f6ken" * 5),
        "other characters than the visible ones",
    ),
    "a missing authority": (SecurityOptions, lambda p: access(p, tls_ca=p / "nowhere.pem"), "--tls-ca: "),
    "an authority that is no certificate": (
        SecurityOptions,
        lambda p: access(p, tls_ca=p / "tokens"),
        "holds no certificate or key in PEM",
    ),
    "a certificate without its key": (
        SecurityOptions,
        lambda p: access(p, tls_cert=p / "ours/ann.pem"),
        "--tls-cert and --tls-key go together",
    ),
    "a key without its certificate": (
        SecurityOptions,
        lambda p: access(p, tls_key=p / "ours/ann.key"),
        "--tls-cert and --tls-key go together",
    ),
    "a key that does not fit": (
        SecurityOptions,
        lambda p: access(p, tls_cert=p / "ours/ann.pem", tls_key=p / "ours/w1.key"),
        "w1.key is not the key of the certificate",
    ),
    "key and certificate swapped": (
        SecurityOptions,
        lambda p: access(p, tls_cert=p / "ours/ann.key", tls_key=p / "ours/ann.pem"),
        "cannot be used",
    ),
}
MISTAKES_OF_SERVERS: dict[str, tuple[Callable[[Path], SecurityOptions], str]] = {
    "beyond loopback without anything": (lambda p: SecurityOptions(), "is not a loopback address: give --tls-cert, --tls-key and --tls-ca"),
    "beyond loopback with TLS alone": (security, "is not a loopback address: give --tls-cert"),
    "tokens in clear text": (lambda p: SecurityOptions(token_file=p / "tokens", insecure=True), "tokens would travel in clear text"),
    "a certificate without its key": (lambda p: SecurityOptions(tls_cert=p / "ours/c1.pem"), "--tls-cert and --tls-key go together"),
    "a key that does not fit": (
        lambda p: SecurityOptions(tls_cert=p / "ours/c1.pem", tls_key=p / "ours/w1.key"),
        "w1.key is not the key of the certificate",
    ),
    "a key that is missing": (lambda p: SecurityOptions(tls_cert=p / "ours/c1.pem", tls_key=p / "nowhere"), "--tls-key: "),
    "a certificate that is none": (
        lambda p: SecurityOptions(tls_cert=p / "tokens", tls_key=p / "ours/c1.key"),
        "holds no certificate or key",
    ),
    "a missing token file": (lambda p: SecurityOptions(token_file=p / "nowhere"), "--token-file: "),
    "a missing authority": (lambda p: replace(security(p), tls_ca=p / "nowhere"), "--tls-ca: "),
}
MISTAKES_OF_WORKERS: dict[str, tuple[Callable[[Path], SecurityOptions], str]] = {
    "an authority and no certificate": (lambda p: SecurityOptions(tls_ca=p / "ours/ca.pem"), "has no certificate of its own"),
    "the system's authorities and no certificate": (lambda p: SecurityOptions(tls=True), "has no certificate of its own"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_of_a_client_has_its_sentence(pki: Path, name: str) -> None:
    options, given, sentence = MISTAKES[name]
    told = answer_of(SecurityOptions() if options is SecurityOptions else options(pki), given(pki))
    assert sentence in told and "\n" not in told and VIEWER not in told and len(told) < 400, told


@pytest.mark.parametrize("name", MISTAKES_OF_SERVERS)
def test_a_mistake_of_a_server_has_its_sentence(pki: Path, name: str) -> None:
    options, sentence = MISTAKES_OF_SERVERS[name]
    with pytest.raises(NoodleError) as found:
        Guard(options(pki)).check_listen_address("0.0.0.0:7070")
    assert sentence in str(found.value) and found.value.exit_code in (1, 2)


@pytest.mark.parametrize("name", MISTAKES_OF_WORKERS)
def test_a_mistake_of_a_worker_has_its_sentence(pki: Path, name: str) -> None:
    options, sentence = MISTAKES_OF_WORKERS[name]
    with pytest.raises(Refused, match=sentence):
        check_own_certificate(options(pki))


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["certs", "node", "w1"], "holds no authority: make one with `noodle-engine certs init"),
        (["certs", "node"], "takes the name of a node"),
        (["certs", "list", "w1"], "takes no name"),
        (["certs", "init", "--dir", "{pki}/ours"], "holds an authority already"),
        (["certs", "node", "w1", "--dir", "{pki}/ours"], "w1 has a certificate already: revoke it first"),
        (["certs", "node", "../w", "--dir", "{pki}/ours"], "node name '../w' is not allowed"),
        (["certs", "node", "ca", "--dir", "{pki}/ours"], "the name of the authority's own files"),
        (["certs", "node", "n", "--host", "a b", "--dir", "{pki}/ours"], "--host 'a b' is not allowed"),
        (["certs", "revoke", "nobody", "--dir", "{pki}/ours"], "holds no certificate of 'nobody'"),
        (["status", "--connect", "10.255.255.1:1", "--token", "t" * 20], "the token would travel in clear text"),
        (["up", "--tls-ca", "x"], "up does not take --tls-ca x"),
        (["worker", "--join", "127.0.0.1:1", "--token", "x"], "worker does not take --token x: did you mean --token-file?"),
    ],
)
def test_a_mistake_on_the_command_line_has_its_sentence(
    pki: Path, argv: list[str], sentence: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([word.format(pki=pki) for word in argv]) in (1, 2)
    told = capsys.readouterr()
    assert told.out == "" and told.err.startswith("noodle-engine: ") and sentence in told.err and told.err.count("\n") == 1


def test_there_are_enough_of_them() -> None:
    assert len(MISTAKES) + len(MISTAKES_OF_SERVERS) + len(MISTAKES_OF_WORKERS) >= 34


# --- who gets in ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("options", "given", "call", "expected"),
    [
        (security, lambda p: access(p, tls_ca=p / "ours/ca.pem"), Client.status, "ok"),
        (lambda p: security(p, mutual=True), lambda p: access(p, "ann", tls_ca=p / "ours/ca.pem"), Client.status, "ok"),
        (lambda p: security(p, mutual=True), lambda p: access(p, "ann", tls_ca=p / "ours/ca.pem"), cancel, "ok"),
        (lambda p: security(p, mutual=True), lambda p: access(p, "bob", tls_ca=p / "ours/ca.pem"), Client.status, "ok"),
        (
            lambda p: security(p, mutual=True),
            lambda p: access(p, "bob", tls_ca=p / "ours/ca.pem"),
            cancel,
            "this certificate has the role viewer",
        ),
        (lambda p: security(p, tokens=True), lambda p: access(p, tls_ca=p / "ours/ca.pem", token=VIEWER), Client.status, "ok"),
        (
            lambda p: security(p, tokens=True),
            lambda p: access(p, tls_ca=p / "ours/ca.pem", token=VIEWER),
            cancel,
            "this token has the role viewer",
        ),
        (lambda p: security(p, tokens=True), lambda p: access(p, tls_ca=p / "ours/ca.pem", token_file=p / "tokens"), cancel, "ok"),
        (lambda p: security(p, tokens=True), lambda p: access(p, tls_ca=p / "ours/ca.pem", token_file=p / "one-token"), cancel, "ok"),
        # With both, both must allow it.
        (
            lambda p: security(p, tokens=True, mutual=True),
            lambda p: access(p, "ann", tls_ca=p / "ours/ca.pem", token=VIEWER),
            cancel,
            "this token has the role viewer",
        ),
        (
            lambda p: security(p, tokens=True, mutual=True),
            lambda p: access(p, "bob", tls_ca=p / "ours/ca.pem", token=OPERATOR),
            cancel,
            "this certificate has the role viewer",
        ),
        (
            lambda p: security(p, tokens=True, mutual=True),
            lambda p: access(p, "ann", tls_ca=p / "ours/ca.pem", token=OPERATOR),
            cancel,
            "ok",
        ),
    ],
)
def test_who_gets_in(pki: Path, options: Any, given: Any, call: Any, expected: str) -> None:
    told = answer_of(options(pki), given(pki), call)
    assert told == expected or (expected != "ok" and expected in told)


def test_a_token_leaves_in_clear_text_for_this_machine_only() -> None:
    async def run() -> None:
        for address in ("127.0.0.1:1", "[::1]:1", "localhost:1", "unix:/tmp/x"):
            assert is_loopback(address)
            await Access("t" * 20).channel(address).close()
        for address in ("10.0.0.1:1", "myhost:1", "[2001:db8::1]:1"):
            with pytest.raises(Refused, match="would travel in clear text"):
                Access("t" * 20).channel(address)

    asyncio.run(run())


# --- what is taken back -----------------------------------------------------------------------------------------------
def test_a_token_that_is_taken_back_counts_no_more_and_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_text(TOKENS)
    guard = Guard(SecurityOptions(token_file=path))

    async def run() -> None:
        async with serving(guard) as address:
            async with Client(address, Access(VIEWER)) as viewer, Client(address, Access(OPERATOR)) as operator:
                frames, others = viewer.watch(), operator.watch()
                await anext(frames)
                await anext(others)
                path.write_text(f"operator {OPERATOR}\nviewer {'n' * 20}\n")
                guard.reload()
                with pytest.raises(Unauthorized, match="counts no more: its token was taken back"):
                    while True:
                        await anext(frames)
                with pytest.raises(Unauthorized, match="does not know the token"):
                    await viewer.status()
                assert (await anext(others)).status.cluster_id == "here"
            async with Client(address, Access("n" * 20)) as newcomer:
                await newcomer.status()

    asyncio.run(run())


def test_a_file_that_became_wrong_changes_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "tokens"
    path.write_text(TOKENS)
    guard = Guard(SecurityOptions(token_file=path))
    path.write_text("nonsense\n")
    guard.reload()
    assert set(guard.known.tokens) == {VIEWER, OPERATOR, WORKER} and "nothing was read again" in caplog.text


def test_a_revoked_certificate_is_cut_and_a_new_one_of_its_name_counts(tmp_path: Path) -> None:
    make_authority(tmp_path, "test")
    issue(tmp_path, "c1", Role.COORDINATOR, ["127.0.0.1"])
    issue(tmp_path, "ann", Role.OPERATOR, [])
    issue(tmp_path, "bob", Role.OPERATOR, [])
    guard = Guard(SecurityOptions(tls_cert=tmp_path / "c1.pem", tls_key=tmp_path / "c1.key", tls_ca=tmp_path / "ca.pem"))

    def shown(name: str, address: str) -> Access:
        own = {"tls_cert": tmp_path / f"{name}.pem", "tls_key": tmp_path / f"{name}.key"}
        return access_of_client(AccessOptions(**{**NOTHING, "tls_ca": tmp_path / "ca.pem", **own}), address)

    async def run() -> None:
        async with serving(guard) as address, Client(address, shown("ann", address)) as ann, Client(address, shown("bob", address)) as bob:
            frames, others = ann.watch(), bob.watch()
            await anext(frames)
            await anext(others)
            revoke(tmp_path, "ann")
            guard.reload()
            with pytest.raises(Unauthorized, match="counts no more: its certificate was revoked"):
                while True:
                    await anext(frames)
            with pytest.raises(Unauthorized, match="the certificate of ann was revoked"):
                await ann.status()
            await anext(others)
            issue(tmp_path, "ann", Role.OPERATOR, [])
            async with Client(address, shown("ann", address)) as again:
                await again.status()

    asyncio.run(run())


def test_a_server_shows_its_new_certificate_to_new_connections(tmp_path: Path) -> None:
    make_authority(tmp_path, "test")
    issue(tmp_path, "c1", Role.COORDINATOR, ["elsewhere.example.org"])
    guard = Guard(SecurityOptions(tls_cert=tmp_path / "c1.pem", tls_key=tmp_path / "c1.key"))

    async def run() -> None:
        async with serving(guard) as address:
            given = AccessOptions(**{**NOTHING, "tls_ca": tmp_path / "ca.pem"})
            async with Client(address, access_of_client(given, address)) as client:
                with pytest.raises(NoodleError, match=r"is for c1, elsewhere\.example\.org"):
                    await client.status()
            revoke(tmp_path, "c1")
            issue(tmp_path, "c1", Role.COORDINATOR, ["127.0.0.1"])
            guard.reload()
            async with Client(address, access_of_client(given, address)) as client:
                await client.status()

    asyncio.run(run())


# --- certificates ------------------------------------------------------------------------------------------------------
def test_what_is_made_is_what_is_listed(tmp_path: Path) -> None:
    make_authority(tmp_path / "pki", "test")
    issue(tmp_path / "pki", "w_1.x-y", Role.WORKER, ["h.example.org", "10.0.0.1", "::1"])
    (found,) = issued(tmp_path / "pki")
    assert (found.name, found.role, found.hosts, found.revoked) == (
        "w_1.x-y",
        "worker",
        ("w_1.x-y", "h.example.org", "10.0.0.1", "::1"),
        False,
    )
    revoke(tmp_path / "pki", "w_1.x-y")
    assert [c.revoked for c in issued(tmp_path / "pki")] == [True]
    assert {p.name: p.stat().st_mode & 0o777 for p in (tmp_path / "pki").glob("*.key")} == {"ca.key": 0o600, "w_1.x-y.key": 0o600}
    assert (tmp_path / "pki").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("content", [b"", b"\xff\x00", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_a_damaged_file_is_named(tmp_path: Path, content: bytes) -> None:
    make_authority(tmp_path, "test")
    for name in ("ca.pem", "ca.key", "revoked.pem"):
        before = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InvalidInput, match=name):
            issue(tmp_path, "n", Role.WORKER, [])
        (tmp_path / name).write_bytes(before)
    issue(tmp_path, "n", Role.WORKER, [])
