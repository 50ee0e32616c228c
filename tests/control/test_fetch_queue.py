"""The queue of tensors against a world of sources that fail, lie and differ in speed: everything arrives that anyone holds."""

from __future__ import annotations

import itertools
import random

from hypothesis import given
from hypothesis import strategies as st

from engine.control.nodes.fetch_queue import MAX_FAILURES, FetchQueue


class World:
    """Sources send one tensor each at their own speed; events happen in order of time."""

    def __init__(self, seed: int, failing: float, lying: float) -> None:
        self.choose = random.Random(seed)
        self.sizes = {f"t{i}": self.choose.choice((0, 10, 1_000, 50_000)) for i in range(self.choose.randint(1, 30))}
        names = [f"w{i}" for i in range(self.choose.randint(1, 4))]
        self.speeds = {name: 10 ** self.choose.uniform(2, 6) for name in names}
        self.holdings = {name: {key for key in self.sizes if self.choose.random() < 0.6} for name in names}
        self.liars = {name for name in names if self.choose.random() < lying}
        self.failing = failing
        rates = {name: self.speeds[name] * 10 ** self.choose.uniform(-1, 1) for name in names if self.choose.random() < 0.5}
        self.queue = FetchQueue(self.sizes, self.holdings, rates)
        self.arrived: dict[str, str] = {}
        self.busy: dict[str, tuple[float, str]] = {}
        self.now_s = 0.0

    def run(self) -> float:
        for _ in range(10_000):
            for name in self.speeds:
                if name not in self.busy and (key := self.queue.take(name, self.now_s)) is not None:
                    assert key in self.holdings[name] and key not in self.arrived
                    assert key not in {k for _, k in self.busy.values()}
                    self.busy[name] = (self.now_s + self.sizes[key] / self.speeds[name], key)
            if self.queue.is_done or (not self.busy and self.queue.lost() and all(map(self.queue.is_useless, self.speeds))):
                return self.now_s
            if self.busy:
                self._finish(min(self.busy, key=lambda name: self.busy[name]))
            else:
                self.now_s += 0.25
        raise AssertionError(f"it never ends: {self.queue.lost()}")

    def _finish(self, name: str) -> None:
        until_s, key = self.busy.pop(name)
        self.now_s = max(self.now_s, until_s)
        spent_s = self.sizes[key] / self.speeds[name]
        if self.choose.random() < self.failing:
            self.queue.failed(name, self.choose.choice((0, self.sizes[key] // 2)), spent_s / 2, self.now_s)
        elif name in self.liars:
            self.queue.refused(name)
        else:
            self.arrived[key] = name
            self.queue.arrived(name, self.sizes[key], spent_s)


@given(st.integers(0, 10**9), st.sampled_from((0.0, 0.1, 0.3)), st.sampled_from((0.0, 0.5)))
def test_all_that_an_honest_source_holds_arrives_once_unless_the_source_keeps_failing(seed: int, failing: float, lying: float) -> None:
    world = World(seed, failing, lying)
    world.run()
    honest = {key for name, held in world.holdings.items() if name not in world.liars for key in held}
    missing = honest - set(world.arrived)
    assert set(world.arrived) <= honest
    assert not missing or failing, "no source failed, yet something is missing"
    assert set(world.queue.lost()) == set(world.sizes) - set(world.arrived)


@given(st.integers(0, 10**9))
def test_the_end_is_at_most_twice_that_of_sharing_perfectly(seed: int) -> None:
    """Everyone holds everything and rates are known: the last tensor ends no later than twice the even split plus one tensor."""
    world = World(seed, 0.0, 0.0)
    world.holdings = {name: set(world.sizes) for name in world.speeds}
    world.queue = FetchQueue(world.sizes, world.holdings, world.speeds)
    ended_s = world.run()
    fastest = max(world.speeds.values())
    even_s = sum(world.sizes.values()) / sum(world.speeds.values())
    assert ended_s <= 2 * even_s + max(world.sizes.values()) / fastest + 1e-9


def test_a_source_that_only_fails_is_asked_a_few_times_with_rests_between() -> None:
    queue = FetchQueue({"a": 10}, {"w1": {"a"}})
    now_s, asked_s = 0.0, []
    while not queue.is_useless("w1"):
        if queue.take("w1", now_s) == "a":
            asked_s.append(now_s)
            queue.failed("w1", 0, 0.0, now_s)
        now_s += 0.25
    assert len(asked_s) == MAX_FAILURES and queue.lost() == ["a"]
    assert all(b - a >= 0.5 for a, b in itertools.pairwise(asked_s))


def test_what_only_the_coordinator_has_is_asked_of_it_first() -> None:
    queue = FetchQueue({"shared": 100, "only": 1}, {"coordinator": {"shared", "only"}, "w1": {"shared"}})
    assert queue.take("coordinator", 0.0) == "only" and queue.take("w1", 0.0) == "shared"


def test_a_slow_source_leaves_the_last_tensor_to_a_fast_one() -> None:
    queue = FetchQueue({"a": 100, "b": 100}, {"slow": {"a", "b"}, "fast": {"a", "b"}}, {"slow": 1.0, "fast": 100.0})
    assert queue.take("fast", 0.0) == "a"
    assert queue.take("slow", 0.0) is None
    queue.failed("fast", 0, 0.0, 0.0)
    assert queue.take("slow", 0.1) is not None, "the fast one rests, so the slow one has to do"


def test_a_tensor_with_the_wrong_content_is_never_asked_of_that_source_again() -> None:
    queue = FetchQueue({"a": 10}, {"w1": {"a"}, "w2": {"a"}})
    assert queue.take("w1", 0.0) == "a"
    queue.refused("w1")
    assert queue.is_useless("w1") and queue.take("w1", 1.0) is None
    assert queue.take("w2", 1.0) == "a" and not queue.is_done
    queue.arrived("w2", 10, 0.1)
    assert queue.is_done
