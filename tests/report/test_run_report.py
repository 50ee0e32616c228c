"""A run's log becomes a summary and a page: the newest run, lines over time, plans, events, and what could not be read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.data.errors import NoodleError, NotFound
from engine.report.jsonl import LogRead, LogRecord, encode
from engine.report.run_report import MAX_POINTS, newest_run, read_run, run_document, run_summary, write_run_report
from tests.report.browser import CHROMIUM, DRIVER, MISSING, Browser, browser
from tests.report.profiles import HOSTILE
from tests.report.runs import write_run

in_browser = pytest.mark.skipif(CHROMIUM is None or DRIVER is None, reason=MISSING)
CHARTS = ("latency", "parts", "speed", "memory", "use", "queue", "heat")


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("chromium")) as found:
        yield found


def test_the_summary_has_medians_plans_and_events(tmp_path: Path) -> None:
    found = run_summary(read_run(write_run(tmp_path / "metrics.jsonl")))
    stages = {(s["worker_id"], s["phase"]): s for s in found["stages"]}
    assert set(stages) == {("w1", "decode"), ("w2", "decode"), ("w1", "prefill"), ("w2", "prefill")}
    assert stages["w1", "decode"]["num_steps"] == 120 * 25
    assert 0.006 < stages["w1", "decode"]["compute_p50_s"] < 0.010 and stages["w1", "decode"]["queue_p50_s"] == 2e-4
    assert [p["plan_version"] for p in found["plans"]] == [1, 2] and found["num_events"] == 2
    assert found["duration_s"] == pytest.approx(2 + 119 / 2 + 30)
    assert (found["num_torn"], found["num_damaged"], found["num_lost"], found["num_earlier_runs"]) == (0, 0, 0, 0)


def test_only_the_newest_run_is_shown_and_the_others_counted(tmp_path: Path) -> None:
    write_run(tmp_path / "metrics.1.jsonl", 20, cluster_id="noodle-1")
    write_run(tmp_path / "metrics.jsonl", 20, cluster_id="noodle-2")
    write_run(tmp_path / "metrics.jsonl", 20, cluster_id="noodle-3")
    found = read_run(tmp_path)
    assert found.about["cluster_id"] == "noodle-3" and found.num_earlier_runs == 2 and len(found.of("cluster")) == 20


def test_what_is_lost_or_unreadable_is_counted(tmp_path: Path) -> None:
    path = write_run(tmp_path / "metrics.jsonl", 4)
    with path.open("ab") as stream:
        stream.write(b"garbage\n" + encode(LogRecord("lost", {"num_records": 7})) + b'{"schema":1,"ki')
    found = read_run(path)
    assert (found.num_lost, found.num_damaged, found.num_torn) == (7, 1, 1)


def test_a_long_run_is_thinned_and_a_pause_breaks_the_line(tmp_path: Path) -> None:
    found = run_document(read_run(write_run(tmp_path / "metrics.jsonl", 9000)))
    line = next(row for row in found["stage_lines"] if (row["worker_id"], row["phase"]) == ("w1", "decode"))
    assert 1000 < len(line["time_ms"]) <= MAX_POINTS + 1
    assert line["compute_p50_s"].count(None) == 1 and line["time_ms"] == sorted(line["time_ms"])
    assert len(json.dumps(found)) < 4e6


def test_a_log_without_a_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_bytes(encode(LogRecord("layer", {})))
    with pytest.raises(NotFound, match="holds no run"):
        read_run(tmp_path)


values = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=9)
    | st.lists(st.integers())
)
names = st.sampled_from(["worker_id", "phase", "num_steps", "compute_p50_s", "stages", "plan_version", "num_records", "severity", "text"])
records = st.builds(
    LogRecord,
    st.sampled_from(["run", "stage", "node", "cluster", "event", "plan", "lost", "other"]),
    st.dictionaries(names, values),
    st.just(""),
    st.floats(0, 4e9),
    st.floats(0, 1e9),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(records, max_size=12))
def test_any_records_make_a_page_or_are_refused(rows: list[LogRecord]) -> None:
    """A log may come from another version, another program, or a damaged disk."""
    try:
        found = newest_run(LogRead(tuple(rows), 0, 0), Path("x"))
    except NoodleError:
        return
    json.dumps(run_document(found), allow_nan=False)


@in_browser
@pytest.mark.parametrize("workers", [("w1", "w2"), HOSTILE])
def test_the_page_draws_and_runs_no_name(tab: Browser, tmp_path: Path, workers: tuple[str, ...]) -> None:
    run = read_run(write_run(tmp_path / "metrics.jsonl", 40, workers, cluster_id=workers[0]))
    path = tmp_path / "report.html"
    write_run_report(run, path)
    tab.console(), tab.requests()
    tab.open(path)
    assert tab.run("return document.documentElement.dataset.ready") == "1", tab.console()
    for _ in ("light", "dark"):
        assert tab.run("return arguments[0].filter(id => document.querySelector(`#${id} .main-svg`))", list(CHARTS)) == list(CHARTS)
        tab.run("document.getElementById('theme').click()")
    assert tab.run("return document.querySelectorAll('#latency .shapelayer path').length") == 2, "one mark per plan"
    assert tab.run("return document.querySelectorAll('#latency .annotation').length") == 2
    tab.run("const i = document.querySelector('#events input'); i.value = 'lost'; i.dispatchEvent(new Event('input'))")
    assert tab.run("return document.querySelectorAll('#events tbody tr').length") == 1
    tab.run("const s = document.getElementById('phase'); s.value = 'prefill'; s.dispatchEvent(new Event('change'))")
    assert tab.run("return document.getElementById('latency').data.length") == len(workers)
    assert tab.run("return document.querySelectorAll('main img, main script, main a[href]').length") == 0
    assert tab.run("return document.title").endswith(": run") and tab.run("return document.title") != "owned"
    assert tab.console() == []
    assert tab.requests() == [path.as_uri()]
