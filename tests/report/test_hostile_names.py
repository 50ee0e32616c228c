"""Names of markup, escape bytes, HTML, formulas and 10 KB go through every format unharmed, and harm nothing."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from engine.profile.profile import Profile
from engine.report.csv_export import write_csv, write_json
from engine.report.dashboard import write_dashboard
from engine.report.jsonl import read_log, write_profile_jsonl
from engine.report.names import visible
from engine.report.page import render_page, safe_json
from engine.report.prometheus import MAX_LABEL, exposition, gauge, safe_label, write_prometheus
from tests.report.profiles import HOSTILE, POINTS, make_profile

CONTROL = re.compile(rb"[\x00-\x09\x0b\x0c\x0e-\x1f\x7f]")


@pytest.fixture(scope="module")
def profile() -> Profile:
    return make_profile(12, HOSTILE)


def test_jsonl_keeps_every_name_exactly(profile: Profile, tmp_path: Path) -> None:
    path = tmp_path / "profile.jsonl"
    write_profile_jsonl(profile, path)
    assert path.read_bytes().isascii() and not CONTROL.search(path.read_bytes())
    found = read_log(path)
    assert (found.num_torn, found.num_damaged) == (0, 0)
    assert [r.data["name"] for r in found.records if r.kind == "layer"] == [la.name for la in profile.layers]
    kinds = [r.kind for r in found.records]
    assert kinds == ["profile", *["step"] * len(POINTS), *["layer"] * 40, *["item"] * 14]
    assert found.records[0].data["model"] == profile.model and found.records[0].wall_s == profile.wall_s


def test_json_keeps_every_name_exactly(profile: Profile, tmp_path: Path) -> None:
    write_json(profile, tmp_path / "p.json")
    assert Profile.from_json((tmp_path / "p.json").read_text()) == profile


def test_csv_holds_no_formula_and_no_control_character(profile: Profile, tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    write_csv(profile, path)
    assert not CONTROL.search(path.read_bytes())
    with path.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == (40 + 14) * len(POINTS)
    for row in rows:
        for name, cell in row.items():
            if name in ("name", "path", "parent", "why", "class_name"):
                assert not re.match(r"\s*[=+\-@]", cell), cell
    named = [row["name"] for row in rows if row["kind"] == "layer"][:: len(POINTS)]
    assert named[4] == "'" + HOSTILE[4] and named[6] == "'-2+3" and named[0] == HOSTILE[0] and named[19] == HOSTILE[19]
    assert float(rows[0]["p50_s"]) == profile.layers[0].figures[0].p50_s


@pytest.mark.parametrize("text", ["a;=1+1", "a,=1", "x|@cmd", "a; +1", "＝1+1", " =1"])
def test_a_formula_behind_what_some_spreadsheets_take_for_a_cell_end(text: str, tmp_path: Path) -> None:
    write_csv(make_profile(1, [text]), tmp_path / "p.csv")
    with (tmp_path / "p.csv").open(newline="", encoding="utf-8") as stream:
        cell = next(csv.DictReader(stream))["name"]
    assert re.search(r"(^|[;,|])\s*[=+\-@＝]", cell) is None and cell.replace("'", "") == text


def test_prometheus_text_parses_and_shows_every_layer(profile: Profile, tmp_path: Path) -> None:
    write_prometheus(profile, tmp_path / "p.prom")
    raw = (tmp_path / "p.prom").read_bytes()
    assert not CONTROL.search(raw)
    families = {f.name: f for f in text_string_to_metric_families(raw.decode("utf-8"))}
    sizes = families["noodle_layer_parameter_bytes"].samples
    assert [s.labels["layer"] for s in sizes] == [safe_label(la.path) for la in profile.layers]
    assert len(families["noodle_layer_seconds"].samples) == 40 * 2  # the reference point of prefill and of decode
    assert max(len(s.labels["layer"]) for s in sizes) <= MAX_LABEL


def test_html_has_no_name_outside_its_data_block(profile: Profile, tmp_path: Path) -> None:
    write_dashboard(profile, tmp_path / "p.html")
    page = (tmp_path / "p.html").read_text(encoding="utf-8")
    block = re.search(r'<script type="application/json" id="document">(.*?)</script>', page, re.DOTALL)
    assert block is not None
    assert json.loads(block[1])["layers"]["name"] == [la.name for la in profile.layers]
    rest = page.replace(block[1], "")
    assert "document.title='owned'" not in rest and "example.invalid" not in rest
    assert not re.search(r"[<>&]", block[1])


def test_a_hostile_model_name_in_the_title(tmp_path: Path) -> None:
    page = render_page("dashboard.html", "</title><script>x\x1b\u202e{{data}}", {"a": 1}, ["names.js"]).decode()
    assert "<title>&lt;/title&gt;&lt;script&gt;x\\x1b\\u202e{{data}}</title>" in page


@settings(max_examples=200)
@given(st.text())
def test_any_text_as_label_csv_cell_and_json(text: str) -> None:
    label = safe_label(text)
    assert label.isprintable() and len(label) <= MAX_LABEL and visible(text).isprintable()
    raw = exposition(lambda: [gauge("noodle_x", "any", [({"name": text}, 1.0)])])
    (family,) = text_string_to_metric_families(raw.decode("utf-8"))
    assert family.samples[0].labels["name"] == label
    assert json.loads(safe_json({"a": text}))["a"] == text and "<" not in safe_json([text])


@given(st.text(min_size=500, max_size=600), st.text(min_size=1, max_size=5))
def test_two_long_names_stay_two_labels(text: str, more: str) -> None:
    assert safe_label(text * 3) != safe_label(text * 3 + more)
