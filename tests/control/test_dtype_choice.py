"""`--dtype auto`: chosen once, from what the workers that are waited for say of themselves, before the first is measured."""

from __future__ import annotations

from dataclasses import replace

import pytest

from engine.control import commands as do
from engine.control import events as on
from engine.control.nodes.dtype_choice import chosen, fits
from engine.control.status import cluster_status
from engine.data.model import Item, ModelCard, ModelRef
from engine.data.plan import NodeSpec
from engine.data.precision import Identity
from engine.data.status import Phase
from tests.control.harness import Driver, card, spec

DTYPES = ("float32", "bfloat16", "float16")


def cards(*sizes: int, tied: int = 0) -> tuple[ModelCard, ModelCard]:
    """Of items of that many bytes in float32; the first and the last may share some."""
    items = [Item(f"i.{index}", size, 0, 0) for index, size in enumerate(sizes)]
    if tied:
        items[0], items[-1] = replace(items[0], tied_to=len(items) - 1, tied_bytes=tied), replace(items[-1], tied_to=0, tied_bytes=tied)
    first = replace(card(), ref=ModelRef("m", 0, "float32"), items=tuple(items), stored_dtype="bfloat16")
    halves = tuple(replace(i, weight_bytes=i.weight_bytes // 2, tied_bytes=i.tied_bytes // 2) for i in items)
    return first, replace(first, ref=ModelRef("m", 0, "bfloat16"), items=halves)


def node(name: str, room_bytes: int, **facts: object) -> NodeSpec:
    """With so many bytes beside its KV budget."""
    plain = spec(name)
    return replace(plain, memory_bytes=room_bytes + plain.kv_budget_bytes, dtypes=DTYPES, **facts)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("rooms", "is_enough"),
    [
        ((30,), True),
        ((29,), False),
        ((20, 10), True),
        ((10, 20), True),
        ((15, 15), False),
        ((19, 19), False),
        ((19, 20), True),
        ((9, 9, 9, 9), False),
    ],
)
def test_items_stay_whole_and_in_a_row(rooms: tuple[int, ...], is_enough: bool) -> None:
    assert fits(cards(10, 10, 10)[0], [node(f"w{i}", room) for i, room in enumerate(rooms)]) is is_enough


def test_a_tied_table_and_a_memory_that_workers_share_count_once() -> None:
    tied = cards(10, 10, 10, tied=8)[0]
    assert fits(tied, [node("a", 22)]) and not fits(tied, [node("a", 21)])
    assert not fits(tied, [node("a", 20), node("b", 9)]) and fits(tied, [node("a", 20), node("b", 10)])
    budgets = 2 * spec("a").kv_budget_bytes
    for pool_bytes, is_enough in ((30, True), (29, False)):
        pooled = [node(name, 30, pool_id="p", pool_bytes=pool_bytes + budgets) for name in ("a", "b")]
        assert fits(cards(10, 10, 10)[0], pooled) is is_enough


def test_what_a_worker_does_not_compute_in_is_not_chosen() -> None:
    small = node("a", 15)
    assert chosen(cards(10, 10, 10), [small]).card.ref.dtype == "bfloat16"
    assert chosen(cards(10, 10, 10), [replace(small, dtypes=("float32",))]).card.ref.dtype == "float32"


def undecided(num_workers: int) -> Driver:
    driver, first = Driver(num_workers=num_workers), replace(card(), stored_dtype="bfloat16")
    second = replace(first, ref=replace(first.ref, dtype="bfloat16"))
    driver.feed(on.ModelReady(first, (), (second,)))
    return driver


def join(driver: Driver, name: str, **facts: object) -> None:
    driver.generation += 1
    found = replace(spec(name, pid=driver.generation), **{"dtypes": DTYPES, **facts})  # type: ignore[arg-type]
    driver.feed(on.WorkerRegistered(found, driver.generation, ready=True))


def test_nobody_is_measured_before_all_are_known_and_then_all_in_one_dtype() -> None:
    driver = undecided(2)
    join(driver, "w1")
    status = cluster_status(driver.cluster, "c", driver.now_s)
    assert (status.model.precision.computed_dtype, status.identity) == ("", Identity.UNKNOWN)
    assert not any(isinstance(c, do.MeasureWorker) for c in driver.seen)
    join(driver, "w2")
    assert [c.worker_id for c in driver.seen if isinstance(c, do.MeasureWorker)] == ["w1", "w2"]
    assert [c.dtype for c in driver.seen if isinstance(c, do.KeepDtype)] == ["float32"]
    assert any(text.startswith("--dtype auto is float32: ") for text in driver.texts())
    status = cluster_status(driver.cluster, "c", driver.now_s)
    assert (status.phase, status.model.precision.computed_dtype, status.identity) == (Phase.SERVING, "float32", Identity.SAME_TOKENS)


def test_a_choice_outlives_the_workers_that_it_was_made_for() -> None:
    driver = undecided(1)
    join(driver, "w1")
    driver.feed(on.WorkerLost("w1", driver.generation, "killed"))
    join(driver, "w2", dtypes=("bfloat16",))
    assert driver.cluster.card is not None and driver.cluster.card.ref.dtype == "float32"
    assert len([c for c in driver.seen if isinstance(c, do.KeepDtype)]) == 1
    assert any("cannot compute in float32" in text for text in driver.texts())


def test_a_session_may_be_asked_for_before_the_choice() -> None:
    driver = undecided(1)
    driver.submit("a")
    join(driver, "w1")
    assert len(driver.tokens["a"]) == driver.wanted["a"]


@pytest.mark.parametrize("kv_dtype", ["int8", "bfloat16"])
def test_a_gpu_that_would_have_to_round_kv_is_left_out(kv_dtype: str) -> None:
    driver, plain = Driver(num_workers=2), card()
    driver.feed(on.ModelReady(replace(plain, ref=replace(plain.ref, kv_dtype=kv_dtype))))
    join(driver, "w1")
    join(driver, "w2", device_type="cuda", device="cuda:0")
    assert driver.cluster.plan is not None and [s.node_id for s in driver.cluster.plan.stages] == ["w1"]
    assert any(f"not in {kv_dtype}: use --kv-dtype auto" in text for text in driver.texts())
