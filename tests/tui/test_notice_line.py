"""One line of every screen is kept for what is wrong, so that nothing jumps when something is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from engine.data.status import NodeState
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
    assert line.startswith(" Lost node pi-d") and line.endswith("enter, D = forget it")
    assert ("1, enter" in line) == (page is not Page.OVERVIEW)
