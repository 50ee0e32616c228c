"""What sessions find: a scheduler that learnt from earlier ones, and a coordinator that opens them one at a time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.data.errors import InvalidInput
from engine.simulation.arrivals import Arrival, at_once
from engine.simulation.result import SimulationResult
from engine.simulation.scenario import NodeSetup, Scenario, SoftwareCosts, VirtualHost
from engine.simulation.simulator import StagedSimulator
from tests.simulation.scenarios import scenario


def run(made: Scenario) -> SimulationResult:
    return StagedSimulator(made, check_every_event=True).run()


def prompt_steps(result: SimulationResult) -> list[int]:
    """Sessions in every step with prompt tokens."""
    return [len(span.session_ids) for span in result.spans if span.is_prompt]


def test_a_scheduler_that_learnt_from_earlier_sessions_splits_what_a_fresh_one_packs() -> None:
    """A prompt of 16 takes four times a token's 13 ms, so 61 tokens fit a step's 0.15 s. A cluster's first step teaches nothing,
    so without earlier sessions all seven other prompts go into one step, for 128 tokens may."""
    eight = at_once(8, 16, 40)
    fresh = run(scenario(1, item_s=0.013, share=0.2, arrivals=eight))
    learnt = run(scenario(1, item_s=0.013, share=0.2, arrivals=eight, earlier=(at_once(1, 16, 40), at_once(1, 16, 1), at_once(1, 16, 1))))
    assert prompt_steps(fresh) == [1, 8]
    assert prompt_steps(learnt) == [1, 5, 8]
    assert learnt.num_tokens == fresh.num_tokens == 320 and learnt.ttft_s.worst > fresh.ttft_s.worst


def test_earlier_sessions_leave_nothing_but_what_was_learnt() -> None:
    """Prompts so cheap that knowing their cost changes nothing: every figure is that of a fresh cluster."""
    arrivals = at_once(3, 16, 5)
    before = (at_once(2, 16, 9), (Arrival(3.0, 20, 2),))
    fresh = scenario(1, 2, item_s=0.0001, share=0.01, arrivals=arrivals)
    assert run(scenario(1, 2, item_s=0.0001, share=0.01, arrivals=arrivals, earlier=before)) == run(fresh)


def test_an_empty_group_of_earlier_sessions_is_refused() -> None:
    with pytest.raises(InvalidInput, match="no session to simulate"):
        scenario(1, arrivals=at_once(1, 2, 2), earlier=((),))


def test_opening_a_session_takes_the_core_that_a_step_needs() -> None:
    """One core: opened at 1 s, the first session's step of 2 s and the second opening of 1 s share it until 3 s."""
    nodes = (NodeSetup("n0", host_id="here", busy_cores=1.0, prompt_busy_cores=1.0),)
    shared = scenario(
        2, item_s=1.0, arrivals=at_once(2, 2, 1), nodes=nodes, hosts=(VirtualHost("here", 1.0),), coordinator_host="here",
        software=SoftwareCosts(open_s=1.0),
    )  # fmt: skip
    found = run(shared)
    assert [time_s for span in found.spans for time_s in (span.start_s, span.stop_s)] == pytest.approx([1.0, 4.0, 4.0, 6.0])
    assert (found.ttft_s.p50, found.ttft_s.worst) == pytest.approx((4.0, 6.0))


@given(st.lists(st.floats(0, 5), min_size=1, max_size=8), st.floats(0.01, 2))
def test_sessions_are_opened_in_order_one_at_a_time(arrive_s: list[float], open_s: float) -> None:
    """On a machine of its own, steps that take no time: Lindley's recursion gives every first token."""
    found = run(scenario(1, item_s=0.0, arrivals=tuple(Arrival(a, 2, 1) for a in arrive_s), software=SoftwareCosts(open_s=open_s)))
    free_s, waited = 0.0, []
    for at_s in sorted(arrive_s):
        free_s = max(free_s, at_s) + open_s
        waited.append(free_s - at_s)
    assert found.ttft_s.worst == pytest.approx(max(waited)) and found.ttft_s.mean == pytest.approx(sum(waited) / len(waited))
