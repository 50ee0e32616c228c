"""Which workers the nodes of a Ray cluster hold; no Ray is needed for that."""

from __future__ import annotations

from typing import Any

import pytest

from engine.service.on_ray.places import RayNode, bundle_for_all, bundle_of, free_names, living, num_on, share_of_host, shortage


def node(name: str, host: str = "10.0.0.1", **total: float) -> RayNode:
    return RayNode(name, host, total)


PLAIN, TWO_GPUS, SMALL = node("a", CPU=16.0), node("b", CPU=8.0, GPU=2.0), node("c", CPU=0.5)


def test_nodes_that_live_in_a_steady_order() -> None:
    documents: list[dict[str, Any]] = [
        {"NodeID": "b", "Alive": True, "NodeManagerAddress": "10.0.0.2", "Resources": {"CPU": 2.0}},
        {"NodeID": "x", "Alive": False, "NodeManagerAddress": "10.0.0.9", "Resources": {"CPU": 2.0}},
        {"NodeID": "a", "Alive": True, "NodeManagerAddress": "10.0.0.1", "Resources": {"CPU": 1.0}},
    ]
    assert living(documents) == (node("a", CPU=1.0), node("b", "10.0.0.2", CPU=2.0))


@pytest.mark.parametrize(
    ("place", "asked", "number"),
    [
        (PLAIN, None, 1),
        (TWO_GPUS, None, 2),
        (SMALL, None, 0),
        (PLAIN, {"CPU": 4.0}, 1),
        (PLAIN, {"CPU": 32.0}, 0),
        (TWO_GPUS, {"CPU": 1.0, "GPU": 0.5}, 4),
        (PLAIN, {"CPU": 1.0, "GPU": 1.0}, 0),
        (node("d", CPU=1.0, big=1.0), {"CPU": 1.0, "big": 1.0}, 1),
        (node("e", CPU=3.0, GPU=0.3), {"GPU": 0.1}, 3),
    ],
)
def test_a_node_holds_one_worker_for_each_gpu_or_one(place: RayNode, asked: dict[str, float] | None, number: int) -> None:
    assert num_on(place, asked) == number


def test_a_worker_takes_a_gpu_where_there_is_one_for_it() -> None:
    assert bundle_of(PLAIN, None) == {"CPU": 1.0} and bundle_of(TWO_GPUS, None) == {"CPU": 1.0, "GPU": 1.0}
    assert bundle_for_all([PLAIN, TWO_GPUS], 2, None) == {"CPU": 1.0, "GPU": 1.0}
    assert bundle_for_all([PLAIN, TWO_GPUS], 3, None) == {"CPU": 1.0}
    assert bundle_for_all([PLAIN, TWO_GPUS], 3, {"CPU": 2.0}) == {"CPU": 2.0}


def test_a_shortage_is_told_with_its_numbers() -> None:
    assert shortage([PLAIN, TWO_GPUS], 24, {"CPU": 1.0}) == ""
    said = shortage([PLAIN, TWO_GPUS], 3, {"CPU": 1.0, "GPU": 1.0})
    assert "room for 2 of 3 workers that take CPU=1,GPU=1 each, on 2 nodes" in said and "--workers" in said
    assert "room for 0 of 1" in shortage([], 1, {"CPU": 1.0})


def test_who_comes_after_a_lost_node_takes_its_name() -> None:
    assert free_names((), 3) == ["w1", "w2", "w3"] and free_names(("w1", "w3"), 2) == ["w2", "w4"]


def test_workers_of_one_host_share_its_memory() -> None:
    assert share_of_host([PLAIN, TWO_GPUS], 3) == 3
    assert share_of_host([PLAIN, node("b", "10.0.0.2")], 3) == 2 and share_of_host([], 2) == 2
