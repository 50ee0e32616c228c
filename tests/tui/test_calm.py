"""A healthy cluster of real processes under a steady load: no word of warning on any row, no alarm, nothing in the line for what is wrong.

Where others compute on this machine a warning may be right, so one that comes meanwhile is no finding, nor one that still stands behind
it, and such frames do not count.
"""

from __future__ import annotations

import asyncio
import contextlib
import time

import pytest

from engine.data.status import WINDOW_S, ClusterStatus
from engine.diagnosis.standing import GONE_AFTER_S
from engine.diagnosis.step import BY_OTHERS, MIN_STEPS
from noodle_tui.changes.reducer import reduce
from noodle_tui.core import messages as m
from noodle_tui.glyphs import ASCII
from noodle_tui.listings.causes import alert_rules
from noodle_tui.screens.frame import NUM_TOP_ROWS, screen_lines
from noodle_tui.state import ConsoleState
from noodle_tui.widgets.truth_line import worst_word
from tests.tui.troubles.stage import Plot, Scene, staged

ENOUGH = 15  # frames, each of which tells of the last 10 s
WITHIN_S = 60.0
PATIENCE = 10  # frames of a shared machine, one after the other, none of which counts: the others go on, and so would they


def is_steady(status: ClusterStatus) -> bool:
    """Every stage has run for longer than its first steps."""
    return bool(status.stages) and all(stage.num_steps >= 20 * MIN_STEPS for stage in status.stages)


def is_shared(status: ClusterStatus) -> bool:
    """Others have much of this machine."""
    own = sum(node.gauges.cpu_utilisation for node in status.nodes) + status.coordinator.cpu_utilisation
    machine = status.nodes[0].gauges.machine
    return (machine.busy or 0.0) - own / max(1, machine.num_cores) >= BY_OTHERS / 2


async def looked(scene: Scene) -> tuple[int, list[str]]:
    """How many frames counted, and what warned in them."""
    state, count, warned, began_s = ConsoleState(), 0, list[str](), time.monotonic()
    num_lost = 0
    excused_s = 0.0  # until then what is said may be of the time in which the machine was shared
    async with contextlib.aclosing(scene.client.watch(min_interval_s=1.0)) as frames:
        async for frame in frames:
            now_s = time.monotonic()
            state = reduce(state, m.FrameArrived(frame, time.time()), now_s)
            if is_shared(frame.status):
                excused_s = now_s + WINDOW_S + GONE_AFTER_S
            if is_steady(frame.status):
                line = "".join(span.text for span in screen_lines(state, 80, 24, ASCII, now_s)[NUM_TOP_ROWS]).strip()
                fired = [rule.text for rule in alert_rules(frame.status, state.thresholds) if rule.nodes]
                word = worst_word(state)[0]
                calm = (word, line, fired) == ("ok", "", [])
                count += calm
                num_lost = 0 if calm or now_s >= excused_s else num_lost + 1
                warned += [] if calm or now_s < excused_s else [f"after {count}: {word} {line} {fired}"]
            if count >= ENOUGH or num_lost >= PATIENCE or now_s - began_s > WITHIN_S:
                break
    return count, warned


@pytest.mark.parametrize("num_sessions", [1, 2, 6])
def test_nothing_ever_warns(num_sessions: int) -> None:
    async def run() -> tuple[int, list[str]]:
        async with staged(Plot(lambda scene: asyncio.sleep(0), {"adapt": "suggest"})) as scene:
            load = asyncio.create_task(scene.prompts(num_sessions, 8, 200))
            try:
                return await looked(scene)
            finally:
                load.cancel()
                await asyncio.gather(load, return_exceptions=True)

    count, warned = asyncio.run(run())
    if count < ENOUGH and not warned:
        pytest.skip(f"others compute on this machine: {count} of {ENOUGH} frames count")
    assert warned == []
