"""`plan`: its sources, the comparison as text and JSON, and what is refused."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from engine.cli import main
from engine.planning.documents.plan_json import plan_from_json
from engine.planning.strategies import STRATEGIES
from tests.planning.test_capability import box
from tests.planning.test_estimate import MADE
from tests.report.profiles import make_profile

PROFILE = make_profile(6)
PROBLEM = {
    "items": [{"name": f"h.{i}", "weight_bytes": 1_000_000, "output_bytes": 3072} for i in range(6)],
    "nodes": [
        {"id": "a", "memory_bytes": 8e9, "time_s": [0.002] * 6, "price_per_s": 3},
        {"id": "b[/x]", "memory_bytes": 4e6, "time_s": [0.004] * 6, "price_per_s": 1},
    ],
    "links": {"latency_s": 0.0005, "bandwidth_bytes_per_s": 1e8},
}


@pytest.fixture
def problem(tmp_path: Path) -> str:
    path = tmp_path / "problem.json"
    path.write_text(json.dumps(PROBLEM))
    return str(path)


def answer(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    code = main(["plan", *arguments, "--json"])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    return json.loads(captured.out)


def test_a_plan_can_be_kept_and_compared_with(problem: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = answer(capsys, "--problem", problem, "--strategy", "balanced")
    kept = plan_from_json(json.dumps(document))
    assert [(s.node_id, s.start, s.stop) for s in kept.stages] == [(s["node"], s["start"], s["stop"]) for s in document["stages"]]
    (tmp_path / "current.json").write_text(json.dumps(document))
    compared = answer(capsys, "--problem", problem, "--compare", "--current", str(tmp_path / "current.json"))
    rows = {row["strategy"]: row for row in compared["plans"]}
    assert list(rows) == ["current", *STRATEGIES] and compared["sessions"] == 2
    assert rows["balanced"]["moves"] == {"items": [], "num_bytes": 0, "joining": [], "leaving": []}
    alone = rows["latency_optimized"]
    assert [s["node"] for s in alone["plan"]["stages"]] == ["a"] and alone["moves"]["num_bytes"] == 2_000_000
    assert alone["tokens_per_s_alone"] == pytest.approx(1 / 0.012)
    assert rows["balanced"]["tokens_per_s"] == pytest.approx(2 / (0.016 + 2 * 0.0005 + (3072 + 4) / 1e8)), "two sessions fill two stages"
    assert rows["balanced"]["bottleneck"]["time_s"] == pytest.approx(0.008)
    moved = answer(capsys, "--problem", problem, "--strategy", "latency_optimized", "--current", str(tmp_path / "current.json"))
    assert moved["moves"]["num_bytes"] == 2_000_000 and moved["moves"]["leaving"] == ["b[/x]"]


def test_a_running_plan_on_a_node_that_is_gone_is_left_out(problem: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = answer(capsys, "--problem", problem)
    document["stages"][0]["node"] = "gone"
    (tmp_path / "current.json").write_text(json.dumps(document))
    assert main(["plan", "--problem", problem, "--compare", "--json", "--current", str(tmp_path / "current.json")]) == 0
    captured = capsys.readouterr()
    assert [row["strategy"] for row in json.loads(captured.out)["plans"]] == list(STRATEGIES)
    assert "the running plan #0 cannot be compared: gone may hold no layers now" in captured.err


def test_the_comparison_for_people(problem: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "90")
    assert main(["plan", "--problem", problem, "--compare", "--in-flight", "7"]) == 0
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert out.isascii() and lines[0].split()[:3] == ["STRATEGY", "STEP", "ms"] and "TOK/S x7" in lines[0]
    assert [line.split()[0] for line in lines[1 : 1 + len(STRATEGIES)]] == list(STRATEGIES)
    assert "S0 a 8.00 ms" in lines[2] or "S1 a 8.00 ms" in lines[2]
    assert "optimal" in lines[2] and "!!" in out and max(len(line) for line in lines[2 + len(STRATEGIES) :]) == 90


def test_strategies_without_a_plan_say_why(problem: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--problem", problem, "--compare", "--memory-reserve", "9G"]) == 1
    out = capsys.readouterr().out
    assert all(any(line.startswith(f"{strategy}: ") for line in out.splitlines()) for strategy in STRATEGIES)


def test_an_estimate_from_a_profile_and_what_doctors_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "profile.json").write_text(MADE.to_json())
    machines = {"good": box("cpu", rooflines={"float32": MADE.environment.roofline}), "odd": box("cpu", rooflines={})}
    for name, capability in machines.items():
        (tmp_path / f"{name}.json").write_text(json.dumps({"capabilities": [asdict(capability)]}))
    files = [str(tmp_path / f"{name}.json") for name in (*machines, "profile")]
    arguments = ["plan", "--profile", files[2], "--hardware", files[0], "--hardware", files[1], "--link", "0.001,1.25e8", "--json"]
    assert main(arguments) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["stages"][0]["node"] == "good.cpu"
    assert "left out: odd.cpu (a CPU) cannot compute in float32" in captured.err and "good.cpu 1.00, odd.cpu 0.00" in captured.err


def test_a_plan_for_machines_that_nobody_measured_has_a_band_and_may_be_uncertain(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nodes = [{"id": "a", "time_s": [0.01] * 8, "memory_bytes": 600}, {"id": "b", "time_s": [0.01] * 8, "memory_bytes": 600}]
    document = {"items": [{"weight_bytes": 100}] * 8, "nodes": nodes, "in_flight": 2}
    path = tmp_path / "problem.json"

    def planned(error: float, *options: str) -> tuple[dict, str]:
        nodes[1]["time_error"] = error
        path.write_text(json.dumps(document))
        arguments = ["plan", "--problem", str(path), "--strategy", "bottleneck_first", *options]
        assert main([*arguments, "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert main(arguments) == 0
        return found, capsys.readouterr().out

    found, said = planned(0.5)
    assert found["band"] == {"least_period_s": pytest.approx(0.04), "most_period_s": pytest.approx(0.06), "within": {"b": 0.5}}
    assert found["uncertain"]["if_node"] == "b" and found["uncertain"]["gain"] > 0.03 < found["uncertain"]["else_loss"]
    assert "band: 16.67 to 25 tokens/s, for times are estimated: b within 50 %" in said
    assert "uncertain: these two plans cannot be told apart: a 0-3 | b 4-7, and " in said
    found, said = planned(0.5, "--no-notes")
    assert found["band"] is not None and found["uncertain"] is None and "uncertain" not in said
    found, said = planned(0.0)
    assert found["band"] is None and found["uncertain"] is None and "band" not in said and "uncertain" not in said


def test_an_export_is_the_engines_text_and_what_it_lacks_is_said_beside_it(
    problem: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", "--problem", problem, "--export", "vllm", "--model", "a/b", "--strategy", "balanced"]) == 0
    captured = capsys.readouterr()
    assert captured.out.splitlines()[0].startswith("# on ") and "VLLM_PP_LAYER_PARTITION=" in captured.out
    assert captured.err.count("\n") == captured.err.count("vllm: ") >= 3
    document = answer(capsys, "--problem", problem, "--export", "llamacpp", "--model", "a.gguf")
    assert document["export"]["settings"]["tensor_split"] and document["stages"] and document["export"]["not_expressed"]
    (tmp_path / "profile.json").write_text(MADE.to_json())
    (tmp_path / "m.json").write_text(json.dumps({"capabilities": [asdict(box("cpu", rooflines={"float32": MADE.environment.roofline}))]}))
    source = ["--profile", str(tmp_path / "profile.json"), "--hardware", str(tmp_path / "m.json")]
    assert main(["plan", *source, "--export", "accelerate", "--device", "m.cpu=cpu"]) == 0
    assert set(json.loads(capsys.readouterr().out).values()) == {"cpu"}


def test_a_name_makes_no_line_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evil = {**PROBLEM, "nodes": [{"id": "$(reboot); 'x", "time_s": [0.1] * 6}]}
    (tmp_path / "evil.json").write_text(json.dumps(evil))
    assert main(["plan", "--problem", str(tmp_path / "evil.json"), "--export", "llamacpp", "--model", "m.gguf"]) == 0
    first, second, *_ = capsys.readouterr().out.splitlines()
    assert first == "# on $(reboot); 'x" and second == "rpc-server -H 0.0.0.0 -p 50052"


def machines(folder: Path, **changes: dict[str, Any]) -> list[str]:
    """Options of a profile and a hardware file for each name."""
    (folder / "profile.json").write_text(PROFILE.to_json())
    found = ["--profile", str(folder / "profile.json")]
    for name, change in changes.items():
        unknown: dict[str, Any] = {"link_latency_s": None, "link_bandwidth_bytes_per_s": None}
        device = box("cpu", rooflines={"float32": PROFILE.environment.roofline}, **{**unknown, **change})
        (folder / f"{name}.json").write_text(json.dumps({"capabilities": [asdict(device)]}))
        found += ["--hardware", str(folder / f"{name}.json")]
    return found


def test_a_network_that_nobody_measured_is_assumed_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = machines(tmp_path, a={}, b={}, c={"link_latency_s": 0.004, "link_bandwidth_bytes_per_s": 1e6})
    assert main(["plan", *source, "--write-problem", str(tmp_path / "problem.json"), "--json"]) == 0
    captured = capsys.readouterr()
    assert "0.2 ms and 125 MB/s are assumed between a and b: nobody measured it" in captured.err
    links = {(p["from"], p["to"]): p["latency_s"] for p in json.loads((tmp_path / "problem.json").read_text())["links"]}
    assert links == {("a.cpu", "b.cpu"): 0.0002, ("a.cpu", "c.cpu"): 0.004, ("b.cpu", "c.cpu"): 0.004}
    assert main(["plan", *source, "--link", "a-b=0.5,1e3", "--link", "0.001,1e9", "--write-problem", str(tmp_path / "p.json")]) == 0
    assert "assumed" not in capsys.readouterr().err
    links = {(p["from"], p["to"]): p["latency_s"] for p in json.loads((tmp_path / "p.json").read_text())["links"]}
    assert links == {("a.cpu", "b.cpu"): 0.5, ("a.cpu", "c.cpu"): 0.001, ("b.cpu", "c.cpu"): 0.001}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_written_problem_has_the_same_answer(strategy: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written = tmp_path / "problem.json"
    source = machines(tmp_path, a={}, b={"link_latency_s": 0.003}, c={"memory_bytes": 10**9})
    more = ["--in-flight", "2", "--max-stages", "2", "--pin", "h.0=b.cpu", "--strategy", strategy]
    first = answer(capsys, *source, *more, "--write-problem", str(written))
    again = answer(capsys, "--problem", str(written), "--strategy", strategy)
    assert again | {"solve_ms": 0, "model": ""} == first | {"solve_ms": 0, "model": ""}


def test_a_problem_is_written_even_if_it_has_no_answer(problem: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written = tmp_path / "written.json"
    assert main(["plan", "--problem", problem, "--memory-reserve", "9G", "--write-problem", str(written)]) == 1
    assert json.loads(written.read_text())["constraints"]["memory_reserve_bytes"] == 9_000_000_000
    edited = json.loads(written.read_text())
    edited["constraints"]["memory_reserve_bytes"] = 0
    written.write_text(json.dumps(edited))
    assert answer(capsys, "--problem", str(written)) | {"solve_ms": 0} == answer(capsys, "--problem", problem) | {"solve_ms": 0}


def test_prices_are_watts_unless_they_are_given(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = machines(tmp_path, a={"power_w": 50.0}, b={"power_w": 100.0}, c={"power_w": None})

    def prices(*more: str) -> dict[str, float]:
        assert main(["plan", *source, "--strategy", "cost", "--write-problem", str(tmp_path / "p.json"), *more]) == 0
        return {node["id"]: node.get("price_per_s", 0) for node in json.loads((tmp_path / "p.json").read_text())["nodes"]}

    assert prices() == {"a.cpu": 50.0, "b.cpu": 100.0, "c.cpu": 100.0}
    assert "c.cpu: the power is not known, taken for 100 W like the largest known" in capsys.readouterr().err
    assert prices("--price", "a=0.5", "--price", "b=0", "--price", "c.cpu=2") == {"a.cpu": 0.5, "b.cpu": 0, "c.cpu": 2}
    for wrong, words in ((["a=1"], "not for b.cpu, c.cpu"), (["z=1"], "names 'z', which is no machine"), (["a"], "give NAME=PER_S")):
        assert main(["plan", *source, *(f"--price={text}" for text in wrong)]) == 2
        assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--problem", "PROBLEM", "--export", "tgi"], 2, "engine 'tgi' is unknown: export to one of vllm"),
        (["--problem", "PROBLEM", "--export", "vllm", "--compare"], 2, "--compare shows several"),
        (["--problem", "PROBLEM", "--running"], 2, "--running says how a plan is exported: name the engine with --export"),
        (["--problem", "PROBLEM", "--device", "a=0"], 2, "--device says how a plan is exported"),
        (["--problem", "PROBLEM", "--export", "vllm", "--running"], 2, "none is known: give --connect"),
        (["--problem", "PROBLEM", "--export", "vllm", "--device", "a"], 2, "give NODE=DEVICE, e.g. b=cuda:1"),
        (["--problem", "PROBLEM", "--export", "vllm", "--device", "c=0"], 2, "names node 'c', which holds no stage"),
        (["--problem", "PROBLEM", "--export", "vllm", "--random-weights", "0"], 2, "name it with --model"),
        (["--problem", "PROBLEM", "--export", "accelerate"], 2, "nobody knows them here: give the model with --model"),
        (["--problem", "PROBLEM", "--export", "accelerate", "--model", "/nowhere/x"], 1, "/nowhere/x"),
        (["--compare"], 2, "no problem is given: name one, by --problem FILE, --connect HOST:PORT, or --profile FILE"),
        (["--problem", "PROBLEM", "--connect", "127.0.0.1:9"], 2, "--problem and --connect are two problems"),
        (["--connect", "127.0.0.1:9", "--current", "PROBLEM"], 2, "leave --current out"),
        (["--connect", "nowhere"], 2, "address 'nowhere' is not allowed"),
        (["--connect", "127.0.0.1:1"], 1, "cannot reach the coordinator at 127.0.0.1:1"),
        (["--problem", "PROBLEM", "--current", "PROBLEM"], 1, "this is not a plan (it has no schema_version)"),
        (["--problem", "PROBLEM", "--current", "/nowhere/x"], 1, "/nowhere/x does not exist: name the file of a plan"),
        (["--profile", "PROBLEM"], 2, "--hardware FILE"),
        (["--profile", "PROBLEM", "--hardware", "PROBLEM"], 1, "this is not a profile"),
        (["--problem", "PROBLEM", "--compare", "--strategy", "best"], 2, "strategy 'best' is unknown"),
        (
            ["--profile", "PROBLEM", "--hardware", "PROBLEM", "--link", "fast"],
            2,
            "link 'fast' is not allowed: give seconds and bytes per second",
        ),
        (["--profile", "PROBLEM", "--hardware", "PROBLEM", "--link", "1,0"], 2, "is not allowed"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(
    arguments: list[str], code: int, words: str, problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", *(problem if word == "PROBLEM" else word for word in arguments)]) == code
    captured = capsys.readouterr()
    assert words in captured.err and captured.out == "" and captured.err.count("\n") == 1


def test_hardware_that_is_no_doctors_document_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "profile.json").write_text(MADE.to_json())
    (tmp_path / "bad.json").write_text('{"capabilities": [{"node_id": "cpu"}]}')
    assert main(["plan", "--profile", str(tmp_path / "profile.json"), "--hardware", str(tmp_path / "bad.json")]) == 1
    assert "capabilities[0] lacks device_type" in capsys.readouterr().err
