"""An option is declared once; the command line, the configuration file, the help and the processes of an embedded cluster follow."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import re
import typing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import cli
from engine.api.options import ApiOptions
from engine.commands.cluster.options import Generate
from engine.commands.serving.options import Up
from engine.data.errors import InvalidInput, Refused
from engine.options.declared import Declared, Group, build, declare, group, option, words
from engine.options.kinds import size, whole
from engine.service.coordinator.options import AUTO, CoordinatorOptions, Keep
from engine.service.local import LocalCluster
from engine.service.local_options import LocalOptions, local_options
from engine.service.on_ray.options import RayOptions, Resources
from engine.service.worker.options import WorkerOptions

ROOT = Path(__file__).parent.parent


def flags(options: type) -> set[str]:
    """Every flag that a class declares, at whatever depth, without the hidden ones."""
    found: set[str] = set()
    for field in dataclasses.fields(options):
        declared = field.metadata.get("declared")
        if isinstance(declared, Group):
            found |= flags(declared.options)
        elif isinstance(declared, Declared) and declared.help and not declared.is_positional:
            found.add(declared.flag or "--" + field.name.replace("_", "-"))
    return found


def of_process(options: type) -> set[str]:
    found: set[str] = set()
    for field in dataclasses.fields(options):
        declared = field.metadata.get("declared")
        if isinstance(declared, Group):
            found |= of_process(declared.options)
        elif isinstance(declared, Declared) and declared.of_process:
            found.add(declared.flag or "--" + field.name.replace("_", "-"))
    return found


# --- the table ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", cli.COMMANDS)
def test_a_command_takes_the_options_that_the_table_gives_it(name: str) -> None:
    """What mypy cannot see, since a command is imported when it runs."""
    options, place = cli.COMMANDS[name]
    module_name, _, function = place.partition(":")
    module = importlib.import_module(f"engine.commands.{module_name}")
    hints = typing.get_type_hints(getattr(module, function))
    hints.pop("return")
    assert list(hints.values()) == [options]
    assert (options.__doc__ or "").endswith(".") and "\n" not in (options.__doc__ or "\n")


def test_no_command_sees_what_the_parser_made() -> None:
    """`argv -> frozen options -> one call`: argparse's own value ends where it is parsed."""
    texts = {p: p.read_text() for room in ("engine", "noodle_tui") for p in (ROOT / room).rglob("*.py")}
    assert [path for path, text in texts.items() if "argparse" in text and "Namespace" in text] == []
    assert all(dataclasses.is_dataclass(o) and o.__dataclass_params__.frozen for o, _ in cli.COMMANDS.values())  # type: ignore[attr-defined]


# --- one declaration, four places -----------------------------------------------------------------------------------
@dataclass(frozen=True, kw_only=True)
class _Inner:
    """Made here, so that the test sees an option that nobody listed."""

    brand_new_bytes: int | None = option("--brand-new", kind=size, metavar="SIZE", help="something new")
    only_of_a_process: int = option(default=1, kind=whole(1), of_process=True, help="set by the cluster")


@dataclass(frozen=True, kw_only=True)
class _Outer:
    inner: _Inner = group(_Inner, is_embedded=True, brand_new_bytes=5)
    many: tuple[str, ...] = option(repeated=True, help="may be repeated")


def test_a_new_option_appears_by_itself() -> None:
    parser = argparse.ArgumentParser()
    declare(parser, _Outer)
    assert "--brand-new SIZE" in parser.format_help() and "--only-of-a-process" not in parser.format_help()
    made = build(_Outer, vars(parser.parse_args(["--brand-new", "2K", "--many", "a", "--many", "b"])))
    assert made == _Outer(inner=_Inner(brand_new_bytes=2000), many=("a", "b"))
    assert build(_Outer, vars(parser.parse_args([]))).inner.brand_new_bytes == 5
    assert words(made) == ["--brand-new=2000", "--many=a", "--many=b"] and words(build(_Outer, {})) == []


@pytest.mark.parametrize("options", [CoordinatorOptions, WorkerOptions])
def test_up_has_every_option_of_its_processes_that_it_does_not_set_itself(options: type) -> None:
    _, commands = cli.parsers()
    known = set(commands["up"]._option_string_actions)
    assert flags(options) - of_process(options) <= known
    own = {"--slowdown"}  # one for each worker
    assert not (of_process(options) - own) & known


def test_a_name_that_no_option_has_is_refused() -> None:
    with pytest.raises(TypeError, match="LocalOptions has no option num_worker"):
        local_options(num_worker=2)


# --- from words and back --------------------------------------------------------------------------------------------
def parsed(*argv: str) -> Any:
    return cli.parse(argv)[1]


paths = st.text(st.characters(codec="utf-8", exclude_characters="\0", exclude_categories=("Cs",)), min_size=1).map(Path)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "model": st.text(min_size=1),
    "random_weights": st.integers(0, 10**17),
    "dtype": st.sampled_from(("bfloat16", "float16")),
    "kv_dtype": st.sampled_from(("bfloat16", "int8")),
    "cache_dir": paths,
    "num_workers": st.integers(1, 64),
    "strategy": st.text(min_size=1),
    "layers": st.lists(st.integers(0, 10**9), min_size=1).map(tuple),
    "adapt": st.sampled_from(("suggest", "auto")),
    "speculate": st.sampled_from(("always", "off")),
    "state_dir": paths,
    "metrics_dir": paths,
    "metrics_sd": paths,
    "keep": st.builds(Keep, st.integers(1, 10**6).map(lambda m: 60.0 * m), st.integers(0, 10**9 - 1)),
    "recover": st.just(True),
    "show_text": st.just(True),
    "prefix_cache": st.just("off"),
    "shared_prefix": st.lists(paths, min_size=1).map(tuple),
    "metrics_every_step": st.just(True),
    "otel": st.text(min_size=1),
    "listen": st.text(min_size=1),
    "metrics_port": st.integers(0, 60000),
    "device": st.text(min_size=1).map(str.strip).filter(lambda name: name and "," not in name),
    "memory_bytes": st.integers(0, 10**14),
    "kv_memory_bytes": st.integers(0, 10**14),
    "num_threads": st.integers(1, 10**6),
    "compile": st.just("off"),
    "cache_limit_bytes": st.integers(0, 10**14),
    "drain_s": st.integers(0, 10**6),
    "slowdowns": st.lists(st.floats(1, 1000), min_size=1).map(tuple),
}


OF_RAY: dict[str, st.SearchStrategy[Any]] = {
    "on": st.just("ray"),
    "ray_address": st.from_regex(r"[a-z]{1,9}:[1-9][0-9]{3}", fullmatch=True),
    "cluster_name": st.from_regex(r"[a-z][a-z0-9.-]{0,20}", fullmatch=True),
    "resources": st.dictionaries(st.sampled_from(("CPU", "GPU", "memory", "tpu:v4")), st.integers(1, 99).map(float), min_size=1).map(
        lambda amounts: Resources(tuple(amounts.items()))
    ),
    "detach": st.just(True),
}
OF_THE_API: dict[str, st.SearchStrategy[Any]] = {
    "http": st.text(min_size=1),
    "keys": paths,
    "model_name": st.text(min_size=1),
    "cors": st.lists(st.text(min_size=1), min_size=1, max_size=3).map(tuple),
    "http_cert": paths,
    "http_key": paths,
    "insecure_http": st.just(True),
    "max_tokens": st.integers(1, 10**6),
}


@settings(max_examples=200, deadline=None)
@given(st.fixed_dictionaries({}, optional=VALUES))
def test_words_make_the_same_options_again(values: dict[str, Any]) -> None:
    made = local_options(**values)
    assert parsed("up", *words(made)) == Up(cluster=made)


def test_the_values_tried_are_all_there_are() -> None:
    _, commands = cli.parsers()
    assert set(VALUES) | set(OF_THE_API) | set(OF_RAY) == {a.dest for a in commands["up"]._actions} - {"help", "config", "json"}


@settings(max_examples=100, deadline=None)
@given(st.fixed_dictionaries({}, optional=OF_RAY))
def test_the_options_of_a_cluster_on_ray(values: dict[str, Any]) -> None:
    made = build(RayOptions, {**values, "on": "ray"})
    assert parsed("up", "--workers=auto", *words(made)) == Up(cluster=local_options(num_workers=AUTO), ray=made)
    assert parsed("down", *words(made.place)).place == made.place


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("up --workers auto", "--workers auto goes with `noodle-engine up --on ray`"),
        ("coordinator --workers auto", "--workers auto goes with `noodle-engine up --on ray`"),
        ("up --resources CPU=2", "--resources goes with --on ray"),
        ("up --address 10.0.0.1:6379", "--address goes with --on ray"),
        ("up --on ray --resources CPU=0", "'CPU=0' is not allowed: give names of Ray's and numbers above 0"),
        ("up --on ray --resources CPU=1,CPU=2", "is not allowed: give names of Ray's"),
        ("up --on ray --address ray://head:10001", "run this on a machine of the Ray cluster"),
        ("up --on ray --name -x", "--name"),
        ("up --on ray --http 8000", "needs --keys FILE"),
        ("up --on ray --http 8000 --keys k --detach", "leave one out"),
        ("up --on slurm", "--on cannot be 'slurm'; it is one of ray"),
        ("down", "say --on ray"),
    ],
)
def test_what_makes_no_sense_on_ray_is_refused(line: str, sentence: str) -> None:
    with pytest.raises((InvalidInput, Refused), match=re.escape(sentence)) as found:
        cli.parse(line.split())
    assert found.value.exit_code == 2 and "\n" not in str(found.value)


def test_an_embedded_cluster_says_how_many_workers() -> None:
    with pytest.raises(InvalidInput, match="on one machine say how many"):
        LocalCluster(local_options(num_workers=AUTO))


@settings(max_examples=100, deadline=None)
@given(st.fixed_dictionaries({}, optional=OF_THE_API).filter(lambda values: ("http_cert" in values) == ("http_key" in values)))
def test_the_options_of_the_api_are_those_of_serve_and_of_up(values: dict[str, Any]) -> None:
    made = build(ApiOptions, values)
    assert parsed("serve", *words(made)).api == parsed("up", *words(made)).api == made


@settings(max_examples=100, deadline=None)
@given(st.fixed_dictionaries({}, optional=VALUES))
def test_every_process_of_an_embedded_cluster_is_told_what_concerns_it(values: dict[str, Any]) -> None:
    options = local_options(**values)
    cluster = LocalCluster(options)
    cluster.address = "127.0.0.1:7"
    coordinator = parsed("coordinator", *words(cluster.coordinator_options())).coordinator
    worker = parsed("worker", *words(cluster.worker_options(1))).worker
    assert (coordinator.server.exit_with_parent, worker.server.exit_with_parent) == (True, True)
    assert (worker.join, worker.worker_id, worker.share_with) == ("127.0.0.1:7", "w2", options.num_workers)
    assert worker.slowdown == (options.slowdowns[1] if len(options.slowdowns) > 1 else 1.0)
    port = values.get("metrics_port")
    free = 0 if "metrics_sd" in values else None  # a list of targets is of no use unless they answer
    assert (coordinator.server.metrics.metrics_port, worker.server.metrics.metrics_port) == (
        port,
        port + 2 if port else free if port is None else 0,
    )
    assert coordinator.server.listen == values.get("listen", "127.0.0.1:0") and worker.server.listen == "127.0.0.1:0"
    assert replace(coordinator, server=options.coordinator.server) == options.coordinator
    own = {"join": "", "worker_id": "", "share_with": 1, "slowdown": 1.0, "server": options.worker.server}
    assert replace(worker, **own) == options.worker


def test_a_repeated_option_is_a_tuple_of_all() -> None:
    assert parsed("generate", "Hi", "--stop", "a", "--stop", "b") == Generate(prompt="Hi", stop=("a", "b"))


def test_what_belongs_to_one_group_alone_is_added_once() -> None:
    parser = argparse.ArgumentParser()
    declare(parser, LocalOptions)
    assert parser.format_help().count("--cache-dir CACHE_DIR") == 2  # in the usage and in the list
