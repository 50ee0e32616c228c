"""Golden frames: a few whole screens as text, from pure state. NOODLE_UPDATE_GOLDEN=1 writes them anew."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from engine.data import FinishReason, NodeState, Phase, Severity
from noodle_tui import messages as m
from noodle_tui.generation import AnswerState
from noodle_tui.glyphs import ASCII, UNICODE, Glyphs
from noodle_tui.lines import Canvas, Lines, Span, crop, width_of
from noodle_tui.screens.overview_body import answer_height, overview_body
from noodle_tui.state import ConsoleState, reduce
from noodle_tui.widgets.answer import answer
from noodle_tui.widgets.truth_line import too_small_line, truth_line, worst_word
from tests.tui import frames

GOLDEN = Path(__file__).parent / "golden"
NOW_S = 100.0
WALL_S = 1_700_000_000.0
EVENTS = (
    frames.event(1, "#14 balanced: gpu-a 0-4 | cpu-b 5-8 | gpu-c 9-11 | pi-d 12-13, bottleneck 11.8 ms"),
    frames.event(2, "serving on 4 stages", Severity.OK, subject="#14"),
    frames.event(3, "stage latency 11.8 ms > 1.5x planned 7.6 ms", Severity.WARN, subject="gpu-c"),
)


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def state_of(*timed: tuple[float, m.Message]) -> ConsoleState:
    state = ConsoleState()
    for now_s, message in timed:
        state = reduce(state, message, now_s)
    return state


def live(num_nodes: int = 4, **changes: object) -> m.FrameArrived:
    return m.FrameArrived(frames.frame(frames.status(num_nodes, **changes), *EVENTS), WALL_S)  # type: ignore[arg-type]


def answered() -> tuple[tuple[float, m.Message], ...]:
    text = "Pipeline parallelism splits a model's layers into stages on different devices; each token passes them in order."
    tokens = tuple((91.0 + i * 0.05, m.TokenArrived(1, frames.chunk(i, " " + word))) for i, word in enumerate(text.split()))
    last = m.TokenArrived(1, frames.chunk(-1, "", finish_reason=FinishReason.LENGTH))
    return ((90.8, m.PromptSent(1, "explain pipelines", 64, 0.0, 0)), *tokens, (97.0, last), (97.0, m.SessionEnded(1)))


def slow_third_stage() -> dict[str, object]:
    base = frames.status()
    stages = tuple(replace(s, predicted_s=0.0076) if s.worker_id == "gpu-c" else s for s in base.stages)
    nodes = tuple(replace(n, state=NodeState.WARN) if n.worker_id == "gpu-c" else n for n in base.nodes)
    return {"stages": stages, "nodes": nodes}


STATES = {
    "live": state_of((99.5, live(**slow_third_stage())), *answered()),
    "random": state_of((99.5, live(3, random_weights=True, has_tokenizer=False))),
    "boot": state_of((99.5, m.FrameArrived(frames.frame(frames.booting()), WALL_S))),
    "starting": state_of((97.0, m.BootProgress("Starting a cluster on this machine: a coordinator and worker processes for gpt2 ..."))),
    "offline": state_of((80.0, live()), (90.0, m.Dialling("10.0.0.5:7070")), (90.0, m.LinkLost("cannot reach 10.0.0.5:7070", 104.0))),
    "degraded": state_of(
        (99.0, m.ProcessesDied(("w2 (pid 7) was killed by signal 9",))),
        (99.5, live(phase=Phase.GATHERING, detail="waiting for 4 workers", nodes=(frames.node(state=NodeState.LOST, detail="gone"),))),
    ),
}
PICTURES = [
    ("live", 80, 24, ASCII),
    ("live", 120, 40, UNICODE),
    ("random", 60, 15, ASCII),
    ("boot", 80, 24, UNICODE),
    ("starting", 80, 24, ASCII),
    ("offline", 80, 24, ASCII),
    ("degraded", 100, 30, ASCII),
]


def picture(state: ConsoleState, width: int, height: int, glyphs: Glyphs) -> Lines:
    """The screen without its text fields and key line."""
    canvas = Canvas(width, height, glyphs, NOW_S)
    below = answer_height(height, state.generation.state is not AnswerState.IDLE)
    body = overview_body(state, canvas.sized(width, height - 5 - below))
    top = (crop(truth_line(state, canvas), width), (Span(glyphs.horizontal * width, "rule"),))
    return (*top, *body, *answer(state.generation, 0, canvas.sized(width, below)))


def text_of(lines: Lines) -> str:
    return "".join("".join(span.text for span in row).rstrip() + "\n" for row in lines)


@pytest.mark.parametrize(("name", "width", "height", "glyphs"), PICTURES)
def test_golden(name: str, width: int, height: int, glyphs: Glyphs) -> None:
    lines = picture(STATES[name], width, height, glyphs)
    text = text_of(lines)
    path = GOLDEN / f"{name}-{width}x{height}-{glyphs.name}.txt"
    if os.environ.get("NOODLE_UPDATE_GOLDEN"):
        path.write_text(text, "utf-8")
    assert text == path.read_text("utf-8")


@pytest.mark.parametrize("name", STATES)
@pytest.mark.parametrize("size", [(60, 15), (61, 17), (80, 24), (99, 24), (100, 24), (120, 40), (200, 60)])
def test_every_state_fits_every_size(name: str, size: tuple[int, int]) -> None:
    for glyphs in (ASCII, UNICODE):
        lines = picture(STATES[name], *size, glyphs)
        assert len(lines) == size[1] - 3
        assert max(width_of(crop(row, size[0])) for row in lines) <= size[0]
        assert glyphs is UNICODE or text_of(lines).isascii()


@pytest.mark.parametrize("num_nodes", [1, 20, 200])
def test_many_nodes_and_stages_fit(num_nodes: int) -> None:
    nodes = tuple(frames.node(f"node-{i:03}", i, i + 1) for i in range(num_nodes))
    stages = tuple(frames.stage(f"node-{i:03}", i, i + 1, 0.001 * (1 + i % 7)) for i in range(num_nodes))
    state = state_of((99.5, live(nodes=nodes, stages=stages)), (99.6, m.NodeSelected(num_nodes)))
    for size in ((60, 15), (80, 24), (120, 40)):
        text = text_of(picture(state, *size, ASCII))
        assert f">node-{num_nodes - 1:03}" in text, "the selected node is always in sight"


def test_too_small_is_one_useful_line() -> None:
    line = too_small_line(STATES["live"], Canvas(52, 12, ASCII, NOW_S))
    text = "".join(span.text for span in line)
    assert "LIVE" in text and "4/4 nodes" in text and "WARN 1" in text and "q quit" in text and "60x15" in text


def test_the_worst_alert_survives_the_narrowest_row() -> None:
    state = state_of((99.5, live(model="m" * 300, cluster_id="c" * 300, strategy="s" * 20, **slow_third_stage())))
    for width in (60, 80, 120):
        text = "".join(span.text for span in truth_line(state, Canvas(width, 24, ASCII, NOW_S)))
        assert "WARN 1" in text[:width]


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
    ],
)
def test_truth_line_words(messages: tuple[tuple[float, m.Message], ...], expected: str) -> None:
    text = "".join(span.text for span in truth_line(state_of(*messages), Canvas(120, 40, ASCII, NOW_S)))
    assert expected in text
