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
from typing import Any

from engine.commands.bench import options as bench
from engine.commands.chat import options as chat
from engine.commands.cluster import options as cluster
from engine.commands.machine import options as machine
from engine.commands.planning import options as planning
from engine.commands.serving import options as serving
from engine.options.declared import build, declare
from engine.options.parsing import Parser, ShowVersion, parsed
from engine.program import run_program

# Each command: its options, whose docstring is its line in `--help`, and the function that takes them, which is imported when it runs.
GROUPS: Mapping[str, Mapping[str, tuple[type, str]]] = {
    "run a cluster": {
        "up": (serving.Up, "serving.serve:up"),
        "down": (serving.Down, "serving.serve:down"),
        "coordinator": (serving.Coordinator, "serving.serve:coordinator"),
        "worker": (serving.Worker, "serving.serve:worker"),
        "invite": (machine.Invite, "machine.invite:invite"),
        "serve": (serving.Serve, "serving.http:serve_api"),
    },
    "ask it": {
        "generate": (cluster.Generate, "cluster.generate:generate"),
        "chat": (chat.Chat, "chat.chat:chat"),
        "cancel": (cluster.Cancel, "cluster.operate:cancel"),
    },
    "look at it": {
        "status": (cluster.Status, "cluster.inspect:status"),
        "why": (cluster.Why, "cluster.why:why"),
        "events": (cluster.Events, "cluster.inspect:events"),
        "moves": (cluster.Moves, "cluster.operate:moves"),
        "acknowledge": (cluster.Acknowledge, "cluster.operate:acknowledge"),
    },
    "change it": {
        "rebalance": (cluster.Rebalance, "cluster.operate:rebalance"),
        "rollback": (cluster.Rollback, "cluster.rollback:rollback"),
        "drain": (cluster.Drain, "cluster.operate:drain"),
        "undrain": (cluster.Undrain, "cluster.operate:undrain"),
        "forget": (cluster.Forget, "cluster.operate:forget"),
        "adapt": (cluster.Adapt, "cluster.adapt:adapt"),
        "slowdown": (cluster.Slowdown, "cluster.operate:slowdown"),
    },
    "plan": {
        "profile": (machine.Profile, "machine.profile:profile"),
        "plan": (planning.Plan, "planning.plan:plan"),
        "simulate": (planning.Simulate, "planning.simulate:simulate"),
        "report": (machine.Report, "machine.report:report"),
    },
    "this machine": {
        "doctor": (machine.Doctor, "machine.doctor:doctor"),
        "models": (machine.Models, "machine.models:models"),
        "cache": (machine.Cache, "machine.cache:cache"),
        "certs": (machine.Certs, "machine.certs:certs"),
        "examples": (machine.Examples, "machine.examples:examples"),
    },
    "measure the engine": {
        "bench": (bench.Bench, "bench.run:bench"),
        "drill": (bench.Drill, "bench.drill:drill"),
    },
}
COMMANDS: Mapping[str, tuple[type, str]] = {name: row for commands in GROUPS.values() for name, row in commands.items()}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # its log lines repeat what our errors say
    return run_program("noodle-engine", _run, argv)


def _run(argv: Sequence[str]) -> int:
    if argv[:1] == ["help"]:
        argv = [*argv[1:2], "--help"]
    if argv[:1] == ["completion"]:
        return _completion(argv[1:])
    name, options = parse(argv)
    module, _, function = COMMANDS[name][1].partition(":")
    return int(getattr(importlib.import_module(f"engine.commands.{module}"), function)(options) or 0)


def _completion(argv: Sequence[str]) -> int:
    from engine.commands.completion import SHELLS, completion_script
    from engine.commands.output import say

    parser = Parser(prog="noodle-engine completion", description="Print what lets a shell complete commands and options.")
    parser.add_argument("shell", choices=SHELLS, help="source <(noodle-engine completion bash), and likewise in the others")
    shell = parser.parse_args(argv).shell
    say(completion_script(shell, "noodle-engine", parsers()[1]))
    return 0


def parse(argv: Sequence[str]) -> tuple[str, Any]:
    """The command and its options: from the command line, then from --config FILE, then the defaults."""
    parser, commands = parsers()
    finder = Parser(prog=parser.prog, add_help=False, allow_abbrev=False)
    finder.add_argument("command", nargs="?")
    finder.add_argument("--config", type=Path)
    found = finder.parse_known_args(argv)[0]
    if found.config is None:
        values = parsed(parser, commands, argv)
    else:
        from engine.commands.config_file import apply_config

        settings = apply_config(found.config, found.command, commands)
        values = settings.fill(parsed(parser, commands, argv))
    del values["config"]
    name = values.pop("command")
    return name, build(COMMANDS[name][0], values)


def parsers() -> tuple[argparse.ArgumentParser, Mapping[str, argparse.ArgumentParser]]:
    """The parser of the program, and those of its commands by name."""
    parser = Parser(prog="noodle-engine", description="Run a Hugging Face model as a pipeline over several machines.")
    parser.add_argument("--version", action=ShowVersion, help="say which version this is, and which protocol it speaks")
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="COMMAND", parser_class=Parser, help=argparse.SUPPRESS, prog=parser.prog
    )
    lines = list[str]()
    for group, table in GROUPS.items():
        lines.append(f"\n{group}:")
        for name, (options, _) in table.items():
            about = (options.__doc__ or "").strip()
            lines.append(f"  {name:<12} {about[:1].lower()}{about[1:].rstrip('.')}")
            added = commands.add_parser(name, description=about, allow_abbrev=False)
            added.add_argument(
                "--config", type=Path, metavar="FILE", help="YAML file with options; `noodle-engine examples options.yaml` explains it"
            )
            declare(added, options)
    more = "\nmore:\n  help COMMAND what a command takes, as `COMMAND --help`\n  completion   what lets a shell complete: bash, zsh or fish"
    parser.usage = "%(prog)s COMMAND [options], or --version"
    parser.epilog = "\n".join(lines) + "\n" + more
    return parser, commands.choices
