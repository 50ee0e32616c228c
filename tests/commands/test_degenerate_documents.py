"""Documents that nobody means to write: every one ends with a plan or one sentence, never with a traceback."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.cli import main
from engine.planning.strategies import STRATEGIES

PLAN: dict[str, Any] = {
    "items": [{"name": f"h.{i}", "weight_bytes": 10, "kv_bytes_per_token": 1, "output_bytes": 8, "workspace_bytes": 1} for i in range(4)],
    "nodes": [
        {"id": "a", "memory_bytes": 60, "time_s": [0.1, 0.2, 0.3, 0.4], "base_s": 0.01, "price_per_s": 1},
        {"id": "b", "memory_bytes": 60, "time_s": [0.2] * 4, "memory_pool": "p", "buffer_bytes": 1},
        {"id": "c", "memory_bytes": 60, "stage_time_s": [0.1, 0.2, 0.3], "memory_pool": "p"},
    ],
    "links": {"latency_s": 0.001, "bandwidth_bytes_per_s": 1000},
    "coordinator_links": [{"node": n, "to_node": {"latency_s": 0.1}, "from_node": {}} for n in "abc"],
    "node_order": "free",
    "link_cost": "overlapped",
    "return_hop": True,
    "sessions": 2,
    "context_tokens": 3,
    "in_flight": 2,
    "use_all_nodes": False,
    "memory_pools": [{"id": "p", "memory_bytes": 90}],
    "constraints": {"pins": {"h.0": "a"}, "forbidden_nodes": [], "max_stages": 3, "latency_limit_s": 100, "memory_reserve_bytes": 1},
}
PAIRS = [{"from": x, "to": y, "latency_s": 0.01} for x, y in ("ab", "bc", "ac")]
ODD: list[Any] = [
    None,
    0,
    -1,
    1,
    0.5,
    1e-320,
    1e308,
    1e400,
    -1e308,
    float("nan"),
    10**400,
    "",
    "a",
    "h.0",
    "\ud800",
    [],
    {},
    [[]],
    True,
    False,
]
ODD += [EVERYTHING := ["a", "b", "c"], dict.fromkeys(EVERYTHING, "a"), [0.0] * 4, [None] * 4]
MILD: list[Any] = [0, 1, 0.5, 1e-12, 1e12, 1e-320, 3, False]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place of a document."""
    yield path
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in inside:
        yield from places(part, (*path, key))


def changed(document: Any, path: tuple[Any, ...], odd: Any) -> Any:
    """With `odd` in one place."""
    if not path:
        return odd
    document = copy.deepcopy(document)
    part = document
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = odd
    return document


def documents(seed: int, count: int) -> Iterator[Any]:
    rng = random.Random(seed)
    for _ in range(count):
        document: Any = copy.deepcopy(PLAN)
        if rng.random() < 0.4:
            document["links"] = copy.deepcopy(PAIRS)
        for name in [name for name in document if name not in ("items", "nodes") and rng.random() < 0.1]:
            del document[name]
        for _ in range(rng.choice([1, 1, 1, 2, 4])):
            path = rng.choice(list(places(document)))
            document = changed(document, path, rng.choice(MILD if rng.random() < 0.5 else ODD))
            if not isinstance(document, dict):
                break
        yield document


def outcome(document: Any, path: Path, *options: str) -> tuple[int, str]:
    text = document if isinstance(document, str) else json.dumps(document, ensure_ascii=True)
    path.write_text(text, encoding="utf-8")
    return main(["plan", "--problem", str(path), *options]), text


def check(code: int, text: str, capsys: pytest.CaptureFixture[str]) -> bool:
    """Whether a plan came out; else one sentence did, or with --compare one for each strategy."""
    captured = capsys.readouterr()
    assert code in (0, 1, 2), text
    if captured.out.startswith("{"):
        found = json.loads(captured.out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON: {text}"))
        sentences = [row["failure"] for row in found.get("plans", []) if row["plan"] is None]
    else:
        sentences = []
    if code and not sentences:
        sentences = captured.err.removeprefix("noodle-engine: ").splitlines()
        assert len(sentences) == 1, text
    for sentence in sentences:
        assert sentence.isascii() and 10 < len(sentence) < 1000 and "Traceback" not in sentence, (text, sentence)
    return code == 0


@pytest.mark.parametrize("seed", range(4))
def test_no_document_ends_in_a_traceback(seed: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng, solved = random.Random(seed), 0
    for document in documents(seed, 150):
        options = [["--strategy", rng.choice(STRATEGIES)], ["--compare", "--json"], ["--strategy", rng.choice(STRATEGIES), "--json"]]
        solved += check(*outcome(document, tmp_path / "p.json", *rng.choice(options)), capsys)
    assert 5 < solved < 145, "the fuzz reaches both sides"


DEGENERATE = {
    "every node is forbidden": changed(PLAN, ("constraints", "forbidden_nodes"), EVERYTHING),
    "has 0 entries": changed(PLAN, ("items",), []),
    "nodes has 0 entries": changed(PLAN, ("nodes",), []),
    "can run on none of the nodes": {**PLAN, "nodes": [{"id": "a", "time_s": [None] * 4}], "coordinator_links": [], "constraints": {}},
    "alone needs": {**PLAN, "nodes": [{"id": "a", "memory_bytes": 0, "time_s": [1] * 4}], "coordinator_links": [], "constraints": {}},
    "are not connected": {**PLAN, "links": [], "constraints": {"min_items_per_stage": 1}},
    "return_hop is false": changed(PLAN, ("return_hop",), False),
    "several items have this name": changed(changed(PLAN, ("items", 1, "name"), "h.0"), ("constraints", "pins"), {"h.0": "a"}),
    "keep one of the pins": changed(PLAN, ("constraints", "pins"), {"h.0": "a", "0": "b"}),
}


@pytest.mark.parametrize("sentence", DEGENERATE)
def test_what_cannot_be_is_said(sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _ = outcome(DEGENERATE[sentence], tmp_path / "p.json")
    assert code in (1, 2) and sentence in capsys.readouterr().err


def test_one_item_with_no_time_and_no_size_is_a_plan(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for strategy in STRATEGIES:
        for options in ([], ["--json"]):
            nothing = {"items": [{}], "nodes": [{"id": "a", "memory_bytes": 0, "time_s": [0]}]}
            assert check(*outcome(nothing, tmp_path / "p.json", "--strategy", strategy, *options), capsys)


def test_a_byte_order_mark_is_no_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(*outcome("\ufeff" + json.dumps({**PLAN, "constraints": {}}), tmp_path / "p.json"), capsys)
