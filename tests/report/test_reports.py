"""Profiles as files: fast enough, whole or not at all, and the report room stays light."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from engine.data.errors import NoodleError
from engine.files import replace_whole
from engine.report import page
from engine.report.dashboard import dashboard_document, write_dashboard
from tests.report.profiles import make_profile
from tests.test_imports import loaded_by


def test_a_thousand_layers_take_less_than_a_second(tmp_path: Path) -> None:
    profile = make_profile(332)
    spent_s = []
    for _ in range(3):
        started_s = time.process_time()
        write_dashboard(profile, tmp_path / "p.html")
        spent_s.append(time.process_time() - started_s)
    assert len(profile.layers) == 1000 and min(spent_s) < 1.0


def test_the_document_says_what_the_profile_says() -> None:
    profile = make_profile(12)
    found = dashboard_document(profile)
    point = profile.reference_point("decode")
    shown = found["points"][found["reference"]["decode"]]
    assert shown["label"] == point.label and shown["samples"] is not None
    for row, layer in enumerate(profile.layers):
        figures = layer.at(point)
        assert figures is not None and shown["figures"]["self_s"][row] == pytest.approx(figures.self_s, rel=1e-4)
        parent = found["layers"]["parent"][row]
        assert (profile.layers[parent].path if parent >= 0 else None) == layer.parent
        assert parent < row


def test_a_disk_that_refuses_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "p.html"
    path.write_text("old")

    def full(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(NoodleError, match="No space left"):
        replace_whole(path, b"new")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_without_plotly_the_way_out_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    page.plotly_js.cache_clear()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(NoodleError, match=re.escape("pip install 'noodlecore[report]'")):
        page.plotly_js()
    page.plotly_js.cache_clear()


def test_the_report_room_is_light() -> None:
    modules = ("engine.report.dashboard", "engine.report.csv_export", "engine.report.jsonl", "engine.report.run_report")
    assert loaded_by(*modules) & {"torch", "grpc", "protos", "transformers", "numpy", "plotly", "textual"} == set()
    assert loaded_by("engine.report.prometheus") & {"torch", "grpc", "protos", "numpy"} == set()
