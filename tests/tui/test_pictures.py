"""Golden frames: every screen and every state as text, from pure state. NOODLE_UPDATE_GOLDEN=1 writes them anew."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from engine.data.status import NodeState, Severity
from noodle_tui.core import messages as m
from noodle_tui.core.pages import Entry, EntryKind, Page
from noodle_tui.glyphs import ASCII, UNICODE, Glyphs
from noodle_tui.screens.frame import Settings, screen_lines
from noodle_tui.state import ConsoleState
from noodle_tui.text.graph_sets import glyphs_for
from noodle_tui.text.lines import Canvas, Lines, width_of
from noodle_tui.widgets.truth_line import too_small_line, truth_line, worst_word
from tests.tui import frames
from tests.tui.scenes import NOW_S, SCENES, WALL_S, keyed, live, lived, logged, repeating, scene, slow_third_stage, state_of

GOLDEN = Path(__file__).parent / "golden"
SETTINGS = Settings(themes=("noodle-dark", "ansi", "mono"))
BRAILLE = glyphs_for("braille", ascii_only=False)
SIZES = [(80, 24), (120, 40)]


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def picture(state: ConsoleState, width: int, height: int, glyphs: Glyphs) -> Lines:
    return screen_lines(state, width, height, glyphs, NOW_S, SETTINGS)


def text_of(lines: Lines) -> str:
    return "".join("".join(span.text for span in row).rstrip() + "\n" for row in lines)


@pytest.mark.parametrize("size", SIZES, ids=["80x24", "120x40"])
@pytest.mark.parametrize("name", SCENES)
def test_golden(name: str, size: tuple[int, int]) -> None:
    width, height = size
    glyphs = ASCII if width < 100 else BRAILLE if name.endswith("in-braille") else UNICODE
    text = text_of(picture(scene(name), width, height, glyphs))
    path = GOLDEN / f"{name}-{width}x{height}.txt"
    if os.environ.get("NOODLE_UPDATE_GOLDEN"):
        path.write_text(text, "utf-8")
    assert text == path.read_text("utf-8")


def test_there_is_a_scene_for_every_screen_and_none_left_over() -> None:
    assert {page.value for page in Page} <= {name.partition("-of-")[0] for name in SCENES} | set(SCENES)
    assert {path.name.rpartition("-")[0] for path in GOLDEN.glob("*.txt")} == set(SCENES)


@pytest.mark.parametrize("name", SCENES)
def test_every_scene_fits_every_size(name: str) -> None:
    state = scene(name)
    for size in ((60, 15), (61, 17), (80, 24), (99, 29), (100, 30), (140, 40), (200, 60)):
        for glyphs in (ASCII, UNICODE, BRAILLE):
            lines = picture(state, *size, glyphs)
            assert len(lines) == size[1], (name, size)
            assert max(width_of(row) for row in lines) <= size[0], (name, size)
            assert glyphs is not ASCII or text_of(lines).isascii()


@pytest.mark.parametrize("num_nodes", [1, 20, 200])
def test_many_nodes_and_stages_fit_on_every_screen(num_nodes: int) -> None:
    nodes = tuple(frames.node(f"node-{i:03}", i, i + 1) for i in range(num_nodes))
    stages = tuple(frames.stage(f"node-{i:03}", i, i + 1, 0.001 * (1 + i % 7)) for i in range(num_nodes))
    state = state_of((99.5, live(nodes=nodes, stages=stages, num_items=num_nodes)), (99.6, m.KeyPressed("nav.end")))
    for page in Page:
        shown = state_of((99.7, m.KeyPressed(f"screen.{page.value}")), state=state)
        for size in ((60, 15), (80, 24), (120, 40), (200, 60)):
            text = text_of(picture(shown, *size, ASCII))
            if page in (Page.OVERVIEW, Page.NODES):
                assert f">node-{num_nodes - 1:03}" in text, "the selected node is always in sight"


@pytest.mark.parametrize("size", [(52, 12), (20, 5), (200, 14), (59, 60)])
def test_too_small_is_one_useful_line(size: tuple[int, int]) -> None:
    line = too_small_line(scene("overview"), Canvas(52, 12, ASCII, NOW_S))
    assert len(picture(scene("overview"), *size, ASCII)) == 1 and len(text_of(picture(scene("offline"), *size, ASCII))) <= size[0] + 1
    text = "".join(span.text for span in line)
    assert "LIVE" in text and "4/4 nodes" in text and "WARN 1" in text and "q quit" in text and "60x15" in text


def test_the_worst_alert_survives_the_narrowest_row() -> None:
    state = state_of((99.5, live(name="m" * 300, cluster_id="c" * 300, strategy="s" * 20, **slow_third_stage())))
    for width in (60, 80, 120):
        text = "".join(span.text for span in truth_line(state, Canvas(width, 24, ASCII, NOW_S)))
        assert "WARN 1" in text[:width]


def test_a_stage_far_over_its_plan_is_a_warning_in_words() -> None:
    stages = tuple(replace(s, compute_p50_s=s.predicted_s * 2) if s.worker_id == "cpu-b" else s for s in frames.status().stages)
    state = state_of((99.5, live(stages=stages)))
    assert worst_word(state) == ("WARN 1", "warn")
    text = text_of(picture(state, 80, 24, ASCII))
    assert " cpu-b   WARN " in text and "gpu-a   ok " in text and "OVER PLAN cpu-b x2.0" in text
    text = text_of(picture(keyed(state, "screen.nodes", "view.warn"), 80, 24, ASCII))
    assert "cpu-b" in text and "gpu-a" not in text


def test_noise_of_a_tiny_stage_is_no_warning() -> None:
    stages = (frames.stage(time_s=0.0004, compute_p50_s=0.0009), frames.stage("cpu-b", 5, 9, 0.0042))
    assert worst_word(state_of((99.5, live(stages=stages)))) == ("ok", "ok")


def test_a_lost_node_shows_no_figures_as_if_it_still_had_them() -> None:
    nodes = (frames.node(), frames.node("cpu-b", state=NodeState.LOST, detail="its connection broke", cpu_utilisation=0.31))
    text = text_of(picture(state_of((99.5, live(nodes=nodes))), 80, 24, ASCII))
    row = next(row for row in text.split("\n") if row[1:].startswith("cpu-b "))
    assert "lost" in row and "31%" not in row and "2.0G" not in row
    assert " cpu-b: cpu on lab  its connection broke" in text, "the cursor is on it, and the row about it has none either"


def test_routine_does_not_push_what_matters_off_the_overview() -> None:
    routine = [frames.event(i, f"length: {i} tokens", subject=f"s-{i}", kind="session") for i in range(10, 20)]
    declined = [frames.event(i, f"decision {i}: decline", subject=f"#{i}", kind="adapt") for i in range(20, 30)]
    failed = frames.event(30, "interrupted", Severity.WARN, subject="s-9", kind="session")
    state = state_of((99.0, live()), (99.5, m.FrameArrived(frames.frame(frames.status(), *routine, *declined, failed), WALL_S)))
    text = text_of(picture(state, 80, 30, ASCII))
    assert "interrupted" in text and "decision 29" in text and "decision 28" not in text and "tokens" not in text.partition("EVENTS")[2]
    assert "serving on 4 stages" in text, "what happened before the routine is still there"
    listed = text_of(picture(keyed(state, "screen.events"), 120, 40, ASCII))
    assert "length: 19 tokens" in listed and "[+9 alike, z] decision 29" in listed and "decision 28" not in listed


@pytest.mark.parametrize("name", [Page.EVENTS, Page.LOGS])
def test_repeated_decisions_are_one_row_until_z_or_a_filter_asks_for_all(name: Page) -> None:
    state = repeating(name)
    found = state_of((99.9, m.EntryChanged(Entry(EntryKind.FILTER, "decision 14"))), state=state)
    assert "decision 14" not in text_of(picture(state, 120, 40, ASCII))
    assert "decision 14" in text_of(picture(found, 120, 40, ASCII)), "what is folded can be found"
    unfolded = keyed(state, "view.expand")
    assert "decision 14" in text_of(picture(unfolded, 120, 60, ASCII)) and "alike" not in text_of(picture(unfolded, 120, 60, ASCII))
    assert keyed(unfolded, "view.expand") == state


def test_what_node_after_node_says_in_the_same_words_is_one_row_until_z_asks_for_all() -> None:
    told = [frames.event(i, f"links measured in {i} ms", subject=f"w{i}", kind="node") for i in range(1, 6)]
    joined = [frames.event(i, "joined from vm", subject=f"w{i}", kind="node") for i in range(6, 8)]
    lost = frames.event(8, "links are broken", Severity.WARN, subject="w1", kind="node")
    state = keyed(state_of((99.5, m.FrameArrived(frames.frame(frames.status(), *told, *joined, lost), WALL_S))), "screen.events")
    for size in SIZES:
        text = text_of(picture(state, *size, ASCII))
        assert "[+4 alike, z] links measured in 5 ms" in text and "[+1 alike, z] joined" in text and "links measured in 4" not in text
        assert "links are broken" in text, "a warning is never folded"
        unfolded = text_of(picture(keyed(state, "view.expand"), *size, ASCII))
        assert "alike" not in unfolded and "links measured in 4 ms" in unfolded


def test_a_flood_of_lines_is_told_and_forgotten() -> None:
    state = scene("logs-of-flood")
    assert "+312 lines/s" in text_of(picture(state, 80, 24, ASCII))
    assert "lines/s" not in text_of(screen_lines(state, 80, 24, ASCII, NOW_S + 1.5, SETTINGS))
    assert "lines/s" not in text_of(picture(logged(), 80, 24, ASCII)), "three lines are no flood"


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("apply", "rebalance --strategy memory_aware --for-plan 14"),
        ("rebalance", "rebalance --for-plan 14"),
        ("rollback", "rollback --for-plan 14"),
        ("drain", "drain gpu-a --for-plan 14"),
        ("read-only", "cancel s-21aa --for-plan 14"),
        ("suggestion", "adapt confirm 7"),
        ("auto", "adapt auto"),
    ],
)
def test_a_preview_names_the_command_that_does_the_same_for_the_same_plan(name: str, command: str) -> None:
    rows = text_of(picture(scene(f"confirm-{name}"), 120, 40, ASCII)).split("\n")
    (said,) = [row.partition("same as")[2] for row in rows if "same as" in row]
    assert said.partition("|")[0].strip() == f"noodle-engine {command}"


def test_the_timeline_has_no_holes_between_frames_on_a_wide_screen() -> None:
    row = next(row for row in text_of(picture(keyed(lived(), "screen.events"), 200, 60, ASCII)).split("\n") if " p95 " in row)
    assert " " not in row.partition(" p95 ")[2].partition(" 0..")[0].strip()


def test_a_worker_that_died_is_counted_once() -> None:
    nodes = (frames.node(state=NodeState.LOST), frames.node("cpu-b"))
    state = state_of((99.0, m.ProcessesDied(("gpu-a was killed",))), (99.5, live(nodes=nodes)))
    assert worst_word(state) == ("ERROR 1", "error")


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        (((99.5, live()),), "LIVE <1s"),
        (((90.0, live()), (95.0, m.Tick())), "STALE 10s silent"),
        (((80.0, live()), (90.0, m.Dialling("a:1")), (90.0, m.LinkLost("x", 104.0))), "OFFLINE 10s  retry in 4s (no. 2)  values from"),
        (((98.0, m.BootFailed("no")),), "OFFLINE 2s  r = try again"),
        (((99.5, live()), (99.6, m.HoldToggled(WALL_S))), "HOLD since 22:13:20"),
        (((99.5, live()), (99.6, m.Quitting("ending the processes"))), "QUIT ending the processes"),
        (((99.5, live()), (99.6, m.AccessChanged(True))), "[READ-ONLY]"),
        (((99.5, live()), (99.6, m.RecordingChanged("f.jsonl"))), "[REC][rw]"),
        (((99.5, live()), (99.6, m.ReplayMoved(3, 60, WALL_S, 4.0, False))), "[REPLAY 22:13:20 x4 4/60]"),
        (((99.5, live()), (99.6, m.ReplayMoved(3, 60, WALL_S, 4.0, True))), "PAUSED 4/60]"),
    ],
)
def test_truth_line_words(messages: tuple[tuple[float, m.Message], ...], expected: str) -> None:
    text = "".join(span.text for span in truth_line(state_of(*messages), Canvas(120, 40, ASCII, NOW_S)))
    assert expected in text
