"""A real Prometheus over a real cluster: the rules and the dashboard that come with the package, and the quantiles that callers see."""

from __future__ import annotations

import bisect
import json
import re
import shutil
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from engine.commands.machine.examples import FILES, text_of
from engine.data.generation import GenerateRequest
from engine.service.coordinator.metrics import tally
from tests.service.running import Running, running

T = TypeVar("T")
DEADLINE_S = 120.0
TINY = "llama:tiny"
needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool")
needs_prometheus = pytest.mark.skipif(shutil.which("prometheus") is None, reason="needs a Prometheus")
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def get(url: str) -> str:
    with OPENER.open(url, timeout=60) as reply:
        return str(reply.read().decode())


def until(look: Callable[[], T | None], what: str) -> T:
    """What `look` finds, as soon as it finds something."""
    end_s = time.monotonic() + DEADLINE_S
    while time.monotonic() < end_s:
        if (found := look()) is not None:
            return found
        time.sleep(0.1)
    raise AssertionError(f"waited {DEADLINE_S:.0f} s for {what}")


class Prometheus:
    """Scrapes what a target list names, with the alert rules of the package."""

    def __init__(self, folder: Path, targets: Path) -> None:
        for name in ("prometheus.yaml", "alerts.yaml"):
            text = text_of(name).replace("/etc/prometheus/noodle/*.json", str(targets)).replace("15s", "1s")
            (folder / name).write_text(text)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        words = [
            f"--config.file={folder / 'prometheus.yaml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address={self.address}",
        ]
        with (folder / "prometheus.log").open("wb") as log:
            self.process = subprocess.Popen(["prometheus", *words], stdout=log, stderr=log)

    def ask(self, path: str, **query: str) -> Any:
        """The data of an answer; None while there is no server yet."""
        try:
            return json.loads(get(f"http://{self.address}/api/v1/{path}?{urllib.parse.urlencode(query)}"))["data"]
        except OSError:
            return None

    def query(self, expression: str) -> list[float]:
        found = self.ask("query", query=expression)
        return [float(series["value"][1]) for series in found["result"]] if found else []


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Running, Path]]:
    targets = tmp_path_factory.mktemp("targets") / "cluster.json"
    with running(TINY, 2, metrics_sd=str(targets)) as found:
        yield found, targets


@pytest.fixture(scope="module")
def prometheus(cluster: tuple[Running, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    found = Prometheus(tmp_path_factory.mktemp("prometheus"), cluster[1])
    try:
        until(lambda: found.query("count(up == 1)") == [3.0] or None, "three targets that answer")
        yield found
    finally:
        found.process.kill()
        found.process.wait()


def test_the_list_of_targets_names_every_process(cluster: tuple[Running, Path]) -> None:
    running_cluster, targets = cluster
    addresses = running_cluster.cluster.metrics_addresses
    assert set(addresses) == {"coordinator", "w1", "w2"}

    def complete() -> list[dict[str, Any]] | None:
        found = json.loads(targets.read_text())
        return found if len(found) == 3 else None

    found = until(complete, "three targets in the list")
    assert {t for entry in found for t in entry["targets"]} == set(addresses.values())
    assert [entry["labels"]["role"] for entry in found] == ["coordinator", "worker", "worker"]
    assert len({entry["labels"]["cluster"] for entry in found}) == 1


def test_a_cluster_that_ends_in_order_leaves_an_empty_list(tmp_path: Path) -> None:
    targets = tmp_path / "cluster.json"
    with running(TINY, 1, metrics_sd=str(targets)):
        assert len(json.loads(targets.read_text())) >= 1
    assert json.loads(targets.read_text()) == []


@needs_promtool
def test_promtool_has_nothing_to_say(cluster: tuple[Running, Path], tmp_path: Path) -> None:
    running_cluster = cluster[0]
    running_cluster.generate(running_cluster.request((1, 2, 3), 8))
    for address in running_cluster.cluster.metrics_addresses.values():
        done = subprocess.run(["promtool", "check", "metrics"], input=get(f"http://{address}/metrics"), capture_output=True, text=True)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    for name in ("alerts.yaml", "prometheus.yaml"):
        (tmp_path / name).write_text(text_of(name))
    for words in (["rules", "alerts.yaml"], ["config", "prometheus.yaml"]):
        done = subprocess.run(["promtool", "check", *words], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0 and "SUCCESS" in done.stdout, done


@needs_promtool
def test_alerts_come_when_they_should(tmp_path: Path) -> None:
    """Of each kind one, and silence while all is well."""
    (tmp_path / "alerts.yaml").write_text(text_of("alerts.yaml"))
    labels = 'cluster="c", job="noodle", instance="i", role="worker"'
    series = {
        "up": ("NoodleProcessDown", [({}, "1x30", "0x30")]),
        "noodle_serving": ("NoodleNotServing", [({}, "1x30", "0x30")]),
        "noodle_coordinator_answers": ("NoodleCoordinatorStuck", [({}, "1x30", "0x30")]),
        "noodle_workers_lost_total": ("NoodleWorkerLost", [({}, "0x30", "0x25 1x4")]),
        "noodle_requests_refused_total": ("NoodleRequestsRefused", [({"cause": "exhausted"}, "0x30", "0+5x30")]),
        "noodle_node_kv_used_bytes": ("NoodleKvFull", [({"worker": "w1"}, "10x30", "99x30")]),
    }
    tests = []
    for is_bad in (False, True):
        for name, (alert, rows) in series.items():
            given = [{"series": _series(name, labels, extra), "values": bad if is_bad else good} for extra, good, bad in rows]
            if alert == "NoodleKvFull":
                given.append({"series": _series("noodle_node_kv_budget_bytes", labels, {"worker": "w1"}), "values": "100x30"})
            expression = f'count(ALERTS{{alertname="{alert}", alertstate="firing"}})'
            expected = [{"value": 1, "labels": "{}"}] if is_bad else []
            tests.append(
                {
                    "interval": "1m",
                    "input_series": given,
                    "promql_expr_test": [{"expr": expression, "eval_time": "28m", "exp_samples": expected}],
                }
            )
    (tmp_path / "tests.yaml").write_text(json.dumps({"rule_files": ["alerts.yaml"], "tests": tests}))
    done = subprocess.run(["promtool", "test", "rules", "tests.yaml"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def _series(name: str, labels: str, extra: dict[str, str]) -> str:
    more = "".join(f', {key}="{value}"' for key, value in extra.items())
    return f"{name}{{{labels}{more}}}"


@needs_prometheus
def test_a_quantile_of_prometheus_is_the_one_that_callers_measured(cluster: tuple[Running, Path], prometheus: Prometheus) -> None:
    """Within one bucket of the coordinator's own figures, and never above what callers saw, whom a busy machine keeps waiting."""
    running_cluster = cluster[0]
    first_s, wanted = [], 40
    before = until(lambda: prometheus.query("sum(noodle_time_to_first_token_seconds_count)") or None, "the counts so far")[0]
    begin = {
        name: float(value)
        for name, value in re.findall(r'noodle_time_to_first_token_seconds_bucket\{le="([^"]+)"\} (\S+)', get(_metrics_of(running_cluster)))
    }
    for number in range(wanted):
        first_s.append(_first_token_s(running_cluster, running_cluster.request((1 + number % 50,) * (1 + 12 * (number % 8)), 4)))
    counted = f"sum(noodle_time_to_first_token_seconds_count) >= {before + wanted}"
    until(lambda: prometheus.query(counted) or None, "all requests in Prometheus")
    buckets = tuple(float(le) for le in begin if le != "+Inf")
    assert buckets == tuple(map(float, tally.FIRST_TOKEN_S))
    # What was counted before this test is taken away: a rate would need these requests to last for minutes.
    expression = " or ".join(
        f'label_replace(sum(noodle_time_to_first_token_seconds_bucket{{le="{le}"}}) - {value}, "le", "{le}", "", "")'
        for le, value in begin.items()
    )
    (seen_s,) = prometheus.query(f"histogram_quantile(0.95, {expression})")
    own_s = [session.ttft_s for session in running_cluster.status().ended.latest[:wanted]]
    own, callers = (bisect.bisect_left(buckets, sorted(times_s)[int(0.95 * wanted)]) for times_s in (own_s, first_s))
    assert buckets[max(0, own - 2)] <= seen_s <= buckets[min(len(buckets) - 1, own + 1, callers + 1)], (seen_s, own_s, first_s)


def _metrics_of(running_cluster: Running) -> str:
    return f"http://{running_cluster.cluster.metrics_addresses['coordinator']}/metrics"


def _first_token_s(running_cluster: Running, request: GenerateRequest) -> float:
    return running_cluster.generate(request).ttft_s


@needs_prometheus
def test_every_query_of_the_dashboard_returns_data(cluster: tuple[Running, Path], prometheus: Prometheus) -> None:
    running_cluster = cluster[0]
    dashboard = json.loads(text_of("dashboard.json"))
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    assert len(queries) > 30
    left = {query: query.replace("$__rate_interval", "10s").replace("$cluster", ".*") for query in queries}

    def none_left() -> bool | None:
        running_cluster.generate_all([running_cluster.request((1, 2, 3, number), 30, ignore_eos=True) for number in range(3)])
        for query, expression in [*left.items()]:
            if any(value == value for value in prometheus.query(expression)):  # NaN is no data
                del left[query]
        return True if not left else None

    try:
        until(none_left, "data")
    finally:
        assert not left


def test_every_example_is_in_the_package() -> None:
    assert all(text_of(name) for name in FILES)
