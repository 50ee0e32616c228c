"""Every kind of trouble is found from the state alone, with what helps; a cluster without one is not spoken of."""

from __future__ import annotations

from dataclasses import replace

import pytest

from engine.data.plan import GIVEN
from engine.data.status import AdaptationState, ClusterStatus, CoordinatorGauges, NodeState, Outlook, Phase, Work
from engine.diagnosis.diagnose import diagnose
from engine.diagnosis.finding import Finding, Kind, Remedy
from tests.diagnosis.clusters import MIB, node, session, stage, status, with_machine

W1, W2, W3 = node("w1"), node("w2"), node("w3")
S1, S2, S3 = stage("w1"), stage("w2"), stage("w3")
LATE_W2 = replace(W2, state=NodeState.LOST, detail="no heartbeat for 3.0 s")
HOST = [replace(n, host="box") for n in (W1, W2, W3)]
BUSY = [with_machine(replace(n, gauges=replace(n.gauges, cpu_utilisation=0.2)), busy=0.97) for n in HOST]
ALL_SLOW = (stage("w1", 0.05), stage("w2", 0.052), stage("w3", 0.049))
FULL = Work(1, 40, 3, kv_reserved_tokens=950, kv_capacity_tokens=1000)
WAITS = (session("s-1"), session("s-2", "queued", queue_place=1, waiting_s=4.0), session("s-3", "queued", queue_place=2))
READS = (session("s-1"), session("s-2", "prefill", num_prompt_tokens=800, num_read=200))
OFF, AUTO = AdaptationState("off"), AdaptationState("auto")

CASES: dict[str, tuple[ClusterStatus, Kind, str, Remedy]] = {
    "a slow node": (status((S1, stage("w2", 0.08), S3)), Kind.SLOW_NODE, "w2", Remedy.WITHOUT),
    "a slow link": (status((stage("w1", hop_s=0.08), S2, S3)), Kind.SLOW_LINK, "w1>w2", Remedy.COMPARE),
    "a slow way back": (status((S1, S2, stage("w3", hop_s=0.08))), Kind.SLOW_LINK, "w3>coordinator", Remedy.COMPARE),
    "a link that was slow when it was measured": (
        status((stage("w1", hop_s=0.08, expected_hop_s=0.08), S2, S3)), Kind.SLOW_LINK, "w1>w2", Remedy.COMPARE,
    ),
    "a link that comes and goes": (status((stage("w1", hop_p95_s=0.3), S2, S3)), Kind.UNSTEADY_LINK, "w1>w2", Remedy.COMPARE),
    "a busy host that no plan gets away from": (status(ALL_SLOW, BUSY), Kind.BUSY_HOST, "box", Remedy.NODE),
    "a busy host among others": (status((*ALL_SLOW[:2], S3), (*BUSY[:2], W3)), Kind.BUSY_HOST, "box", Remedy.COMPARE),
    "a host whose clock is held down": (
        status((stage("w1", 0.05), S2, S3), (with_machine(W1, clock=0.4), W2, W3)), Kind.THROTTLED, "host-w1", Remedy.WITHOUT,
    ),
    "a GPU that is too hot": (
        status((stage("w1", 0.05), S2, S3), (with_machine(W1, gpu_throttled="heat"), W2, W3)), Kind.THROTTLED, "host-w1", Remedy.WITHOUT,
    ),
    "a host that swaps": (
        status((stage("w1", 0.05), S2, S3), (with_machine(W1, swapped_bytes_per_s=3e7), W2, W3)), Kind.THROTTLED, "host-w1", Remedy.WITHOUT,
    ),
    "a prompt": (status(sessions=READS, work=Work(1, 40, 3, 0.8, 100.0, 100, 1000)), Kind.PROMPT, "", Remedy.SESSIONS),
    "memory": (
        status(nodes=(W1, replace(W2, gauges=replace(W2.gauges, resident_bytes=1180 * MIB)), W3)), Kind.MEMORY, "w2", Remedy.COMPARE,
    ),
    "memory of the machine": (status(nodes=(W1, with_machine(W2, free_bytes=2**26), W3)), Kind.MEMORY, "w2", Remedy.COMPARE),
    "KV": (status(sessions=WAITS, work=FULL), Kind.KV, "", Remedy.SESSIONS),
    "a lost node": (status((S1, S3), (W1, LATE_W2, W3)), Kind.LOST_NODE, "w2", Remedy.FORGET),
    "a lost node that everything waits for": (status(None, (W1, LATE_W2, W3), phase=Phase.LOADING), Kind.LOST_NODE, "w2", Remedy.FORGET),
    "an old plan": (status(adaptation=OFF, outlook=Outlook(0.02, 0.015, 3)), Kind.OLD_PLAN, "", Remedy.REPLAN),
    "a plan by hand": (status(adaptation=AUTO, strategy=GIVEN, outlook=Outlook(0.02, 0.015, 3)), Kind.RESTING, "", Remedy.REPLAN),
    "a busy coordinator": (status(coordinator=CoordinatorGauges(4.0, None)), Kind.COORDINATOR, "", Remedy.LOGS),
    "a full disk": (status(nodes=(W1, with_machine(W2, disk_free_bytes=2**26), W3)), Kind.DISK, "w2", Remedy.NODE),
    "a full disk of the journal": (status(coordinator=CoordinatorGauges(0.0, 2**20)), Kind.DISK, "coordinator", Remedy.LOGS),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_trouble_is_found(name: str) -> None:
    state, kind, subject, remedy = CASES[name]
    found = diagnose(state)
    assert [(f.kind, f.subject, f.do) for f in found] == [(kind, subject, remedy)]
    assert 0.0 < found[0].share <= 1.0
    assert found[0].what and found[0].why and found[0].evidence


def test_every_kind_has_a_case() -> None:
    assert {kind for _, kind, _, _ in CASES.values()} == set(Kind)


HEALTHY = {
    "as planned": status(),
    "three workers of one host, all as slow as their neighbours": status(nodes=HOST),
    "nothing runs": status(sessions=(), work=Work(kv_capacity_tokens=1000), stages=[replace(s, num_steps=0) for s in (S1, S2, S3)]),
    "nothing came for a while": status((S1, stage("w2", 0.08), S3), speed=replace(status().speed, newest_s=30.0)),
    "a busy host whose stages keep their times": status(nodes=BUSY),
    "adaptation sees to it": status(adaptation=AUTO, outlook=Outlook(0.02, 0.015, 3)),
    "nobody waits for KV": status(work=FULL),
    "a tiny stage that is off by less than anybody notices": status(
        [stage(n, 0.0008, 0.0002, expected_s=0.0003) for n in ("w1", "w2", "w3")]
    ),
    "an older coordinator": status(speed=replace(status().speed, newest_s=-1.0, window_s=0.0), work=Work()),
}


@pytest.mark.parametrize("name", HEALTHY)
def test_nothing_is_said_of(name: str) -> None:
    assert diagnose(HEALTHY[name]) == ()


def test_the_greatest_loss_comes_first() -> None:
    both = status((stage("w1", 0.06, hop_s=0.3), S2, S3))
    assert [f.kind for f in diagnose(both)] == [Kind.SLOW_LINK, Kind.SLOW_NODE]
    assert [f.kind for f in diagnose(status((stage("w1", 0.6, hop_s=0.1), S2, S3)))] == [Kind.SLOW_NODE]  # the link is 14 % of a step


def test_a_node_that_was_just_lost_comes_before_what_is_slow() -> None:
    stages = (stage("w1", 0.2), S3)
    for age_s, kinds in ((5.0, [Kind.LOST_NODE, Kind.SLOW_NODE]), (600.0, [Kind.SLOW_NODE, Kind.LOST_NODE])):
        found = diagnose(status(stages, (W1, replace(LATE_W2, heartbeat_age_s=age_s), W3)))
        assert [f.kind for f in found] == kinds


def test_one_slow_stage_on_a_busy_host_is_its_own_trouble() -> None:
    found = diagnose(status((stage("w1", 0.03), stage("w2", 0.3), stage("w3", 0.03)), BUSY))
    assert [(f.kind, f.subject) for f in found] == [(Kind.SLOW_NODE, "w2"), (Kind.BUSY_HOST, "box")]


def test_a_stage_without_a_core_on_a_busy_host_is_the_hosts_trouble() -> None:
    """All of it: what it is slower by than its neighbours too. A stage that is slow and has its core is not excused."""
    stages = (
        stage("w1", 0.03, num_steps=25),
        stage("w2", 0.3, num_steps=25),
        stage("w3", 0.03, num_steps=25),
    )  # w2 computes 75 % of the time
    for core_wait, kinds in ((0.5, [Kind.BUSY_HOST]), (0.2, [Kind.SLOW_NODE, Kind.BUSY_HOST]), (None, [Kind.SLOW_NODE, Kind.BUSY_HOST])):
        nodes = [BUSY[0], replace(BUSY[1], gauges=replace(BUSY[1].gauges, core_wait=core_wait)), BUSY[2]]
        found = diagnose(status(stages, nodes))
        assert [f.kind for f in found] == kinds
        assert (found[0].share > 0.7) or core_wait != 0.5
    half = [replace(n, gauges=replace(n.gauges, core_wait=0.5, machine=replace(n.gauges.machine, busy=0.7))) for n in BUSY]
    assert [f.kind for f in diagnose(status(stages, half))] == [Kind.BUSY_HOST], "cores are free now and then, and not when it needs one"
    assert diagnose(status([stage(n, 0.024, num_steps=25) for n in ("w1", "w2", "w3")], half)) == (), "nothing is slow enough to ask why"
    alone = [replace(n, gauges=replace(n.gauges, core_wait=0.9, machine=HOST[0].gauges.machine)) for n in BUSY]
    assert [f.kind for f in diagnose(status(stages, alone))][:1] == [Kind.SLOW_NODE], "nobody else uses the machine"


def test_a_plan_that_was_measured_while_others_had_the_machine_does_not_hide_them() -> None:
    """Every stage keeps its plan, for the plan expects that load; what the threads wait for tells what it costs."""
    stages = [stage(n, 0.017) for n in ("w1", "w2", "w3")]
    for core_wait, kinds in ((0.4, [Kind.BUSY_HOST]), (0.05, []), (None, [])):
        nodes = [replace(n, gauges=replace(n.gauges, core_wait=core_wait)) for n in BUSY]
        found = diagnose(status(stages, nodes))
        assert [f.kind for f in found] == kinds
        assert all(0.5 < f.share < 0.8 for f in found), "two thirds of what the stages take"
    alone = [replace(n, gauges=replace(n.gauges, core_wait=0.9, machine=HOST[0].gauges.machine)) for n in BUSY]
    assert diagnose(status(stages, alone)) == (), "nobody else uses the machine: threads wait for each other"


def test_a_node_that_is_slow_and_mostly_sleeps_is_not_excused_by_a_busy_host() -> None:
    stages = [stage(n, 0.3 if n == "w2" else 0.02, num_steps=30) for n in ("w1", "w2", "w3")]
    nodes = [replace(n, gauges=replace(n.gauges, cpu_utilisation=0.03, core_wait=0.04)) for n in BUSY]
    assert [f.kind for f in diagnose(status(stages, nodes))] == [Kind.SLOW_NODE]


def test_messages_that_wait_for_the_cores_of_a_busy_host_are_no_slow_link() -> None:
    """Also where one of them waits far longer than the others; where threads get cores, and far beyond that, it is one."""
    nodes = [replace(n, gauges=replace(n.gauges, core_wait=0.3)) for n in BUSY]
    for expected_hop_s in (0.001, 0.03):
        stages = (S1, stage("w2", hop_s=0.05, expected_hop_s=expected_hop_s, hop_p95_s=0.9), S3)
        assert [f.kind for f in diagnose(status(stages, HOST))] == [Kind.SLOW_LINK]
        assert [f.kind for f in diagnose(status(stages, BUSY))] == [Kind.SLOW_LINK]
        assert [f.kind for f in diagnose(status(stages, nodes))] == [Kind.BUSY_HOST]
    assert diagnose(status((S1, stage("w2", hop_s=0.5), S3), nodes))[0].kind is Kind.SLOW_LINK


def test_what_stands_is_said_until_it_is_clearly_over() -> None:
    nearly = status((S1, stage("w2", 0.028), S3))
    standing: Finding = diagnose(status((S1, stage("w2", 0.08), S3)))[0]
    assert diagnose(nearly) == ()
    assert [f.key for f in diagnose(nearly, frozenset({standing.key}))] == [standing.key]
