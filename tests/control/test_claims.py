"""Two processes with one name: the holder keeps it while it lives, its successor gets it as soon as it is gone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from engine.control import commands as do
from engine.control import events as on
from engine.control.nodes.claims import Claim
from engine.data.errors import Refused
from engine.data.plan import NodeSpec
from tests.control.harness import Driver, spec

LEASE_S = 3.0


def driver_with_w1(instance_id: str = "first") -> tuple[Driver, NodeSpec]:
    driver = Driver(num_workers=1)
    holder = replace(spec("w1"), instance_id=instance_id)
    driver.feed(on.WorkerRegistered(holder, 1, ready=True))
    return driver, holder


def test_containers_of_one_host_name_and_pid_1_are_two_processes() -> None:
    driver, holder = driver_with_w1()
    twin = replace(holder, instance_id="second")
    with pytest.raises(Refused, match=r"the name w1 is taken by a worker that is alive on host host-w1, pid 1, .*--id"):
        driver.feed(on.WorkerRegistered(twin, 2, ready=True))
    member = driver.cluster.members.get("w1")
    assert member is not None and member.generation == 1 and member.alive
    assert not any(isinstance(c, do.DropWorker) for c in driver.seen)


def test_the_same_process_comes_back_at_once_on_a_new_connection() -> None:
    driver, holder = driver_with_w1()
    assert Claim(driver.cluster.members, replace(holder, address="127.0.0.1:1")).is_free()
    driver.feed(on.WorkerRegistered(holder, 2, ready=True))
    member = driver.cluster.members.get("w1")
    assert member is not None and member.generation == 2 and member.alive


def test_a_claim_waits_until_the_holder_is_lost() -> None:
    driver, _ = driver_with_w1()
    claim = Claim(driver.cluster.members, spec("w1", pid=2))
    driver.beat("w1")  # it was under way when its sender died
    driver.now_s = 0.9 * LEASE_S
    driver.feed(on.Tick())
    assert not claim.is_free()
    driver.now_s = 1.1 * LEASE_S
    driver.feed(on.Tick())
    assert claim.is_free()


def test_a_claim_is_free_the_moment_the_holders_connection_breaks() -> None:
    driver, _ = driver_with_w1()
    claim = Claim(driver.cluster.members, spec("w1", pid=2))
    assert not claim.is_free()
    driver.feed(on.WorkerLost("w1", 1, "its connection broke"))
    assert claim.is_free()


def test_two_heartbeats_prove_that_the_holder_lives_and_those_before_do_not_count() -> None:
    driver, _ = driver_with_w1()
    for _ in range(5):
        driver.beat("w1")
    claim = Claim(driver.cluster.members, spec("w1", pid=2))
    driver.beat("w1")
    assert not claim.is_free()
    driver.beat("w1")
    with pytest.raises(Refused, match="is taken"):
        claim.is_free()


def test_of_two_newcomers_the_one_that_registers_first_has_the_name() -> None:
    driver, _ = driver_with_w1()
    claim = Claim(driver.cluster.members, spec("w1", pid=2))
    driver.feed(on.WorkerLost("w1", 1, "its connection broke"))
    driver.feed(on.WorkerRegistered(spec("w1", pid=3), 2, ready=True))
    with pytest.raises(Refused, match="pid 3"):
        claim.is_free()


def test_a_lag_of_the_coordinator_is_no_sign_of_life() -> None:
    """Leases are widened by moving what was last seen; nobody said anything by that."""
    driver, _ = driver_with_w1()
    claim = Claim(driver.cluster.members, spec("w1", pid=2))
    for _ in range(3):
        driver.feed(on.CoordinatorLagged(1.0))
    assert not claim.is_free()
