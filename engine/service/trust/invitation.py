"""An invitation: one line that lets one machine in, once, for a few minutes. The machine that holds the authority waits for it.

The line names where that machine waits, the fingerprint of the authority, and a token. Without an address that machine says on the local
network where it is, under a name that only the token gives. Whoever pastes the line makes a key, checks by the fingerprint whom it
reached before it shows the token, and gets a certificate for its key and the coordinator's address. No key ever travels, and nothing
listens once the invitation was used or is over.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import json
import re
import secrets
import ssl
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from engine.data.errors import InvalidInput, NoodleError, Refused, Unauthorized, Unavailable, check_name
from engine.data.json_text import json_text
from engine.files import replace_whole
from engine.service.addresses import check_address, split_address
from engine.service.options import Role
from engine.service.trust import certificates

PREFIX = "noodle:"
MAX_LINE_BYTES = 64 * 1024
CALL_LIMIT_S = 15.0
MAX_WRONG = 5  # tokens, then it is over
_LINE = re.compile(PREFIX + r"(?:(?!unix:)([^,]+),)?([0-9a-f]{64}),([A-Za-z0-9_-]{32,64})")


@dataclass(frozen=True, slots=True)
class Invitation:
    """`at` is where it is answered, HOST:PORT; empty: who has it looks around."""

    at: str
    fingerprint: str
    token: str

    def __str__(self) -> str:
        return PREFIX + ",".join(part for part in (self.at, self.fingerprint, self.token) if part)

    @property
    def public_name(self) -> str:
        """Under which it is looked for; it says nothing about the token."""
        return hashlib.sha256(self.token.encode()).hexdigest()[:32]


def is_invitation(text: str) -> bool:
    return text.startswith(PREFIX)


def read_invitation(text: str) -> Invitation:
    """Raises InvalidInput for a line that is not whole."""
    if (parts := _LINE.fullmatch(text.strip())) is None:
        raise InvalidInput("this invitation is not whole: paste all of the line that `noodle-engine invite` printed")
    at, fingerprint, token = parts.groups(default="")
    return Invitation(at and check_address(at), fingerprint, token)


def fingerprint_of(authority: x509.Certificate) -> str:
    """SHA-256 of the certificate, in hexadecimal."""
    return authority.fingerprint(hashes.SHA256()).hex()


# --- the machine that holds the authority -----------------------------------------------------------------------------
class Desk:
    """Answers one invitation from `open` until it was used; `name` is the node's, or empty: as it calls itself."""

    def __init__(self, folder: Path, join: str, name: str = "") -> None:
        """Raises NotFound without an authority, InvalidInput for a name that cannot be."""
        self._folder, self._join, self._name = folder, check_address(join), check_name("node name", name) if name else ""
        self._authority = certificates.authority(folder)
        self._token, self._num_wrong, self._is_granted = secrets.token_urlsafe(32), 0, False
        self._ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._server: asyncio.Server | None = None

    async def open(self, listen: str) -> Invitation:
        """Raises Unavailable where it cannot listen."""
        host, port = split_address(listen)
        with tempfile.TemporaryDirectory(prefix="noodle-") as folder:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*self._own_pair(Path(folder), host))
        try:
            self._server = await asyncio.start_server(self._answer, host, port, ssl=context, limit=MAX_LINE_BYTES)
        except OSError as e:
            raise Unavailable(f"cannot listen on {listen} ({e.strerror or e}): choose another --listen address") from e
        bound = self._server.sockets[0].getsockname()[1]
        return Invitation(f"{listen.rpartition(':')[0]}:{bound}", fingerprint_of(self._authority), self._token)

    async def used(self, limit_s: float) -> str:
        """The name of the machine that came; raises Unavailable if none did in time, Unauthorized if somebody guessed."""
        try:
            return await asyncio.wait_for(self._ended, limit_s)
        except TimeoutError:
            raise Unavailable("nobody used the invitation, and it is over: `noodle-engine invite` makes another one") from None
        finally:
            if self._server is not None:
                self._server.close()

    def _own_pair(self, folder: Path, host: str) -> tuple[Path, Path]:
        """A certificate for this conversation; it is never kept."""
        key = ec.generate_private_key(ec.SECP256R1())
        request = certificates.request_for(key, "invitation")
        certificate = certificates.signed(self._folder, request, "invitation", Role.VIEWER, [host], days=1)
        certificates.write_key(folder / "pair.key", key)
        replace_whole(folder / "pair.pem", certificate)
        return folder / "pair.pem", folder / "pair.key"

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, TimeoutError, ValueError, asyncio.IncompleteReadError):
            async with asyncio.timeout(CALL_LIMIT_S):
                ca = self._authority.public_bytes(serialization.Encoding.PEM).decode()
                await _send(writer, {"authority": ca})
                asked = await _receive(reader)
                try:
                    reply, name = self._reply(asked)
                except NoodleError as e:
                    reply, name = {"error": str(e)}, ""
                try:
                    await _send(writer, reply)
                finally:
                    if name and not self._ended.done():
                        self._ended.set_result(name)
        writer.close()

    def _reply(self, asked: Mapping[str, Any]) -> tuple[dict[str, str], str]:
        if self._is_granted or self._ended.done():
            raise Refused("this invitation was used already, or is over: ask for another one")
        if not hmac.compare_digest(str(asked.get("token", "")).encode(), self._token.encode()):
            self._num_wrong += 1
            if self._num_wrong >= MAX_WRONG:
                self._ended.set_exception(
                    Unauthorized(f"{MAX_WRONG} callers had another token, so the invitation is over: make another one")
                )
            raise Unauthorized("the token is not the one of this invitation: paste the whole line again")
        name = self._name or check_name("node name", str(asked.get("name", "")))
        pem = certificates.admit(self._folder, str(asked.get("request", "")).encode(), name, Role.WORKER)
        self._is_granted = True  # before anything is sent: whoever asks meanwhile comes too late
        revoked = self._folder / "revoked.pem"
        told = {"name": name, "join": self._join, "certificate": pem.decode()}
        return {**told, "revoked": revoked.read_text() if revoked.exists() else ""}, name


# --- the machine that comes -------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Admitted:
    """What the invitation brought: the coordinator's address, and files in one folder."""

    name: str
    join: str
    certificate: Path
    key: Path
    authority: Path


async def accept(invitation: Invitation, name: str, folder: Path) -> Admitted:
    """Get a certificate for this machine into `folder`.

    Raises Unavailable if nobody waits there (any more), Refused for another authority than the one that invited, or for a folder that
    holds another one already, and what the other side has against it.
    """
    host, port = split_address(invitation.at)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # the fingerprint says whom to trust: see `_check_authority`
    try:
        async with asyncio.timeout(CALL_LIMIT_S):
            reader, writer = await asyncio.open_connection(host, port, ssl=context, limit=MAX_LINE_BYTES)
            try:
                authority = _check_authority(await _receive(reader), writer.get_extra_info("ssl_object"), invitation)
                _check_folder(folder, invitation)
                key = ec.generate_private_key(ec.SECP256R1())
                request = certificates.request_for(key, name).public_bytes(serialization.Encoding.PEM).decode()
                await _send(writer, {"token": invitation.token, "name": name, "request": request})
                reply = await _receive(reader)
            finally:
                writer.close()
    except (OSError, TimeoutError, ValueError, asyncio.IncompleteReadError) as e:
        raise Unavailable(
            f"nobody answers the invitation at {invitation.at}: it was used already or is over, or this machine cannot reach that address; "
            "ask for another one"
        ) from e
    if error := reply.get("error"):
        raise Refused(str(error)[:300])
    return _kept(folder, reply, key, authority)


def _check_authority(said: Mapping[str, Any], channel: Any, invitation: Invitation) -> x509.Certificate:
    """The authority, if it is the one that invited and signed what the other side shows."""
    stranger = Refused(
        f"who answers at {invitation.at} belongs to another authority than the one that invited: nothing was told it; ask for another line"
    )
    try:
        authority = x509.load_pem_x509_certificate(str(said.get("authority", "")).encode())
        shown = x509.load_der_x509_certificate(channel.getpeercert(True))
        if not hmac.compare_digest(fingerprint_of(authority), invitation.fingerprint):
            raise stranger
        shown.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature) as e:
        raise stranger from e
    return authority


def _check_folder(folder: Path, invitation: Invitation) -> None:
    path = folder / f"{certificates.AUTHORITY}.pem"
    if path.exists() and fingerprint_of(certificates.authority_in(path)) != invitation.fingerprint:
        raise Refused(f"{folder} holds another authority: set NOODLE_CERTS to a folder of its own for this cluster")


def _kept(folder: Path, reply: Mapping[str, Any], key: ec.EllipticCurvePrivateKey, authority: x509.Certificate) -> Admitted:
    name = check_name("node name", str(reply.get("name", "")))
    join = check_address(str(reply.get("join", "")))
    admitted = Admitted(name, join, folder / f"{name}.pem", folder / f"{name}.key", folder / f"{certificates.AUTHORITY}.pem")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    certificates.write_key(admitted.key, key)
    replace_whole(admitted.certificate, str(reply.get("certificate", "")).encode())
    replace_whole(admitted.authority, authority.public_bytes(serialization.Encoding.PEM))
    if revoked := str(reply.get("revoked", "")):
        replace_whole(folder / "revoked.pem", revoked.encode())
    return admitted


async def _send(writer: asyncio.StreamWriter, document: Mapping[str, str]) -> None:
    writer.write(json_text(document).encode() + b"\n")
    await writer.drain()


async def _receive(reader: asyncio.StreamReader) -> dict[str, Any]:
    """Raises ValueError for what is no object in one line of bounded length."""
    try:
        found = json.loads(await reader.readuntil(b"\n"))
    except (asyncio.LimitOverrunError, RecursionError) as e:
        raise ValueError("too long, or too deep") from e
    if not isinstance(found, dict):
        raise ValueError("not an object")
    return found
