"""What an address of a server looks like. gRPC would take a name such as `dns://SERVER/HOST` as well, and ask a stranger."""

from __future__ import annotations

import ipaddress
import re

from engine.data.errors import InvalidInput, Refused

_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9.])?")


def check_address(address: str) -> str:
    """Return `address` if it is unix:PATH or HOST:PORT; else raise InvalidInput."""
    host, _, port = address.rpartition(":")
    if address.startswith("unix:") or (_is_host(host) and re.fullmatch("[0-9]{1,5}", port) and 0 < int(port) < 65536):
        return address
    raise InvalidInput(f"address {address[:80]!r} is not allowed: give HOST:PORT with a port from 1 to 65535, or unix:PATH")


def _is_host(text: str) -> bool:
    if text.startswith("[") and text.endswith("]"):
        try:
            return isinstance(ipaddress.ip_address(text[1:-1]), ipaddress.IPv6Address)
        except ValueError:
            return False
    return _HOST.fullmatch(text) is not None


def is_loopback(address: str) -> bool:
    """True for unix sockets and loopback host:port addresses."""
    if address.startswith("unix:"):
        return True
    host = address.rsplit(":", 1)[0].strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_dialable(address: str, caller: str) -> str:
    """Return a worker's `address` if the coordinator may call it back; `caller` is where the worker calls from, as gRPC writes it.

    Raises Refused for an address of this machine that comes from another one: it would lead to a service of ours.
    """
    kind, _, origin = caller.partition(":")
    if is_loopback(address) and kind in ("ipv4", "ipv6") and not is_loopback(origin.replace("%5B", "[").replace("%5D", "]")):
        raise Refused(
            f"{address} is an address of the coordinator's own machine, and the worker calls from {origin}: start it with --listen or "
            "--advertise and an address that the coordinator reaches it by"
        )
    return address


def split_address(address: str) -> tuple[str, int]:
    """Host, without the brackets of IPv6, and port of a HOST:PORT that `check_address` let pass."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)
