"""What a plan orders of workers: load a stage, and in a live change of plan prepare, copy, commit and release one.

Each order is carried out beside the others; how it ended is fed to the cluster, which decides what that means.
"""

from __future__ import annotations

import contextlib
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

import grpc

from engine.control import commands as do
from engine.control import events as on
from engine.data.errors import NoodleError
from engine.data.model import ModelCard
from engine.service.coordinator.peers import Peers
from engine.service.coordinator.weight_sources import fetch_records, weight_sources
from engine.service.coordinator.worker_peer import WorkerPeer
from engine.service.errors import from_rpc_error

if TYPE_CHECKING:
    from engine.service.coordinator.shell import ClusterShell

StageOrder = do.LoadStage | do.PrepareStage | do.CopyKv | do.CommitStage | do.ReleaseStage


class StageOrders:
    """`peers` are the shell's connections to workers, as they are at any time."""

    def __init__(self, shell: ClusterShell, peers: Peers) -> None:
        self._shell, self._peers = shell, peers

    async def carry_out(self, order: StageOrder) -> None:
        match order:
            case do.LoadStage():
                next_peer = self._peers.get(order.next_worker_id) if order.next_worker_id else None
                await self._shell.ask(order.worker_id, order.generation, self._load(order, next_peer))
            case do.PrepareStage():
                await self._move(order.plan_version, order.worker_id, self._prepare(order))
            case do.CopyKv():
                await self._move(order.plan_version, order.transfer.target_id, self._copy(order))
            case do.CommitStage():
                await self._move(order.plan_version, order.worker_id, self._commit(order))
            case do.ReleaseStage():
                with contextlib.suppress(grpc.RpcError, NoodleError):  # a worker that is gone holds nothing for us
                    await self._peers.connected(order.worker_id).release(order.plan_version)

    async def _load(self, order: do.LoadStage, next_peer: WorkerPeer | None) -> on.ClusterEvent:
        sources = weight_sources(self._shell.cluster.members, self._peers, order.worker_id)
        reply = await self._peers[order.worker_id].load(order, self._card(), next_peer, sources)
        for record in fetch_records(order.worker_id, reply):
            self._shell.record(record)
        growth = max(0, reply.peak_resident_bytes - reply.resident_before_bytes)
        return on.StageLoaded(order.worker_id, order.plan_version, reply.weight_bytes, growth, reply.load_s)

    async def _prepare(self, order: do.PrepareStage) -> on.ClusterEvent:
        card, shell = self._card(), self._shell
        next_peer = self._peers.connected(order.next_worker_id) if order.next_worker_id else None
        sources = weight_sources(shell.cluster.members, self._peers, order.worker_id)
        reply = await self._peers.connected(order.worker_id).prepare(order, card, next_peer, sources)
        for record in fetch_records(order.worker_id, reply):
            shell.record(record)
        return on.StagePrepared(order.worker_id, order.plan_version, reply.read_bytes)

    async def _copy(self, order: do.CopyKv) -> on.ClusterEvent:
        transfer = order.transfer
        reply = await self._peers.connected(transfer.target_id).copy_kv(order, self._peers.connected(transfer.source_id))
        return on.KvCopied(transfer, order.plan_version, order.round, reply.num_bytes)

    async def _commit(self, order: do.CommitStage) -> on.ClusterEvent:
        reply = await self._peers.connected(order.worker_id).commit(order)
        return on.StageCommitted(order.worker_id, order.plan_version, tuple(reply.missing))

    async def _move(self, plan_version: int, worker_id: str, step: Coroutine[Any, Any, on.ClusterEvent]) -> None:
        """Feed how a step of a move ended; a worker that is gone is noticed where every loss is."""
        try:
            self._shell.feed(await step)
        except (grpc.RpcError, NoodleError) as e:
            error = e if isinstance(e, NoodleError) else from_rpc_error(e, f"worker {worker_id}")
            self._shell.feed(on.MoveFailed(plan_version, worker_id, str(error)))

    def _card(self) -> ModelCard:
        if self._shell.cluster.card is None:
            raise AssertionError("a plan without a model")
        return self._shell.cluster.card
