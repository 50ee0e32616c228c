"""/metrics over HTTP, only when a port was asked for; loopback unless the operator accepts the risk of another address.

Scrapes run on the server's own threads. The cluster belongs to the event loop, so a scrape asks the loop for a snapshot,
and goes without one if the loop does not answer in time.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from engine.data.errors import Refused, Unavailable
from engine.data.status import ClusterStatus
from engine.service.addresses import is_loopback
from engine.service.meters import Meters
from engine.service.options import MetricsOptions

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.core import Metric

SNAPSHOT_TIMEOUT_S = 2.0
MAX_THREADS = 4
MAX_SILENT = 1024  # connections that have not asked for anything yet
SILENCE_LIMIT_S, REQUEST_LIMIT_S = 30.0, 5.0


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
        from engine.report.prometheus import registry_of

        try:
            server = _PatientServer(host, port, _app(registry_of(self._collect)))
        except (OSError, OverflowError) as e:
            raise Unavailable(f"cannot serve metrics on {host}:{port} ({e}): choose another --metrics-port; 0 picks a free one") from e

        server.start()
        self._stop = server.close
        return f"{host}:{server.server_port}"

    def stop(self) -> None:
        if self._stop is not None:
            self._stop()


class _Handler(WSGIRequestHandler):
    timeout = REQUEST_LIMIT_S

    def log_message(self, format: str, *args: Any) -> None:
        """Scrapes are not news."""


class _PatientServer(WSGIServer):
    """A few threads answer; a connection that says nothing costs none, and is closed after a while."""

    request_queue_size = 128  # with the 5 of socketserver, one of several that connect at once is left to try again after seconds

    def __init__(self, host: str, port: int, app: Any) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host.strip("[]"), port), _Handler)
        self.set_app(app)
        self._pool = ThreadPoolExecutor(MAX_THREADS, "metrics")
        self._thread = threading.Thread(target=self._run, name="metrics", daemon=True)
        self._selector = selectors.DefaultSelector()
        self._wake, self._waker = socket.socketpair()

    def start(self) -> None:
        for listened in (self.socket, self._wake):
            listened.setblocking(False)
            self._selector.register(listened, selectors.EVENT_READ)
        self._thread.start()

    def close(self) -> None:
        self._waker.send(b"x")
        self._thread.join()
        self._pool.shutdown(wait=False)
        self.server_close()

    def _run(self) -> None:
        silent: dict[socket.socket, tuple[Any, float]] = {}
        while True:
            for key, _ in self._selector.select(SILENCE_LIMIT_S / 10):
                if key.fileobj is self._wake:
                    return
                if key.fileobj is self.socket:
                    self._accept(silent)
                elif isinstance(key.fileobj, socket.socket):
                    self._pool.submit(self._answer, key.fileobj, self._forget(silent, key.fileobj))
            for late in [c for c, (_, since_s) in silent.items() if time.monotonic() - since_s > SILENCE_LIMIT_S]:
                self._forget(silent, late)
                self.shutdown_request(late)

    def _accept(self, silent: dict[socket.socket, tuple[Any, float]]) -> None:
        with contextlib.suppress(OSError):
            connection, address = self.socket.accept()
            if len(silent) >= MAX_SILENT:
                self.shutdown_request(connection)
                return
            silent[connection] = address, time.monotonic()
            self._selector.register(connection, selectors.EVENT_READ)

    def _forget(self, silent: dict[socket.socket, tuple[Any, float]], connection: socket.socket) -> Any:
        self._selector.unregister(connection)
        return silent.pop(connection)[0]

    def _answer(self, connection: socket.socket, address: Any) -> None:
        with contextlib.suppress(OSError):
            connection.settimeout(REQUEST_LIMIT_S)
            self.finish_request(connection, address)
        self.shutdown_request(connection)


def _app(registry: CollectorRegistry) -> Callable[[Any, Any], Iterable[bytes]]:
    """`/metrics` and `/health`, by GET and HEAD."""
    from prometheus_client import disable_created_metrics, make_wsgi_app

    disable_created_metrics()  # a gauge beside each counter that nobody asks for
    scrape = make_wsgi_app(registry)

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        method, path = environ["REQUEST_METHOD"], environ.get("PATH_INFO", "")
        if method not in ("GET", "HEAD"):
            start_response("405 Method Not Allowed", [("Allow", "GET, HEAD"), ("Content-Length", "0")])
            return []
        if path in ("/metrics", "/"):
            parts = list(scrape({**environ, "REQUEST_METHOD": "GET"}, start_response))
        else:
            status, text = ("200 OK", b"ok\n") if path == "/health" else ("404 Not Found", b"there are /metrics and /health\n")
            start_response(status, [("Content-Type", "text/plain"), ("Content-Length", str(len(text)))])
            parts = [text]
        return [] if method == "HEAD" else parts

    return app


def cluster_collector(
    loop: asyncio.AbstractEventLoop,
    status: Callable[[], ClusterStatus],
    counted: Callable[[], Iterable[Metric]] = tuple,
) -> Callable[[], Iterable[Metric]]:
    """What was counted, and a look at the cluster; `status` runs on `loop`. If that does not answer, the look is left out: what was
    true a while ago is not what is asked for."""

    def look(answer: concurrent.futures.Future[ClusterStatus]) -> None:
        if answer.set_running_or_notify_cancel():
            answer.set_result(status())

    def collect() -> Iterator[Metric]:
        from engine.report.prometheus import cluster_metrics, gauge

        yield from counted()
        answer: concurrent.futures.Future[ClusterStatus] = concurrent.futures.Future()
        with contextlib.suppress(RuntimeError):  # the loop is closed: the process ends
            loop.call_soon_threadsafe(look, answer)
        try:
            found = answer.result(SNAPSHOT_TIMEOUT_S)
        except concurrent.futures.TimeoutError:
            answer.cancel()
            found = None
        yield gauge("noodle_coordinator_answers", "1 if its event loop answered this scrape", [({}, float(found is not None))])
        if found is not None:
            yield from cluster_metrics(found)

    return collect


def worker_collector(worker_id: str, meters: Meters) -> Callable[[], Iterable[Metric]]:
    """Figures of one worker, as its threads left them."""

    def collect() -> Iterator[Metric]:
        from prometheus_client import ProcessCollector
        from prometheus_client.core import CounterMetricFamily

        from engine.report.prometheus import gauge_metrics, safe_label

        yield from ProcessCollector(registry=None).collect()
        yield from gauge_metrics("noodle_worker", [(worker_id, meters.fresh())])
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
        links = CounterMetricFamily(
            "noodle_link_bytes",
            "hidden states, keys and values, weights that went from one node to another",
            labels=["source", "target", "kind"],
        )
        for link, num_bytes in dict(meters.link_bytes).items():
            links.add_metric([safe_label(part) for part in link], float(num_bytes))
        yield links

    return collect
