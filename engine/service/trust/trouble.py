"""Why a connection did not come about: gRPC says that a handshake failed, this says what is wrong and what to do.

It tries once more with Python's own TLS, which names its reason, and looks at the certificate that the other side shows.
"""

from __future__ import annotations

import asyncio
import ssl

import grpc

from engine.data.errors import NoodleError, Unavailable
from engine.service.addresses import split_address
from engine.service.errors import from_rpc_error, is_transport_failure
from engine.service.trust.access import Access
from engine.service.trust.credentials import Trusted

LIMIT_S = 3.0
_GREETING_LIMIT_S = 1.0
_EXPIRED, _NOT_YET, _OTHER_NAME = 10, 9, (62, 64)  # X509_V_ERR_* of OpenSSL


async def connection_trouble(address: str, access: Access) -> str:
    """A sentence with the way out; empty if the other side is not there at all, or if nothing is wrong with TLS."""
    if address.startswith("unix:"):
        return ""
    try:
        async with asyncio.timeout(LIMIT_S):
            return await _trouble(address, access.trusted)
    except (OSError, TimeoutError):
        return ""


async def explained(error: grpc.RpcError, peer: str, address: str, access: Access) -> NoodleError:
    """A failed call as our error; where the connection failed, with what is wrong about it."""
    found = from_rpc_error(error, peer)
    if not isinstance(found, Unavailable) or not is_transport_failure(error):
        return found
    why = await connection_trouble(address, access)
    return Unavailable(f"cannot reach {peer}: {why}") if why else found


async def _trouble(address: str, trusted: Trusted | None) -> str:
    if trusted is None:
        speaks_tls = await _certificate_of(address) is not None
        return f"{address} speaks TLS: give --tls-ca FILE with its authority's certificate, or --tls" if speaks_tls else ""
    try:
        if not await _is_kept_open(address, _context(trusted)):
            return _not_accepted(address, trusted)
    except ssl.SSLCertVerificationError as e:
        return await _certificate_trouble(address, e, trusted)
    except ssl.SSLError as e:
        return _refused(address, e, trusted)
    except ConnectionResetError:
        return _no_tls(address)
    return ""


def _refused(address: str, error: ssl.SSLError, trusted: Trusted) -> str:
    return _not_accepted(address, trusted) if "ALERT" in (error.reason or "").upper() else _no_tls(address)


def _not_accepted(address: str, trusted: Trusted) -> str:
    if trusted.certificate:
        return f"{address} does not accept this program's certificate: it is of another authority, expired or not for callers"
    return f"{address} asks its callers for a certificate: give --tls-cert and --tls-key (`noodle-engine certs node NAME` makes them)"


def _no_tls(address: str) -> str:
    return f"{address} does not speak TLS: leave --tls and --tls-ca out, or start it with --tls-cert and --tls-key"


async def _certificate_trouble(address: str, error: ssl.SSLCertVerificationError, trusted: Trusted) -> str:
    from cryptography import x509

    from engine.service.trust.certificates import described

    shown = await _certificate_of(address)
    if shown is None:
        return _no_tls(address)
    found = described(x509.load_der_x509_certificate(shown))
    if error.verify_code == _EXPIRED:
        return f"the certificate of {address} expired on {found.not_after:%Y-%m-%d}: have it renewed"
    if error.verify_code == _NOT_YET:
        return f"the certificate of {address} counts from {found.not_before:%Y-%m-%d %H:%M} UTC on: is the clock of this machine right?"
    if error.verify_code in _OTHER_NAME:
        names = ", ".join(found.hosts[:8]) or found.name
        return f"the certificate of {address} is for {names}: connect by one of these, or issue one with --host"
    whose = "the authority in --tls-ca" if trusted.roots else "an authority that this system trusts"
    return f"the certificate of {address} was not signed by {whose}: give --tls-ca FILE with the certificate of its authority"


def _context(trusted: Trusted) -> ssl.SSLContext:
    roots = trusted.roots.decode("ascii", "ignore") if trusted.roots else None  # bundles have comments of all languages
    context = ssl.create_default_context(cadata=roots)
    context.set_alpn_protocols(["h2"])
    if trusted.certificate_path is not None and trusted.key_path is not None:
        context.load_cert_chain(trusted.certificate_path, trusted.key_path)
    return context


async def _is_kept_open(address: str, context: ssl.SSLContext) -> bool:
    """False if the other side ends the connection after the handshake, which it does to a caller whose certificate it wants or refuses;
    else it greets at once. Raises what is wrong with the handshake.
    """
    host, port = split_address(address)
    reader, writer = await asyncio.open_connection(host, port, ssl=context, server_hostname=host)
    try:
        async with asyncio.timeout(_GREETING_LIMIT_S):
            return bool(await reader.read(1))
    except (TimeoutError, ConnectionResetError) as e:
        return isinstance(e, TimeoutError)
    finally:
        writer.transport.abort()


async def _certificate_of(address: str) -> bytes | None:
    """What the other side shows, unchecked, in DER; None if it does not speak TLS."""
    host, port = split_address(address)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    try:
        _, writer = await asyncio.open_connection(host, port, ssl=context)
    except (ssl.SSLError, ConnectionResetError):
        return None
    try:
        shown: bytes | None = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        return shown
    finally:
        writer.transport.abort()
