"""The Plan page before its plan has run, and what belongs together on the Events page, where there is little room."""

from __future__ import annotations

from dataclasses import replace

from noodle_tui.glyphs import ASCII
from noodle_tui.screens.events import why
from noodle_tui.screens.frame import Settings, screen_lines
from noodle_tui.text.lines import Canvas, width_of
from tests.tui import frames
from tests.tui.scenes import keyed, live, state_of


def test_a_plan_that_has_not_run_says_so_once() -> None:
    stages = tuple(frames.stage(n, i, i + 1, num_steps=0, compute_p50_s=0.0, history_s=()) for i, n in enumerate(frames.NAMES))
    state = keyed(state_of((99.5, live(stages=stages, num_items=4))), "screen.plan")
    text = "\n".join("".join(span.text for span in row) for row in screen_lines(state, 80, 24, ASCII, 100.0, Settings(themes=())))
    assert "planned 3.1ms  measured -   waits" in text and "history #14 3.1ms planned" in text


def test_a_related_event_that_is_cut_ends_in_the_mark_of_it() -> None:
    events = (frames.event(2, "second", cause_id="c"), frames.event(1, "bottleneck 21.5 ms and much more to say " * 3, cause_id="c"))
    view = state_of((99.5, live())).latest
    assert view is not None
    canvas = Canvas(80, 8, ASCII, 100.0)
    (row,) = [row for row in why(replace(view, events=events), events[0], canvas) if "before" in row[0].text]
    assert width_of(row) <= 80 and "".join(span.text for span in row).endswith(ASCII.ellipsis)
