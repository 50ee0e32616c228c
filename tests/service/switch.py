"""The network between hosts as a process: it delays every frame, and drops in silence what a partition cuts.

`python -m tests.service.switch DELAY_S HOST...` forwards between the interfaces `to-HOST`; the n-th host (from 1) has the hardware address
`02:00:00:00:00:n`. Orders come as JSON lines on stdin: `[["a", "b"], ...]` are the pairs (from, to) whose frames vanish from now on; the
answer is the time on `time.time()` at which that began. Nothing is ever closed or refused by a cut, and one may be one-way.
"""

from __future__ import annotations

import collections
import json
import selectors
import socket
import sys
import time
from collections.abc import Iterable

ETH_P_ALL = 3
PACKET_IGNORE_OUTGOING = 23
BUFFER_BYTES = 8 * 2**20
LARGEST_FRAME_BYTES = 2**16


class Switch:
    """Frames wait in order of arrival, for all are delayed alike."""

    def __init__(self, delay_s: float, hosts: list[str]) -> None:
        self._delay_s = delay_s
        self._ports = {host: _port(host) for host in hosts}
        self._by_address = {bytes([2, 0, 0, 0, 0, i + 1]): host for i, host in enumerate(hosts)}
        self._cut: set[tuple[str, str]] = set()
        self._waiting: collections.deque[tuple[float, str, bytes]] = collections.deque()
        self._selector = selectors.DefaultSelector()
        for host, port in self._ports.items():
            self._selector.register(port, selectors.EVENT_READ, host)
        self._selector.register(sys.stdin, selectors.EVENT_READ, None)

    def run(self) -> None:
        while True:
            timeout_s = max(0.0, self._waiting[0][0] - time.monotonic()) if self._waiting else None
            for key, _ in self._selector.select(timeout_s):
                if key.data is not None:
                    self._receive(key.data)
                elif not self._obey():
                    return
            self._send_due()

    def _obey(self) -> bool:
        if not (line := sys.stdin.readline()):
            return False
        self._cut = {(a, b) for a, b in json.loads(line)}
        print(time.time(), flush=True)
        return True

    def _receive(self, source: str) -> None:
        due_s = time.monotonic() + self._delay_s
        while True:
            try:
                frame = self._ports[source].recv(LARGEST_FRAME_BYTES)
            except BlockingIOError:
                return
            for target in self._targets(source, frame):
                if (source, target) not in self._cut:
                    self._waiting.append((due_s, target, frame))

    def _targets(self, source: str, frame: bytes) -> Iterable[str]:
        """What is for a group of hosts goes to all others."""
        if frame[0] & 1:
            return [host for host in self._ports if host != source]
        return [self._by_address[frame[:6]]] if frame[:6] in self._by_address else []

    def _send_due(self) -> None:
        now_s = time.monotonic()
        while self._waiting and self._waiting[0][0] <= now_s:
            _, target, frame = self._waiting.popleft()
            try:
                self._ports[target].send(frame)
            except (BlockingIOError, OSError):
                continue  # a full queue drops, as a real one does


def _port(host: str) -> socket.socket:
    port = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    port.bind((f"to-{host}", 0))
    port.setsockopt(263, PACKET_IGNORE_OUTGOING, 1)  # SOL_PACKET
    port.setsockopt(socket.SOL_SOCKET, 33, BUFFER_BYTES)  # SO_RCVBUFFORCE
    port.setblocking(False)
    return port


if __name__ == "__main__":
    sys.stdin.readline()  # the interfaces exist once the first line comes
    switch = Switch(float(sys.argv[1]), sys.argv[2:])
    print("ready", flush=True)
    switch.run()
