"""What the cluster asks of workers: measure items and links, load a stage, and in a live change of plan prepare, copy, commit and
release one.

Each order is carried out beside the others; how it ended is fed to the cluster, which decides what that means.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any

import grpc

from engine.control import commands as do
from engine.control import events as on
from engine.control.cluster import Cluster
from engine.data.errors import NoodleError
from engine.data.measured_link import COORDINATOR, MeasuredLink
from engine.data.model import ModelCard
from engine.service import wire
from engine.service.coordinator.peers import Peers
from engine.service.coordinator.weight_sources import fetch_records, weight_sources
from engine.service.coordinator.worker_peer import WorkerPeer
from engine.service.errors import from_rpc_error
from engine.service.incoming import check_measured, rows_of
from engine.service.link_probe import LinkPeer, measure_links

Order = do.MeasureWorker | do.MeasureLinks | do.LoadStage | do.PrepareStage | do.CopyKv | do.CommitStage | do.ReleaseStage


class Orders:
    """Reads the cluster and its `peers`, changes neither; answers leave by `feed`, what an operator should know by `record`."""

    def __init__(
        self, cluster: Cluster, peers: Peers, feed: Callable[[on.ClusterEvent], None], record: Callable[[do.Record], None]
    ) -> None:
        self._cluster, self._peers, self._feed, self._record = cluster, peers, feed, record
        self._measuring: dict[str, asyncio.Lock] = {}  # by host: two that measure on the same cores would measure each other

    async def carry_out(self, order: Order) -> None:
        match order:
            case do.MeasureWorker():
                await self._measure(order)
            case do.MeasureLinks():
                await self._measure_links(order)
            case do.LoadStage():
                next_peer = self._peers.get(order.next_worker_id) if order.next_worker_id else None
                await self._ask(order.worker_id, order.generation, self._load(order, next_peer), order.plan_version)
            case do.PrepareStage():
                await self._move(order.plan_version, order.worker_id, self._prepare(order))
            case do.CopyKv():
                await self._move(order.plan_version, order.transfer.target_id, self._copy(order))
            case do.CommitStage():
                await self._move(order.plan_version, order.worker_id, self._commit(order))
            case do.ReleaseStage():
                with contextlib.suppress(grpc.RpcError, NoodleError):  # a worker that is gone holds nothing for us
                    await self._peers.connected(order.worker_id).release(order.plan_version)

    # ------------------------------------------------------------------------------------------ measuring
    async def _measure(self, order: do.MeasureWorker) -> None:
        member, card = self._cluster.members.get(order.worker_id), self._cluster.card
        if member is None or card is None:
            return
        async with self._measuring.setdefault(member.spec.host, asyncio.Lock()):
            await self._ask(order.worker_id, order.generation, self._measure_now(order, card))

    async def _measure_now(self, order: do.MeasureWorker, card: ModelCard) -> on.ClusterEvent:
        reply = check_measured(await self._peers[order.worker_id].measure(card), card.num_items)
        return on.WorkerMeasured(order.worker_id, order.generation, tuple(reply.decode_s), reply.base_s, rows_of(reply))

    async def _measure_links(self, order: do.MeasureLinks) -> None:
        """Not while a worker of the same host times items: each would disturb the other."""
        member, found = self._cluster.members.get(order.worker_id), list[MeasuredLink]()
        if member is not None:
            async with self._measuring.setdefault(member.spec.host, asyncio.Lock()):
                with contextlib.suppress(grpc.RpcError, NoodleError):  # a worker that is gone is found by its lease
                    found += await self._links_of(self._peers.connected(order.worker_id), order.peer_ids)
        self._feed(on.LinksMeasured(order.worker_id, order.generation, tuple(found)))

    async def _links_of(self, worker: WorkerPeer, peer_ids: tuple[str, ...]) -> list[MeasuredLink]:
        """To the coordinator as measured from here, to workers as measured there."""
        found = list[MeasuredLink]()
        if COORDINATOR in peer_ids:
            here = LinkPeer(worker.worker_id, worker.address)
            found += await measure_links(COORDINATOR, [here], self._peers.access)
        if peers := [peer for peer_id in peer_ids if (peer := self._peers.get(peer_id))]:
            answer = await worker.measure_links(peers)
            found += [wire.from_message(MeasuredLink, link) for link in answer.links]
        return found

    # ------------------------------------------------------------------------------------------ stages
    async def _load(self, order: do.LoadStage, next_peer: WorkerPeer | None) -> on.ClusterEvent:
        sources = weight_sources(self._cluster.members, self._peers, order.worker_id)
        reply = await self._peers[order.worker_id].load(order, self._card(), next_peer, sources)
        for record in fetch_records(order.worker_id, reply):
            self._record(record)
        growth = max(0, reply.peak_resident_bytes - reply.resident_before_bytes)
        return on.StageLoaded(order.worker_id, order.plan_version, reply.weight_bytes, growth, reply.load_s)

    async def _prepare(self, order: do.PrepareStage) -> on.ClusterEvent:
        card = self._card()
        next_peer = self._peers.connected(order.next_worker_id) if order.next_worker_id else None
        sources = weight_sources(self._cluster.members, self._peers, order.worker_id)
        reply = await self._peers.connected(order.worker_id).prepare(order, card, next_peer, sources)
        for record in fetch_records(order.worker_id, reply):
            self._record(record)
        return on.StagePrepared(order.worker_id, order.plan_version, reply.read_bytes)

    async def _copy(self, order: do.CopyKv) -> on.ClusterEvent:
        transfer = order.transfer
        target, source = self._peers.connected(transfer.target_id), self._peers.connected(transfer.source_id)
        await source.grant_kv(order, target.worker_id)
        reply = await target.copy_kv(order, source)
        return on.KvCopied(transfer, order.plan_version, order.round, reply.num_bytes)

    async def _commit(self, order: do.CommitStage) -> on.ClusterEvent:
        reply = await self._peers.connected(order.worker_id).commit(order)
        return on.StageCommitted(order.worker_id, order.plan_version, tuple(reply.missing))

    async def _move(self, plan_version: int, worker_id: str, step: Coroutine[Any, Any, on.ClusterEvent]) -> None:
        """Feed how a step of a move ended; a worker that is gone is noticed where every loss is."""
        try:
            self._feed(await step)
        except (grpc.RpcError, NoodleError) as e:
            error = e if isinstance(e, NoodleError) else from_rpc_error(e, f"worker {worker_id}")
            self._feed(on.MoveFailed(plan_version, worker_id, str(error)))

    def _card(self) -> ModelCard:
        if self._cluster.card is None:
            raise AssertionError("a plan without a model")
        return self._cluster.card

    async def _ask(
        self, worker_id: str, generation: int, question: Coroutine[Any, Any, on.ClusterEvent], plan_version: int | None = None
    ) -> None:
        """Feed the answer of a worker, its refusal as a failure, and its silence as a loss.

        A worker that gave an order up has a later one, whose answer is what counts. If the plan is the newest all the same, the later
        order was not ours, and the worker is lost to us: it finds out, and comes back as one that belongs to no plan.
        """
        try:
            if worker_id not in self._peers:
                question.close()
                return
            self._feed(await question)
        except grpc.RpcError as e:
            peer = self._peers.get(worker_id)
            error = peer.explain(e) if peer else None
            plan, is_aborted = self._cluster.plan, e.code() is grpc.StatusCode.ABORTED
            if is_aborted and (plan is None or plan.plan_version != plan_version):
                return
            if is_aborted or e.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED) or error is None:
                self._feed(on.WorkerLost(worker_id, generation, str(error or "its connection broke")))
            else:
                self._feed(on.WorkerFailed(worker_id, generation, str(error)))
        except NoodleError as e:  # what it answered cannot be
            self._feed(on.WorkerFailed(worker_id, generation, f"worker {worker_id} answered wrongly: {e}"))
