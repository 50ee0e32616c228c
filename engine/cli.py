"""`noodle-engine`: argv to frozen options to one call into a room.

Nothing heavy is imported before the command is known. Data goes to stdout, everything else to stderr; exit codes are
0 done, 1 failed, 2 bad usage or refused, 130 interrupted.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from engine.commands.option_types import factor as _factor
from engine.commands.option_types import factors as _factors
from engine.commands.option_types import ids as _ids
from engine.commands.option_types import size as _size
from engine.commands.option_types import whole as _whole
from engine.commands.plan_options import add_plan_options
from engine.commands.simulate_options import add_simulate_options
from engine.data.errors import InvalidInput
from engine.program import run_program


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # its log lines repeat what our errors say
    return run_program("noodle-engine", _run, argv)


def _run(argv: Sequence[str]) -> int:
    options = _parse(argv)
    return int(options.run(options) or 0)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InvalidInput(f"{message}; see `{self.prog} --help`")


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The options of one command: from the command line, then from --config FILE, then the defaults."""
    parser = _parser()
    finder = _Parser(prog=parser.prog, add_help=False, allow_abbrev=False)
    finder.add_argument("command", nargs="?")
    finder.add_argument("--config", type=Path)
    found = finder.parse_known_args(argv)[0]
    if found.config is None:
        return parser.parse_args(argv)
    from engine.commands.config_file import apply_config

    commands = next(a.choices for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    settings = apply_config(found.config, found.command, commands)
    return settings.fill(parser.parse_args(argv))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="noodle-engine", description="Run a Hugging Face model as a pipeline over several machines.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)
    _add_servers(commands)
    _add_clients(commands)
    _add_tools(commands)
    return parser


def _add_servers(commands: argparse._SubParsersAction[_Parser]) -> None:
    up = _command(commands, "up", "start a coordinator and workers on this machine and serve until interrupted", _up)
    _model_options(up)
    up.add_argument("--workers", type=_whole(1), default=3, help="worker processes to start (default 3)")
    up.add_argument("--listen", default="127.0.0.1:0", help="coordinator address; port 0 picks a free one")
    up.add_argument("--threads", type=_whole(1), help="compute threads per worker")
    up.add_argument("--memory", type=_size, help="memory of each worker, e.g. 2G")
    up.add_argument("--kv-memory", type=_size, help="part of it for keys and values")
    up.add_argument("--slowdown", type=_factors, default=(), metavar="F[,F...]", help="emulate slower workers, e.g. 1,3,1")
    _adapt_option(up)
    up.add_argument("--state-dir", help="where the journal is kept (default: a temporary folder)")
    _log_options(up)
    _metrics_port(up)
    up.add_argument("--json", action="store_true", help="one JSON line with the address when ready")

    coordinator = _command(commands, "coordinator", "serve a cluster that workers join", _coordinator)
    _model_options(coordinator)
    coordinator.add_argument("--workers", type=_whole(1), default=1, help="workers to wait for at first (default 1)")
    coordinator.add_argument("--strategy", default="balanced", help="what the planner minimises (default balanced)")
    _adapt_option(coordinator)
    coordinator.add_argument("--state-dir", type=Path, help="where the journal is kept (default: a temporary folder)")
    _log_options(coordinator)
    _server_options(coordinator, "127.0.0.1:7070")

    worker = _command(commands, "worker", "serve stages on this machine for a coordinator", _worker)
    worker.add_argument("--join", required=True, metavar="HOST:PORT", help="the coordinator's address")
    worker.add_argument("--id", help="this node's name in the cluster (default: host name and a random word)")
    worker.add_argument("--device", help="cpu or cuda:N (default: the best one here)")
    worker.add_argument("--memory", type=_size, help="memory for weights and KV, e.g. 2G (default: what is available)")
    worker.add_argument("--share-with", type=_whole(1), default=1, metavar="N", help="workers that share this machine's memory (default 1)")
    worker.add_argument("--kv-memory", type=_size, help="part of it for keys and values")
    worker.add_argument("--threads", type=_whole(1), help="compute threads (default: all cores)")
    worker.add_argument("--cache-dir", type=Path, help="where fetched weights are kept (default: $NOODLE_CACHE or the user's cache folder)")
    worker.add_argument(
        "--cache-limit", type=_size, metavar="SIZE", help="of the weights kept there, e.g. 20G (default: what the disk holds)"
    )
    worker.add_argument("--slowdown", type=_factor, default=1.0, metavar="FACTOR", help="emulate a machine that is this much slower")
    advertise = "the address to tell the others (default: where it listens, or its way to the coordinator)"
    worker.add_argument("--advertise", metavar="HOST[:PORT]", help=advertise)
    _server_options(worker, "127.0.0.1:0")


def _add_clients(commands: argparse._SubParsersAction[_Parser]) -> None:
    generate = _command(commands, "generate", "generate text on a running cluster", _generate)
    _connect_options(generate)
    generate.add_argument("prompt", nargs="?", help="the prompt; read from stdin when it is '-'")
    generate.add_argument("--prompt-ids", type=_ids, default=(), metavar="1,2,3", help="token ids instead of a text")
    generate.add_argument("--max-new-tokens", type=_whole(1), default=64)
    generate.add_argument("--temperature", type=float, default=0.0, help="0 is greedy (default)")
    generate.add_argument("--top-k", type=int, default=0)
    generate.add_argument("--top-p", type=float, default=1.0)
    generate.add_argument("--repetition-penalty", type=float, default=1.0)
    generate.add_argument("--seed", type=int, default=0)
    generate.add_argument("--stop", action="append", default=[], metavar="TEXT", help="end before this text; may be repeated")
    generate.add_argument("--ignore-eos", action="store_true", help="go on to --max-new-tokens")

    status = _command(commands, "status", "show nodes, stages and sessions", _status)
    _connect_options(status)
    events = _command(commands, "events", "show what happened, newest last", _events)
    _connect_options(events)
    events.add_argument("--follow", action="store_true", help="keep printing as things happen")
    drain = _command(commands, "drain", "move a worker's items elsewhere and leave it out of plans", _drain)
    _connect_options(drain)
    drain.add_argument("worker_id")
    _for_plan(drain)
    undrain = _command(commands, "undrain", "let plans use a drained worker again", _undrain)
    _connect_options(undrain)
    undrain.add_argument("worker_id")
    _for_plan(undrain)
    forget = _command(commands, "forget", "strike a lost node off the list", _forget)
    _connect_options(forget)
    forget.add_argument("worker_id")
    acknowledge = _command(commands, "acknowledge", "say that the warnings and errors so far have been seen", _acknowledge)
    _connect_options(acknowledge)
    acknowledge.add_argument("sequence", nargs="?", type=_whole(1), metavar="EVENT", help="the newest that was seen (default: the newest)")
    rebalance = _command(commands, "rebalance", "plan again from the present measurements", _rebalance)
    _connect_options(rebalance)
    rebalance.add_argument("--dry-run", action="store_true", help="show the plan, do not apply it")
    rebalance.add_argument("--strategy", default="", help="what it minimises (default: what the coordinator does)")
    rebalance.add_argument("--stages", metavar="NODE:FIRST-LAST,...", help="your own plan instead, e.g. w1:0-4,w2:5-9")
    _for_plan(rebalance)
    rollback = _command(commands, "rollback", "go back to the plan before this one, or to an earlier one", _rollback)
    _connect_options(rollback)
    rollback.add_argument("plan_version", nargs="?", type=_whole(1), metavar="PLAN", help="its number (default: the last that differs)")
    rollback.add_argument("--dry-run", action="store_true", help="show what it would do, do not do it")
    rollback.add_argument("--list", action="store_true", help="show the plans there were")
    _for_plan(rollback)
    cancel = _command(commands, "cancel", "end a session", _cancel)
    _connect_options(cancel)
    cancel.add_argument("session_id")
    _for_plan(cancel)
    slowdown = _command(commands, "slowdown", "let a running worker play a slower machine; 1 ends it", _slowdown)
    _connect_options(slowdown)
    slowdown.add_argument("worker_id")
    slowdown.add_argument("factor", type=_factor)
    adapt = _command(commands, "adapt", "let the cluster move layers when a worker drifts, or show what it decided", _adapt)
    _connect_options(adapt)
    adapt.add_argument("action", nargs="?", choices=("off", "suggest", "auto", "confirm"), help="a mode, or confirm a suggestion")
    adapt.add_argument("decision_id", nargs="?", type=_whole(1), metavar="ID", help="of the suggestion to confirm")
    _connect_options(_command(commands, "moves", "show what the last live changes of plan moved", _moves))


def _for_plan(command: argparse.ArgumentParser) -> None:
    command.add_argument("--for-plan", type=_whole(0), metavar="N", help="refuse if the plan is not #N any more (see `status`)")


def _adapt_option(command: argparse.ArgumentParser) -> None:
    modes = ("off", "suggest", "auto")
    command.add_argument("--adapt", default="off", choices=modes, help="move layers when a worker drifts from its plan (default off)")


def _add_tools(commands: argparse._SubParsersAction[_Parser]) -> None:
    models = _command(commands, "models", "list models and architectures, or describe one", _models)
    models.add_argument("action", nargs="?", choices=("list", "describe"), default="list")
    models.add_argument("model", nargs="?", help="hub id, folder, or architecture name")
    models.add_argument("--random-weights", type=_whole(0), metavar="SEED")
    models.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "float16"))
    models.add_argument("--cache-dir", type=Path)
    models.add_argument("--json", action="store_true")
    models.add_argument("--json-lines", action="store_true", help=argparse.SUPPRESS)
    _add_profile(commands)
    _add_simulate(commands)
    add_plan_options(_command(commands, "plan", "find and prove the best plan for a problem given as a document", _plan), _whole, _size)
    doctor = _command(commands, "doctor", "check this machine and say how to mend what is wrong", _doctor)
    doctor.add_argument("--hardware", action="store_true", help="measure CPU and GPUs instead: what they are, what runs, how fast")
    doctor.add_argument("--json", action="store_true")
    report = _command(commands, "report", "show a run's metrics or a profile as an HTML page", _report)
    report.add_argument("path", type=Path, metavar="RUN", help="the folder of --metrics-dir, a .jsonl log, or a profile.json")
    report.add_argument("--out", type=Path, metavar="FILE", help="default: beside what it shows")
    report.add_argument(
        "--format", default="html", choices=("html", "csv", "json", "jsonl", "prometheus"), help="of a profile (default html)"
    )
    report.add_argument("--json", action="store_true", help="the figures as one JSON document on stdout")
    drill = _command(commands, "drill", "check the protocol in a simulated hostile network", _drill)
    drill.add_argument("--seeds", type=_whole(1), default=1000, help="histories to run (default 1000)")
    drill.add_argument("--first", type=_whole(0), default=0, metavar="SEED", help="the first one; a seed replays bit for bit")
    drill.add_argument("--jobs", type=_whole(1), default=1, metavar="N", help="processes that share the work (default 1)")
    drill.add_argument("--json", action="store_true")
    bench = _command(commands, "bench", "measure hop cost, decode speed, serving many sessions or the planner on this machine", _bench)
    bench.add_argument(
        "suite",
        nargs="?",
        choices=("all", "hop", "decode", "serve", "plan", "staged", "adaptation"),
        default="all",
        help="all: hop, decode, serve",
    )
    bench.add_argument("--sessions", type=_whole(1), default=8, help="concurrent sessions of `serve` (default 8)")
    bench.add_argument("--workers", type=_whole(1), default=3, help="workers of `serve` (default 3)")
    bench.add_argument("--steps", type=_whole(1000), default=10_000, help="of each steady trace of `adaptation` (default 10000)")
    bench.add_argument("--tokens", type=_whole(8), default=500, help="tokens per measurement (default 500)")
    bench.add_argument("--rounds", type=_whole(1), default=3, help="interleaved rounds; medians are quoted (default 3)")
    bench.add_argument("--json", action="store_true")


def _add_simulate(commands: argparse._SubParsersAction[_Parser]) -> None:
    add_simulate_options(_command(commands, "simulate", "what a plan would do with given sessions, before anyone runs it", _simulate))


def _add_profile(commands: argparse._SubParsersAction[_Parser]) -> None:
    profile = _command(commands, "profile", "measure every layer of a model on this machine, and write what was found", _profile)
    profile.add_argument("model", nargs="?", help="hub id, local folder, or architecture name (default: GPT-2)")
    profile.add_argument("--random-weights", type=_whole(0), metavar="SEED", help="seeded random weights")
    profile.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "float16"))
    profile.add_argument("--device", help="cpu or cuda:N (default cpu)")
    profile.add_argument("--threads", type=_whole(1), help="compute threads (default: all cores)")
    profile.add_argument("--depth", default="layer", choices=("item", "layer", "leaf"), help="which modules are timed (default layer)")
    profile.add_argument("--quick", action="store_true", help="fewer points, about 10 s instead of 40 s")
    profile.add_argument("--out", type=Path, metavar="DIR", help="where the files go (default ./profile-MODEL)")
    profile.add_argument("--compare", nargs=2, type=Path, metavar=("A", "B"), help="show two profiles side by side instead")
    profile.add_argument("--cache-dir", type=Path, help="default: $NOODLE_CACHE or the user's cache folder")
    profile.add_argument("--json-lines", action="store_true", help=argparse.SUPPRESS)
    profile.add_argument("--made-up-weights", action="store_true", help=argparse.SUPPRESS)  # of a folder that holds config.json alone
    profile.add_argument("--node", metavar="ID", help="let a worker of the cluster at --connect profile the model it serves")
    _connect_options(profile)


# ---------------------------------------------------------------------------------------------- shared options
def _command(commands: argparse._SubParsersAction[_Parser], name: str, summary: str, run: object) -> _Parser:
    parser = commands.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.", allow_abbrev=False)
    parser.set_defaults(run=run)
    parser.add_argument("--config", type=Path, metavar="FILE", help="YAML file with options; engine/example.yaml explains it")
    return parser


def _model_options(parser: _Parser) -> None:
    parser.add_argument("--model", help="hub id, local folder, or architecture name (default: GPT-2)")
    parser.add_argument("--random-weights", type=_whole(0), metavar="SEED", help="seeded random weights")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "float16"))
    parser.add_argument("--cache-dir", type=Path, help="default: $NOODLE_CACHE or the user's cache folder")
    parser.add_argument("--layers", type=_ids, default=(), metavar="N,N,...", help="items per stage, instead of a plan that is searched")


def _server_options(parser: _Parser, listen: str) -> None:
    parser.add_argument("--listen", default=listen, metavar="HOST:PORT", help=f"default {listen}; port 0 picks a free one")
    parser.add_argument("--token-file", type=Path, help="lines 'viewer|operator|worker TOKEN'")
    parser.add_argument("--tls-cert", type=Path)
    parser.add_argument("--tls-key", type=Path)
    parser.add_argument("--tls-ca", type=Path)
    parser.add_argument("--insecure", action="store_true", help="allow an address other than loopback without TLS and token")
    _metrics_port(parser)
    parser.add_argument("--metrics-host", default="127.0.0.1", metavar="ADDR", help="where to listen for it (default 127.0.0.1)")
    parser.add_argument("--exit-with-parent", action="store_true", help="end when stdin is closed")
    parser.add_argument("--log-level", default="INFO", choices=("DEBUG", "INFO", "WARNING", "ERROR"))


def _log_options(parser: _Parser) -> None:
    parser.add_argument("--metrics-dir", type=Path, metavar="DIR", help="keep the run's metrics here as JSONL, for `report`")
    parser.add_argument("--metrics-every-step", action="store_true", help="a record per step besides the samples")


def _metrics_port(parser: _Parser) -> None:
    parser.add_argument("--metrics-port", type=_whole(0), metavar="PORT", help="Prometheus text at /metrics; 0 picks a free port")


def _connect_options(parser: _Parser) -> None:
    address = os.environ.get("NOODLE_CONNECT", "127.0.0.1:7070")
    parser.add_argument("--connect", default=address, metavar="HOST:PORT", help="default: $NOODLE_CONNECT or 127.0.0.1:7070")
    parser.add_argument("--token", default=os.environ.get("NOODLE_TOKEN"), help="default: $NOODLE_TOKEN")
    parser.add_argument("--tls-ca", type=Path)
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")


# ---------------------------------------------------------------------------------------------- one call each
def _up(options: argparse.Namespace) -> int:
    from engine.commands import serve

    return serve.up(options)


def _coordinator(options: argparse.Namespace) -> int:
    from engine.commands import serve

    return serve.coordinator(options)


def _worker(options: argparse.Namespace) -> int:
    from engine.commands import serve

    return serve.worker(options)


def _generate(options: argparse.Namespace) -> int:
    from engine.commands import generate

    return generate.run(options)


def _status(options: argparse.Namespace) -> int:
    from engine.commands import inspect

    return inspect.status(options)


def _events(options: argparse.Namespace) -> int:
    from engine.commands import inspect

    return inspect.events(options)


def _drain(options: argparse.Namespace) -> int:
    from engine.commands import operate

    return operate.drain(options)


def _undrain(options: argparse.Namespace) -> int:
    from engine.commands import operate

    return operate.undrain(options)


def _forget(options: argparse.Namespace) -> int:
    from engine.commands import operate

    return operate.forget(options)


def _acknowledge(options: argparse.Namespace) -> int:
    from engine.commands import operate

    return operate.acknowledge(options)


def _rebalance(options: argparse.Namespace) -> int:
    from engine.commands import operate

    return operate.rebalance(options)


def _rollback(options: argparse.Namespace) -> int:
    from engine.commands import rollback

    return rollback.rollback(options)


def _cancel(options: argparse.Namespace) -> int:
    from engine.commands import operate

    return operate.cancel(options)


def _slowdown(options: argparse.Namespace) -> int:
    from engine.commands import operate

    return operate.slowdown(options)


def _adapt(options: argparse.Namespace) -> int:
    from engine.commands import adapt

    return adapt.adapt(options)


def _moves(options: argparse.Namespace) -> int:
    from engine.commands import operate

    return operate.moves(options)


def _models(options: argparse.Namespace) -> int:
    from engine.commands import models

    return models.run(options)


def _profile(options: argparse.Namespace) -> int:
    from engine.commands import profile

    return profile.run(options)


def _plan(options: argparse.Namespace) -> int:
    from engine.commands import plan

    return plan.run(options)


def _simulate(options: argparse.Namespace) -> int:
    from engine.commands import simulate

    return simulate.run(options)


def _doctor(options: argparse.Namespace) -> int:
    from engine.commands import doctor

    return doctor.run(options)


def _report(options: argparse.Namespace) -> int:
    from engine.commands import report

    return report.run(options)


def _drill(options: argparse.Namespace) -> int:
    from engine.commands import drill

    return drill.run(options)


def _bench(options: argparse.Namespace) -> int:
    from engine.commands import bench, bench_adaptation

    return bench_adaptation.run(options) if options.suite == "adaptation" else bench.run(options)
