"""A cluster that was told its layer counts uses them, and says what is wrong with them."""

from __future__ import annotations

import pytest

from engine.control import events as on
from engine.control.cluster import Cluster, ClusterConfig
from engine.data.plan import Stage
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


FOUND = (Stage("w1", 0, 2), Stage("w2", 2, 4), Stage("w3", 4, 5))


@pytest.mark.parametrize(("strategy", "stages"), [("", ()), ("balanced", ()), ("balanced", FOUND)])
def test_once_a_search_was_asked_for_the_counts_are_no_more(strategy: str, stages: tuple[Stage, ...]) -> None:
    """And what follows later, such as a drain, does not go back to them."""
    driver = started(3, 1, 3, 1)
    driver.feed(on.ReplanRequested(1, strategy, stages))
    assert driver.cluster.plan is not None and sorted(s.num_items for s in driver.cluster.plan.stages) == [1, 2, 2]
    driver.feed(on.DrainRequested(("w1",)))
    assert driver.cluster.plan_version == 3 and [s.node_id for s in driver.cluster.plan.stages] == ["w2", "w3"]


def test_an_operators_own_stages_leave_the_counts_as_they_are() -> None:
    driver = started(3, 1, 3, 1)
    driver.feed(on.ReplanRequested(1, "", FOUND))
    assert driver.cluster.plan_version == 2 and driver.cluster.config.layers == (1, 3, 1)
