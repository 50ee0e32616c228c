"""A simulation's page: its document, and in a headless Chromium that it draws, asks nobody and runs no name."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.report.gantt_page import gantt_document, write_gantt
from engine.simulation.arrivals import poisson
from engine.simulation.result import SimulationResult
from engine.simulation.simulator import StagedSimulator
from tests.report.browser import CHROMIUM, DRIVER, MISSING, Browser, browser
from tests.report.profiles import HOSTILE
from tests.simulation.scenarios import scenario


@pytest.fixture(scope="module")
def result() -> SimulationResult:
    return StagedSimulator(scenario(3, 2, 4, arrivals=poisson(9, 80.0, 12, 20, random.Random(1)), share=0.05)).run()


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("chromium")) as found:
        yield found


def test_the_document_holds_every_step_once(result: SimulationResult) -> None:
    found = json.loads(json.dumps(gantt_document(result, "t")))
    assert len(found["spans"]["stage"]) == found["num_steps"] == sum(s.num_steps for s in result.stages)
    assert {len(column) for column in found["spans"].values()} == {found["num_steps"]}
    assert [s["name"] for s in found["stages"]] == ["S0 n0 0-2", "S1 n1 3-4", "S2 n2 5-8"]
    assert next(link["name"] for link in found["links"]) == "coordinator > n0" and len(found["links"]) == 4
    busy_s = sum(
        stop - start for k, start, stop in zip(*(found["spans"][c] for c in ("stage", "start_s", "stop_s")), strict=True) if k == 1
    )
    assert busy_s == pytest.approx(result.stages[1].busy_s)


@pytest.mark.skipif(CHROMIUM is None or DRIVER is None, reason=MISSING)
def test_it_draws_in_both_themes_and_asks_nobody(tab: Browser, tmp_path: Path, result: SimulationResult) -> None:
    path = tmp_path / "gantt.html"
    write_gantt(result, HOSTILE[0], path)
    tab.console(), tab.requests()
    tab.open(path)
    assert tab.run("return document.documentElement.dataset.ready") == "1", tab.console()
    bars = "return document.querySelectorAll('#gantt .bars .point').length"
    assert tab.run(bars) == sum(s.num_steps for s in result.stages)
    tab.run("document.getElementById('theme').click()")
    for chart in ("gantt", "use", "kv", "links"):
        assert tab.run(f"return document.getElementById('{chart}').querySelectorAll('svg').length") > 0, chart
    assert tab.run("return document.title") != "owned" and tab.run("return document.querySelectorAll('h1 *').length") == 0
    assert tab.console() == []
    assert tab.requests() == [path.as_uri()]
