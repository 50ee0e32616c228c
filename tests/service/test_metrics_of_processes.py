"""A real cluster leaves a log that a report can show, answers scrapes, and keeps its tokens when the disk is gone."""

from __future__ import annotations

import os
import signal
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from engine.commands.cluster.generate import transcribe
from engine.data.plan import Stage
from engine.report.jsonl import read_log
from engine.report.run_report import read_run, run_summary
from tests.service.running import Running, running

TINY = "llama:tiny"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("metrics")


@pytest.fixture(scope="module")
def cluster(folder: Path) -> Iterator[Running]:
    with running(TINY, 2, metrics_dir=str(folder), metrics_port=0) as found:
        yield found


def test_every_process_answers_scrapes(cluster: Running) -> None:
    cluster.generate(cluster.request((1, 2, 3), 20))
    assert set(cluster.cluster.metrics_addresses) == {"coordinator", "w1", "w2"}
    found = {}
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for name, address in cluster.cluster.metrics_addresses.items():
        with opener.open(f"http://{address}/metrics", timeout=120) as reply:
            families = text_string_to_metric_families(reply.read().decode())
            found[name] = {s.name: s.value for f in families for s in f.samples}
    assert found["coordinator"]["noodle_generation_tokens_total"] >= 20 and found["coordinator"]["noodle_plan_version"] == 1
    assert found["w1"]["noodle_worker_steps_total"] >= 20 and found["w2"]["noodle_worker_compute_seconds_total"] > 0
    assert found["w1"]["noodle_worker_resident_bytes"] > 10**7


def samples(cluster: Running, name: str) -> dict[tuple[str, ...], float]:
    """(metric, values of its labels in the order of their names) -> value."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://{cluster.cluster.metrics_addresses[name]}/metrics", timeout=120) as reply:
        families = text_string_to_metric_families(reply.read().decode())
        return {(s.name, *(s.labels[label] for label in sorted(s.labels))): s.value for f in families for s in f.samples}


def test_a_move_and_a_loss_are_counted_and_a_lost_worker_says_nothing_any_more() -> None:
    """As are the bytes that went over each link, once: hidden states where they leave, keys and values where they arrive."""
    with running(TINY, 2, metrics_port=0) as two:
        long = two.spawn(transcribe(two.client, two.request((1, 2, 3), 400, ignore_eos=True)))
        two.until(lambda status: any(s.num_generated > 5 for s in status.sessions), "some tokens")
        plan = two.status().stages
        first, second = (stage.worker_id for stage in plan)  # on a busy machine either may have been the faster one
        stages = (Stage(first, 0, plan[0].stop - 1), Stage(second, plan[0].stop - 1, plan[1].stop))
        two.wait(two.client.apply(1, stages=stages))
        two.until(lambda status: status.plan_version == 2, "the move")
        two.until(lambda _: samples(two, "coordinator")["noodle_moves_total", "done"] == 1, "its end")
        found = samples(two, "coordinator")
        assert found["noodle_move_pause_seconds_count",] == 1 and found["noodle_session_recoveries_total",] == 0
        moved_bytes = found["noodle_moved_bytes_total", "kv"]
        links = {name[1:]: value for name, value in samples(two, second).items() if name[0] == "noodle_link_bytes_total"}
        assert links == {("kv", first, second): moved_bytes} and moved_bytes > 0
        assert samples(two, first)["noodle_link_bytes_total", "steps", first, second] > 0
        os.kill(two.cluster.pids()[second], signal.SIGKILL)
        long.result(120)
        found = samples(two, "coordinator")
        assert found["noodle_workers_lost_total",] == 1 and found["noodle_session_recoveries_total",] == 1
        assert found["noodle_node_up", second] == 0 and found["noodle_node_up", first] == 1
        assert ("noodle_node_resident_bytes", first) in found and ("noodle_node_resident_bytes", second) not in found
        assert found["noodle_request_success_total", "length"] == 1 and found["noodle_prompt_tokens_total",] == 3
        assert found["noodle_generation_tokens_total",] == 400 and found["noodle_inter_token_latency_seconds_count",] == 399


def test_the_log_holds_the_run_and_far_fewer_records_than_tokens(cluster: Running, folder: Path) -> None:
    cluster.generate(cluster.request((1, 2, 3), 600, ignore_eos=True))
    cluster.until(lambda status: not status.sessions, "the session's end")
    cluster.until(lambda _: any(r.kind == "stage" and r.data["phase"] == "decode" for r in read_log(folder).records), "a sample on disk")
    summary = run_summary(read_run(folder))
    stages = {(s["worker_id"], s["phase"]): s for s in summary["stages"]}
    for worker_id in ("w1", "w2"):
        decode = stages[worker_id, "decode"]
        assert decode["compute_p50_s"] > 0 and decode["wire_in_p50_s"] > 0 and decode["wire_out_p50_s"] > 0 and decode["predicted_s"] > 0
    assert summary["run"]["model"] == "llama:tiny (random weights, seed 0)"
    assert [p["plan_version"] for p in summary["plans"]] == [1] and summary["num_events"] >= 5
    assert (summary["num_lost"], summary["num_torn"], summary["num_damaged"]) == (0, 0, 0)
    records = read_log(folder).records
    samples = [r for r in records if r.kind == "cluster"]
    span_s = samples[-1].monotonic_s - samples[0].monotonic_s
    assert 2 <= len(samples) <= 2 + 2 * span_s, "more than two samples a second"
    assert not any(r.kind == "step" for r in records)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_costs_records_never_tokens(cluster: Running, tmp_path: Path) -> None:
    expected = cluster.generate(cluster.request((5, 6, 7), 30)).document()["token_ids"]
    (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
    with running(TINY, 2, metrics_dir=str(tmp_path)) as full:
        assert full.generate(full.request((5, 6, 7), 30)).document()["token_ids"] == expected
        assert full.status().ended.num_failed == 0


def test_a_coordinator_that_is_killed_leaves_a_readable_log(tmp_path: Path) -> None:
    with running(TINY, 1, metrics_dir=str(tmp_path)) as one:
        one.generate(one.request((1, 2, 3), 20))
        one.until(lambda _: any(r.kind == "stage" for r in read_log(tmp_path).records), "a sample on disk")
        os.kill(one.cluster.pids()["coordinator"], signal.SIGKILL)
    found = read_log(tmp_path)
    assert found.num_damaged == 0 and found.num_torn <= 1
    assert run_summary(read_run(tmp_path))["stages"]
