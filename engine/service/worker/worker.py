"""The worker process: serves stages on one node and belongs to one coordinator.

It binds and announces its address and asks to join before it imports torch: an operator sees it at once and what it is doing, it
answers while nothing holds the interpreter lock yet, and a worker that is refused ends before the long part of its start.
When the coordinator goes away it drops its stage and keeps asking to join again.
"""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NoReturn

import grpc
import grpc.aio

from engine.data.errors import InvalidInput, NoodleError, Refused, Unauthorized, check_name
from engine.data.plan import NodeSpec
from engine.data.version import own_version
from engine.model.weights.weight_cache import CACHE_FOLDER, WeightCache
from engine.service import sensors, wire
from engine.service.addresses import check_address
from engine.service.errors import from_rpc_error
from engine.service.incoming import check_registered, checked
from engine.service.links import Link, connect
from engine.service.log_lines.kept_lines import kept_lines
from engine.service.log_lines.line_service import LineService
from engine.service.meters import Meters
from engine.service.metrics_server import MetricsServer, worker_collector
from engine.service.options import SecurityOptions
from engine.service.process import Server, announce, end_at_once, read_again_on_hangup
from engine.service.trust.access import Access
from engine.service.trust.certificates import read_certificate
from engine.service.trust.guard import Guard
from engine.service.trust.invitation import is_invitation
from engine.service.trust.trouble import explained
from engine.service.weights.weight_library import WeightLibrary
from engine.service.weights.weight_service import WeightService
from engine.service.worker.admission import AUTO_JOIN, admitted, found_nearby
from engine.service.worker.advertise import advertised_address, advertised_host, check_advertise
from engine.service.worker.departure import Departure, end_by_signal
from engine.service.worker.heartbeat import Heartbeat
from engine.service.worker.options import WorkerOptions, default_id
from engine.service.worker.stage_service import StageService
from engine.service.worker.weights.weight_supply import WeightSupply
from protos import noodle_pb2 as pb
from protos import noodle_pb2_grpc as rpc

if TYPE_CHECKING:
    from engine.service.worker.stage_runner import StageRunner

log = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 5.0
REGISTER_TIMEOUT_S = 20.0  # the coordinator may wait for the end of a former worker's lease, and for our answer at the address we gave
_FOR_GOOD = (Refused, Unauthorized, InvalidInput)  # asking again cannot help
RETRY_S = (0.1, 0.2, 0.2, 0.3, 0.5, 0.5, 1.0, 2.0)


async def run_worker(options: WorkerOptions) -> int:
    """Serve until the process is ended; raises what the coordinator or this machine has against this worker for good."""
    if is_invitation(options.join):
        options = await admitted(options)
    elif options.join == AUTO_JOIN:
        options = await found_nearby(options)
    options = replace(options, worker_id=options.worker_id or _own_name(options.server.security) or default_id())
    check_name("worker id", options.worker_id)
    if options.advertise is not None:
        check_advertise(options.advertise)
    check_address(options.join)
    check_own_certificate(options.server.security)
    end_at_once(options.server.exit_with_parent)
    guard = Guard(options.server.security)
    server, access = Server(guard, wire.MAX_MESSAGE_BYTES), guard.access
    meters = Meters()
    meters.sensors.machine.folder = options.cache.folder
    cache = WeightCache(options.cache.folder / CACHE_FOLDER, options.cache_limit_bytes)
    supply = WeightSupply(options.worker_id, options.join, cache, meters, access)
    service = StageService(options.worker_id, supply, access, meters)
    rpc.add_StageServiceServicer_to_server(service, server.grpc)
    rpc.add_LineServiceServicer_to_server(LineService(kept_lines()), server.grpc)
    sender = WeightService(WeightLibrary(cache, supply.folder_of), supply.pace, meters.add_sent)
    rpc.add_WeightServiceServicer_to_server(sender, server.grpc)
    scrapes = MetricsServer(options.server.metrics, worker_collector(options.worker_id, meters))
    metrics_address = scrapes.start()
    address = await server.start(options.server.listen)
    if exposed := guard.exposure(address):
        log.warning("%s", exposed)
    announce({"address": address, "worker_id": options.worker_id, "pid": os.getpid(), "metrics_address": metrics_address})
    read_again_on_hangup(guard)
    worker, departure = Worker(options, address, service, meters, access, metrics_address), Departure(options.drain_s)
    serving = asyncio.create_task(worker.run())
    try:
        await _first_of(serving, departure.asked(service.holds_stage))
        await server.set_serving(False)
        if not await worker.leave(departure.limit_s):
            end_by_signal()
        return 0
    finally:
        await worker.close()
        await server.stop()


def _own_name(security: SecurityOptions) -> str:
    """The name in this node's certificate, where the cluster knows nodes by certificates."""
    if security.tls_ca is None or security.tls_cert is None:
        return ""
    return read_certificate(security.tls_cert).name


def check_own_certificate(security: SecurityOptions) -> None:
    """Raise Refused for a worker that calls by TLS and could not be called back."""
    if (security.tls or security.tls_ca is not None) and security.tls_cert is None:
        raise Refused(
            "this worker reaches the coordinator by TLS and has no certificate of its own, so that nobody could reach it: give --tls-cert "
            "and --tls-key (`noodle-engine certs node NAME` makes them)"
        )


class Worker:
    """One node's life with its coordinator: register, beat, serve; again from the start when it is fenced or cut off."""

    def __init__(
        self,
        options: WorkerOptions,
        address: str,
        service: StageService,
        meters: Meters,
        access: Access,
        metrics_address: str = "",
    ) -> None:
        self._options, self._service, self._access = options, service, access
        self._meters, self._bound, self._metrics_bound = meters, address, metrics_address
        self._spec = NodeSpec(
            node_id=options.worker_id,
            address=address,
            host=platform.node(),
            pid=os.getpid(),
            device=options.device or "cpu",
            device_name="",
            num_threads=options.num_threads or os.cpu_count() or 1,
            memory_bytes=options.memory_bytes or 0,
            kv_budget_bytes=options.kv_memory_bytes or 0,
            instance_id=secrets.token_hex(8),
        )
        self._channel: grpc.aio.Channel | None = None
        self._generation = 0  # of the registration that lives; 0 while there is none
        self._preparing: asyncio.Task[None] | None = None
        self._attempt = 0

    async def run(self) -> NoReturn:
        """Join, prepare, serve; ends only by raising why this worker can never serve there."""
        while True:
            try:
                await self._serve_once()
                self._attempt = 0
            except NoodleError as e:
                if isinstance(e, _FOR_GOOD) or self._has_failed():
                    raise
                log.warning("%s", e)
                self._prepared()  # nobody is there to join yet: use the time
            await self._service.forget()
            await asyncio.sleep(RETRY_S[min(self._attempt, len(RETRY_S) - 1)])
            self._attempt += 1

    async def leave(self, limit_s: float) -> bool:
        """Hand over what it holds; False if that did not work, which is said."""
        if self._channel is None or not self._generation:
            log.warning("ends without handing over what it holds: no coordinator is there")
            return False
        request = pb.LeaveRequest(worker_id=self._spec.node_id, generation=self._generation)
        try:
            await rpc.ControlStub(self._channel).Leave(request, metadata=self._access.metadata, timeout=limit_s)
        except grpc.aio.AioRpcError as e:
            is_late = e.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            why = f"it took longer than --drain-seconds {limit_s:g}" if is_late else str(from_rpc_error(e, "the coordinator"))
            log.warning("ends without handing over what it holds: %s", why)
            return False
        log.info("left: it holds nothing any more")
        return True

    async def close(self) -> None:
        if self._channel is not None:
            await self._channel.close()

    def _prepared(self) -> asyncio.Task[None]:
        """The import of torch, which begins when it is first asked for."""
        self._preparing = self._preparing or asyncio.create_task(self._prepare())
        return self._preparing

    def _has_failed(self) -> bool:
        task = self._preparing
        return task is not None and task.done() and task.exception() is not None

    async def _prepare(self) -> None:
        """Import torch and look at the hardware, off the event loop."""
        self._meters.say("importing torch and transformers", -1.0)
        # In a thread that ends: what it computed gave it OpenMP helpers of its own, and with those of the stage's thread there would
        # be more than cores; then libgomp lets none of them spin.
        thread = ThreadPoolExecutor(1, "prepare")
        try:
            self._spec, self._service.runner = await asyncio.get_running_loop().run_in_executor(thread, self._import_engine)
        finally:
            thread.shutdown(wait=False)
        self._meters.say("", -1.0)

    def _import_engine(self) -> tuple[NodeSpec, StageRunner]:
        import torch
        import transformers.modeling_utils  # noqa: F401 - seconds of import that would otherwise fall into the first measurement

        from engine.model.hardware.device_facts import describe_device
        from engine.model.hardware.devices import default_kv_budget_bytes, detect
        from engine.model.hardware.limits import num_cores
        from engine.model.running.accelerator.acceleration import Acceleration
        from engine.service.worker.stage_runner import RunnerOptions, StageRunner

        options = self._options
        facts = detect(options.device, options.memory_bytes, options.num_threads)
        torch.set_num_threads(facts.num_threads)
        memory_bytes = facts.memory_bytes if options.memory_bytes else facts.memory_bytes // options.share_with
        sharing = describe_device(facts.device)
        kv_budget_bytes = options.kv_memory_bytes or default_kv_budget_bytes(memory_bytes)
        spec = replace(
            self._spec,
            device=facts.device,
            device_name=facts.device_name,
            num_threads=facts.num_threads,
            num_cores=num_cores(),
            memory_bytes=memory_bytes,
            kv_budget_bytes=kv_budget_bytes,
            device_type=sharing.device_type,
            dtypes=sharing.dtypes,
            pool_id=sharing.pool_id,
            pool_bytes=max(memory_bytes, sharing.pool_bytes),
            arithmetic=sharing.arithmetic,
        )
        self._meters.sensors.gpu_uuid = sensors.gpu_uuid(facts.device)
        runner = StageRunner(
            RunnerOptions(options.worker_id, facts.device, kv_budget_bytes, options.slowdown, Acceleration(fuse=options.compile == "auto")),
            self._meters,
            self._service.deliver,
        )
        return spec, runner

    async def _serve_once(self) -> None:
        """One connection to the coordinator, from joining to its end; raises what ended it."""
        await self.close()
        channel = self._channel = await connect(self._access, self._options.join, CONNECT_TIMEOUT_S)
        stub = rpc.ControlStub(channel)
        is_ready = self._preparing is not None and self._preparing.done()
        early = None if is_ready else await self._connect(stub, "starting")
        try:
            if early is not None:
                await _first_of(self._prepared(), early.ended())
            await self._prepared()
            connection = await self._connect(stub, "ready")
        finally:
            if early is not None:
                early.close()
        self._attempt = 0
        self._service.report, self._generation = connection.report, connection.generation
        try:
            await connection.ended()
        finally:
            self._generation = 0
            connection.close()

    async def _connect(self, stub: rpc.ControlStub, state: str) -> Connection:
        request = pb.RegisterRequest(state=state)
        wire.to_message(await asyncio.to_thread(own_version), request.version)
        address = advertised_address(self._bound, self._options.advertise, self._options.join)
        metrics_address = advertised_host(self._metrics_bound, self._options.advertise, self._options.join)
        wire.to_message(replace(self._spec, address=address, metrics_address=metrics_address), request.spec)
        try:
            reply = check_registered(checked(await stub.Register(request, metadata=self._access.metadata, timeout=REGISTER_TIMEOUT_S)))
        except grpc.aio.AioRpcError as e:
            raise await explained(e, f"the coordinator at {self._options.join}", self._options.join, self._access) from e
        headers = (*self._access.metadata, ("worker-id", self._spec.node_id), ("generation", str(reply.generation)))
        report = Link(stub.Report(metadata=headers), "the coordinator", lambda *_: None)
        loop, fenced = asyncio.get_running_loop(), asyncio.Event()
        heartbeat_channel = self._access.sync_channel(self._options.join)
        heartbeat = Heartbeat(heartbeat_channel, self._spec.node_id, self._meters, self._access, lambda: _set_from_thread(loop, fenced))
        heartbeat.start(reply.generation, reply.heartbeat_period_s)
        return Connection(reply.generation, report, heartbeat, heartbeat_channel.close, fenced)


@dataclass(frozen=True, slots=True)
class Connection:
    """One registration: its report stream, its heartbeat, and whether the coordinator has ended it.

    The next registration ends the one before while that still beats, so what a beat is told is of its own registration alone.
    """

    generation: int
    report: Link
    heartbeat: Heartbeat
    close_channel: Callable[[], None]
    fenced: asyncio.Event

    async def ended(self) -> None:
        await _first_of(self.report.closed(), self.fenced.wait())

    def close(self) -> None:
        self.heartbeat.stop()
        self.report.close()
        self.close_channel()


def _set_from_thread(loop: asyncio.AbstractEventLoop, event: asyncio.Event) -> None:
    loop.call_soon_threadsafe(event.set)


async def _first_of(*awaitables: object) -> None:
    """Return when the first ends; the others are cancelled, except tasks that were running before."""
    tasks = [a if isinstance(a, asyncio.Task) else asyncio.ensure_future(a) for a in awaitables]  # type: ignore[call-overload]
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        if task not in awaitables:
            task.cancel()
    for task in done:
        task.result()
