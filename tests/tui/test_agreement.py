"""One frame, all screens: a figure that stands in two places is the same figure.

Each figure has its places as patterns, which are looked for on every screen. A place that shows nothing on a frame says nothing, but each
must have shown it on some frame, or nobody would look at it any more.
"""

from __future__ import annotations

import random
import re
from collections import defaultdict
from dataclasses import replace

import pytest

from engine.data.measured_link import MeasuredLink
from engine.data.status import ClusterStatus, EndedSessions, NodeState, SessionStatus, Severity, Work
from noodle_tui.core import messages as m
from noodle_tui.glyphs import ASCII
from noodle_tui.screens.frame import screen_lines
from noodle_tui.state import ConsoleState
from noodle_tui.text.figures import clock
from tests.tui import frames
from tests.tui.scenes import NOW_S, WALL_S, keyed, state_of
from tests.tui.test_last_minutes import text_of

SCREENS = {
    "overview": ("screen.overview", "nav.down", "nav.down"),
    "nodes": ("screen.nodes", "nav.down", "nav.down"),
    "plan": ("screen.plan", "nav.down", "nav.down"),
    "memory": ("screen.plan", "nav.down", "nav.down", "view.mode", "view.mode"),
    "what-if": ("screen.what-if",),
    "sessions": ("screen.sessions",),
}
SIZES = [(80, 24), (120, 40), (200, 60)]
_ANY = r"[\d.]+"
N = f"({_ANY})"
PLACES: dict[str, tuple[str, ...]] = {
    "tokens a second": (rf"THROUGHPUT +{N} tok/s", rf"failed   {N} tok/s"),
    "step p95": (rf"STEP +p50 .*?  p95 +{N}ms", rf"STEP p95  {N}ms"),
    "planned step": (rf"PLAN .* planned {N}ms  measured", rf"STEP p95  {_ANY}ms  0..2x plan {N}ms", rf"[> ]planned +{N} +{_ANY} S2"),
    "measured step": (rf"stages \+ hops {N}ms measured", rf"PLAN .* planned {_ANY}ms  measured {N}ms \(", rf"[> ]measured +{N} +{_ANY} S2"),
    "planned step of a cluster in which nothing runs": (rf"stages \+ hops {N}ms planned", rf"PLAN .* planned {N}ms(?!  measured)"),
    "running": (r"SESSIONS +(\d+) run ", r"(\d+) running"),
    "waiting": (r"run (\d+) wait", r"(\d+) queued"),
    "done": (r"FINISHED (\d+) done", r"(\d+) done  \d+ failed   "),
    "failed": (r"FINISHED \d+ done (\d+) failed", r"(\d+) failed   "),
    "first token p95": (rf"TTFT +p95 {N}ms(?! here)", rf"TTFT +p95 {N}ms here"),
    "gpu-c p50": (
        rf"[> ]gpu-c +\w+ +S2 +[\d-]+ +{N} ",
        rf"gpu-c p50  {N}ms",
        rf"stage +p50 {N}ms",
        rf"S2 gpu-c .*[#*+=@-] +{N}ms",
        rf"S2 gpu-c  items .*\n +planned {_ANY}ms  measured {N}ms",
        rf"BOTTLENECK +S2 gpu-c {N}ms",
        rf"\|S2 gpu-c {N} ",
        rf"S2 gpu-c .* planned, {N} measured",
        rf"[> ]measured +{_ANY} +{_ANY} S2 +{N} gpu-c",
    ),
    "gpu-c planned": (
        rf"gpu-c p50  {_ANY}ms  0..2x plan {N}ms",
        rf"stage +p50 .* planned {N}ms",
        rf"S2 gpu-c  items .*\n +planned {N}ms",
        rf"BOTTLENECK +S2 gpu-c {_ANY}ms = \d+% of a step  planned {N}",
        rf"S2 gpu-c .* {N} planned, {_ANY} measured",
        rf"[> ]planned +{_ANY} +{_ANY} S2 +{N} gpu-c",
    ),
    "gpu-c memory share": (
        r" gpu-c: .*memory (\d+)%",
        r"MEM (\d+)% gpu-c",
        rf"memory +{_ANY}G/{_ANY}G = (\d+)%",
        r"gpu-c memory  (\d+)%",
        r"S2 gpu-c +\[.*\] +(\d+)%",
    ),
    "gpu-c memory": (rf"gpu-c +\w+ +S2 .* {N}G/8.0G", rf"memory +{N}G/8.0G", rf"S2 gpu-c +\[.*% {N}G/8.0G"),
    "gpu-c KV share": (r" gpu-c: .*KV (\d+)%", r"KV MAX +(\d+)% gpu-c", rf"KV +{_ANY}M of {_ANY}G = (\d+)%", r"gpu-c KV  (\d+)%"),
    "gpu-c util": (r"gpu-c util  (\d+)%", r"use +(\d+)%", r"gpu-c +\w+ +S2 .*?(\d+)% +[\d.]+G/8", r"util (\d+)%  seen"),
}


def some_status(seed: int) -> ClusterStatus:
    """Four nodes, of which the third is the slowest and the fullest; every figure of its own, so that none agrees by chance.

    In one of eight nothing has run yet; half of the others run steps that are planned to take longer than one row alone.
    """
    chance = random.Random(seed)
    base, gib = frames.status(4), frames.GIB
    time_s = [0.001 * chance.uniform(1.0, 9.0) for _ in base.stages]
    time_s[2] = 0.001 * chance.uniform(20.0, 60.0)
    stages = tuple(
        replace(s, compute_p50_s=t, compute_p95_s=1.3 * t, predicted_s=t * chance.uniform(0.4, 1.1), hop_p50_s=chance.uniform(5e-4, 3e-3))
        for s, t in zip(base.stages, time_s, strict=True)
    )
    nodes = []
    for i, node in enumerate(base.nodes):
        resident = chance.uniform(4.5, 6.0) if i == 2 else chance.uniform(1.5, 3.0)
        kv = chance.uniform(0.6, 0.9) if i == 2 else chance.uniform(0.1, 0.4)
        gauges = replace(
            node.gauges, resident_bytes=int(resident * gib), kv_used_bytes=int(kv * gib), cpu_utilisation=chance.uniform(0.1, 0.9)
        )
        nodes.append(replace(node, runtime_bytes=int(chance.uniform(0.2, 1.0) * gib), gauges=gauges))
    sessions = tuple(
        SessionStatus(f"s-{i:04}", chance.choice(("decode", "queued", "prefill")), 10, i, 50, chance.uniform(0.1, 0.9), 9.0, 5.0, 0.02)
        for i in range(chance.randrange(3, 24))
    )
    speed = replace(base.speed, tokens_per_s=chance.uniform(1, 99), step_p50_s=chance.uniform(0.03, 0.09), entry_hop_s=0.002)
    speed = replace(speed, step_p95_s=chance.uniform(0.1, 0.3), predicted_step_s=chance.uniform(0.02, 0.09))
    ended, work = EndedSessions(chance.randrange(99), chance.randrange(9)), Work(kv_reserved_tokens=10, kv_capacity_tokens=100)
    if seed % 8 == 7:
        stages = tuple(replace(s, num_steps=0, compute_p50_s=0.0, compute_p95_s=0.0, hop_p50_s=0.0, queue_p50_s=0.0) for s in stages)
        speed = replace(speed, tokens_per_s=0.0, step_p50_s=0.0, step_p95_s=0.0, entry_hop_s=0.0)
    elif seed % 2:
        stages = tuple(replace(s, expected_s=s.predicted_s * chance.uniform(1.1, 2.0)) for s in stages)
        speed = replace(speed, expected_step_s=speed.predicted_step_s * chance.uniform(1.1, 2.0))
    return replace(base, nodes=tuple(nodes), stages=stages, sessions=sessions, ended=ended, work=work, speed=speed)


def shown_figures(state: ConsoleState, size: tuple[int, int]) -> dict[str, dict[str, set[str]]]:
    """figure -> place -> what stands there, on all screens."""
    found: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for keys in SCREENS.values():
        text = "\n".join("".join(span.text for span in row) for row in screen_lines(keyed(state, *keys), *size, ASCII, NOW_S))
        for name, patterns in PLACES.items():
            for pattern in patterns:
                for match in re.finditer(pattern, text):
                    found[name][pattern].add(match[1])
    return found


def test_a_figure_that_stands_in_two_places_is_the_same() -> None:
    places = set()
    for seed in range(40):
        state = ConsoleState()
        for i in range(4):
            state = state_of((90.0 + i, m.FrameArrived(frames.frame(some_status(seed)), WALL_S + i)), state=state)
        for size in SIZES:
            for name, shown in shown_figures(state, size).items():
                places |= {(name, pattern) for pattern in shown}
                values = {value for seen in shown.values() for value in seen}
                assert len(values) == 1, (seed, size, name, {pattern: sorted(seen) for pattern, seen in shown.items()})
    missing = {(name, pattern) for name, patterns in PLACES.items() for pattern in patterns} - places
    assert not missing, "no frame showed these any more"


def test_list_and_pane_of_a_node_have_one_word_for_it() -> None:
    slow = tuple(replace(s, compute_p50_s=3 * s.planned_s) if s.worker_id == "gpu-a" else s for s in frames.status().stages)
    state = keyed(state_of((99.5, m.FrameArrived(frames.frame(frames.status(stages=slow)), WALL_S))), "screen.nodes")
    rows = text_of(state, 80, 24).splitlines()
    assert any(row.startswith(">gpu-a   WARN ") for row in rows) and any(row.startswith(" gpu-a  WARN  runs S0") for row in rows)


def test_a_plan_serves_since_it_did_and_not_since_somebody_looked() -> None:
    status = frames.status()
    began = replace(
        frames.event(1, "serving on 4 stages", Severity.OK, subject=f"#{status.plan_version}"), kind="plan", wall_s=WALL_S - 300
    )
    for events, word in (((began,), "  since "), ((), "  seen since ")):
        state = keyed(state_of((99.5, m.FrameArrived(frames.frame(status, *events), WALL_S))), "screen.plan")
        assert f"{word}{clock(WALL_S - 300 if events else WALL_S)}" in text_of(state, 120, 40)


def test_the_culprits_pane_says_all_that_is_known_of_it() -> None:
    lost = tuple(replace(n, state=NodeState.LOST, detail="gone") if n.worker_id == "pi-d" else n for n in frames.status().nodes)
    state = keyed(state_of((99.5, m.FrameArrived(frames.frame(frames.status(nodes=lost)), WALL_S))), "screen.nodes")
    assert " wrong   pi-d on lab is lost: gone; 4 others go on" in text_of(state, 80, 24)


@pytest.mark.parametrize("width", [116, 120, 140, 200])
def test_no_figure_of_the_cluster_is_cut(width: int) -> None:
    stages = tuple(replace(s, hop_p50_s=0.0123, predicted_hop_s=0.0002) for s in frames.status().stages)
    text = text_of(state_of((99.5, m.FrameArrived(frames.frame(frames.status(stages=stages)), WALL_S))), width, 40)
    (row,) = (row for row in text.splitlines() if " HOP " in row)
    assert re.search(r"planned [\d.]+(, all [\d.]+m?s)?$", row.rstrip()), row


def test_a_way_to_a_node_is_not_torn_from_its_figures() -> None:
    ways = tuple(
        MeasuredLink("gpu-a", name, round_trip_s=0.0004, bandwidth_bytes_per_s=3e8) for name in ("coordinator", "cpu-b", "gpu-c", "pi-d")
    )
    state = state_of((99.5, m.FrameArrived(frames.frame(frames.status()), WALL_S)), (99.6, m.LinksArrived(ways, 1)))
    rows = [row for row in text_of(keyed(state, "screen.nodes"), 120, 40).splitlines() if "0.4ms" in row]
    assert len(rows) > 1
    assert all(len(re.findall(r"[\w-]+ 0\.4ms at \S+/s", row)) == row.count("0.4ms") for row in rows), rows
