"""Who says on the local network where it is (multicast DNS), and who looks for it: coordinators, and machines that wait for an invited one.

Whoever is on that network can say so too: nobody is believed for it. Who looks must have something that shows whom it found, and a
coordinator that tells must know its callers.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping

import psutil
from zeroconf import IPVersion, NonUniqueNameException, ServiceStateChange, Zeroconf
from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

from engine.data.errors import InvalidInput, NotFound, Refused, Unavailable
from engine.service.addresses import check_address, is_loopback, split_address

COORDINATORS, INVITATIONS = "_noodlecore._tcp.local.", "_noodle-invite._tcp.local."
LIMIT_S = 10.0  # for somebody to answer
SETTLE_S = 1.0  # after the first, for others
_ASK_LIMIT_S = 2.0
_AT = b"at"


class Announcement:
    """From `open` to `close`."""

    def __init__(self, kind: str, name: str, address: str) -> None:
        """`address` is where the one of that name listens, HOST:PORT."""
        self.address = _reached_at(address)
        self._kind, self._name = kind, name
        self._zeroconf: AsyncZeroconf | None = None

    async def open(self) -> None:
        """Raises Unavailable where this machine's network does not carry it."""
        host, port = split_address(self.address)
        properties: Mapping[str | bytes, str | bytes | None] = {_AT: self.address}
        info = AsyncServiceInfo(self._kind, f"{self._name}.{self._kind}", port, properties=dict(properties), server=f"{self._name}.local.")
        info.addresses = [socket.inet_aton(host)]
        try:
            self._zeroconf = AsyncZeroconf(interfaces=[host], ip_version=IPVersion.V4Only)
            await (await self._zeroconf.async_register_service(info))
        except (OSError, NonUniqueNameException) as error:
            await self.close()
            why = getattr(error, "strerror", "") or str(error) or type(error).__name__
            raise Unavailable(f"{host} does not carry multicast DNS ({why}): tell others the address {self.address} instead") from error

    async def close(self) -> None:
        """Say that it is there no more."""
        if self._zeroconf is not None:
            await self._zeroconf.async_close()
            self._zeroconf = None


async def find_coordinator(limit_s: float = LIMIT_S) -> str:
    """The address of the one coordinator that says where it is. Raises NotFound if there is none, InvalidInput if there are several."""
    found: dict[str, str] = {}  # by address: what the cluster is called
    names: asyncio.Queue[str] = asyncio.Queue()

    def changed(zeroconf: Zeroconf, service_type: str, name: str, state_change: ServiceStateChange) -> None:
        if state_change is not ServiceStateChange.Removed:
            names.put_nowait(name)

    async with AsyncZeroconf(interfaces=_own_hosts(), ip_version=IPVersion.V4Only) as zeroconf:
        browser = AsyncServiceBrowser(zeroconf.zeroconf, COORDINATORS, handlers=[changed])
        try:
            async with asyncio.timeout(limit_s) as limit:
                while True:
                    name = await names.get()
                    if address := await _asked(zeroconf, COORDINATORS, name, _ASK_LIMIT_S):
                        if not found:
                            limit.reschedule(asyncio.get_running_loop().time() + SETTLE_S)
                        found[address] = name.removesuffix(f".{COORDINATORS}")
        except TimeoutError:
            pass
        finally:
            await browser.async_cancel()
    if not found:
        raise NotFound(
            f"no coordinator of this network said within {limit_s:.0f} s where it is: start it with --announce, or give --join HOST:PORT"
        )
    if len(found) > 1:
        several = ", ".join(f"{name} at {address}" for address, name in sorted(found.items()))
        raise InvalidInput(f"several coordinators of this network say where they are: give --join with one of {several[:300]}")
    return next(iter(found))


async def find_invitation(name: str, limit_s: float = LIMIT_S) -> str:
    """The address of the machine that waits for whoever has that invitation. Raises NotFound if nobody says where it is."""
    async with AsyncZeroconf(interfaces=_own_hosts(), ip_version=IPVersion.V4Only) as zeroconf:
        if address := await _asked(zeroconf, INVITATIONS, f"{name}.{INVITATIONS}", limit_s):
            return address
    raise NotFound(
        "nobody of this network waits for this invitation: it was used already or is over, or the network does not carry multicast DNS; "
        "ask for another one, by `noodle-engine invite --join HOST:PORT` for one with an address"
    )


async def _asked(zeroconf: AsyncZeroconf, kind: str, name: str, limit_s: float) -> str:
    """Where the one of that name says that it is; empty if it says nothing in time, or what is no address."""
    info = AsyncServiceInfo(kind, name)
    return _address_in(info.properties) if await info.async_request(zeroconf.zeroconf, limit_s * 1000) else ""


def _address_in(properties: Mapping[bytes, bytes | None]) -> str:
    """Empty for what is no address: anybody may say anything."""
    text = (properties.get(_AT) or b"").decode("ascii", "replace")
    try:
        return "" if text.startswith("unix:") else check_address(text)
    except InvalidInput:
        return ""


def _reached_at(address: str) -> str:
    """HOST:PORT with an IPv4 address of this machine. Raises Refused where it listens at none."""
    if address.startswith("unix:"):
        raise Refused(f"{address} is not on a network where others could look for it: give --listen HOST:PORT")
    host, port = split_address(address)
    if host == "0.0.0.0":
        outside = [own for own in _own_hosts() if not is_loopback(f"{own}:1")]
        host = outside[0] if outside else "127.0.0.1"
    if host == "localhost":
        host = "127.0.0.1"
    if host not in _own_hosts():
        raise Refused(f"{host} is no IPv4 address of this machine, where others could look for it: give --listen with one, or 0.0.0.0:PORT")
    return f"{host}:{port}"


def _own_hosts() -> list[str]:
    """The IPv4 addresses of interfaces that are up."""
    up = {name for name, stats in psutil.net_if_stats().items() if stats.isup}
    addresses = psutil.net_if_addrs().items()
    return [found.address for name, own in addresses if name in up for found in own if found.family == socket.AF_INET]
