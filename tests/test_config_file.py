"""--config: the file gives the defaults, the command line wins, and every mistake is refused with its line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import engine
from engine import cli
from engine.commands.serving.options import Up
from engine.data.errors import InvalidInput
from engine.service.local_options import local_options

EXAMPLE = Path(engine.__file__).parent / "example.yaml"


def parse(path: Path, text: str, *arguments: str) -> Any:
    path = path / "noodle.yaml"
    path.write_text(text, encoding="utf-8")
    command, *rest = arguments or ("up",)
    return parsed(command, "--config", str(path), *rest)


def parsed(*argv: str) -> Any:
    """The options of a command."""
    return cli.parse(argv)[1]


def test_the_example_is_right_and_says_what_it_shows() -> None:
    given = {"model": "llama:tiny", "random_weights": 0, "num_workers": 2, "num_threads": 1, "memory_bytes": 2 * 10**9}
    cluster = local_options(**given, slowdowns=(1.0, 3.0), metrics_dir=Path("run-1"), metrics_port=0)
    assert parsed("up", "--config", str(EXAMPLE)) == Up(cluster=cluster, json=True)
    assert parsed("worker", "--config", str(EXAMPLE)).worker.join == "127.0.0.1:7070"
    assert parsed("generate", "Hello", "--config", str(EXAMPLE)).stop == ("\n\n", "END")


def test_the_command_line_wins(tmp_path: Path) -> None:
    text = "up:\n  workers: 5\n  model: gpt2\n  json: true\ngenerate:\n  stop: [a, b]\n  ignore-eos: true\n"
    found = parse(tmp_path, text, "up", "--workers", "2", "--no-json")
    assert found == Up(cluster=local_options(num_workers=2, model="gpt2"))
    assert parse(tmp_path, text, "generate", "--stop", "c").stop == ("c",)
    assert parse(tmp_path, text, "generate").stop == ("a", "b")
    assert parse(tmp_path, text, "generate", "--no-ignore-eos").ignore_eos is False


def test_without_a_section_nothing_changes(tmp_path: Path) -> None:
    for text in ("", "# nothing\n", "up:\n", "status:\n  json: true\n"):
        assert parse(tmp_path, text) == parsed("up") == Up()


@pytest.mark.parametrize("text", ["slowdown: [1, 3]", "slowdown: 1,3", "slowdown: '1,3'"])
def test_a_list_may_be_written_either_way(tmp_path: Path, text: str) -> None:
    assert parse(tmp_path, f"up:\n  {text}\n").cluster.slowdowns == (1.0, 3.0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("up:\n  workerz: 3\n", "noodle.yaml:2: up has no option 'workerz'; did you mean workers?"),
        ("upp:\n  workers: 3\n", "noodle.yaml:1: there is no command 'upp'; did you mean up?"),
        ("up:\n  model: gpt2\n\n  workers: many\n", "noodle.yaml:4: up.workers: 'many' is not allowed: give a whole number"),
        ("up:\n  workers: 0\n", "noodle.yaml:2: up.workers: '0' is not allowed: give a whole number of at least 1"),
        ("up:\n  workers: 2.5\n", "noodle.yaml:2: up.workers"),
        ("up:\n  workers: true\n", "noodle.yaml:2: up.workers: 'true' is true or false: give one value"),
        ("up:\n  workers:\n", "noodle.yaml:2: up.workers"),
        ("up:\n  workers: [1, 2]\n", "noodle.yaml:2: up.workers: a list is not allowed"),
        ("up:\n  workers: {a: 1}\n", "noodle.yaml:2: up.workers: a section is not allowed"),
        (
            "up:\n  model: no\n",
            "noodle.yaml:2: up.model: 'no' is true or false: give text; if it is meant as text, write it in quotes: 'no'",
        ),
        ("up:\n  model: 3\n", "noodle.yaml:2: up.model: '3' is a whole number: give text"),
        ("up:\n  json: yess\n", "noodle.yaml:2: up.json: 'yess' is not allowed: give true or false"),
        ("up:\n  json: 1\n", "noodle.yaml:2: up.json"),
        (
            "up:\n  dtype: bfloat61\n",
            "noodle.yaml:2: up.dtype: 'bfloat61' is not allowed: give one of auto, float32, bfloat16, float16, int8; did you mean",
        ),
        ("generate:\n  temperature: warm\n", "noodle.yaml:2: generate.temperature: 'warm' is not allowed: give a number"),
        ("up:\n  workers: 1\n  workers: 2\n", "noodle.yaml:3: 'workers' stands in line 2 already"),
        ("- up\n", "noodle.yaml:1: a configuration has one section per command"),
        ("up: 3\n", "noodle.yaml:1: section up has options below it"),
        ("up:\n  config: x\n", "noodle.yaml:2: up has no option 'config'"),
        ("up:\n  run: x\n", "noodle.yaml:2: up has no option 'run'"),
        ("up: [\n", "this is not YAML"),
        ("up:\n\tmodel: x\n", "noodle.yaml:2: this is not YAML"),
        ("? [a, b]\n: c\n", "noodle.yaml:1: a key is one word"),
        ("!!python/object/apply:os.system ['true']\n", "one section per command"),
    ],
)
def test_a_mistake_is_refused_with_its_line(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(InvalidInput) as found:
        parse(tmp_path, text)
    assert expected in str(found.value)


def test_a_mistake_in_another_command_is_found_too(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"noodle.yaml:2: worker has no option 'jion'; did you mean join"):
        parse(tmp_path, "worker:\n  jion: x\n", "up")


def test_a_file_that_is_not_there_or_not_a_configuration(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"--config: .*none.yaml does not exist"):
        parsed("up", "--config", str(tmp_path / "none.yaml"))
    (tmp_path / "big.yaml").write_bytes(b"#" * (1 << 20) + b"\n\n")
    with pytest.raises(InvalidInput, match="has more than 1048576 bytes"):
        parsed("up", "--config", str(tmp_path / "big.yaml"))
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\x01\x80")
    with pytest.raises(InvalidInput):
        parsed("up", "--config", str(tmp_path / "binary.yaml"))


def test_every_command_takes_a_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "noodle.yaml").write_text("nothing: 1\n")
    for command in cli.COMMANDS:
        assert cli.main([command, "--config", str(tmp_path / "noodle.yaml")]) == 2
        assert "noodle.yaml:1" in capsys.readouterr().err


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda t: t.encode("utf-8", "ignore")))
def test_any_bytes_are_a_configuration_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("config") / "noodle.yaml"
    path.write_bytes(content)
    try:
        parsed("up", "--config", str(path))
    except InvalidInput as e:
        assert str(path) in str(e)
