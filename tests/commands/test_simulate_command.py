"""`noodle-engine simulate` from the outside: figures, charts, and one sentence for whatever is wrong."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import engine
from engine.cli import main, parse
from engine.profile.cost_model import CostModel, CostSample
from engine.profile.point import DECODE, PREFILL, Point
from engine.profile.profile import Profile
from tests.report.profiles import make_profile


@pytest.fixture(scope="module")
def profile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a profile whose 6 items take 1 ms for a token and 2 ms for a prompt of 16."""
    made = make_profile(4)
    num_items = len(made.items)
    samples = [
        CostSample(Point(phase, tokens, context, 1), (time_s,) * num_items)
        for phase, tokens, time_s in ((DECODE, 1, 0.001), (PREFILL, 16, 0.002), (PREFILL, 64, 0.008))
        for context in (0 if phase == PREFILL else 16, 64)
    ]
    folder = tmp_path_factory.mktemp("profile")
    (folder / "profile.json").write_text(replace(made, cost_model=CostModel.fit(samples)).to_json())
    return folder


def simulate(capsys: pytest.CaptureFixture[str], *arguments: Any) -> dict[str, Any]:
    assert main(["simulate", *map(str, arguments), "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def refusal(capsys: pytest.CaptureFixture[str], *arguments: Any) -> tuple[int, str]:
    code = main(["simulate", *map(str, arguments)])
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1
    return code, said.err


def test_a_profile_and_layer_counts_give_figures(capsys: pytest.CaptureFixture[str], profile: Path) -> None:
    found = simulate(capsys, "--profile", profile, "--layers", "3,3", "--sessions", 2, "--new-tokens", 9, "--hop-ms", 0.5)
    assert [(s["node_id"], s["start"], s["stop"]) for s in found["plan"]["stages"]] == [("w1", 0, 3), ("w2", 3, 6)]
    assert found["num_tokens"] == 18 and found["generated"] == [9, 9]
    assert found["step_s"]["p50"] >= 0.006 + 3 * 0.0005 - 1e-4
    assert {"tokens_per_s", "ttft_s", "inter_token_s", "stages", "links", "spans"} <= found.keys()
    assert found["stages"][0]["kv_end_bytes"] == 0 and found["stages"][0]["kv_timeline"][-1][1] == 0


def test_a_profile_that_is_too_noisy_is_refused_as_plan_refuses_it(
    capsys: pytest.CaptureFixture[str], profile: Path, tmp_path: Path
) -> None:
    made = Profile.from_json((profile / "profile.json").read_text())
    doubtful = replace(made, honesty=replace(made.honesty, doubt="a step varies by 87 % at decode ctx 16"))
    (tmp_path / "profile.json").write_text(doubtful.to_json())
    sentence = "the profile is too noisy to use: a step varies by 87 % at decode ctx 16; take it again when the machine is quiet"
    assert refusal(capsys, "--profile", tmp_path, "--layers", "3,3") == (2, f"noodle-engine: {sentence}\n")
    assert main(["profile", "--compare", str(profile), str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "\nB is too noisy to use: a step varies by 87 % at decode ctx 16\n" in said and "A is too noisy" not in said


def test_one_session_takes_the_round_trip(capsys: pytest.CaptureFixture[str]) -> None:
    found = simulate(capsys, "--item-ms", "1,2,3", "--layers", "1,2", "--hop-ms", 0, "--latency-ms", 2, "--new-tokens", 5)
    assert found["inter_token_s"]["p50"] == pytest.approx(0.006 + 3 * 0.002)


def test_native_is_compared_with(capsys: pytest.CaptureFixture[str]) -> None:
    found = simulate(
        capsys, "--item-ms", "1,1,1,1", "--layers", "2,2", "--hop-ms", 0, "--sessions", 8, "--prompt-tokens", 1, "--compare", "native"
    )
    assert found["native"]["tokens_per_s"] == pytest.approx(1 / 0.004)
    assert 1.5 < found["speedup"] <= 2.5 or found["speedup"] > 2.5  # packed steps may do better than two stages
    assert found["speedup"] == pytest.approx(found["tokens_per_s"] / found["native"]["tokens_per_s"])


def test_a_strategy_plans_for_nodes_of_several_speeds(capsys: pytest.CaptureFixture[str]) -> None:
    machines = ("--item-ms", ",".join(["1"] * 10), "--workers", 2, "--slowdown", "1,4")
    alone = simulate(capsys, *machines, "--sessions", 8)
    assert [s["node_id"] for s in alone["plan"]["stages"]] == ["w1"] and alone["plan"]["strategy"] == "auto"
    found = simulate(capsys, *machines, "--strategy", "balanced")
    assert [s["stop"] - s["start"] for s in found["plan"]["stages"]] == [8, 2]


def test_a_plan_file_and_named_nodes(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    file.write_text(
        json.dumps({"strategy": "balanced", "stages": [{"node": "b", "start": 0, "stop": 1}, {"node": "a", "start": 1, "stop": 3}]})
    )
    nodes = ("--node", "a", "--node", "b,slowdown=3", "--link", "b:a,latency-ms=7,bandwidth=1000")
    found = simulate(capsys, "--item-ms", "1,1,1", "--plan", file, *nodes, "--hop-ms", 0)
    assert [s["node_id"] for s in found["stages"]] == ["b", "a"]
    assert found["inter_token_s"]["p50"] == pytest.approx(0.003 + 0.007 + 0.002)


def test_seeded_arrivals_and_traces(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    common = ("--item-ms", "1,1", "--layers", "1,1", "--sessions", 5, "--rate", 100)
    first, second = (simulate(capsys, *common, "--seed", 3) for _ in range(2))
    assert first == second != simulate(capsys, *common, "--seed", 4)
    file = tmp_path / "trace.csv"
    file.write_text("arrival_s,prompt_tokens,new_tokens\n# a comment\n0.5,4,3\n\n0,8,2\n")
    assert simulate(capsys, "--item-ms", "1,1", "--trace", file)["generated"] == [2, 3]


def test_nodes_on_one_machine_slow_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    common = ("--item-ms", "1,1,1,1", "--layers", "2,2", "--sessions", 8, "--hop-ms", 0, "--prompt-tokens", 1, "--extra-token-share", 1)
    apart = simulate(capsys, *common)["tokens_per_s"]
    together = simulate(capsys, *common, "--one-host", 1)["tokens_per_s"]
    assert together == pytest.approx(1 / 0.004, rel=0.01) and apart > 1.5 * together
    assert simulate(capsys, *common, "--one-host", 2)["tokens_per_s"] == pytest.approx(apart, rel=0.02)


def test_text_is_ascii_with_a_chart_and_the_page_is_written(capsys: pytest.CaptureFixture[str], profile: Path, tmp_path: Path) -> None:
    page = tmp_path / "g.html"
    assert (
        main(["simulate", "--profile", str(profile), "--layers", "2,4", "--sessions", "3", "--compare", "native", "--gantt", str(page)])
        == 0
    )
    said = capsys.readouterr()
    assert said.out.isascii() and "S1 w2 |" in said.out and "native, one process" in said.out and "KV PEAK MB" in said.out
    assert str(page) in said.err and b"plotly" in page.read_bytes()[:20_000_000].lower()


def test_the_example_file_holds_a_simulation() -> None:
    _, found = parse(["simulate", "--config", str(Path(engine.__file__).parent / "example.yaml")])
    assert found.model.layers == (5, 5, 4) and found.load.rate == 2.0
    assert found.machines.node == ("w1", "w2,slowdown=3", "w3") and len(found.machines.link) == 1


@pytest.mark.parametrize(
    ("arguments", "code", "match"),
    [
        ((), 2, "give either --profile FILE"),
        (("--profile", "nowhere"), 1, "nowhere does not exist"),
        (("--item-ms", "1,x"), 2, "'x' is not allowed"),
        (("--item-ms", "nan"), 2, "'nan' is not allowed"),
        (("--item-ms", "1,1", "--layers", "1,2"), 2, "layers 1,2 are 3 items, the model has 2"),
        (("--item-ms", "1,1", "--layers", "1,1", "--workers", "1"), 2, "--layers names 2 stages, there are 1 nodes"),
        (("--item-ms", "1,1", "--layers", "2", "--plan", "x"), 2, "not both"),
        (("--item-ms", "1,1", "--plan", "x"), 1, "x does not exist"),
        (("--item-ms", "1,1", "--strategy", "best"), 2, "strategy 'best' is unknown"),
        (("--item-ms", "1,1", "--node", "a,speed=2"), 2, "'speed' is unknown"),
        (("--item-ms", "1,1", "--node", "a,slowdown=fast"), 2, "'fast' is no number"),
        (("--item-ms", "1,1", "--node", "a,slowdown=nan"), 2, "'nan' is not finite"),
        (("--item-ms", "1,1", "--node", "a", "--workers", "2"), 2, "either --node for every node or --workers"),
        (("--item-ms", "1,1", "--workers", "2", "--slowdown", "1,2,3"), 2, "3 factors for 2 nodes"),
        (("--item-ms", "1,1", "--link", "w1"), 2, "write FROM:TO"),
        (("--item-ms", "1,1", "--link", "w1:w9"), 2, "'w9', which is no node"),
        (("--item-ms", "1,1", "--latency-ms", "-1"), 2, "latency of a link"),
        (("--item-ms", "1,1", "--hop-ms", "nan"), 2, "software cost of a hop"),
        (("--item-ms", "1,1", "--rate", "0"), 2, "give a number above 0"),
        (("--item-ms", "1,1", "--sessions", "999999999"), 2, "999999999 sessions are not allowed"),
        (("--item-ms", "1,1", "--new-tokens", "999999999"), 2, "each must lie in"),
        (("--item-ms", "1,1", "--trace", "x"), 1, "x does not exist"),
        (("--item-ms", "1,1", "--context-tokens", "10"), 2, "the model's context holds 10"),
        (("--item-ms", "1,1", "--one-host", "0"), 2, "give a number above 0"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arguments: tuple[str, ...], code: int, match: str
) -> None:
    monkeypatch.chdir(tmp_path)
    found, said = refusal(capsys, *arguments)
    assert found == code and match in said


@pytest.mark.parametrize(
    ("name", "text", "match"),
    [
        ("plan", "{", "is not JSON"),
        ("plan", "[]", "is not a plan"),
        ("plan", '{"stages": []}', "is not a plan"),
        ("plan", '{"stages": [{"node": "w1", "start": 0}]}', "stage 0 needs a node name"),
        ("plan", '{"stages": [{"node": "w1", "start": 0, "stop": 1}]}', "are 1 items, the model has 2"),
        ("plan", '{"stages": [{"node": "a/b", "start": 0, "stop": 2}]}', "'a/b' is not allowed"),
        ("trace", "1,2", "line 1"),
        ("trace", "0,1,1\n0,1,x", "line 2: 'x' is no whole number"),
        ("trace", "", "holds no session"),
        ("trace", "inf,1,1", "is not finite"),
        ("trace", "\x00\xff", "line 1"),
    ],
)
def test_damaged_files_are_refused_in_one_sentence(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str, text: str, match: str
) -> None:
    file = tmp_path / name
    file.write_text(text)
    code, said = refusal(capsys, "--item-ms", "1,1", f"--{name}", file)
    assert code == 2 and match in said
