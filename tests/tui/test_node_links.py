"""Nodes and how they reach each other: the ways from a node on its pane of the Nodes page, and what brings the first worker."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from textual.pilot import Pilot

from engine.data.measured_link import MeasuredLink
from noodle_tui.app import ConsoleApp
from noodle_tui.core import messages as m
from noodle_tui.glyphs import ASCII
from noodle_tui.screens.overview import overview_body
from noodle_tui.text.lines import Canvas
from tests.tui import frames
from tests.tui.harness import finished, link_of, live, run, shown
from tests.tui.scenes import NOW_S, SCENES

MB = 1024.0 * 1024.0
LINKS = (
    MeasuredLink("gpu-c", "pi-d", failure="refused"),
    MeasuredLink("gpu-c", "cpu-b", round_trip_s=0.0042, bandwidth_bytes_per_s=600 * MB),
    MeasuredLink("cpu-b", "gpu-c", round_trip_s=0.0077, bandwidth_bytes_per_s=100 * MB),
)


async def look(app: ConsoleApp, pilot: Pilot[None]) -> int:
    """How often the links were asked for after one more look."""
    app.calls.look_at_links()
    await finished(app, pilot, "links")
    return link_of(app).questions.count(("links",))


def test_the_pane_names_every_way_from_the_node() -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        link_of(app).answers["links"] = LINKS
        await live(app, pilot)
        await pilot.press("2")
        for _ in range(len(frames.NAMES)):  # down to gpu-c
            if " gpu-c  ok  runs" in shown(app):
                break
            await pilot.press("down")
        assert await look(app, pilot) == 1
        assert "links   round trip to cpu-b 4.2ms at 600M/s, pi-d none" in shown(app)
        assert "7.7ms" not in shown(app), "the way from another node to this one is the other node's"

    run(test, size=(120, 40))


def test_links_are_asked_for_on_their_page_only_and_again_when_there_is_news() -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        link_of(app).answers["links"] = LINKS
        await live(app, pilot)
        assert await look(app, pilot) == 0
        await pilot.press("2")
        assert [await look(app, pilot), await look(app, pilot)] == [1, 1]
        app.dispatch(m.FrameArrived(frames.frame(frames.status(), frames.event(7, "links measured in 25 ms: ...")), time.time()))
        assert [await look(app, pilot), await look(app, pilot)] == [2, 2]

    run(test)


def test_a_coordinator_that_does_not_answer_is_not_asked_at_every_tick() -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await live(app, pilot)
        await pilot.press("2")
        assert [await look(app, pilot), await look(app, pilot)] == [1, 1]
        assert "round trip to" not in shown(app)

    run(test)


@pytest.mark.parametrize("width", [80, 120, 200])
def test_the_address_that_the_first_worker_needs_is_never_cut_off(width: int) -> None:
    state, address = SCENES["no-workers"](), "coordinator-of-the-lab.example.org:65535"
    rows = overview_body(replace(state, link=replace(state.link, address=address)), Canvas(width, 30, ASCII, NOW_S))
    assert any(address in "".join(span.text for span in row) for row in rows)
