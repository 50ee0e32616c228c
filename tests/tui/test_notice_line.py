"""One line of every screen is kept for what is wrong, so that nothing jumps when something is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from engine.data.status import NodeState
from noodle_tui.changes.actions import action_for, preview_of
from noodle_tui.core import messages as m
from noodle_tui.core.pages import Page
from tests.tui import frames
from tests.tui.scenes import WALL_S, keyed, lived, state_of
from tests.tui.test_last_minutes import text_of

LOST = tuple(replace(n, state=NodeState.LOST, detail="gone") if n.worker_id == "pi-d" else n for n in frames.status().nodes)


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (200, 60)])
@pytest.mark.parametrize("page", Page)
def test_nothing_jumps_when_a_notice_appears(page: Page, size: tuple[int, int]) -> None:
    before = keyed(lived(), f"screen.{page.value}")
    after = state_of((99.6, m.ProcessesDied(("w9 (pid 7) was killed by signal 9",))), state=before)
    rows, with_notice = text_of(before, *size).splitlines(), text_of(after, *size).splitlines()
    assert [i for i, (old, new) in enumerate(zip(rows, with_notice, strict=True)) if old != new] == [0, 3]
    assert rows[3].strip() == "" and "w9 (pid 7) was killed" in with_notice[3]


@pytest.mark.parametrize("page", Page)
def test_further_notices_cover_what_is_below_and_move_nothing(page: Page) -> None:
    before = keyed(lived(), f"screen.{page.value}")
    after = state_of((99.6, m.ProcessesDied(tuple(f"w{i} (pid 7) was killed by signal 9" for i in (7, 8, 9)))), state=before)
    rows, with_notice = text_of(before, 80, 24).splitlines(), text_of(after, 80, 24).splitlines()
    assert "and 1 more processes" in with_notice[5] and rows[6:] == with_notice[6:]


@pytest.mark.parametrize("page", Page)
def test_what_is_wrong_is_said_on_every_screen_with_a_key_that_works_there(page: Page) -> None:
    state = state_of((99.6, m.FrameArrived(frames.frame(frames.status(nodes=LOST)), WALL_S)), state=lived())
    line = text_of(keyed(state, f"screen.{page.value}"), 80, 24).splitlines()[3]
    assert line.startswith(" Lost node pi-d") and line.endswith("D = forget it")
    assert line.endswith("esc then D = forget it") == (page is Page.PROMPT)
    meant = preview_of(action_for("cluster.drain", shown := keyed(state, f"screen.{page.value}")), shown)
    assert (meant.action, meant.target) == ("cluster.forget", "pi-d"), "the key does what the line says"


def test_a_key_that_means_another_row_names_the_one_that_helps() -> None:
    state = state_of((99.6, m.FrameArrived(frames.frame(frames.status(nodes=LOST)), WALL_S)), state=lived())
    assert text_of(state, 80, 24).splitlines()[3].endswith("  D = forget it")
    moved = keyed(state, "nav.up")
    assert preview_of(action_for("cluster.drain", moved), moved).target != "pi-d"
    assert text_of(moved, 80, 24).splitlines()[3].endswith("  D on pi-d = forget it")


def test_the_second_trouble_stands_below_the_first_and_moves_nothing() -> None:
    gone = tuple(replace(node, state=NodeState.LOST, detail="gone") if node.worker_id == "cpu-b" else node for node in LOST)
    before = text_of(state_of((99.5, m.FrameArrived(frames.frame(frames.status(random_weights=True)), WALL_S))), 80, 24).splitlines()
    both = state_of((99.6, m.FrameArrived(frames.frame(frames.status(nodes=gone, random_weights=True)), WALL_S)))
    assert before[4].startswith(" NOTE random weights")
    rows = text_of(both, 80, 24).splitlines()
    assert rows[3].startswith(" Lost node cpu-b") and rows[3].endswith("D = forget it  +1 more")
    assert rows[4].startswith(" Lost node pi-d") and rows[4].endswith("D on pi-d = forget it"), "the key means the first, and says so"
    assert [row.split("  ")[0][:11] for row in rows[5:9]] == [row.split("  ")[0][:11] for row in before[5:9]]
