"""/metrics: off unless asked for, loopback unless told otherwise, fresh figures, and a stuck event loop does not hang a scrape."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import socket
import sys
import threading
import time
import types
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, ClassVar

import pytest
from prometheus_client.core import CounterMetricFamily
from prometheus_client.parser import text_string_to_metric_families

from engine.control.status import cluster_status
from engine.data.errors import Refused, Unavailable
from engine.data.status import ClusterStatus, Gauges, ModelStatus, NodeState
from engine.service import metrics_server
from engine.service.meters import FRESH_S, Meters
from engine.service.metrics_server import MAX_THREADS, MetricsServer, cluster_collector, worker_collector
from engine.service.options import MetricsOptions
from engine.service.sensors import Sensors, gpu_uuid
from tests.control.harness import Driver


def scrape(address: str) -> dict[tuple[str, str], float]:
    """(metric, value of its `worker` label) -> value."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://{address}/metrics", timeout=120) as reply:
        assert reply.headers["Content-Type"].startswith("text/plain")
        text = reply.read().decode()
    return {(s.name, s.labels.get("worker", "")): s.value for f in text_string_to_metric_families(text) for s in f.samples}


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    found = asyncio.new_event_loop()
    thread = threading.Thread(target=found.run_forever, daemon=True)
    thread.start()
    yield found
    found.call_soon_threadsafe(found.stop)
    thread.join(10)


def status() -> ClusterStatus:
    found = cluster_status(Driver().start().cluster, "noodle-test", 5.0)
    lost = replace(found.nodes[0], state=NodeState.LOST)
    nodes = (lost, replace(found.nodes[1], gauges=Gauges(gpu_utilisation=0.5)), *found.nodes[2:])
    return replace(found, model=ModelStatus('evil"}\n\x1b[31m model\\'), nodes=nodes)


def test_nothing_listens_unless_a_port_is_given() -> None:
    server = MetricsServer(MetricsOptions(), lambda: [])
    assert server.start() == ""
    server.stop()


def test_another_address_than_loopback_is_refused() -> None:
    with pytest.raises(Refused, match="--insecure"):
        MetricsServer(MetricsOptions(0, "0.0.0.0"), lambda: []).start()


def test_a_taken_port_says_the_way_out() -> None:
    first = MetricsServer(MetricsOptions(0), lambda: [])
    address = first.start()
    with pytest.raises(Unavailable, match="--metrics-port"):
        MetricsServer(MetricsOptions(int(address.rpartition(":")[2])), lambda: []).start()
    first.stop()


def test_a_cluster_is_scraped(loop: asyncio.AbstractEventLoop) -> None:
    server = MetricsServer(MetricsOptions(0), cluster_collector(loop, status))
    address = server.start()
    try:
        found = scrape(address)
        assert found["noodle_plan_version", ""] == 1 and found["noodle_cluster_info", ""] == 1
        assert (found["noodle_node_up", "w1"], found["noodle_node_up", "w2"]) == (0, 1)
        assert found["noodle_node_gpu_utilisation_ratio", "w2"] == 0.5
        assert ("noodle_node_gpu_utilisation_ratio", "w1") not in found, "unknown is absent, not 0"
        assert ("noodle_node_heartbeat_age_seconds", "w1") not in found, "it is lost: nothing is true of it any more"
        assert ("noodle_node_heartbeat_age_seconds", "w2") in found
        assert found["noodle_proposed_tokens_total", ""] == found["noodle_accepted_tokens_total", ""] == 0
    finally:
        server.stop()


def test_a_loop_that_stands_still_has_no_present_and_keeps_its_counts(
    loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics_server, "SNAPSHOT_TIMEOUT_S", 0.05)
    collect = cluster_collector(loop, status, lambda: [CounterMetricFamily("noodle_counted", "any", value=3)])
    assert len(list(collect())) > 10
    standing, go_on = threading.Event(), threading.Event()

    def stand() -> None:
        standing.set()
        go_on.wait(30)

    loop.call_soon_threadsafe(stand)
    assert standing.wait(10)
    found = {metric.name: metric.samples[0].value for metric in collect()}
    assert found == {"noodle_counted": 3, "noodle_coordinator_answers": 0}
    go_on.set()


def test_head_and_health_answer_and_nothing_else_does() -> None:
    server = MetricsServer(MetricsOptions(0), lambda: [CounterMetricFamily("noodle_counted", "any", value=3)])
    host, _, port = server.start().rpartition(":")

    def ask(method: str, path: str) -> tuple[int, bytes, int]:
        connection = http.client.HTTPConnection(host, int(port), timeout=60)
        connection.request(method, path)
        reply = connection.getresponse()
        body = reply.read()
        connection.close()
        return reply.status, body, int(reply.headers.get("Content-Length", len(body)))

    try:
        status, body, _ = ask("GET", "/metrics")
        assert status == 200 and b"noodle_counted_total 3.0" in body and b"_created" not in body
        assert ask("HEAD", "/metrics")[:2] == (200, b"") and ask("HEAD", "/health") == (200, b"", 3)
        assert ask("GET", "/health") == (200, b"ok\n", 3)
        assert ask("GET", "/secret")[0] == 404 and ask("POST", "/metrics")[:2] == (405, b"")
    finally:
        server.stop()


def test_a_worker_without_a_coordinator_looks_at_its_sensors_itself() -> None:
    """Nobody beats, so nobody reads them; what was read long ago would be no figure of now."""
    meters = Meters()
    assert meters.fresh().resident_bytes > 10**7
    meters.sensed = Gauges(resident_bytes=1)
    assert meters.fresh().resident_bytes == 1, "it was read a moment ago"
    meters.sensed_at_s -= FRESH_S
    assert meters.fresh().resident_bytes > 10**7


def test_a_worker_is_scraped() -> None:
    meters = Meters()
    meters.add_step(0.5, 0.25, 0.125, 0.0625)
    meters.add_step(0.5, 0.25, 0.125, 0.0625)
    meters.sensed, meters.sensed_at_s = Gauges(1000, 0, 1.5, 0, 0.25, 61.0), time.monotonic()
    server = MetricsServer(MetricsOptions(0), worker_collector("w1", meters))
    address = server.start()
    try:
        found = scrape(address)
    finally:
        server.stop()
    assert found["noodle_worker_steps_total", "w1"] == 2 and found["noodle_worker_compute_seconds_total", "w1"] == 1.0
    assert found["noodle_worker_resident_bytes", "w1"] == 1000 and found["noodle_worker_gpu_temperature_celsius", "w1"] == 61.0
    assert ("noodle_worker_cpu_temperature_celsius", "w1") not in found


# --- sensors ------------------------------------------------------------------------------------------------------
def test_sensors_read_this_process() -> None:
    found = Sensors().read()
    assert found.resident_bytes > 10**7 and found.cpu_utilisation >= 0
    assert (found.gpu_utilisation, found.gpu_temperature_c) == (None, None)


def test_a_gpu_that_cannot_be_read_is_unknown() -> None:
    sensors = Sensors()
    sensors.gpu_uuid = "GPU-00000000-0000-0000-0000-000000000000"
    assert sensors.read().gpu_utilisation is None


def test_a_gpu_is_found_by_its_own_name_and_a_slice_has_a_temperature_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for NVIDIA's library: the worker's GPU is asked for by UUID, so CUDA_VISIBLE_DEVICES cannot mislead."""

    class Library(types.ModuleType):
        NVML_TEMPERATURE_GPU = 0
        asked: ClassVar[list[str]] = []

        def nvmlInit(self) -> None:
            return None

        def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
            self.asked.append(uuid)
            return uuid

        def nvmlDeviceGetUtilizationRates(self, handle: str) -> Any:
            if handle == "GPU-slice":
                raise RuntimeError("Not Supported")
            return types.SimpleNamespace(gpu=75)

        def nvmlDeviceGetTemperature(self, handle: str, sensor: int) -> int:
            return 61

    monkeypatch.setitem(sys.modules, "pynvml", Library("pynvml"))
    for uuid, expected in (("GPU-1", (0.75, 61.0)), ("GPU-slice", (None, 61.0))):
        sensors = Sensors()
        sensors.gpu_uuid = uuid
        found = sensors.read()
        assert (found.gpu_utilisation, found.gpu_temperature_c) == expected
        assert Library.asked[-1] == uuid
    assert gpu_uuid("cpu") == ""


def test_a_broken_temperature_sensor_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        raise OSError("hwmon")

    monkeypatch.setattr("psutil.sensors_temperatures", broken, raising=False)
    assert Sensors().read().cpu_temperature_c is None


def test_connections_that_say_nothing_cost_no_threads_and_keep_nobody_out(loop: asyncio.AbstractEventLoop) -> None:
    server = MetricsServer(MetricsOptions(0), cluster_collector(loop, status))
    host, _, port = server.start().rpartition(":")
    num_threads = threading.active_count()
    silent = [socket.create_connection((host, int(port))) for _ in range(500)]
    try:
        for _ in range(6):
            with urllib.request.urlopen(f"http://{host}:{port}/metrics", timeout=30) as answer:
                assert b"noodle_" in answer.read()
        assert threading.active_count() <= num_threads + MAX_THREADS
    finally:
        for connection in silent:
            connection.close()
        server.stop()


def test_one_too_many_is_closed_and_the_silent_are_closed_in_the_end(
    monkeypatch: pytest.MonkeyPatch, loop: asyncio.AbstractEventLoop
) -> None:
    monkeypatch.setattr(metrics_server, "MAX_SILENT", 2)
    monkeypatch.setattr(metrics_server, "SILENCE_LIMIT_S", 0.2)
    server = MetricsServer(MetricsOptions(0), cluster_collector(loop, status))
    host, _, port = server.start().rpartition(":")
    connections = [socket.create_connection((host, int(port))) for _ in range(3)]
    try:
        for connection in connections:
            connection.settimeout(60)
            assert connection.recv(1) == b"", "closed by the server"
    finally:
        for connection in connections:
            connection.close()
        server.stop()


def test_many_that_connect_at_once_need_not_try_again() -> None:
    """Nobody accepts them yet: the system keeps as many as it was told to, and lets others wait for seconds."""
    server = metrics_server._PatientServer("127.0.0.1", 0, None)
    with contextlib.closing(server.socket), contextlib.ExitStack() as connections:
        for _ in range(64):
            connections.enter_context(socket.create_connection(server.server_address, timeout=5))
