"""`bench adaptation` prints the table that the README quotes."""

from __future__ import annotations

import json

import pytest

from engine import cli
from engine.commands.bench import adaptation as bench_adaptation
from engine.simulation.adaptation.table import POLICIES
from engine.simulation.adaptation.traces import Noise, square, steady, step


@pytest.fixture
def few_traces(monkeypatch: pytest.MonkeyPatch) -> None:
    traces = [steady(Noise(), 1000), step(2.0, before=800, after=400), square(100, num_cycles=2)]
    monkeypatch.setattr(bench_adaptation, "all_traces", lambda steps: traces)


def test_the_table_and_its_promises(few_traces: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "adaptation", "--rounds", "1"]) == 0
    out, err = capsys.readouterr()
    assert out.isascii() and "adaptation: one node x2" in err
    header, *rows = out.splitlines()[2:-1]
    assert [name.upper() in header for name in POLICIES] == [True] * 6
    assert [row.split("  ")[0] for row in rows] == ["steady, noise 5 %, rho 0.5", "one node x2", "square x2, 100 steps each", "all traces"]
    assert out.splitlines()[-1].startswith("ours: 0 migrations and 0 alarms in 1000 steady steps; at most ")
    assert "; one node x2 noticed after " in out.splitlines()[-1]


def test_json_has_every_figure(few_traces: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "adaptation", "--rounds", "2", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)["adaptation"]
    assert document["seeds"] == 2 and len(document["rows"]) == 3
    row = document["rows"][1]
    assert row["trace"] == "one node x2" and row["oracle_migrations"] == 1
    assert [cell["policy"] for cell in row["cells"]] == list(POLICIES)
    assert {"regret_s", "migrations", "alarms", "useless_again", "deaths", "noticed_after"} <= set(row["cells"][0])


def test_bad_options_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "adaptation", "--steps", "10"]) == 2
    assert "at least 1000" in capsys.readouterr().err
