"""A coordinator that says on the local network where it is (multicast DNS), and a worker that looks for it.

Whoever is on that network can say so too: nobody is believed for it. A worker that looks must have something that shows whom it found,
and a coordinator that tells must know its callers.
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

KIND = "_noodlecore._tcp.local."
LIMIT_S = 10.0  # for somebody to answer
SETTLE_S = 1.0  # after the first, for others
_ASK_LIMIT_MS = 2000
_AT = b"at"


class Announcement:
    """From `open` to `close`."""

    def __init__(self, address: str, cluster_id: str) -> None:
        """`address` is where the coordinator listens, HOST:PORT."""
        self.address = _reached_at(address)
        self._name = cluster_id
        self._zeroconf: AsyncZeroconf | None = None

    async def open(self) -> None:
        """Raises Unavailable where this machine's network does not carry it."""
        host, port = split_address(self.address)
        properties: Mapping[str | bytes, str | bytes | None] = {_AT: self.address}
        info = AsyncServiceInfo(KIND, f"{self._name}.{KIND}", port, properties=dict(properties), server=f"{self._name}.local.")
        info.addresses = [socket.inet_aton(host)]
        try:
            self._zeroconf = AsyncZeroconf(interfaces=[host], ip_version=IPVersion.V4Only)
            await (await self._zeroconf.async_register_service(info))
        except (OSError, NonUniqueNameException) as error:
            await self.close()
            why = getattr(error, "strerror", "") or str(error) or type(error).__name__
            raise Unavailable(
                f"--announce does not work on {host} ({why}): leave it out, and give workers --join {self.address}"
            ) from error

    async def close(self) -> None:
        """Say that it is there no more."""
        if self._zeroconf is not None:
            await self._zeroconf.async_close()
            self._zeroconf = None


async def find(limit_s: float = LIMIT_S) -> str:
    """The address of the one coordinator that says where it is. Raises NotFound if there is none, InvalidInput if there are several."""
    found: dict[str, str] = {}  # by address: what the cluster is called
    names: asyncio.Queue[str] = asyncio.Queue()

    def changed(zeroconf: Zeroconf, service_type: str, name: str, state_change: ServiceStateChange) -> None:
        if state_change is not ServiceStateChange.Removed:
            names.put_nowait(name)

    async with AsyncZeroconf(interfaces=_own_hosts(), ip_version=IPVersion.V4Only) as zeroconf:
        browser = AsyncServiceBrowser(zeroconf.zeroconf, KIND, handlers=[changed])
        try:
            async with asyncio.timeout(limit_s) as limit:
                while True:
                    name = await names.get()
                    info = AsyncServiceInfo(KIND, name)
                    if await info.async_request(zeroconf.zeroconf, _ASK_LIMIT_MS) and (address := _address_in(info.properties)):
                        if not found:
                            limit.reschedule(asyncio.get_running_loop().time() + SETTLE_S)
                        found[address] = name.removesuffix(f".{KIND}")
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
        raise Refused(f"--announce: {address} is not on a network: give --listen HOST:PORT")
    host, port = split_address(address)
    if host == "0.0.0.0":
        outside = [own for own in _own_hosts() if not is_loopback(f"{own}:1")]
        host = outside[0] if outside else "127.0.0.1"
    if host == "localhost":
        host = "127.0.0.1"
    if host not in _own_hosts():
        raise Refused(f"--announce: {host} is no IPv4 address of this machine: give --listen with one that workers reach, or 0.0.0.0:PORT")
    return f"{host}:{port}"


def _own_hosts() -> list[str]:
    """The IPv4 addresses of interfaces that are up."""
    up = {name for name, stats in psutil.net_if_stats().items() if stats.isup}
    addresses = psutil.net_if_addrs().items()
    return [found.address for name, own in addresses if name in up for found in own if found.family == socket.AF_INET]
