"""Heartbeats from a thread of their own, so that neither compute nor a busy event loop can make a worker look dead."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import grpc

from engine.service import wire
from engine.service.meters import Meters
from engine.service.trust.access import Access
from protos import noodle_pb2 as pb
from protos import noodle_pb2_grpc as rpc

_GONE = (grpc.StatusCode.ABORTED, grpc.StatusCode.NOT_FOUND)


class Heartbeat:
    """Beats until `stop`; calls `on_fenced` (from its thread) when the coordinator no longer knows this registration."""

    def __init__(self, channel: grpc.Channel, worker_id: str, meters: Meters, access: Access, on_fenced: Callable[[], None]) -> None:
        self._stub = rpc.ControlStub(channel)
        self._worker_id, self._meters, self._on_fenced = worker_id, meters, on_fenced
        self._access = access
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, generation: int, period_s: float) -> None:
        self._thread = threading.Thread(target=self._run, args=(generation, period_s), name="heartbeat", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()

    def _run(self, generation: int, period_s: float) -> None:
        while not self._stopped.is_set():
            began_s = time.monotonic()
            try:
                self._stub.Heartbeat(self._message(generation), timeout=max(1.0, 4 * period_s), metadata=self._access.metadata)
            except grpc.RpcError as e:
                if e.code() in _GONE and not self._stopped.is_set():
                    self._on_fenced()
                    return
            except ValueError:  # the channel was closed between two beats
                return
            self._stopped.wait(max(0.0, began_s + period_s - time.monotonic()))  # a long way there and back is part of the period

    def _message(self, generation: int) -> pb.HeartbeatRequest:
        meters = self._meters
        message = pb.HeartbeatRequest(worker_id=self._worker_id, generation=generation, detail=meters.detail, progress=meters.progress)
        wire.to_message(meters.read(), message.gauges)
        return message
