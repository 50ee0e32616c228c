"""Several hosts on one machine: network namespaces, joined by veth links through a switch that delays and cuts (`switch`).

Each host has an Ethernet interface of its own with a bandwidth cap (tbf), a static neighbour table, so that a cut is silence and not an
ICMP answer, and a loopback. Everything dies with this process: no namespace has a name, each lives as long as the process that holds it.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
from collections.abc import Iterable

CLONE_NEWNET = 0x40000000
SIOCETHTOOL = 0x8946
ETHTOOL_STXCSUM = 0x17
NEEDED = ("ip", "tc", "unshare", "nsenter")


def why_not() -> str:
    """Why no hosts can be made here; empty if they can."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return "network namespaces need root"
    missing = [tool for tool in NEEDED if shutil.which(tool) is None]
    if missing:
        return f"network namespaces need {', '.join(missing)} (iproute2, util-linux)"
    done = subprocess.run(["unshare", "--net", "true"], capture_output=True, text=True, check=False)
    return f"this machine lets nobody make network namespaces: {done.stderr.strip()}" if done.returncode else ""


def enter_new_namespace() -> None:
    """Move this process to a network of its own; call it before any thread exists."""
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "unshare")


class Hosts:
    """`names` in order get the addresses 10.77.0.1 and so on; the host `here` is the calling process's own namespace."""

    def __init__(self, names: list[str], here: str, delay_s: float, rate_bits_per_s: float) -> None:
        self.names = names
        self._holders: dict[str, subprocess.Popen[str]] = {}
        command = ["unshare", "--net", sys.executable, "-m", "tests.service.switch", str(delay_s), *names]
        self._switch = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for name in names:
            if name != here:
                self._holders[name] = _hold(name)
        self._wait_for_switch_namespace()
        for name in names:
            self._plug_in(name, rate_bits_per_s)
        self._tell("")
        assert self._hear() == "ready"

    def address(self, name: str) -> str:
        return f"10.77.0.{self.names.index(name) + 1}"

    def namespaces(self, name: str) -> tuple[str, ...]:
        """Paths for setns(2): network and host name."""
        pid = self._holders[name].pid
        return f"/proc/{pid}/ns/net", f"/proc/{pid}/ns/uts"

    def cut(self, pairs: Iterable[tuple[str, str]]) -> float:
        """From now on frames of these (from, to) vanish and all others pass; returns the `time.time()` of now."""
        self._tell(json.dumps([*pairs]))
        return float(self._hear())

    def close(self) -> None:
        for process in (self._switch, *self._holders.values()):
            assert process.stdin is not None
            process.stdin.close()
            process.wait(10)

    def _plug_in(self, name: str, rate_bits_per_s: float) -> None:
        number, holder = self.names.index(name) + 1, self._holders.get(name)
        pid = holder.pid if holder else os.getpid()
        _ip(None, f"link add {name} type veth peer name to-{name}")
        _checksum_in_software(name)
        _ip(None, f"link set {name} address 02:00:00:00:00:0{number}")
        _ip(None, f"link set to-{name} netns {self._switch.pid}")
        _ip(None, f"link set {name} netns {pid} name eth0")
        _ip(self._switch.pid, f"link set to-{name} up")
        neighbours = [
            f"neigh add 10.77.0.{i + 1} lladdr 02:00:00:00:00:0{i + 1} dev eth0 nud permanent"
            for i in range(len(self.names))
            if i + 1 != number
        ]
        _ip(pid, "link set lo up", f"addr add {self.address(name)}/24 dev eth0", "link set eth0 up", *neighbours)
        shaping = f"tc qdisc add dev eth0 root tbf rate {rate_bits_per_s:.0f}bit burst 32kb latency 200ms"
        subprocess.run(["nsenter", "-t", str(pid), "-n", *shaping.split()], check=True)

    def _wait_for_switch_namespace(self) -> None:
        """Its first line can only be read once it runs, and so has left our namespace."""
        while os.readlink(f"/proc/{self._switch.pid}/ns/net") == os.readlink("/proc/self/ns/net"):
            assert self._switch.poll() is None, "the switch ended"

    def _tell(self, line: str) -> None:
        assert self._switch.stdin is not None
        print(line, file=self._switch.stdin, flush=True)

    def _hear(self) -> str:
        assert self._switch.stdout is not None
        return self._switch.stdout.readline().strip()


def _hold(name: str) -> subprocess.Popen[str]:
    """A process that keeps new namespaces, with a host name, alive until our end of its stdin is closed, by whatever means."""
    command = ["unshare", "--net", "--uts", "sh", "-c", "echo $0 > /proc/sys/kernel/hostname && echo && exec cat", name]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    holder.stdout.readline()
    return holder


def _ip(pid: int | None, *commands: str) -> None:
    enter = ["nsenter", "-t", str(pid), "-n"] if pid is not None else []
    subprocess.run([*enter, "ip", "-batch", "-"], input="\n".join(commands), text=True, check=True)


def _checksum_in_software(interface: str) -> None:
    """The switch passes frames on as they are: they must be whole ones, with checksums, no larger than the link's."""
    value = ctypes.create_string_buffer(struct.pack("II", ETHTOOL_STXCSUM, 0))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCETHTOOL, struct.pack("16sP", interface.encode(), ctypes.addressof(value)))
