"""The address under which a worker is known to the others: what it was told to say, else where it is bound, else its way out.

A worker bound to all addresses (0.0.0.0 or [::]) says the one from which its machine reaches the coordinator.
"""

from __future__ import annotations

import ipaddress
import socket

from engine.data.errors import InvalidInput, Unavailable


def check_advertise(text: str) -> str:
    """Return `text` if it is HOST or HOST:PORT (an IPv6 host in brackets) that others could connect to; else raise InvalidInput."""
    host, port = _split(text)
    wrong_port = port is not None and not (port.isdecimal() and 0 < int(port) < 65536)
    if not host or wrong_port or _is_any(host) or any(c.isspace() or c in ",/" for c in host) or (":" in host and not text.startswith("[")):
        raise InvalidInput(f"--advertise {text[:80]!r} is not an address that others can connect to: give HOST or HOST:PORT, e.g. 10.0.0.7")
    return text


def advertised_address(bound: str, wanted: str | None, join: str) -> str:
    """HOST:PORT for a server bound to `bound` that joins `join`; raises Unavailable if this machine has no way there now."""
    if bound.startswith("unix:"):
        return bound
    host, port = bound.rsplit(":", 1)
    if wanted is not None:
        wanted_host, wanted_port = _split(wanted)
        return f"{bracketed(wanted_host)}:{wanted_port or port}"
    return f"{bracketed(way_out(join))}:{port}" if _is_any(host.strip("[]")) else bound


def advertised_host(bound: str, wanted: str | None, join: str) -> str:
    """HOST:PORT for what listens beside that server, at a port of its own; empty if nothing does."""
    if not bound:
        return ""
    host = _split(wanted)[0] if wanted is not None and _is_any(bound.rsplit(":", 1)[0].strip("[]")) else None
    return advertised_address(bound, host and bracketed(host), join)


def way_out(join: str) -> str:
    """This machine's address on the way to the coordinator; raises Unavailable if it has none now.

    Nothing is sent: connecting a datagram socket only chooses the route.
    """
    if join.startswith("unix:"):
        return "127.0.0.1"
    host, port = join.rsplit(":", 1)
    try:
        family, kind, _, _, target = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind) as probe:
            probe.connect(target)
            return str(probe.getsockname()[0])
    except OSError as e:
        raise Unavailable(
            f"no way from here to the coordinator at {join} ({e.strerror or e}): check the network, or say this machine's address "
            "(--advertise, --listen)"
        ) from e


def _split(text: str) -> tuple[str, str | None]:
    """Host without brackets, and port if there is one."""
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        return host, rest[1:] if rest.startswith(":") else (rest or None)
    host, colon, port = text.rpartition(":")
    return (host, port) if colon else (text, None)


def bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _is_any(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return host == ""
