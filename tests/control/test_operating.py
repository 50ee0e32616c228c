"""What an operator asks of single nodes has a way back, outlives the node's process, and is never refused in silence."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.control import commands as do
from engine.control import events as on
from engine.control.cluster import Cluster, ClusterConfig
from engine.control.move_estimate import preview_of_drains
from engine.control.nodes import members
from engine.control.nodes.members import Supposed
from engine.control.placement import num_stages, plan_for
from engine.control.status import cluster_status
from engine.data.errors import NotFound, Refused, Stale
from engine.data.plan import Plan, Stage
from engine.data.status import NodeState, Phase
from tests.control.harness import Driver, card


def nodes_of(driver: Driver) -> list[str]:
    assert driver.cluster.plan is not None
    return [s.node_id for s in driver.cluster.plan.stages]


def drained(driver: Driver) -> list[tuple[str, ...]]:
    return [c.worker_ids for c in driver.seen if isinstance(c, do.KeepDrained)]


def lose(driver: Driver, worker_id: str) -> None:
    member = driver.cluster.members.get(worker_id)
    assert member is not None
    driver.feed(on.WorkerLost(worker_id, member.generation, "its connection broke"))


def test_an_undrained_node_gets_items_again_as_its_preview_said() -> None:
    driver = Driver().start()
    driver.feed(on.DrainRequested(("w2",)))
    assert nodes_of(driver) == ["w1", "w3"] and drained(driver) == [("w2",)]
    promised = preview_of_drains(driver.cluster, Supposed(undrained=("w2",)))
    driver.feed(on.UndrainRequested(("w2",), driver.cluster.plan_version))
    assert driver.cluster.plan is not None and driver.cluster.plan.stages == promised.stages and "w2" in nodes_of(driver)
    assert drained(driver) == [("w2",), ()] and any("takes part again" in text for text in driver.texts())


def test_a_drained_node_is_not_drained_twice_and_promises_nothing() -> None:
    driver = Driver().start()
    driver.feed(on.DrainRequested(("w2",)))
    with pytest.raises(Refused, match="w2 is drained already: `noodle-engine undrain w2`"):
        driver.feed(on.DrainRequested(("w2",)))
    with pytest.raises(Refused, match="drained already"):
        preview_of_drains(driver.cluster, Supposed(drained=("w2",)))
    assert driver.cluster.plan_version == 2


def test_what_is_not_drained_cannot_be_undrained() -> None:
    driver = Driver().start()
    for ask in (lambda: driver.feed(on.UndrainRequested(("w1",))), lambda: preview_of_drains(driver.cluster, Supposed(undrained=("w1",)))):
        with pytest.raises(Refused, match="w1 is not drained"):
            ask()
    with pytest.raises(NotFound, match="no node is called w9"):
        driver.feed(on.UndrainRequested(("w9",)))
    driver.feed(on.DrainRequested(("w2",)))
    with pytest.raises(Refused, match="the plan is #2 now, the request was made for #1"):
        driver.feed(on.UndrainRequested(("w2",), 1))


def test_a_drain_outlives_the_process_and_the_coordinator() -> None:
    driver = Driver().start()
    driver.feed(on.DrainRequested(("w2",)))
    lose(driver, "w2")
    driver.join("w2")
    assert nodes_of(driver) == ["w1", "w3"] and driver.cluster.plan_version == 2  # its return changes no plan
    assert not any("w2 joined" in text for text in driver.texts())  # nor is one looked for
    (node,) = [n for n in cluster_status(driver.cluster, "c", driver.now_s).nodes if n.worker_id == "w2"]
    assert node.is_drained and node.state is NodeState.DRAINING
    next_one = Driver(num_workers=3)
    next_one.cluster = Cluster(ClusterConfig(num_workers_expected=3), 0.0, last_plan_version=2, drained=drained(driver)[-1])
    next_one.start()
    assert nodes_of(next_one) == ["w1", "w3"]


def test_a_node_drained_before_the_first_plan_is_not_waited_for() -> None:
    driver = Driver(num_workers=3)
    driver.feed(on.ModelReady(card()))
    for worker_id in ("w1", "w2"):
        driver.join(worker_id)
    driver.feed(on.DrainRequested(("w1",)))
    assert driver.cluster.plan is None
    driver.join("w3")
    assert nodes_of(driver) == ["w2", "w3"]


def test_where_only_drained_nodes_are_left_the_way_out_is_said_and_works() -> None:
    driver = Driver(num_workers=2).start()
    driver.feed(on.DrainRequested(("w2",)))
    lose(driver, "w1")
    driver.now_s += 1.0
    driver.feed(on.Tick())
    assert driver.cluster.phase is Phase.GATHERING
    assert "`noodle-engine undrain w2` takes one in again" in cluster_status(driver.cluster, "c", driver.now_s).detail
    driver.feed(on.UndrainRequested(("w2",)))
    driver.now_s += 1.0
    driver.feed(on.Tick())
    assert nodes_of(driver) == ["w2"] and "undrain" not in cluster_status(driver.cluster, "c", driver.now_s).detail


def test_only_a_lost_node_can_be_forgotten_and_then_it_is_gone() -> None:
    driver = Driver().start()
    with pytest.raises(Refused, match=r"w2 is alive \(ok\): stop its worker first, or drain it"):
        driver.feed(on.ForgetRequested("w2"))
    with pytest.raises(NotFound, match="no node is called w9"):
        driver.feed(on.ForgetRequested("w9"))
    driver.feed(on.DrainRequested(("w2",)))
    lose(driver, "w2")
    driver.feed(on.ForgetRequested("w2"))
    status = cluster_status(driver.cluster, "c", driver.now_s)
    assert [n.worker_id for n in status.nodes] == ["w1", "w3"] and status.num_workers_expected == 2
    assert drained(driver)[-1] == ()
    driver.join("w2")
    assert "w2" in nodes_of(driver)  # a stranger now, and welcome


def test_of_lost_nodes_the_last_ones_are_remembered_and_those_that_are_drained(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker without a name of its own has another one after every start."""
    monkeypatch.setattr(members, "MAX_LOST", 3)
    driver = Driver(num_workers=2).start()
    driver.join("kept")
    driver.feed(on.DrainRequested(("kept",)))
    lose(driver, "kept")
    for number in range(6):
        driver.now_s += 1.0
        driver.join(f"x{number}")
        lose(driver, f"x{number}")
    assert [m.spec.node_id for m in driver.cluster.members] == ["kept", "w1", "w2", "x3", "x4", "x5"]
    assert driver.cluster.phase is Phase.SERVING and drained(driver)[-1] == ("kept",)
    driver.join("x0")
    assert len(cluster_status(driver.cluster, "c", driver.now_s).nodes) == 7  # a stranger, and welcome


def test_a_drained_node_that_is_absent_can_be_forgotten_too() -> None:
    driver = Driver(num_workers=1)
    driver.cluster = Cluster(ClusterConfig(), 0.0, drained=("gone",))
    driver.feed(on.ForgetRequested("gone"))
    assert driver.cluster.members.drained == () and driver.cluster.gathering.num_expected == 1


def test_a_first_plan_does_not_wait_for_a_node_that_was_forgotten() -> None:
    driver = Driver(num_workers=3)
    driver.feed(on.ModelReady(card()))
    for worker_id in ("w1", "w2", "w3")[:2]:
        driver.join(worker_id)
    lose(driver, "w2")
    driver.feed(on.ForgetRequested("w2"))
    assert driver.cluster.state.detail == "waiting for 2 workers" and driver.cluster.plan is None
    driver.join("w3")
    assert nodes_of(driver) == ["w1", "w3"]


def test_a_node_more_than_expected_can_be_forgotten_without_the_rest_being_fewer() -> None:
    driver = Driver(num_workers=2).start()
    driver.join("w3")
    lose(driver, "w3")
    driver.feed(on.ForgetRequested("w3"))
    assert driver.cluster.gathering.num_expected == 2


# --- several nodes at once -----------------------------------------------------------------------------------------
@given(st.lists(st.sampled_from([0.5, 1.0, 2.0, 3.0]), min_size=3, max_size=5), st.data())
def test_one_plan_leaves_several_nodes_out_and_is_that_of_a_cluster_without_them(times: list[float], data: st.DataObject) -> None:
    names = [f"w{i + 1}" for i in range(len(times))]
    out = tuple(data.draw(st.lists(st.sampled_from(names), unique=True, min_size=1, max_size=len(names) - 1)))
    driver = Driver(len(names), times=dict(zip(names, times, strict=True))).start()
    promised = preview_of_drains(driver.cluster, Supposed(drained=out))
    whole = driver.cluster.problem()
    nodes, ends = (tuple(part for part in parts if part.node_id not in out) for parts in (whole.nodes, whole.coordinator))
    reference = plan_for(replace(whole, nodes=nodes, coordinator=ends), driver.cluster.config, driver.cluster.strategy, 2, (), False)
    assert promised.stages == reference.stages and promised.bottleneck_s == reference.bottleneck_s
    served = {*nodes_of(driver)} & {*out}
    driver.feed(on.DrainRequested(out, 1))
    assert driver.cluster.plan is not None and driver.cluster.plan.stages == promised.stages
    assert driver.cluster.plan_version == (2 if served else 1), "one move for all of them, none where they held nothing"
    assert drained(driver) == [tuple(sorted(out))]
    back = preview_of_drains(driver.cluster, Supposed(undrained=out))
    driver.feed(on.UndrainRequested(out))
    assert driver.cluster.plan.stages == back.stages and drained(driver)[-1] == ()


def test_of_several_nodes_all_are_drained_or_none() -> None:
    driver = Driver().start()
    driver.feed(on.DrainRequested(("w2",)))
    for names, why in (
        (("w1", "w2"), "w2 is drained already"),
        (("w1", "w9"), "worker w9 is not in the cluster"),
        (("w1", "w3"), "w1, w3 are the only workers that can hold the model"),
    ):
        with pytest.raises((Refused, NotFound), match=why):
            driver.feed(on.DrainRequested(names))
    with pytest.raises(Refused, match="w1 is not drained"):
        driver.feed(on.UndrainRequested(("w2", "w1")))
    assert driver.cluster.members.drained == ("w2",) and driver.cluster.plan_version == 2


# --- a worker that is to end ----------------------------------------------------------------------------------------
def leave(driver: Driver, worker_id: str) -> None:
    member = driver.cluster.members.named(worker_id)
    driver.feed(on.LeaveRequested(worker_id, member.generation))


def test_a_worker_that_leaves_hands_over_and_its_end_is_no_loss() -> None:
    """And the next process of its name takes part at once: nobody has to end a drain."""
    driver = Driver().start()
    leave(driver, "w2")
    assert nodes_of(driver) == ["w1", "w3"] and drained(driver) == []
    assert driver.cluster.members.named("w2").shown_state() is NodeState.DRAINING
    lose(driver, "w2")
    assert "left, and held nothing any more" in driver.texts() and not any("lost" in text for text in driver.texts())
    assert driver.cluster.phase is Phase.SERVING and nodes_of(driver) == ["w1", "w3"]
    driver.join("w2")
    assert sorted(nodes_of(driver)) == ["w1", "w2", "w3"]


def test_a_worker_that_ends_before_it_handed_over_is_lost_as_ever() -> None:
    driver = Driver().start()
    driver.cluster.members.named("w2").leaving = True
    lose(driver, "w2")
    assert any(text.startswith("lost: ") for text in driver.texts()) and "w2" not in nodes_of(driver)


def test_the_last_worker_and_a_former_process_cannot_leave() -> None:
    driver = Driver().start()
    with pytest.raises(Stale, match="registration 999 of w2 is not current"):
        driver.feed(on.LeaveRequested("w2", 999))
    for worker_id in ("w1", "w2"):
        leave(driver, worker_id)
    with pytest.raises(Refused, match="w3 is the only worker that can hold the model"):
        leave(driver, "w3")
    assert nodes_of(driver) == ["w3"]


def test_one_stage_is_one_stage() -> None:
    stages = (Stage("w1", 0, 2), Stage("w2", 2, 4))
    assert [num_stages(Plan(1, "balanced", stages[:count])) for count in (1, 2)] == ["1 stage", "2 stages"]
