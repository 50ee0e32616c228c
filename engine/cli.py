"""`noodle-engine`: argv to the frozen options of one command, and one call.

Nothing heavy is imported before the command is known. Data goes to stdout, everything else to stderr; exit codes are
0 done, 1 failed, 2 bad usage or refused, 130 interrupted.
"""

from __future__ import annotations

import argparse
import importlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from engine.commands.bench import options as bench
from engine.commands.chat import options as chat
from engine.commands.cluster import options as cluster
from engine.commands.machine import options as machine
from engine.commands.planning import options as planning
from engine.commands.serving import options as serving
from engine.data.errors import InvalidInput
from engine.options.declared import build, declare
from engine.program import run_program

# Each command: its options, whose docstring is its line in `--help`, and the function that takes them, which is imported when it runs.
COMMANDS: Mapping[str, tuple[type, str]] = {
    "up": (serving.Up, "serving.serve:up"),
    "coordinator": (serving.Coordinator, "serving.serve:coordinator"),
    "worker": (serving.Worker, "serving.serve:worker"),
    "serve": (serving.Serve, "serving.http:serve_api"),
    "generate": (cluster.Generate, "cluster.generate:generate"),
    "chat": (chat.Chat, "chat.chat:chat"),
    "status": (cluster.Status, "cluster.inspect:status"),
    "events": (cluster.Events, "cluster.inspect:events"),
    "why": (cluster.Why, "cluster.why:why"),
    "drain": (cluster.Drain, "cluster.operate:drain"),
    "undrain": (cluster.Undrain, "cluster.operate:undrain"),
    "forget": (cluster.Forget, "cluster.operate:forget"),
    "acknowledge": (cluster.Acknowledge, "cluster.operate:acknowledge"),
    "rebalance": (cluster.Rebalance, "cluster.operate:rebalance"),
    "rollback": (cluster.Rollback, "cluster.rollback:rollback"),
    "cancel": (cluster.Cancel, "cluster.operate:cancel"),
    "slowdown": (cluster.Slowdown, "cluster.operate:slowdown"),
    "adapt": (cluster.Adapt, "cluster.adapt:adapt"),
    "moves": (cluster.Moves, "cluster.operate:moves"),
    "models": (machine.Models, "machine.models:models"),
    "profile": (machine.Profile, "machine.profile:profile"),
    "simulate": (planning.Simulate, "planning.simulate:simulate"),
    "plan": (planning.Plan, "planning.plan:plan"),
    "certs": (machine.Certs, "machine.certs:certs"),
    "doctor": (machine.Doctor, "machine.doctor:doctor"),
    "report": (machine.Report, "machine.report:report"),
    "drill": (bench.Drill, "bench.drill:drill"),
    "bench": (bench.Bench, "bench.run:bench"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # its log lines repeat what our errors say
    return run_program("noodle-engine", _run, argv)


def _run(argv: Sequence[str]) -> int:
    name, options = parse(argv)
    module, _, function = COMMANDS[name][1].partition(":")
    return int(getattr(importlib.import_module(f"engine.commands.{module}"), function)(options) or 0)


def parse(argv: Sequence[str]) -> tuple[str, Any]:
    """The command and its options: from the command line, then from --config FILE, then the defaults."""
    parser, commands = parsers()
    finder = _Parser(prog=parser.prog, add_help=False, allow_abbrev=False)
    finder.add_argument("command", nargs="?")
    finder.add_argument("--config", type=Path)
    found = finder.parse_known_args(argv)[0]
    if found.config is None:
        values = vars(parser.parse_args(argv))
    else:
        from engine.commands.config_file import apply_config

        settings = apply_config(found.config, found.command, commands)
        values = settings.fill(vars(parser.parse_args(argv)))
    del values["config"]
    name = values.pop("command")
    return name, build(COMMANDS[name][0], values)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InvalidInput(f"{message}; see `{self.prog} --help`")


def parsers() -> tuple[argparse.ArgumentParser, Mapping[str, argparse.ArgumentParser]]:
    """The parser of the program, and those of its commands by name."""
    parser = _Parser(prog="noodle-engine", description="Run a Hugging Face model as a pipeline over several machines.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)
    for name, (options, _) in COMMANDS.items():
        about = (options.__doc__ or "").strip()
        added = commands.add_parser(name, help=about[:1].lower() + about[1:].rstrip("."), description=about, allow_abbrev=False)
        added.add_argument("--config", type=Path, metavar="FILE", help="YAML file with options; engine/example.yaml explains it")
        declare(added, options)
    return parser, commands.choices
