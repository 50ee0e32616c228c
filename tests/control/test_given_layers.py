"""A cluster that was told its layer counts uses them, and says what is wrong with them."""

from __future__ import annotations

from engine.control.cluster import Cluster, ClusterConfig
from engine.data.status import Phase
from tests.control.harness import Driver


def started(num_workers: int, *layers: int) -> Driver:
    driver = Driver(num_workers)
    driver.cluster = Cluster(ClusterConfig(num_workers_expected=num_workers, layers=layers), 0.0)
    return driver.start()


def test_the_counts_are_the_plan() -> None:
    driver = started(3, 1, 3, 1)
    assert driver.cluster.phase is Phase.SERVING and driver.cluster.plan is not None
    assert [(s.node_id, s.start, s.stop) for s in driver.cluster.plan.stages] == [("w1", 0, 1), ("w2", 1, 4), ("w3", 4, 5)]
    driver.submit("s1")
    assert driver.tokens["s1"] and driver.finished["s1"].error is None


def test_nodes_beyond_the_counts_are_left_out() -> None:
    driver = started(3, 2, 3)
    assert driver.cluster.plan is not None and [s.node_id for s in driver.cluster.plan.stages] == ["w1", "w2"]


def test_counts_that_do_not_fit_the_model_end_in_a_sentence() -> None:
    driver = started(3, 2, 2)
    assert driver.cluster.phase is Phase.GATHERING
    assert "layers 2,2 are 4 items, the model has 5" in driver.cluster.state.failure


def test_an_operator_may_ask_for_a_search_instead() -> None:
    driver = started(2, 1, 4)
    assert [s.num_items for s in driver.cluster.preview("balanced").stages] in ([3, 2], [2, 3])
    assert [s.num_items for s in driver.cluster.preview().stages] == [1, 4]
