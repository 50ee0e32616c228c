"""The workers that a coordinator is connected to: one connection each, and nobody else opens, replaces or closes one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping

from engine.control.nodes.claims import Claim
from engine.control.nodes.members import Members
from engine.data.errors import NotFound, Unavailable
from engine.data.plan import NodeSpec
from engine.service.coordinator.worker_peer import NoAnswer, WorkerPeer
from engine.service.trust.access import Access
from protos import noodle_pb2 as pb

CLAIM_PERIOD_S = 0.1
PATIENCE_S = 8.0  # with a newcomer that accepts connections and does not answer: a busy machine, or a wall that drops packets


class Peers(Mapping[str, WorkerPeer]):
    """By worker id. Read it as a mapping; only `adopt`, `drop` and `close` change it."""

    def __init__(self, members: Members, access: Access, on_undelivered: Callable[[pb.StepFrame, str], None]) -> None:
        self.access = access
        self._members, self._on_undelivered = members, on_undelivered
        self._peers: dict[str, WorkerPeer] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def __getitem__(self, worker_id: str) -> WorkerPeer:
        return self._peers[worker_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._peers)

    def __len__(self) -> int:
        return len(self._peers)

    def connected(self, worker_id: str) -> WorkerPeer:
        """Raises Unavailable for a worker that is not connected."""
        peer = self._peers.get(worker_id)
        if peer is None:
            raise Unavailable(f"worker {worker_id} is not connected")
        return peer

    def present(self, worker_id: str) -> WorkerPeer:
        """Raises NotFound for a worker that is not connected or is lost."""
        member, peer = self._members.get(worker_id), self._peers.get(worker_id)
        if member is None or not member.alive or peer is None:
            raise NotFound(f"worker {worker_id[:80]} is not in the cluster: see `noodle-engine status`")
        return peer

    async def lines(self, worker_id: str, after: int) -> pb.LinesReply:
        """What a worker wrote last; raises NotFound for one that is not here."""
        return await self.present(worker_id).lines(after)

    # ------------------------------------------------------------------------------------------ newcomers
    async def reach(self, spec: NodeSpec) -> WorkerPeer:
        """A connection to a newcomer at the address it gave, which is not used before `adopt`.

        Raises Refused if another living process has its name, Unavailable if it is not found at its address.
        """
        claim = Claim(self._members, spec)
        while True:
            if claim.is_free():
                return await self._greeted(spec)
            await asyncio.sleep(CLAIM_PERIOD_S)

    async def _greeted(self, spec: NodeSpec) -> WorkerPeer:
        """One that is slow to answer, as many are at their start, is asked again before anybody is told."""
        until_s = time.monotonic() + PATIENCE_S
        while True:
            peer = WorkerPeer(spec.node_id, spec.address, self.access, self._on_undelivered)
            try:
                await peer.greet()
                return peer
            except BaseException as e:
                self.dismiss(peer)
                if not isinstance(e, NoAnswer) or time.monotonic() > until_s:
                    raise

    def adopt(self, peer: WorkerPeer) -> None:
        """The worker is registered: talk to it over this connection from now on."""
        if former := self._peers.get(peer.worker_id):
            self.dismiss(former)
        self._peers[peer.worker_id] = peer

    # ------------------------------------------------------------------------------------------ ends
    def drop(self, worker_id: str) -> None:
        """The worker is lost."""
        if peer := self._peers.pop(worker_id, None):
            self.dismiss(peer)

    def dismiss(self, peer: WorkerPeer) -> None:
        """Close a connection that is not, or no longer, in use."""
        task = asyncio.create_task(peer.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        await asyncio.gather(*(peer.close() for peer in self._peers.values()), *self._closing)
