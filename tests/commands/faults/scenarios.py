"""How each command is run under the harness, and the folder it runs in. A command without an entry gets what its parser insists on."""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from engine import cli
from engine.data.model import ModelRef
from engine.model.sources.source import resolve
from engine.service.options import Role
from engine.service.trust.certificates import issue, make_authority
from noodle_tui.cluster.recording import Recorder
from tests.commands.test_plan_sources import PROBLEM
from tests.planning.test_capability import box
from tests.planning.test_estimate import MADE
from tests.report.runs import write_run
from tests.tui.recordings import lively

NOBODY = "127.0.0.1:1"  # where nothing listens: what comes before the connection is what is tried here
ANY_PORT = "127.0.0.1:0"
FOLDERS = ("home/.config/noodlecore/themes", "cache", "tmp", "state", "out")
TOKENS = "# who may do what\noperator aaaaaaaaaaaaaaaaaaaa\nworker bbbbbbbbbbbbbbbbbbbb\n"
THEME = "noodle-dark"
# For what a command insists on, by name.
WORDS = {
    "action": "list",
    "worker_id": "w1",
    "worker_ids": "w1",
    "session_id": "s-1",
    "factor": "2",
    "path": "profile.json",
    "prompt": "hi",
    "model": "model",
    "join": NOBODY,
}


@dataclass(frozen=True, slots=True)
class Scenario:
    """One command line; `codes` are what it may end with when nothing fails."""

    argv: tuple[str, ...]
    program: str = "noodle-engine"
    stdin: str = "/dev/null"
    until: str = ""  # a pattern in what a server prints when it may be stopped
    limit_s: float = 20.0
    codes: frozenset[int] = field(default_factory=lambda: frozenset({0}))
    most_faults: int = 24  # in a sample: fewer where a run takes long
    settings: tuple[tuple[str, str, object], ...] = ()  # module, name and value of what else would only take time

    def __str__(self) -> str:
        return " ".join((self.program, *self.argv))


def fill(word: str, folder: Path) -> str:
    """`{folder}` in a word of a command line is the folder of the run."""
    return word.replace("{folder}", str(folder))


def _one(line: str, *, code: int = 0, **fields: object) -> Scenario:
    return Scenario(tuple(line.split()), codes=frozenset({code}), **fields)  # type: ignore[arg-type]


_CERTIFICATES = "--tls-ca ca.pem --tls-cert certs/w9.pem --tls-key certs/w9.key"
_SERVER = f"--listen {ANY_PORT} --token-file tokens"
_JOINED = "cannot reach"
# Nobody looks at the figures.
_HASTY = (("engine.model.profiling.profiler", "QUICK_BUDGET_S", 0.1), ("engine.model.hardware.roofline", "_BUDGET_S", 0.02))
SCENARIOS: Mapping[str, tuple[Scenario, ...]] = {
    "up": (_one("up --model model --workers 1 --state-dir state --metrics-dir run --json", until='"address"', limit_s=60, most_faults=8),),
    "down": (_one("down --on ray", code=2),),  # the extra is not installed where tests run
    "coordinator": (
        _one(f"coordinator --model model --state-dir state --metrics-dir run {_SERVER}", until='"address"'),
        _one(f"coordinator --model model {_SERVER}", until='"address"'),
        _one(f"coordinator --model model --state-dir state {_SERVER}", until=r"\d+ items|ERROR", limit_s=60),
    ),
    "worker": (_one(f"worker --join {NOBODY} --cache-dir cache --device cpu {_SERVER}", until=_JOINED),),
    "generate": (
        _one(f"generate - --connect {NOBODY}", stdin="{folder}/prompt.txt", code=1),
        _one(f"generate hi --connect {NOBODY} --token-file tokens {_CERTIFICATES}", code=1),
        _one(f"generate hi --config config.yaml --connect {NOBODY}", code=1),
    ),
    "models": (
        _one("models list"),
        _one("models describe model"),
        _one("models describe llama:tiny --random-weights 1 --json-lines"),
        _one("models describe llama:tiny --random-weights 1 --json"),
    ),
    "profile": (
        _one("profile --compare profile.json profile.json"),
        _one("profile model --quick --threads 1 --json-lines", limit_s=60, most_faults=4, settings=_HASTY),
        _one("profile model --quick --threads 1 --out out", limit_s=60, most_faults=4, settings=_HASTY),
    ),
    "simulate": (
        _one("simulate --profile profile.json --layers 1 --trace trace.csv --gantt out/gantt.html"),
        _one("simulate --item-ms 1,1,1,1,1,1 --plan given.json --json"),
    ),
    "plan": (
        _one("plan --problem problem.json --current plan.json --json"),
        _one("plan --problem problem.json --compare"),
        _one("plan --problem -", stdin="{folder}/problem.json"),
        _one("plan --profile profile.json --hardware good.json --link 0.001,1.25e8"),
    ),
    "doctor": (_one("doctor", limit_s=60), _one("doctor --hardware --json", limit_s=60)),
    "report": (
        _one("report run-before"),
        _one("report run-before --json --out out/page.html"),
        *(_one(f"report profile.json --format {form}") for form in ("html", "csv", "json", "jsonl", "prometheus")),
    ),
    "certs": (
        _one("certs init --dir new"),
        _one("certs node w1 --dir certs --host 10.0.0.1"),
        _one("certs list --dir certs --json"),
        _one("certs revoke w9 --dir certs"),
    ),
    "examples": (_one("examples"), _one("examples alerts.yaml"), _one("examples --out out --json")),
    "cache": (_one("cache list --cache-dir made"), _one("cache prune --older-than-days 0 --cache-dir made")),
    "invite": (_one(f"invite --join {NOBODY} --dir certs", until="noodle:", code=130),),
    "drill": (_one("drill --seeds 2"),),
    "bench": (
        _one("bench adaptation --steps 1000", limit_s=0.5, code=130),
        _one("bench hop --tokens 8 --rounds 1", limit_s=60, most_faults=3),
    ),
}
CONSOLE = (
    Scenario(("--headless", "--record", "out/run.rec", "--connect", NOBODY), "noodle-console", until="trying again"),
    Scenario(("--headless", "--record", "out/run.rec.gz", "--connect", NOBODY), "noodle-console", until="trying again"),
    Scenario(
        tuple(f"--headless --record out/run.rec --connect {NOBODY} --token-file tokens {_CERTIFICATES}".split()),
        "noodle-console",
        until="trying again",
    ),
    Scenario(("--replay", "before.rec"), "noodle-console", codes=frozenset({2})),
)


def scenarios() -> dict[str, tuple[Scenario, ...]]:
    """Of every command that the parsers know."""
    return {name: SCENARIOS.get(name) or (_derived(name, parser),) for name, parser in commands().items()} | {"console": CONSOLE}


def commands() -> dict[str, argparse.ArgumentParser]:
    """The engine's own list of its commands."""
    return dict(cli.parsers()[1])


def _derived(name: str, parser: argparse.ArgumentParser) -> Scenario:
    """With what the parser insists on, and certificates where it connects."""
    argv = [name, *required(parser)]
    connects = any("--connect" in action.option_strings for action in parser._actions)
    return Scenario((*argv, *(("--connect", NOBODY, "--tls-ca", "ca.pem") if connects else ())), codes=frozenset({1 if connects else 0}))


def required(parser: argparse.ArgumentParser) -> list[str]:
    """A word for everything that the parser insists on."""
    words: list[str] = []
    for action in parser._actions:
        if action.option_strings and action.required:
            words += [action.option_strings[-1], WORDS[action.dest]]
        elif not action.option_strings and action.nargs in (None, argparse.ONE_OR_MORE):
            words.append(WORDS[action.dest])
    return words


def make_template(folder: Path) -> Path:
    """Everything that the command lines above name."""
    for name in FOLDERS:
        (folder / name).mkdir(parents=True)
    resolve(ModelRef("llama:tiny", 0), cache_dir=folder / "made").rename(folder / "model")
    make_authority(folder / "certs", "of the faults")
    issue(folder / "certs", "w9", Role.WORKER, [])
    shutil.copy(folder / "certs" / "ca.pem", folder)
    (folder / "profile.json").write_text(MADE.to_json())
    (folder / "good.json").write_text(json.dumps({"capabilities": [asdict(box("cpu", rooflines={"float32": MADE.environment.roofline}))]}))
    (folder / "problem.json").write_text(json.dumps(PROBLEM))
    stages = [{"node": "w1", "start": 0, "stop": 3}, {"node": "w2", "start": 3, "stop": 6}]
    (folder / "given.json").write_text(json.dumps({"stages": stages}))
    (folder / "trace.csv").write_text("arrival_s,prompt_tokens,new_tokens\n0,8,4\n0.1,8,4\n")
    (folder / "prompt.txt").write_text("caf\u00e9", encoding="utf-8")
    (folder / "config.yaml").write_text("generate:\n  stop: [a, b]\n")
    (folder / "tokens").write_text(TOKENS)
    write_run(folder / "run-before" / "metrics.jsonl", num_samples=4)
    _write_plan(folder)
    _write_console(folder)
    return folder


def _write_plan(folder: Path) -> None:
    from engine.planning.documents.partition_plan import PartitionPlan
    from engine.planning.documents.problem_json import read_problem
    from engine.planning.strategies import solve

    problem = read_problem(json.dumps(PROBLEM))
    (folder / "plan.json").write_text(PartitionPlan.of(problem, solve(problem, "balanced"), model="m", solve_ms=1.0).to_json())


def _write_console(folder: Path) -> None:
    settings = folder / "home" / ".config" / "noodlecore"
    (settings / "console.toml").write_text(f'theme = "{THEME}"\n')
    recorder = Recorder(folder / "before.rec", NOBODY, time.time(), 0.0)
    for tick in range(3):
        recorder.frame(lively(tick, 3), time.time(), float(tick))
    recorder.close()
