"""What is said of an answer's slow tokens: how many, which was the slowest, and which part held it up."""

from __future__ import annotations

from dataclasses import replace

import pytest

from engine.data.generation import StageTiming
from noodle_tui.core import messages as m
from noodle_tui.glyphs import ASCII
from noodle_tui.screens.prompt import furthest_back, prompt_body
from noodle_tui.state import ConsoleState, Setup
from noodle_tui.text.lines import Canvas
from noodle_tui.text.step_times import MAX_RECENT, StepTimes, with_step
from tests.tui import frames
from tests.tui.scenes import live, scene, state_of

LIMIT_S = 0.06
USUAL = frames.chunk(1).timings


def waited(node: str, queue_s: float) -> tuple[StageTiming, ...]:
    return tuple(replace(t, queue_s=queue_s) if t.worker_id == node else t for t in USUAL)


def played(*steps: tuple[tuple[StageTiming, ...], float]) -> StepTimes:
    """The second token and those after it."""
    times = StepTimes()
    for i, (timings, step_s) in enumerate(steps):
        times = with_step(times, i + 2, timings, step_s, LIMIT_S)
    return times


def test_the_slowest_token_is_named_with_the_part_that_exceeds_its_usual_time() -> None:
    times = played((USUAL, 0.024), (waited("cpu-b", 0.05), 0.075), (waited("gpu-a", 0.2), 0.22), (USUAL, 0.061), (USUAL, 0.024))
    assert times.num_slow == 3 and times.slowest is not None
    assert (times.slowest.number, times.slowest.cause) == (4, "queue on gpu-a")


def test_a_bottleneck_that_always_takes_long_is_not_the_cause() -> None:
    usual = tuple(replace(t, compute_s=0.045) if t.worker_id == "gpu-c" else t for t in USUAL)
    times = played((usual, 0.055), (usual, 0.095))
    assert times.slowest is not None and times.slowest.cause == "wire"
    assert played((usual, 0.095)).slowest.cause == "computing on gpu-c", "without a usual step the longest part"  # type: ignore[union-attr]


@pytest.mark.parametrize(("number", "step_s", "slow"), [(1, 0.4, 0), (2, 0.06, 0), (2, 0.0601, 1), (2, 0.0, 0)])
def test_the_first_token_and_the_limit_itself_are_not_slow(number: int, step_s: float, slow: int) -> None:
    assert with_step(StepTimes(), number, USUAL, step_s, LIMIT_S).num_slow == slow


def test_percentiles_are_of_the_recent_steps_and_memory_is_bounded() -> None:
    times = played(*[(USUAL, 0.05)] * 300, *[(USUAL, 0.02)] * (MAX_RECENT - 20), *[(USUAL, 0.03)] * 20)
    assert len(times.recent_s) == MAX_RECENT
    assert (times.quantile_s(0.5), times.quantile_s(0.95)) == (0.02, 0.03)
    assert StepTimes().quantile_s(0.5) == 0.0


def shown(state: ConsoleState, width: int = 80, height: int = 18) -> list[str]:
    return ["".join(span.text for span in row) for row in prompt_body(state, Canvas(width, height, ASCII, 100.0))]


def test_the_screen_counts_them_by_the_users_own_limit() -> None:
    state = scene("prompt-of-slow-tokens")
    assert any("tokens over 60ms: 2 (no. 34, queue on gpu-c)" in row for row in shown(state))
    assert any("tokens over 60ms: 2 (no. 34, 142ms, queue on gpu-c)" in row for row in shown(state, 100))
    strict = ConsoleState(setup=Setup(thresholds=replace(state.thresholds, token_s=0.02)))
    strict = state_of(
        (90.0, m.PromptSent(1, "x", 9, 0.0, 0)), *((91.0, m.TokenArrived(1, frames.chunk(i))) for i in range(4)), state=strict
    )
    assert any("tokens over 20ms: 3" in row for row in shown(strict))


def test_the_answer_scrolls_back_to_its_first_row_below_every_notice() -> None:
    state = state_of((99.5, live(random_weights=True, has_tokenizer=False)), state=scene("prompt-of-slow-tokens"))
    canvas = Canvas(80, 7, ASCII, 100.0)  # the line for notices and six rows
    state = replace(state, talk=replace(state.talk, scroll=furthest_back(state, canvas)))
    assert any(row.startswith(" > count words") for row in shown(state, 80, 6))
    nearer = replace(state, talk=replace(state.talk, scroll=state.talk.scroll - 1))
    assert not any(row.startswith(" > count words") for row in shown(nearer, 80, 6))
