"""What an address of a server looks like."""

from __future__ import annotations

from engine.data.errors import InvalidInput


def check_address(address: str) -> str:
    """Return `address` if it is unix:PATH or HOST:PORT; else raise InvalidInput."""
    host, _, port = address.rpartition(":")
    if address.startswith("unix:") or (host and port.isdecimal() and 0 < int(port) < 65536):
        return address
    raise InvalidInput(f"address {address[:80]!r} is not allowed: give HOST:PORT with a port from 1 to 65535, or unix:PATH")


def split_address(address: str) -> tuple[str, int]:
    """Host, without the brackets of IPv6, and port of a HOST:PORT that `check_address` let pass."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)
