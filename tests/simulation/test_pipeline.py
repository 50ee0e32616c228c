"""The pipeline against closed forms and against a plain recursion; the two ways through it against each other."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.control.commands import SendStep
from engine.data.generation import Segment
from engine.simulation.arrivals import Arrival, at_once
from engine.simulation.clock import VirtualClock
from engine.simulation.machines.node import Step
from engine.simulation.machines.pipeline import Pipeline
from engine.simulation.machines.processor import SharedProcessor
from engine.simulation.scenario import LinkModel, NodeSetup, Scenario, SoftwareCosts, VirtualHost
from engine.simulation.simulator import StagedSimulator
from tests.simulation.scenarios import plan, scenario


class Driver:
    """Steps through a pipeline without a cluster: each reported step may bring the next one."""

    def __init__(self, found: Scenario, on_report: Callable[[Step], None] | None = None) -> None:
        self.clock = VirtualClock()
        self.reported: list[tuple[int, float]] = []
        self._on_report = on_report
        processors = {host.host_id: SharedProcessor(host, self.clock) for host in found.hosts}
        if found.plan is None:
            raise AssertionError("give a plan")
        self.pipeline = Pipeline(found, found.plan, self.clock, processors, self._report, reserve_tokens=lambda _: 2**40)

    def _report(self, step: Step) -> None:
        self.reported.append((step.command.step_id, self.clock.now_s))
        if self._on_report is not None:
            self._on_report(step)

    def send(self, step_id: int, num_tokens: int = 1, position: int = 5, session: str = "s0") -> None:
        segment = Segment(session, 1, position, (0,) * num_tokens, 0)
        self.pipeline.send(Step(SendStep(1, step_id, "n0", (segment,)), self.clock.now_s))


def period_s(found: Scenario, sessions: int, steps: int = 60) -> float:
    """Seconds per token, once the pipeline is full, with so many tokens always under way."""
    driver = Driver(found)
    sent = sessions

    def again(step: Step) -> None:
        nonlocal sent
        if sent < steps * sessions:
            sent += 1
            driver.send(sent, session=step.command.segments[0].session_id)

    driver._on_report = again
    for k in range(sessions):
        driver.clock.at(0.0, lambda k: driver.send(k, session=f"s{k}"), k)
    driver.clock.run()
    times = [time_s for _, time_s in driver.reported]
    half = len(times) // 2
    return (times[-1] - times[half - 1]) / (len(times) - half)


@pytest.mark.parametrize("layers", [(4,), (2, 2), (1, 3, 2), (2, 2, 2, 2)])
@pytest.mark.parametrize("sessions", [1, 2, 3, 5, 9])
@pytest.mark.parametrize("shared", [False, True])
def test_the_period_is_the_bottleneck_or_a_share_of_the_round_trip(layers: tuple[int, ...], sessions: int, shared: bool) -> None:
    """P(m) = max(bottleneck, round trip / m): sessions fill the pipeline until its slowest stage never waits."""
    hosts = tuple(VirtualHost(f"h{k}", 1.0) for k in range(len(layers))) if shared else ()
    nodes = tuple(NodeSetup(f"n{k}", host_id=f"h{k}" if shared else "") for k in range(len(layers)))
    found = scenario(*layers, arrivals=at_once(1, 1, 1), nodes=nodes, hosts=hosts, link=LinkModel(0.0003))
    stage_s = [0.001 * n for n in layers]
    round_trip_s = sum(stage_s) + 0.0003 * (len(layers) + 1)
    assert period_s(found, sessions) == pytest.approx(max(*stage_s, round_trip_s / sessions), rel=1e-6)


def test_one_session_takes_a_round_trip_per_token_through_the_real_cluster() -> None:
    found = scenario(2, 3, arrivals=(Arrival(0.5, 7, 20),), link=LinkModel(0.0005), software=SoftwareCosts(0.0002, 0.0, 0.003))
    result = StagedSimulator(found).run()
    round_trip_s = 0.005 + 3 * (0.0005 + 0.0002)
    assert result.inter_token_s.p50 == pytest.approx(round_trip_s) and result.inter_token_s.worst == pytest.approx(round_trip_s)
    assert result.step_s.p50 == pytest.approx(round_trip_s)
    assert result.ttft_s.p50 == pytest.approx(round_trip_s + 0.003)
    assert result.decode_tokens_per_s == pytest.approx(1.0 / round_trip_s)
    assert result.tokens_per_s == pytest.approx(20 / (20 * round_trip_s + 0.003))


def test_stages_of_one_host_cost_each_other_a_share() -> None:
    nodes = tuple(NodeSetup(f"n{k}", host_id="h" if k < 3 else "other") for k in range(4))
    found = scenario(1, 2, 3, 4, arrivals=at_once(1, 1, 5), nodes=nodes, hosts=(VirtualHost("h", 9.0), VirtualHost("other", 9.0)))
    result = StagedSimulator(replace(found, software=SoftwareCosts(neighbour_share=0.1))).run()
    assert result.inter_token_s.p50 == pytest.approx(0.006 * 1.2 + 0.004)


def test_prompts_have_a_slowdown_and_a_hunger_for_cores_of_their_own() -> None:
    """10 ms of work: a prompt takes 3 times that and wants 4 of the 2 cores, a token takes 1.5 times and wants 1."""
    node = NodeSetup("n0", slowdown=1.5, prompt_slowdown=2.0, host_id="h", busy_cores=1.0, prompt_busy_cores=4.0)
    found = scenario(10, arrivals=at_once(1, 8, 5), nodes=(node,), hosts=(VirtualHost("h", 2.0),))
    result = StagedSimulator(found).run()
    assert result.ttft_s.p50 == pytest.approx(0.010 * 3.0 * 4.0 / 2.0)
    assert result.inter_token_s.p50 == pytest.approx(0.015) == pytest.approx(result.inter_token_s.worst)


def test_prompt_chunks_follow_each_other_through_the_stages() -> None:
    """c chunks of equal cost: round trip + (c - 1) * bottleneck."""
    found = scenario(2, 3, arrivals=(Arrival(0.0, 40, 1),))
    found = replace(found, limits=replace(found.limits, prompt_chunk_tokens=10))
    result = StagedSimulator(found).run()
    assert result.stages[0].num_steps >= 2  # how a prompt is cut is the scheduler's affair
    chunks = result.stages[0].num_steps
    assert result.ttft_s.p50 >= 0.005 + (chunks - 1) * 0.003 - 1e-9


# ---------------------------------------------------------------------------------------------- a plain recursion
def recursion(
    sends: Sequence[tuple[float, int]],
    stage_s: Sequence[Callable[[int], float]],
    link: LinkModel,
    hop_s: float,
    sizes: Sequence[Callable[[int], int]],
) -> list[float]:
    """When each step is reported: step by step, stage by stage, each begins when it is there and the one before is done."""
    free = [0.0] * len(stage_s)
    link_free = [0.0] * (len(stage_s) + 1)
    ends = []
    for sent_s, tokens in sends:
        now_s = sent_s
        for k in range(len(stage_s) + 1):
            link_free[k] = max(link_free[k], now_s) + sizes[k](tokens) / link.bytes_per_s
            now_s = link_free[k] + link.latency_s + hop_s
            if k < len(stage_s):
                free[k] = max(free[k], now_s) + stage_s[k](tokens)
                now_s = free[k]
        ends.append(now_s)
    return ends


@settings(max_examples=200, deadline=None)
@given(
    layers=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    sends=st.lists(st.tuples(st.floats(0, 0.05), st.integers(1, 30)), min_size=1, max_size=12),
    shared=st.sampled_from(["none", "all", "some"]),
    link=st.builds(LinkModel, st.floats(0, 0.01), st.sampled_from([1e4, 1e6, math.inf])),
    hop_s=st.sampled_from([0.0, 0.0004]),
)
def test_both_ways_through_a_pipeline_agree_with_the_recursion(
    layers: list[int], sends: list[Any], shared: str, link: LinkModel, hop_s: float
) -> None:
    """A machine with enough cores for all that runs on it is like one without neighbours: followed ahead or by the clock."""
    on_host = [shared == "all" or (shared == "some" and k % 2 == 0) for k in range(len(layers))]
    hosts = (VirtualHost("h", 100.0),) if shared != "none" else ()
    nodes = tuple(NodeSetup(f"n{k}", host_id="h" if on_host[k] else "") for k in range(len(layers)))
    found = scenario(*layers, arrivals=at_once(1, 1, 1), share=0.1, nodes=nodes, hosts=hosts, link=link, software=SoftwareCosts(hop_s, 0.0),
                     coordinator_host="h" if shared == "all" else "")  # fmt: skip
    driver = Driver(found)
    sends = sorted(sends)
    for step_id, (sent_s, tokens) in enumerate(sends):
        driver.clock.at(sent_s, lambda what: driver.send(*what), (step_id, tokens))
    driver.clock.run()
    stage_s = [lambda tokens, n=n: 0.001 * n * (1.0 + 0.1 * (tokens - 1)) for n in layers]
    sizes = [lambda tokens: 4 * tokens, *[lambda tokens: 100 * tokens] * (len(layers) - 1), lambda tokens: 4]
    expected = recursion(sends, stage_s, link, hop_s, sizes)
    assert [step_id for step_id, _ in driver.reported] == list(range(len(sends)))
    assert [time_s for _, time_s in driver.reported] == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_a_step_never_waits_while_its_stage_is_idle() -> None:
    """Work conservation: it begins when it has arrived and the step before is done, whichever is later."""
    found = scenario(2, 1, 3, arrivals=tuple(Arrival(0.003 * k, 5, 6) for k in range(7)), share=0.2, link=LinkModel(0.0007))
    simulator = StagedSimulator(found)
    begun: list[tuple[int, float, float, float]] = []
    original = Pipeline._done

    def noted(self: Pipeline, step: Step, stage: int, start_s: float, stop_s: float) -> None:
        if step.command.segments:
            begun.append((stage, step.arrived_s, start_s, stop_s))
        original(self, step, stage, start_s, stop_s)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Pipeline, "_done", noted)
        simulator.run()
    for stage in range(3):
        free_s = 0.0
        for _, arrived_s, start_s, stop_s in (row for row in begun if row[0] == stage):
            assert start_s == max(arrived_s, free_s)
            free_s = stop_s
    assert len({stage for stage, *_ in begun}) == len(plan(2, 1, 3).stages)
