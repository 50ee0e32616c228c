"""Who may hold layers, and workers that share one memory: from registration to plan and status."""

from __future__ import annotations

from dataclasses import replace

import pytest

from engine.control import commands as do
from engine.control import events as on
from engine.control.cluster import Cluster, ClusterConfig
from engine.control.status import cluster_status
from engine.data.errors import InvalidInput, Refused
from engine.data.plan import NodeSpec, Stage
from engine.data.precision import Identity
from engine.data.status import NodeState, Phase
from engine.planning.capability import MatchRules
from engine.planning.problem import MemoryPool
from engine.profile.hardware import DeviceType
from tests.control.harness import Driver, card, spec

GB = 10**9


def join(driver: Driver, worker_id: str, **facts: object) -> NodeSpec:
    driver.generation += 1
    found = replace(spec(worker_id, pid=driver.generation), **facts)  # type: ignore[arg-type]
    driver.feed(on.WorkerRegistered(found, driver.generation, ready=True))
    return found


def node(driver: Driver, worker_id: str):  # type: ignore[no-untyped-def]
    return next(n for n in cluster_status(driver.cluster, "c", driver.now_s).nodes if n.worker_id == worker_id)


REFUSED = [
    ({"dtypes": ("bfloat16", "float16")}, "cannot compute in float32, only in bfloat16, float16"),
    ({"memory_bytes": 2_050}, "the smallest layer h.0 needs 0 MB"),
]


@pytest.mark.parametrize(("facts", "reason"), REFUSED)
def test_a_worker_that_cannot_is_left_out_unmeasured_and_its_status_says_why(facts: dict[str, object], reason: str) -> None:
    driver = Driver(num_workers=3)
    driver.feed(on.ModelReady(card()))
    join(driver, "w1", dtypes=("float32",))
    join(driver, "w2", **facts)
    join(driver, "w3")  # did not say what it supports
    measured = {c.worker_id for c in driver.seen if isinstance(c, do.MeasureWorker)}
    assert measured == {"w1", "w3"} and driver.cluster.phase is Phase.SERVING
    assert driver.cluster.plan is not None and [s.node_id for s in driver.cluster.plan.stages] == ["w1", "w3"]
    assert reason in node(driver, "w2").detail and node(driver, "w2").state is NodeState.WARN
    assert any(text.startswith("left out: w2") and reason in text for text in driver.texts())


def test_the_model_may_come_after_the_workers() -> None:
    driver = Driver(num_workers=2)
    join(driver, "w1", dtypes=("float16",))
    join(driver, "w2", dtypes=("float32",))
    driver.feed(on.ModelReady(card()))
    assert driver.cluster.plan is not None and [s.node_id for s in driver.cluster.plan.stages] == ["w2"]
    assert "cannot compute in float32" in node(driver, "w1").detail


def test_a_cluster_of_nobody_who_can_says_so() -> None:
    driver = Driver(num_workers=1)
    driver.feed(on.ModelReady(card()))
    join(driver, "w1", dtypes=("float16",))
    assert "cannot compute in float32, only in float16" in driver.cluster.state.failure
    driver.feed(on.WorkerLost("w1", driver.generation, "its connection broke"))
    join(driver, "w1", dtypes=("float32",))
    assert driver.cluster.state.failure == "" and driver.cluster.phase is Phase.SERVING


def test_an_operator_says_what_kinds_of_device_may_hold_layers() -> None:
    driver = Driver(num_workers=2)
    driver.cluster = Cluster(ClusterConfig(2, rules=MatchRules(device_types=frozenset({DeviceType.CUDA}))), 0.0)
    driver.feed(on.ModelReady(card()))
    join(driver, "w1")
    join(driver, "w2", device_type="cuda")
    assert driver.cluster.plan is not None and [s.node_id for s in driver.cluster.plan.stages] == ["w2"]
    assert "is of type cpu, allowed are cuda" in node(driver, "w1").detail
    assert cluster_status(driver.cluster, "c", driver.now_s).identity is Identity.SAME_TOKENS, "only what computes counts"


def test_a_plan_over_two_kinds_of_device_lowers_the_grade_of_identity() -> None:
    driver = Driver(num_workers=2)
    assert cluster_status(driver.cluster, "c", driver.now_s).identity is Identity.UNKNOWN
    driver.feed(on.ModelReady(card()))
    join(driver, "w1")
    assert cluster_status(driver.cluster, "c", driver.now_s).identity is Identity.SAME_TOKENS
    join(driver, "w2", device_type="cuda")
    assert driver.cluster.plan is not None and len(driver.cluster.plan.stages) == 2
    assert cluster_status(driver.cluster, "c", driver.now_s).identity is Identity.WITHIN_TOLERANCE


# --- shared memory ------------------------------------------------------------------------------------------------
SHARED = {"pool_id": "host-a", "memory_bytes": 700, "kv_budget_bytes": 100}


def test_workers_of_one_host_cannot_hold_more_than_its_memory_together() -> None:
    """Each alone could hold all 500 bytes of weights; together the two on one host have 500 for weights and KV budgets."""
    driver = Driver(num_workers=3)
    driver.feed(on.ModelReady(card()))
    join(driver, "w1", pool_bytes=500, **SHARED)
    join(driver, "w2", pool_bytes=450, **SHARED)  # saw what w1 had taken already
    join(driver, "w3", memory_bytes=400, kv_budget_bytes=100)
    problem, plan = driver.cluster.problem(), driver.cluster.plan
    assert problem.pools == (MemoryPool("host-a", 500.0),) and plan is not None
    held = {s.node_id: s.num_items * 100 + 100 for s in plan.stages}
    assert held["w1"] + held["w2"] <= 500 and sum(s.num_items for s in plan.stages) == 5
    alone = Driver(num_workers=2)
    alone.feed(on.ModelReady(card()))
    join(alone, "w1", pool_bytes=500, **SHARED)
    join(alone, "w2", pool_bytes=500, **SHARED)
    assert alone.cluster.plan is None and "500 MB" not in alone.cluster.state.detail and "no placement" in alone.cluster.state.detail


def test_workers_that_divide_their_hosts_memory_need_no_pool() -> None:
    driver = Driver(num_workers=2)
    driver.feed(on.ModelReady(card()))
    join(driver, "w1", pool_bytes=1_400, **SHARED)
    join(driver, "w2", pool_bytes=1_400, **SHARED)
    assert driver.cluster.problem().pools == () and [n.buffer_bytes for n in driver.cluster.problem().nodes] == [0.0, 0.0]


def test_an_operators_cut_must_fit_into_shared_memory_too() -> None:
    driver = Driver(num_workers=3)
    driver.feed(on.ModelReady(card()))
    join(driver, "w1", pool_bytes=500, **SHARED)
    join(driver, "w2", pool_bytes=500, **SHARED)
    join(driver, "w3", memory_bytes=400, kv_budget_bytes=100)
    with pytest.raises((Refused, InvalidInput), match="more than the 0 MB of the memory host-a that they share"):
        driver.cluster.preview(stages=(Stage("w1", 0, 2), Stage("w2", 2, 4), Stage("w3", 4, 5)))
    assert driver.cluster.preview(stages=(Stage("w1", 0, 1), Stage("w2", 1, 3), Stage("w3", 3, 5))).stages
