"""Loopback by default, deny by default, roles per method; tried on a real server."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest
from grpc_health.v1 import health_pb2

from engine.data.errors import InvalidInput, Refused, Unauthorized
from engine.service.addresses import check_address, check_dialable
from engine.service.client import Client
from engine.service.options import Role, SecurityOptions
from engine.service.process import MAX_LINES_PER_S, RateLimit, Server
from engine.service.trust import roles
from engine.service.trust.access import Access
from engine.service.trust.certificates import issue, make_authority
from engine.service.trust.guard import Guard
from engine.service.trust.roles import METHOD_ROLES
from protos import noodle_pb2 as pb
from protos import noodle_pb2_grpc as rpc
from tests.service.test_errors import Failing

TOKENS = "viewer aaaaaaaaaaaaaaaaaaaa\noperator bbbbbbbbbbbbbbbbbbbb\nworker cccccccccccccccccccc\n"


def test_every_method_has_a_role_and_no_role_is_left_over() -> None:
    services = [*pb.DESCRIPTOR.services_by_name.values(), health_pb2.DESCRIPTOR.services_by_name["Health"]]
    methods = {f"/{s.full_name}/{m.name}" for s in services for m in s.methods}
    known_elsewhere = {"/grpc.health.v1.Health/List"}
    assert methods - known_elsewhere == set(METHOD_ROLES)
    changing = {m for m in METHOD_ROLES if m.rsplit("/", 1)[1] in {"Generate", "Apply", "Drain", "Cancel"}}
    assert all(METHOD_ROLES[m] is Role.OPERATOR for m in changing) and len(changing) == 4


@pytest.mark.parametrize("address", ["127.0.0.1:0", "[::1]:7070", "localhost:1", "unix:/tmp/x", "127.3.4.5:1"])
def test_loopback_is_allowed(address: str) -> None:
    Guard(SecurityOptions()).check_listen_address(address)


@pytest.mark.parametrize("address", ["0.0.0.0:7070", "[::]:1", "192.168.1.5:7070", "myhost:7070"])
def test_any_other_address_needs_tls_and_known_callers_or_insecure(address: str, tmp_path: Path) -> None:
    make_authority(tmp_path, "test")
    certificate, key = issue(tmp_path, "c", Role.COORDINATOR, ["localhost"])
    (tmp_path / "tokens").write_text(TOKENS)
    tls, tokens = {"tls_cert": certificate, "tls_key": key}, {"token_file": tmp_path / "tokens"}
    with pytest.raises(Refused, match="--insecure"):
        Guard(SecurityOptions()).check_listen_address(address)
    with pytest.raises(Refused, match="--tls-ca or --token-file"):
        Guard(SecurityOptions(**tls)).check_listen_address(address)
    with pytest.raises(Refused, match="tokens would travel in clear text"):
        Guard(SecurityOptions(**tokens, insecure=True)).check_listen_address(address)
    Guard(SecurityOptions(insecure=True)).check_listen_address(address)
    assert "whoever reaches" in Guard(SecurityOptions(insecure=True)).exposure(address)
    assert Guard(SecurityOptions(**tls, **tokens)).exposure(address) == Guard(SecurityOptions()).exposure("127.0.0.1:1") == ""
    Guard(SecurityOptions(**tls, **tokens)).check_listen_address(address)
    Guard(SecurityOptions(**tls, tls_ca=tmp_path / "ca.pem")).check_listen_address(address)


@pytest.mark.parametrize("text", ["", "root aaaaaaaaaaaaaaaaaaaa\n", "viewer short\n", "viewer\n", "coordinator aaaaaaaaaaaaaaaaaaaa\n"])
def test_a_wrong_token_file_is_refused_by_name(tmp_path: Path, text: str) -> None:
    path = tmp_path / "tokens"
    path.write_text(text)
    with pytest.raises(InvalidInput, match="tokens"):
        Guard(SecurityOptions(token_file=path))
    with pytest.raises(InvalidInput, match=r"--token-file: .*missing does not exist"):
        Guard(SecurityOptions(token_file=tmp_path / "missing"))


def test_roles_are_enforced_by_a_real_server(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_text(TOKENS)
    guard = Guard(SecurityOptions(token_file=path))

    async def attempt(address: str, token: str | None, what: str) -> str:
        async with Client(address, Access(token)) as client:
            try:
                await (client.status() if what == "status" else client.cancel("s-1"))
            except Exception as e:
                return f"{type(e).__name__}: {e}"
        return "ok"

    async def run() -> list[str]:
        server = Server(guard)
        rpc.add_ControlServicer_to_server(Failing(Refused("reached the handler")), server.grpc)
        address = await server.start("127.0.0.1:0")
        asked = [(None, "status"), ("x" * 20, "status"), ("a" * 20, "status"), ("a" * 20, "cancel"), ("c" * 20, "status")]
        answers = [await attempt(address, token, what) for token, what in asked]
        await server.stop()
        return answers

    nothing, unknown, viewer, viewer_cancels, worker = asyncio.run(run())
    assert nothing.startswith("Unauthenticated: ") and unknown.startswith("Unauthenticated: ")
    assert viewer == worker == "Refused: reached the handler"
    assert viewer_cancels == "Unauthorized: /noodle.v1.Control/Cancel needs the role operator, this token has the role viewer"


def test_a_method_without_a_rule_is_open_to_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(roles.METHOD_ROLES, "/noodle.v1.Control/GetStatus")

    async def run() -> None:
        server = Server(Guard(SecurityOptions()))
        rpc.add_ControlServicer_to_server(Failing(Refused("reached the handler")), server.grpc)
        address = await server.start("127.0.0.1:0")
        async with Client(address) as client:
            try:
                await client.status()
            finally:
                await server.stop()

    with pytest.raises(Unauthorized, match="open to nobody"):
        asyncio.run(run())


# --- what a worker says of itself -----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "address",
    [
        "dns:///evil:1",
        "dns://8.8.8.8/x:1",
        "xds:///x:1",
        "a b:1",
        "[::1:1",
        "[zz]:1",
        ":1",
        "x:0",
        "x:65536",
        "x:1a",
        "-x:1",
        "x/y:1",
        "x:\u0661",
    ],
)
def test_an_address_is_a_host_and_a_port_and_nothing_that_asks_a_stranger(address: str) -> None:
    with pytest.raises(InvalidInput, match="give HOST:PORT"):
        check_address(address)


@pytest.mark.parametrize(
    ("address", "caller", "allowed"),
    [
        ("127.0.0.1:5", "ipv4:127.0.0.1:40000", True),
        ("unix:/tmp/w", "unix:", True),
        ("10.0.0.2:5", "ipv4:10.0.0.2:40000", True),
        ("10.0.0.2:5", "ipv4:10.0.0.9:40000", True),
        ("127.0.0.1:5", "ipv4:10.0.0.2:40000", False),
        ("localhost:5", "ipv6:%5Bfe80::2%5D:40000", False),
        ("[::1]:5", "ipv6:[2001:db8::2]:40000", False),
        ("unix:/run/secret", "ipv4:10.0.0.2:40000", False),
        ("[::1]:5", "ipv6:%5B::1%5D:40000", True),
    ],
)
def test_a_worker_from_elsewhere_cannot_lead_the_coordinator_to_its_own_machine(address: str, caller: str, allowed: bool) -> None:
    if allowed:
        assert check_dialable(address, caller) == address
        return
    with pytest.raises(Refused, match="--advertise"):
        check_dialable(address, caller)


def test_a_flood_of_log_lines_is_held_back_and_counted() -> None:
    now_s = [5.0]
    limit = RateLimit(lambda: now_s[0])
    records = [logging.LogRecord("x", logging.INFO, "", 0, "line %d", (n,), None) for n in range(1000)]
    assert sum(map(limit.filter, records)) == MAX_LINES_PER_S
    now_s[0] = 6.0
    late = logging.LogRecord("x", logging.INFO, "", 0, "line %d", (1000,), None)
    assert limit.filter(late) and late.getMessage() == f"line 1000 ({1000 - MAX_LINES_PER_S} lines before this one were left out)"
