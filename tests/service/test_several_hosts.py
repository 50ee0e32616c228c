"""A cluster over several hosts: network namespaces, 20 ms apart, capped bandwidth, cuts that are pure silence.

The whole run, three minutes with a cut every 20 s, is `python -m tests.service.partition`. Here two cuts of 3 s, in a process of its own,
which leaves this machine's network alone.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.service.hosts import why_not
from tests.service.partition import DELAY_S, WORKERS

RATE_BITS_PER_S = 8e6
REASON = why_not()

pytestmark = pytest.mark.skipif(bool(REASON), reason=REASON)


@pytest.fixture(scope="module")
def facts() -> dict[str, Any]:
    arguments = ["--look-around", "--only", "1", "5", "--seconds", "3", "--period", "4", "--rate", str(RATE_BITS_PER_S)]
    command = [sys.executable, "-m", "tests.service.partition", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=170, check=False)
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert len(lines) == 4, done.stdout + done.stderr
    return {"seen": lines[0], "cuts": lines[1:3], "whole": lines[3], "exit_code": done.returncode}


def test_every_answer_through_every_cut_is_that_of_a_single_process(facts: dict[str, Any]) -> None:
    assert facts["whole"]["identical"] and facts["exit_code"] == 0, facts["whole"]
    assert facts["whole"]["num_answers"] >= 3


def test_every_cut_is_noticed_by_whom_it_concerns_and_overcome(facts: dict[str, Any]) -> None:
    apart, one_way = facts["cuts"]
    assert apart["noticed_s"] is not None and "heartbeat late" in apart["noticed_by"]
    assert one_way["noticed_s"] is not None and "w2: cannot reach w3" in one_way["noticed_by"]
    assert one_way["longest_gap_s"] < apart["longest_gap_s"], "tokens go on without the link, and cannot without any worker"


def test_an_operator_on_another_host_sees_all_of_it(facts: dict[str, Any]) -> None:
    workers = facts["seen"]["status"]["workers"]
    assert [w["worker_id"] for w in workers] == [*WORKERS] and all(w["state"] == "ok" for w in workers)


def test_workers_bound_to_all_addresses_reach_each_other(facts: dict[str, Any]) -> None:
    links = facts["seen"]["links"]
    assert len(links) == 6 + 6 and not any(failure for *_, failure in links)
    assert all(round_trip_s >= 2 * DELAY_S for _, _, round_trip_s, _, _ in links)
    assert all(bandwidth < 2 * RATE_BITS_PER_S / 8 for _, _, _, bandwidth, _ in links)


def test_plans_count_with_the_distance(facts: dict[str, Any]) -> None:
    """Three stages where every node is to be used, one where an answer is to come soonest, and a step that takes what was predicted."""
    seen = facts["seen"]
    assert seen["num_stages"] == 3 and seen["num_stages_quickest"] == 1
    assert seen["predicted_step_s"] >= 2 * DELAY_S and seen["step_s"] >= 4 * DELAY_S
    assert seen["predicted_step_s"] < 2 * seen["step_s"]


def test_a_long_prompt_passes_the_narrow_link(facts: dict[str, Any]) -> None:
    assert facts["seen"]["long_prompt_is_identical"]


def test_a_wrong_address_is_said_on_both_sides(facts: dict[str, Any]) -> None:
    told = facts["seen"]["told_to_advertise_wrongly"]
    assert "cannot join" in told["event"] and "10.77.0.99" in told["event"]
    assert "10.77.0.99" in told["log"] and "--advertise" in told["log"] and "Traceback" not in told["log"]
