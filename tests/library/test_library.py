"""The planner and the simulator from Python: the README's walk-through, and the figures of the commands."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from engine.cli import main
from engine.data.errors import Corrupt, InvalidInput, NotFound, Refused
from engine.library import (
    Benchmarker,
    ExecutionPlanner,
    Link,
    Machine,
    PartitionStrategy,
    PlanningConstraints,
    StagedSimulator,
    StaticPartitioner,
    VirtualNode,
)
from engine.planning.documents.plan_json import plan_from_json
from engine.planning.documents.problem_json import problem_to_json
from engine.planning.strategies import STRATEGIES
from engine.profile.cost_model import CostModel, CostSample
from engine.profile.point import DECODE, PREFILL, Point
from engine.profile.profile import Profile
from engine.report.jsonl import read_profile_jsonl, write_profile_jsonl
from tests.planning.test_capability import box
from tests.report.profiles import make_profile

README = Path(__file__).parents[2] / "engine" / "planning" / "README.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)


@pytest.fixture(scope="module")
def profile() -> Profile:
    """12 blocks and the two ends, with a cost model that knows batches."""
    made = make_profile(12)
    shares = [1 + 0.1 * (k % 3) for k in range(len(made.items))]
    points = [(DECODE, 1, context, batch, 1e-3 * batch**0.3) for context in (16, 64) for batch in (1, 4)]
    points += [(PREFILL, tokens, 0, 1, 1e-4 * tokens) for tokens in (16, 64, 128)]
    samples = [CostSample(Point(*point), tuple(time_s * share for share in shares)) for *point, time_s in points]
    return replace(made, cost_model=CostModel.fit(samples))


@pytest.fixture(scope="module")
def folder(profile: Profile, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where `noodle-engine profile gpt2 --out profile-gpt2` would have written it."""
    folder = tmp_path_factory.mktemp("here")
    (folder / "profile-gpt2").mkdir()
    (folder / "profile-gpt2" / "profile.json").write_text(profile.to_json())
    write_profile_jsonl(profile, folder / "profile-gpt2" / "profile.jsonl")
    return folder


def test_the_walk_through_runs(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """One after the other, as a reader types them."""
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {}
    for number, example in enumerate(EXAMPLES):
        exec(compile(example, f"{README}:example {number}", "exec"), names)
        assert capsys.readouterr().out.strip()
    assert len(EXAMPLES) == 4


def test_every_name_of_the_table_is_there() -> None:
    import engine.library
    import engine.library.observability

    rows = re.findall(r"\| (.*) \| `(engine\.library[.\w]*)` \|", README.read_text())
    for named, module in rows:
        for name in re.findall(r"`([A-Z]\w+)", named):
            assert hasattr(engine.library if module == "engine.library" else engine.library.observability, name), name
    assert len(rows) == 6


def test_every_strategy_has_its_name() -> None:
    assert {str(strategy) for strategy in PartitionStrategy} == set(STRATEGIES)


# --- profiles ----------------------------------------------------------------------------------------------------
def test_a_profile_survives_its_log(profile: Profile, folder: Path, tmp_path: Path) -> None:
    path = folder / "profile-gpt2" / "profile.jsonl"
    assert read_profile_jsonl(path) == Profile.from_json(profile.to_json()) == ExecutionPlanner.load_metrics_from_jsonl(path).profile
    lines = path.read_bytes().splitlines(keepends=True)
    for damaged, words in (
        (lines[1:], "has 0 profile records"),
        ([*lines, b"{}\n"], "is not a profile's log"),
        ([*lines, *lines], "has 2"),
    ):
        (tmp_path / "x.jsonl").write_bytes(b"".join(damaged))
        with pytest.raises(Corrupt, match=words):
            read_profile_jsonl(tmp_path / "x.jsonl")
    with pytest.raises(NotFound, match="does not exist: write it with"):
        read_profile_jsonl(tmp_path / "none.jsonl")


def test_a_doubtful_profile_is_refused(profile: Profile) -> None:
    with pytest.raises(Refused, match="too noisy to use: rain"):
        ExecutionPlanner(replace(profile, honesty=replace(profile.honesty, doubt="rain")))


# --- the same figures as the commands ----------------------------------------------------------------------------
@pytest.mark.parametrize("strategy", PartitionStrategy)
def test_plan_prints_what_the_library_finds(
    strategy: PartitionStrategy, profile: Profile, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    roof = profile.environment.roofline
    half = replace(roof, flops_per_s=roof.flops_per_s / 2, bytes_per_s=roof.bytes_per_s / 2, dispatch_s=2 * roof.dispatch_s)
    machines = [Machine(name, (box("cpu", rooflines={"float32": rates}),)) for name, rates in (("a", roof), ("b", half))]
    files = []
    for machine in machines:
        files += ["--hardware", str(tmp_path / f"{machine.name}.json")]
        (tmp_path / f"{machine.name}.json").write_text(json.dumps({"capabilities": [asdict(device) for device in machine.devices]}))
    source = ["--profile", str(folder / "profile-gpt2" / "profile.json"), "--link", "0.001,1e8", "--in-flight", "2", "--max-stages", "2"]
    assert main(["plan", *source, *files, "--strategy", strategy, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed.pop("steps_in_flight"), printed.pop("rows_per_step")) in ((1, 2.0), (2, 1.0))
    assert printed["band"]["least_period_s"] <= printed["period_s"] <= printed["band"]["most_period_s"]
    planner, link, constraints = ExecutionPlanner(profile), Link(0.001, 1e8), PlanningConstraints(max_stages=2)
    found = planner.generate_plan(machines, strategy, constraints, link=link, in_flight=2)
    assert json.loads(found.to_json()) | {"solve_ms": 0} == printed | {"solve_ms": 0}
    assert plan_from_json(found.to_json()) == found and 0 < printed["load_balance"] <= 1
    problem = replace(planner.problem(machines, strategy, link=link), in_flight=2, constraints=constraints)
    again = StaticPartitioner(problem, profile.model).partition(strategy)
    assert again == found and again.doubts and again.doubts[0].startswith("band: ")


def test_simulate_prints_what_the_library_finds(profile: Profile, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    planner, nodes, link = ExecutionPlanner(profile), [VirtualNode("w1"), VirtualNode("w2", slowdown=2.0)], Link(0.001, 1e8)
    plan = planner.generate_plan(nodes, link=link)
    (tmp_path / "plan.json").write_text(plan.to_json())
    machines = ["--node", "w1", "--node", "w2,slowdown=2", "--latency-ms", "1", "--bandwidth", "100M"]
    load = ["--sessions", "4", "--prompt-tokens", "9", "--new-tokens", "20"]
    source = ["--profile", str(folder / "profile-gpt2"), "--plan", str(tmp_path / "plan.json")]
    assert main(["simulate", *source, *machines, *load, "--compare", "native", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    scenario = planner.scenario(plan, nodes, link=link, sessions=4, prompt_tokens=9, new_tokens=20)
    found = StagedSimulator(scenario).compare_staged_vs_native()
    assert (printed["tokens_per_s"], printed["makespan_s"], printed["speedup"]) == (
        found.staged.tokens_per_s,
        found.staged.makespan_s,
        found.speedup,
    )
    assert printed["native"]["tokens_per_s"] == found.native.tokens_per_s
    assert StagedSimulator(scenario).simulate_inference() == found.staged
    (row,) = Benchmarker(planner, nodes, link=link).run({"it": plan}, (4,), prompt_tokens=9, new_tokens=20)
    assert row.found == found and row.planned_tokens_per_s == plan.tokens_per_s(4)


def test_the_plan_for_scaled_machines_has_the_band_and_the_rival_of_the_command(
    profile: Profile, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rough = ExecutionPlanner(replace(profile, honesty=replace(profile.honesty, noise_cv=0.1, coverage=1.0)))
    nodes = [VirtualNode("here"), VirtualNode("there", slowdown=2.0)]
    plan = rough.generate_plan(nodes, PartitionStrategy.BOTTLENECK_FIRST)
    assert plan.band is not None and dict(plan.band.within) == {"here": pytest.approx(0.1), "there": pytest.approx(1.1 * 1.2 - 1)}
    assert plan.band.least_period_s < plan.period_s < plan.band.most_period_s
    assert plan.uncertain is not None and plan.uncertain.gain > 0.03 and plan.doubts[1].startswith("uncertain: these two plans cannot be")
    (tmp_path / "problem.json").write_text(problem_to_json(rough.problem(nodes)))
    assert main(["plan", "--problem", str(tmp_path / "problem.json"), "--strategy", "bottleneck_first"]) == 0
    assert "\n".join(plan.doubts) in capsys.readouterr().out
    sure = ExecutionPlanner(replace(profile, honesty=replace(profile.honesty, noise_cv=0.0, coverage=1.0))).generate_plan(nodes[:1])
    assert sure.band is None and sure.uncertain is None and sure.doubts == ()


# --- refusals ----------------------------------------------------------------------------------------------------
def test_what_cannot_be_asked_is_refused(profile: Profile) -> None:
    planner = ExecutionPlanner(profile)
    with pytest.raises(InvalidInput, match="describe all of them in one way"):
        planner.generate_plan([VirtualNode("a"), Machine("b", (box("cpu"),))])  # type: ignore[list-item]
    with pytest.raises(InvalidInput, match="strategy 'best' is unknown"):
        planner.generate_plan([VirtualNode("a")], "best")
    with pytest.raises(InvalidInput, match="node 'a' has a slowdown of 0"):
        VirtualNode("a", slowdown=0.0)
    plan = planner.generate_plan([VirtualNode("a"), VirtualNode("b")])
    with pytest.raises(InvalidInput, match="the plan uses node"):
        planner.scenario(plan, [VirtualNode("a")])
    with pytest.raises(Refused, match=r"max_stages 1 is too few: 2 are needed"):
        size = 0.6 * sum(item.weight_bytes for item in profile.items)
        pair = [VirtualNode(name, memory_bytes=size) for name in "ab"]
        planner.generate_plan(pair, constraints=PlanningConstraints(max_stages=1))
