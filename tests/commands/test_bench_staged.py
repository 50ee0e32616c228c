"""`bench staged`: real workers under given plans, and the simulation of what was measured."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from engine.cli import main
from engine.commands.bench import staged as bench_staged
from engine.commands.bench.staged import earlier_runs, plans_of, simulate_rows
from engine.commands.bench.staged_measure import Measured, add_first_tokens, joined, measure, visit_runs, warm_up_runs
from engine.commands.bench.staged_text import staged_text
from engine.commands.cluster.generate import Transcript
from engine.data.generation import StageTiming, TokenChunk
from engine.data.model import ModelRef
from engine.folders import cache_folder
from engine.model.sources.card import prepare
from engine.profile.cost_model import CostModel, CostSample
from engine.profile.point import DECODE, PREFILL, Point
from engine.profile.profile import ItemProfile, Profile
from engine.report.staged import staged_document
from tests.report.profiles import make_profile
from tests.service.running import running

TINY = ModelRef("llama:tiny", 0)


def profile_of(num_items: int, item_s: float) -> Profile:
    """Equal items; a prompt of 16 takes three times as long as a token."""
    points = [(Point(DECODE, 1, c, 1), item_s) for c in (8, 64)] + [(Point(PREFILL, n, 0, 1), item_s * n * 3 / 16) for n in (16, 32)]
    model = CostModel.fit([CostSample(point, (time_s,) * num_items) for point, time_s in points])
    items = tuple(ItemProfile(k, f"h.{k}", 1000, 16, 64) for k in range(num_items))
    return replace(make_profile(4), items=items, cost_model=model)


def test_plans_cover_all_items_evenly_and_unevenly() -> None:
    assert plans_of(14) == ((14,), (7, 7), (5, 9), (5, 4, 5), (2, 5, 7))
    for num_items in range(6, 60):
        assert all(sum(plan) == num_items and min(plan) >= 1 for plan in plans_of(num_items))


def test_only_quiet_visits_count_and_without_one_the_quietest() -> None:
    loud, quiet, other = (Measured((2,), 1, step_s=[t], foreign_share=[share]) for t, share in ((9.0, 0.4), (1.0, 0.01), (2.0, 0.02)))
    assert joined([loud, quiet, other]).step_s == [1.0, 2.0]
    worse = Measured((2,), 1, step_s=[30.0], foreign_share=[0.6])
    assert joined([worse, loud]).step_s == [9.0]


def transcript(ttft_s: float, step_s: float, compute_s: float) -> Transcript:
    """One session's only token."""
    found = Transcript(10.0, arrived_s=[10.0 + ttft_s])
    found.chunks.append(TokenChunk("s", 0, 7, "", timings=(StageTiming("w1", compute_s, 0.0, 0.0, 0.0),), step_s=step_s))
    return found


def test_a_visit_is_one_value_however_many_runs_it_had() -> None:
    short = [([transcript(t, t - 0.002 * k, t / 2)], 0.3) for k, t in enumerate((0.05, 0.09, 0.06), 1)]
    into = Measured((2,), 1)
    add_first_tokens(into, short, [transcript(0.08, 0.07, 0.05)])
    assert into.ttft_s == [pytest.approx(0.07)], "the median of 50, 60, 80 and 90 ms"
    assert into.prompt_compute_s == [pytest.approx(0.03)] and into.open_s == [pytest.approx(0.004)]
    assert into.prompt_cpu_per_compute == pytest.approx([12.0, 0.3 / 0.045, 10.0])
    crowd = Measured((2,), 2)
    add_first_tokens(crowd, [], [transcript(0.1, 0.07, 0.05), transcript(0.2, 0.07, 0.05)])
    assert crowd.ttft_s == [pytest.approx(0.15)] and crowd.prompt_compute_s == crowd.open_s == []


def test_the_simulated_scheduler_has_seen_what_the_real_one_had() -> None:
    """After the warm-up and a round: for the visit of 4 sessions that of one comes before, as in every round."""
    one, four = [(1, 1), (1, 1), (1, 1), (1, 32)], [(4, 32)]
    assert (visit_runs(1, 32), visit_runs(4, 32)) == (one, four)
    assert earlier_runs((1, 4), 4, 32) == [*warm_up_runs(32), *one, *four, *one]
    assert earlier_runs((1, 4), 1, 32) == [*warm_up_runs(32), *one, *four, *one[:-1]]


def test_real_workers_run_the_layers_that_were_given() -> None:
    num_items = prepare(TINY, cache_folder()).num_items
    with running("llama:tiny", 2, layers=(1, num_items - 1)) as cluster:
        stages = cluster.status().stages
        assert [(s.worker_id, s.start, s.stop) for s in stages] == [("w1", 0, 1), ("w2", 1, num_items)]
        assert len(cluster.generate(cluster.request((1, 2, 3), 4, ignore_eos=True)).arrived_s) == 4


def test_what_was_measured_is_simulated_with_costs_from_two_of_its_rows() -> None:
    num_items = prepare(TINY, cache_folder()).num_items
    plans = ((num_items,), (1, num_items - 1))
    native, measured = asyncio.run(measure(TINY, plans, (1, 2), 1, 12, 1))
    assert [(m.layers, m.sessions) for m in measured] == [(layers, m) for layers in plans for m in (1, 2)]
    assert all(1 <= len(m.step_s) <= 3 and min(m.step_s) > 0 and m.figures().ttft_s > 0 for m in measured)
    assert all(len(m.prompt_compute_s) == len(m.open_s) == (len(m.step_s) if m.sessions == 1 else 0) for m in measured)
    assert native.step_s > 0
    one, two = measured[0], measured[2]
    rows, found = simulate_rows(profile_of(num_items, 0.0005), measured, threads=1, cores=2, num_tokens=12)
    assert [row.calibrated for row in rows] == [True, False, True, False]
    assert found["slowdown"] > 0 and found["hop_s"] > 0
    for row, source in ((rows[0], one), (rows[2], two)):
        assert row.measured == source.figures()
        assert row.simulated.step_s > 0
    about = {"model": "m", "prompt_tokens": 16, "num_tokens": 12, "rounds": 1, "num_threads": 1, "foreign_share": 0.5, "calibration": found}
    text = staged_text(rows, native, staged_document(rows, native, about))
    assert text.isascii() and "generate()" in text and "the figures are rough" in text


def test_nothing_is_measured_beside_a_profile_that_is_too_noisy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = profile_of(14, 0.001)
    doubtful = replace(made, honesty=replace(made.honesty, doubt="a step varies by 87 %"))
    monkeypatch.setattr(bench_staged, "_profile", lambda ref, threads: doubtful)
    monkeypatch.setattr(bench_staged, "measure", None)
    assert main(["bench", "staged"]) == 2
    sentence = "the profile is too noisy to use: a step varies by 87 %; take it again when the machine is quiet"
    assert capsys.readouterr().err == f"noodle-engine: {sentence}\n"
