"""/metrics over HTTP, only when a port was asked for; loopback unless the operator accepts the risk of another address.

Scrapes run on the server's own threads. The cluster belongs to the event loop, so a scrape asks the loop for a snapshot
and takes the last one if the loop does not answer in time.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from engine.data.errors import Refused, Unavailable
from engine.data.status import ClusterStatus
from engine.service.meters import Meters
from engine.service.options import MetricsOptions
from engine.service.trust.access import is_loopback

if TYPE_CHECKING:
    from prometheus_client.core import Metric

SNAPSHOT_TIMEOUT_S = 2.0


class MetricsServer:
    """Listens from `start` to `stop`."""

    def __init__(self, options: MetricsOptions, collect: Callable[[], Iterable[Metric]]) -> None:
        self._options, self._collect = options, collect
        self._stop: Callable[[], None] | None = None

    def start(self) -> str:
        """Bind; returns HOST:PORT, empty when nothing was asked for. Raises Refused or Unavailable."""
        host, port = self._options.metrics_host, self._options.metrics_port
        if port is None:
            return ""
        if not (is_loopback(f"{host}:{port}") or self._options.insecure):
            text = "anyone who reaches it could read the cluster's figures; scrape through a tunnel, or accept it with --insecure"
            raise Refused(f"--metrics-host {host} is not a loopback address and /metrics has no token: {text}")
        from prometheus_client import start_http_server

        from engine.report.prometheus import registry_of

        try:
            server, _ = start_http_server(port, host, registry_of(self._collect))
        except (OSError, OverflowError) as e:
            raise Unavailable(f"cannot serve metrics on {host}:{port} ({e}): choose another --metrics-port; 0 picks a free one") from e

        def stop() -> None:
            server.shutdown()
            server.server_close()

        self._stop = stop
        return f"{host}:{server.server_port}"

    def stop(self) -> None:
        if self._stop is not None:
            self._stop()


def cluster_collector(loop: asyncio.AbstractEventLoop, status: Callable[[], ClusterStatus]) -> Callable[[], Iterable[Metric]]:
    """Figures of the cluster; `status` runs on `loop`."""
    last: list[ClusterStatus] = []

    async def look() -> ClusterStatus:
        return status()

    def collect() -> Iterator[Metric]:
        from engine.report.prometheus import cluster_metrics

        question = asyncio.run_coroutine_threadsafe(look(), loop)
        try:
            last[:] = [question.result(SNAPSHOT_TIMEOUT_S)]
        except concurrent.futures.TimeoutError:
            question.cancel()
        return cluster_metrics(last[0]) if last else iter(())

    return collect


def worker_collector(worker_id: str, meters: Meters) -> Callable[[], Iterable[Metric]]:
    """Figures of one worker, as its threads left them."""

    def collect() -> Iterator[Metric]:
        from prometheus_client.core import CounterMetricFamily

        from engine.report.prometheus import gauge_metrics

        yield from gauge_metrics("noodle_worker", [(worker_id, meters.latest())])
        for name, text, value in (
            ("noodle_worker_steps", "steps computed", meters.num_steps),
            ("noodle_worker_compute_seconds", "time in compute", meters.compute_s),
            ("noodle_worker_queue_seconds", "time that steps waited here", meters.queue_s),
            ("noodle_worker_wire_in_seconds", "time decoding and checking messages", meters.wire_in_s),
            ("noodle_worker_wire_out_seconds", "time encoding and handing over messages", meters.wire_out_s),
            ("noodle_worker_weights_fetched_bytes", "weights fetched from others", meters.fetched_bytes),
            ("noodle_worker_weights_sent_bytes", "weights sent to other workers", meters.sent_bytes),
        ):
            family = CounterMetricFamily(name, text, labels=["worker"])
            family.add_metric([worker_id], float(value))
            yield family

    return collect
