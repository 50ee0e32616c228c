"""The problem document: what it means, and that every mistake is refused with its place, at once."""

from __future__ import annotations

import copy
import json
import math
from typing import Any

import pytest

from engine.data.errors import InvalidInput
from engine.planning.documents.problem_json import problem_document, problem_from, read_problem

GOOD: dict[str, Any] = {
    "items": [
        {"name": "embed", "weight_bytes": 100, "output_bytes": 8},
        {"name": "h.0", "weight_bytes": 40, "kv_bytes_per_token": 2, "output_bytes": 8},
        {"name": "head", "weight_bytes": 120, "tied_to": "embed"},
    ],
    "nodes": [{"id": "a", "memory_bytes": 8e9, "time_s": [0.1, 0.2, None]}, {"id": "b", "stage_time_s": [0.3, 0.2]}],
    "links": [{"from": "a", "to": "b", "latency_s": 0.5, "bandwidth_bytes_per_s": 16}],
    "sessions": 2,
    "context_tokens": 3,
}


def test_what_the_fields_mean() -> None:
    problem = problem_from(GOOD)
    assert problem.free_order and problem.return_hop and problem.link_cost == "overlapped" and problem.in_flight == 1
    assert problem.stage_bytes(0, 2) == 100 + 40 + 2 * 6
    assert problem.stage_bytes(0, 3) == 100 + 40 + 12 + 120 - 100  # the shared tensor is the smaller weight, held once
    assert problem.stage_s(0, 2, 3) == math.inf and problem.stage_s(1, 0, 2) == 0.2 and problem.stage_s(1, 0, 3) == math.inf
    assert problem.hop_s(0, 1, 1) == problem.hop_s(1, 0, 1) == 0.5 + 8 / 16
    assert problem.return_s(1, 0) == 0.5 + 4 / 16 and problem.nodes[1].memory_bytes == math.inf


MISTAKES: list[tuple[str, Any, str]] = [
    ("items", 1_000_000_000, "items is 1000000000: it must be a list"),
    ("items", [], "items has 0 entries"),
    ("items", [{}] * 5000, "items has 5000 entries: from 1 to 4096"),
    ("items.0.weight_bytes", -1, r"items\[0\].weight_bytes is -1: it must lie in"),
    ("items.0.weight_bytes", "1", r"items\[0\].weight_bytes is '1': it must be a number"),
    ("items.0.weight_bytes", True, "is True: it must be a number"),
    ("items.0.weight_bytes", 10**40, "a number beyond 1e30"),
    ("items.0.weihgt_bytes", 1, r"items\[0\] has an unknown key 'weihgt_bytes': did you mean 'weight_bytes'"),
    ("items.2.tied_to", "embd", "no such item: did you mean 'embed'"),
    ("items.2.tied_to", 2, "is the item itself"),
    ("items.2.tied_to", 3, "the items are 0 to 2"),
    ("items.2.tied_bytes", 101, "at most the smaller item's weight_bytes, 100"),
    ("items.0.name", "a\x1b[2J", "1 to 64 printable characters"),
    ("nodes", {}, "nodes is an object of 0: it must be a list"),
    ("nodes.0.time_s", [0.1], "has 1 times, the problem has 3 items"),
    ("nodes.0.time_s", [0.1, -0.2, 0.3], r"time_s\[1\] is -0.2"),
    ("nodes.0.time_s", [0.1, math.nan, 0.3], r"time_s\[1\] is nan"),
    ("nodes.0.stage_time_s", [1.0], "either time_s .* or stage_time_s"),
    ("nodes.0.memory_bytes", -5, "memory_bytes is -5"),
    ("nodes.0.memory_pool", "ram", "draws from memory pool 'ram': the pools are none"),
    ("links", 3, "links is 3"),
    ("links.0.to", "c", "no such node"),
    ("links.0.to", "a", "from a to itself"),
    ("links.0.bandwidth_bytes_per_s", 0, "must be more than 0"),
    ("links.0.latency_s", math.inf, "latency_s is inf"),
    ("node_order", "given!", "must be free or given"),
    ("link_cost", None, "missing or null: it must be overlapped or additive"),
    ("return_hop", 1, "must be true or false"),
    ("in_flight", 0, "whole number of at least 1"),
    ("sessions", 2.5, "whole number"),
    ("context_tokens", 10**12, "must lie in"),
    ("constraints", {"max_stage": 2}, "did you mean 'max_stages'"),
    ("constraints", {"pins": {"h.9": "a"}}, "no such item: did you mean 'h.0'"),
    ("constraints", {"pins": {"h.0": "z"}}, "to node 'z': the nodes are a, b"),
    ("constraints", {"stage_items": [1, 1]}, "adds up to 2 items, the problem has 3"),
    ("constraints", {"min_items_per_stage": 3, "max_items_per_stage": 2}, "contradict each other"),
    ("constraints", {"latency_limit_s": 0}, "more than 0 seconds"),
    ("linkz", {}, "unknown key 'linkz': did you mean 'links'"),
]


@pytest.mark.parametrize(("place", "value", "expected"), MISTAKES, ids=[f"{m[0]}-{k}" for k, m in enumerate(MISTAKES)])
def test_mistakes_are_refused_by_place(place: str, value: Any, expected: str) -> None:
    document: Any = copy.deepcopy(GOOD)
    *path, last = place.split(".")
    where = document
    for part in path:
        where = where[int(part) if part.isdigit() else part]
    where[last] = value
    with pytest.raises(InvalidInput, match=expected) as refused:
        problem_from(document)
    assert str(refused.value).isascii() and "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "not JSON"),
        ("[]", "the problem is a list of 0: it must be an object"),
        ("{}", "lacks 'items'"),
        ("[" * 100_000, "not JSON"),
        ('{"items": [{"weight_bytes": NaN}], "nodes": []}', "NaN is not a number"),
        ('{"items": 1, "items": 2}', "'items' is given twice"),
        ('{"items": [{"weight_bytes": 1' + "0" * 5000 + "}]}", "cannot be read"),
    ],
)
def test_texts_that_are_no_problem(text: str, expected: str) -> None:
    with pytest.raises(InvalidInput, match=expected):
        read_problem(text)


def test_names_of_nodes_must_differ() -> None:
    twice = {"items": [{}], "nodes": [{"id": "a", "time_s": [1]}, {"id": "a", "time_s": [1]}]}
    with pytest.raises(InvalidInput, match="'a' is given twice"):
        problem_from(twice)


@pytest.mark.parametrize("before", ["", "\ufeff"])
def test_a_written_document_is_read_back(before: str) -> None:
    """With a byte order mark too, which a library's caller may have left in the text."""
    assert read_problem(before + json.dumps(GOOD)) == problem_from(GOOD)


def test_coordinator_links_are_one_for_every_node() -> None:
    way = {"latency_s": 0.5}
    nodes = [{"id": name, "time_s": [1.0, 1.0]} for name in ("a", "b")]
    document = {"items": [{}, {}], "nodes": nodes, "coordinator_links": [{"node": n, "to_node": way, "from_node": {}} for n in ("a", "b")]}
    problem = problem_from(document)
    assert problem.return_s(1, 0) == problem.return_s(0, 0) == 0.5 and problem_from(problem_document(problem)) == problem
    with pytest.raises(InvalidInput, match="coordinator links are given for a: give one for every node, a, b"):
        problem_from({**document, "coordinator_links": document["coordinator_links"][:1]})
    with pytest.raises(InvalidInput, match=r"coordinator_links\[0\] lacks 'from_node'"):
        problem_from({**document, "coordinator_links": [{"node": "a", "to_node": way}]})
