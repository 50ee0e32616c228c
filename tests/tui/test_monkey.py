"""A short walk of `tests.tui.monkey`, and what longer ones found."""

from __future__ import annotations

import random

from noodle_tui.options import DEMO
from tests.tui.monkey import play_live, play_replay
from tests.tui.pty_console import PtyConsole

NUM_ACTIONS = 130  # with one kill of the cluster's


def test_random_keys_on_a_recording_end_in_order() -> None:
    monkey = play_replay(random.Random(4), lambda count: count >= NUM_ACTIONS)
    assert len(monkey.done) > 1


def test_random_keys_on_a_cluster_that_loses_a_worker_end_in_order() -> None:
    monkey = play_live(random.Random(5), lambda count: count >= NUM_ACTIONS)
    assert monkey.num_consoles >= 1


def test_a_window_that_was_small_for_a_moment_is_whole_again() -> None:
    with PtyConsole(["--replay", str(DEMO)], width=100, height=30) as console:
        console.wait_for("THROUGHPUT")
        console.send(" ")  # nothing else paints from now on
        console.wait_for("PAUSED")
        console.wait_for_silence(0.5)
        before = console.text
        console.resize(30, 5)
        console.resize(100, 30)
        console.wait_for(lambda: "\n".join(row.rstrip() for row in console.screen.display) == before)
