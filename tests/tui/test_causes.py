"""What is said of the reason for a slow stage, and the rules that make a warning."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from engine.data.status import NodeState
from noodle_tui.core.pages import Page
from noodle_tui.glyphs import ASCII
from noodle_tui.listings.causes import alert_rules, likely_cause
from noodle_tui.listings.nodes import NodeRow
from noodle_tui.screens.frame import body_lines
from noodle_tui.screens.mouse import identity_at, page_at
from noodle_tui.state import Thresholds
from noodle_tui.text.lines import Canvas
from tests.tui import frames
from tests.tui.scenes import NOW_S, page, slow_third_stage
from tests.tui.test_pictures import SETTINGS

LIMITS = Thresholds()


def row(**changes: Any) -> NodeRow:
    return NodeRow(frames.node(**changes), 0, frames.stage(predicted_s=0.010, compute_p50_s=0.040))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"state": NodeState.SUSPECT}, "heartbeats are late"),
        ({"gpu_temperature_c": 91.0, "cpu_utilisation": 0.99}, "91 C: it is hot"),
        ({"resident_bytes": 8 * frames.GIB}, "memory 100%: it may swap"),
        ({"cpu_utilisation": 0.97}, "util 97%: its device is busy"),
        ({"cpu_utilisation": 0.2, "gpu_utilisation": 0.95}, "util 95%: its device is busy"),
        ({"cpu_utilisation": 0.2}, "util only 20%"),
        ({"cpu_utilisation": 0.7, "queue_depth": 3}, "util 70%, queue 3"),
    ],
)
def test_the_gravest_reason_is_named(changes: dict[str, Any], expected: str) -> None:
    assert expected in likely_cause(row(**changes), LIMITS)


def test_a_stage_that_keeps_its_plan_has_no_cause() -> None:
    assert likely_cause(NodeRow(frames.node(cpu_utilisation=0.99), 0, frames.stage()), LIMITS) == ""
    assert likely_cause(NodeRow(frames.node(), None, None), LIMITS) == ""


def test_rules_name_the_nodes_for_which_they_hold() -> None:
    status = frames.status(**slow_third_stage())
    nodes = tuple(replace(n, heartbeat_age_s=2.0) if n.worker_id == "cpu-b" else n for n in status.nodes)
    nodes = tuple(replace(n, state=NodeState.LOST) if n.worker_id == "pi-d" else n for n in nodes)
    nodes = tuple(frames.changed(n, kv_used_bytes=n.kv_budget_bytes) if n.worker_id == "gpu-a" else n for n in nodes)
    found = {rule.text: rule.nodes for rule in alert_rules(replace(status, nodes=nodes), LIMITS)}
    assert found == {
        "node lost": ("pi-d",),
        "stage p50 > 1.5x planned": ("gpu-c",),
        "hop > 3x planned, 20 ms": (),
        "heartbeat > 1 s": ("cpu-b",),
        "memory > 92%": (),
        "KV > 85%": ("gpu-a",),
    }


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_click_on_a_tab_means_its_screen(width: int) -> None:
    state, canvas = page(Page.PLAN), Canvas(width, 24, ASCII, NOW_S)
    hit = [page_at(state, x, canvas) for x in range(width)]
    assert list(dict.fromkeys(found for found in hit if found is not None)) == list(Page)
    assert hit[0] is None


@pytest.mark.parametrize("name", [Page.OVERVIEW, Page.NODES, Page.SESSIONS])
def test_a_click_on_a_row_means_that_row(name: Page) -> None:
    state = page(name)
    rows = body_lines(state, Canvas(80, 20, ASCII, NOW_S), SETTINGS)
    found = [identity for row in rows if (identity := identity_at(state, row))]
    expected = ["s-21aa", "s-22bb", "s-23cc", "s-24dd"] if name is Page.SESSIONS else ["gpu-a", "cpu-b", "gpu-c", "pi-d"]
    assert found[:4] == expected
