"""The recorder: at most two samples a second, medians per stage and phase, plans and events; nothing per token unless asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.control import commands as do
from engine.control import events as on
from engine.control.status import cluster_status
from engine.data.generation import Segment, StageTiming
from engine.data.plan import Plan, Stage
from engine.data.status import Event, Gauges, NodeState, Severity
from engine.service.coordinator.metrics.recorder import IDLE_SAMPLE_S, SAMPLE_S, Recorder
from tests.control.harness import Driver


class Written:
    """Stands for the writer: keeps what was written, with the moment by the test's clock."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, Mapping[str, Any], str]] = []
        self.num_lost = 0

    def write(self, kind: str, data: Mapping[str, Any], cause_id: str = "") -> None:
        self.rows.append((kind, data, cause_id))

    def of(self, kind: str) -> list[Mapping[str, Any]]:
        return [data for k, data, _ in self.rows if k == kind]

    def close(self) -> None:
        return None


class Bench:
    """A recorder on a three-worker cluster that has a plan."""

    def __init__(self, every_step: bool = False) -> None:
        self.driver = Driver().start()
        self.written = Written()
        self.now_s = 100.0
        status = lambda: cluster_status(self.driver.cluster, "noodle-test", self.now_s)  # noqa: E731
        self.recorder = Recorder(self.written, status, every_step)  # type: ignore[arg-type]
        self.step_id = 0
        self.observe(on.Tick(), do.AdoptPlan(Plan(1, "balanced", (Stage("w1", 0, 2), Stage("w2", 2, 5)))))
        self.written.rows.clear()

    def observe(self, event: on.ClusterEvent, *commands: do.Command) -> None:
        self.recorder.observe(event, commands, self.now_s)

    def tick(self, wait_s: float) -> None:
        self.now_s += wait_s
        self.observe(on.Tick())

    def step(self, compute_s: float, sample_index: int | None = 3, plan_version: int = 1, took_s: float = 0.02, error: Any = None) -> None:
        self.step_id += 1
        segment = Segment("s-1", 1, 8, (5,), sample_index)
        self.observe(on.Tick(), do.SendStep(plan_version, self.step_id, "w1", (segment,), 10))
        self.now_s += took_s
        timings = (StageTiming("w1", compute_s, 0.001, 0.002, 0.003), StageTiming("w2", 2 * compute_s, 0.0, 0.0, 0.0))
        outcome = on.SegmentOutcome("s-1", 1, sample_index, 7, error=error)
        self.observe(on.StepReported("w2", plan_version, self.step_id, (outcome,), timings))


def test_steps_become_medians_per_stage_and_phase() -> None:
    bench = Bench()
    for compute_s in (0.010, 0.030, 0.020):
        bench.step(compute_s)
    bench.step(0.5, sample_index=None)
    bench.step(0.7, sample_index=0)  # the first token comes from the prompt's last chunk
    bench.tick(SAMPLE_S)
    rows = {(r["worker_id"], r["phase"]): r for r in bench.written.of("stage")}
    assert set(rows) == {("w1", "decode"), ("w2", "decode"), ("w1", "prefill"), ("w2", "prefill")}
    decode = rows["w1", "decode"]
    assert (decode["num_steps"], decode["compute_p50_s"], decode["compute_p95_s"]) == (3, 0.020, 0.030)
    assert (decode["queue_p50_s"], decode["wire_in_p50_s"], decode["wire_out_p50_s"]) == (0.001, 0.002, 0.003)
    assert rows["w2", "prefill"]["num_steps"] == 2 and rows["w2", "decode"]["compute_p50_s"] == 0.040
    (cluster,) = bench.written.of("cluster")
    assert abs(cluster["decode_step_p50_s"] - 0.02) < 1e-9 and cluster["num_steps"] == 5


def test_ten_seconds_of_steps_and_ticks_are_twenty_samples() -> None:
    bench = Bench()
    bench.tick(IDLE_SAMPLE_S)
    bench.written.rows.clear()
    for _ in range(500):  # 10 s of 20 ms steps, a tick with each
        bench.step(0.01)
        bench.tick(0.0)
    assert 19 <= len(bench.written.of("cluster")) <= 20
    assert len(bench.written.of("stage")) == 2 * len(bench.written.of("cluster"))
    assert len(bench.written.of("node")) == 3 * len(bench.written.of("cluster"))
    assert bench.written.of("step") == []
    assert sum(r["num_steps"] for r in bench.written.of("cluster")) >= 475


def test_nothing_running_is_sampled_more_slowly() -> None:
    bench = Bench()
    bench.tick(IDLE_SAMPLE_S)
    bench.written.rows.clear()
    for _ in range(100):
        bench.tick(0.1)
    assert 1 <= len(bench.written.of("cluster")) <= 2


def test_steps_of_an_old_plan_and_failed_steps_do_not_count() -> None:
    bench = Bench()
    bench.step(9.0, plan_version=0)
    bench.step(9.0, error=RuntimeError("lost"))
    bench.step(0.01)
    bench.step(0.02)
    bench.observe(on.Tick(), do.AdoptPlan(Plan(2, "balanced", (Stage("w1", 0, 5),))))
    bench.step(9.0)  # plan 1
    bench.step(0.04, plan_version=2)
    bench.tick(IDLE_SAMPLE_S)
    assert [(r["num_steps"], r["compute_p50_s"]) for r in bench.written.of("stage") if r["worker_id"] == "w1"] == [(1, 0.04)]
    assert [(r["plan_version"]) for r in bench.written.of("plan")] == [2]


def test_every_step_only_when_asked() -> None:
    bench = Bench(every_step=True)
    bench.step(0.01)
    (step,) = bench.written.of("step")
    assert step["phase"] == "decode" and step["sessions"] == ["s-1"] and abs(step["step_s"] - 0.02) < 1e-9
    assert [row[2] for row in bench.written.rows if row[0] == "step"] == ["step-1"]


def test_events_keep_their_cause_or_name_their_subject() -> None:
    bench = Bench()
    bench.recorder.event(Event(7, 1.0, Severity.WARN, "node", "w1", "late", "cause-9"))
    bench.recorder.event(Event(8, 1.0, Severity.WARN, "node", "w1", "late"))
    assert [row[2] for row in bench.written.rows] == ["cause-9", "node:w1"]


def test_gauges_of_a_heartbeat_reach_the_sample() -> None:
    bench = Bench()
    member = bench.driver.cluster.members.get("w1")
    assert member is not None
    beat = on.HeartbeatArrived("w1", member.generation, "", -1.0, Gauges(11, 12, 1.5, 4, 0.75, 61.0, 48.0))
    bench.driver.feed(beat)
    bench.tick(IDLE_SAMPLE_S)
    row = next(r for r in bench.written.of("node") if r["worker_id"] == "w1")
    shown = {k: row[k] for k in ("resident_bytes", "kv_used_bytes", "cpu_utilisation", "queue_depth", "gpu_utilisation")}
    assert shown == {"resident_bytes": 11, "kv_used_bytes": 12, "cpu_utilisation": 1.5, "queue_depth": 4, "gpu_utilisation": 0.75}
    assert (row["gpu_temperature_c"], row["cpu_temperature_c"], row["state"]) == (61.0, 48.0, NodeState.OK)


def test_steps_that_are_never_answered_are_forgotten() -> None:
    bench = Bench()
    for step_id in range(1000):
        bench.observe(on.Tick(), do.SendStep(1, step_id, "w1", (Segment("s", 1, 0, (1,)),), 1))
        bench.observe(on.StepUndelivered(1, step_id, "gone"))
    assert bench.recorder._sent_s == {}
