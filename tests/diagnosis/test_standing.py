"""Over time: noise is silent for an hour, a change is said once and within seconds, and what comes and goes does not flicker."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace

import pytest

from engine.control.sessions.metrics import PipelineMetrics, StepLoad
from engine.data.generation import StageTiming
from engine.data.status import Alarms, ClusterStatus, Trouble
from engine.diagnosis.finding import Kind
from engine.diagnosis.standing import GONE_AFTER_S, SAID_AFTER_S, Standing
from tests.diagnosis.clusters import NAMES, stage, status

STAGE_S, HOP_S, NOISE = 0.020, 0.001, 0.20


def looks(
    rng: random.Random, until_s: float, slow_from_s: float = float("inf"), factor: float = 1.0
) -> Iterator[tuple[float, ClusterStatus]]:
    """A look a second at a pipeline whose every time has 20 % noise and, one step in a hundred, is three times as long."""
    metrics, now_s, looked_s = PipelineMetrics(), 0.0, 0.0
    metrics.start_plan((HOP_S,) * 4)
    while now_s < until_s:
        times = [max(1e-4, rng.gauss(STAGE_S, NOISE * STAGE_S)) * (3.0 if rng.random() < 0.01 else 1.0) for _ in NAMES]
        times[1] *= factor if now_s >= slow_from_s else 1.0
        hops = [max(1e-5, rng.gauss(HOP_S, NOISE * HOP_S)) for _ in range(4)]
        sent_s, at_s, timings = now_s, now_s, []
        for name, time_s, hop_s in zip(NAMES, times, hops, strict=False):
            at_s += hop_s
            timings.append(StageTiming(name, time_s, 0.0, 0.0, 0.0, 1000.0 + at_s, 1000.0 + at_s + time_s))
            at_s += time_s
        now_s = at_s + hops[-1]
        metrics.add_step(tuple(timings), StepLoad(1, 40), sent_s, now_s)
        if now_s - looked_s >= 1.0:
            looked_s = now_s
            metrics.tick(now_s)
            yield now_s, look(metrics)


def look(metrics: PipelineMetrics) -> ClusterStatus:
    rows = []
    for index, name in enumerate(NAMES, 1):
        seen, (hop_s, high_s) = metrics.stage(name), metrics.hop_s(index)
        rows.append(stage(name, seen.compute_p50_s, hop_s, hop_p95_s=high_s, num_steps=seen.num_steps))
    return status(rows)


@pytest.mark.parametrize("seed", range(3))
def test_an_hour_of_noise_is_silent(seed: int) -> None:
    standing = Standing()
    for now_s, seen in looks(random.Random(seed), 3600.0):
        standing = standing.after(seen, now_s)
        assert not standing.known, (now_s, standing)


@pytest.mark.parametrize("factor", [2.0, 4.0, 30.0])
def test_a_node_that_becomes_slow_is_named_within_ten_seconds(factor: float) -> None:
    standing, said_s = Standing(), 0.0
    for now_s, seen in looks(random.Random(1), 120.0, slow_from_s=60.0, factor=factor):
        standing = standing.after(seen, now_s)
        if standing.said and not said_s:
            said_s = now_s
    assert 60.0 < said_s <= 70.0 and [(f.kind, f.subject) for f in standing.said] == [(Kind.SLOW_NODE, "w2")]


def test_a_finding_is_said_after_it_held_and_until_it_has_been_gone() -> None:
    slow, well = status((stage("w1"), stage("w2", 0.08), stage("w3"))), status()
    standing = Standing().after(slow, 0.0)
    assert not standing.said
    standing = standing.after(well, 1.0).after(slow, SAID_AFTER_S + 0.1)  # it was gone meanwhile: counted anew
    assert not standing.said
    standing = standing.after(slow, 2 * SAID_AFTER_S + 0.2)
    assert [f.kind for f in standing.said] == [Kind.SLOW_NODE]
    last_s = 2 * SAID_AFTER_S + 0.2
    standing = standing.after(well, last_s + GONE_AFTER_S - 0.1)
    assert [f.kind for f in standing.said] == [Kind.SLOW_NODE]
    assert not standing.after(well, last_s + GONE_AFTER_S + 0.1).said


def flickering(until_s: float, every_s: float) -> Iterator[tuple[float, ClusterStatus]]:
    """A node at the edge of the limit: too slow in two looks of three."""
    for number in range(int(until_s / every_s)):
        yield number * every_s, status((stage("w1"), stage("w2", 0.033 if number % 3 else 0.029), stage("w3")))


@pytest.mark.parametrize("every_s", [0.25, 1.0])
def test_a_trouble_at_the_edge_is_said_however_often_one_looks(every_s: float) -> None:
    standing = Standing()
    for now_s, seen in flickering(8.0, every_s):
        standing = standing.after(seen, now_s)
    assert [f.subject for f in standing.said] == ["w2"]


def test_what_is_rarely_found_is_not_said() -> None:
    standing = Standing()
    for number in range(400):
        slow = stage("w2", 0.08 if number % 3 == 0 else 0.02)
        standing = standing.after(status((stage("w1"), slow, stage("w3"))), 0.25 * number)
        assert not standing.said


def test_what_the_coordinator_says_is_said_at_the_first_look() -> None:
    """Also at the edge: it stands there, so it takes as much to be over for one who asks now."""
    nearly = status((stage("w1"), stage("w2", 0.028), stage("w3")))
    assert not Standing().after(nearly, 0.0).known
    told = replace(nearly, alarms=Alarms(troubles=(Trouble("slow-node", "w2"), Trouble("a kind of a later version", ""))))
    assert [f.subject for f in Standing().after(told, 0.0).said] == ["w2"]
    assert not Standing().after(replace(status(), alarms=told.alarms), 0.0).said, "what is not found is not said"


def test_what_a_plan_suffered_from_is_over_with_it() -> None:
    """A node that was drained for being slow is not called slow any more, while it has no stage."""
    slow, without = status((stage("w1"), stage("w2", 0.08), stage("w3"))), status((stage("w1"), stage("w3")), plan_version=2)
    standing = Standing().after(slow, 0.0).after(slow, SAID_AFTER_S + 0.1)
    assert [f.subject for f in standing.said] == ["w2"]
    assert not standing.after(without, SAID_AFTER_S + 0.5).said


def test_a_clock_that_goes_back_begins_anew() -> None:
    slow = status((stage("w1"), stage("w2", 0.08), stage("w3")))
    standing = Standing().after(slow, 100.0).after(slow, 102.0)
    assert standing.said and not standing.after(slow, 50.0).said
