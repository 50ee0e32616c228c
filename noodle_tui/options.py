"""Command line of `noodle-console`: argv in, one frozen value out, or a sentence and exit code 2."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from engine.data.errors import InvalidInput
from engine.data.generation import GenerateRequest
from engine.data.sampling import SamplingRequest
from engine.options.declared import build, declare, names_in, words
from engine.options.parsing import Parser, not_taken
from engine.service.trust.options import AccessOptions
from noodle_tui.config import Config
from noodle_tui.text.graph_sets import GRAPHS, SETS, parse_graph_sets
from noodle_tui.themes import DEFAULT_THEME, theme_names

if TYPE_CHECKING:
    from engine.service.local_options import LocalOptions

DEMO = Path(__file__).parent / "demo.jsonl.gz"  # a cluster of three workers: one becomes slow, layers move, one is killed
ALERTS = ("off", "bell", "notify")
MIN_HZ, MAX_HZ = 0.2, 4.0
LOW_HZ, LOW_THEME = 0.5, "ansi"  # what --low-bandwidth means where nothing else was asked for
MIN_SPEED, MAX_SPEED = 0.25, 1024.0
_ADDRESS = re.compile(r"(unix:.+)|((\[[0-9a-fA-F:]+\]|[A-Za-z0-9._-]+):[0-9]{1,5})")


@dataclass(frozen=True, slots=True)
class Options:
    """What the user asked for; None means the default of whoever reads it."""

    connect: str | None = None  # None: start an embedded cluster
    cluster: LocalOptions | None = None  # of the embedded one; None: its defaults
    access: AccessOptions = field(default_factory=AccessOptions)
    ascii: bool = False
    theme: str | None = None
    hz: float = 1.0
    max_new_tokens: int = 64
    temperature: float = 0.0
    seed: int = 0
    record: str | None = None
    replay: str | None = None
    speed: float = 1.0
    headless: bool = False
    profile: str | None = None
    rw: bool = False
    low_bandwidth: bool = False
    serve: int | None = None
    mouse: bool = False
    graphs: str = ""
    alert: str = "off"

    def __post_init__(self) -> None:
        self._check_cluster()
        self._check_recording()
        if not MIN_HZ <= self.hz <= MAX_HZ:
            raise InvalidInput(f"--hz {self.hz:g} is not allowed: the display paints {MIN_HZ:g} to {MAX_HZ:g} times a second")
        parse_graph_sets(self.graphs)
        if self.alert not in ALERTS:
            raise InvalidInput(f"--alert {self.alert[:40]!r}: there is {', '.join(ALERTS)}")
        if self.theme is not None and self.theme not in theme_names():
            raise InvalidInput(f"--theme {self.theme[:80]!r}: there is no such theme; the themes are {', '.join(theme_names())}")
        GenerateRequest("x", max_new_tokens=self.max_new_tokens, sampling=SamplingRequest(self.temperature, seed=self.seed))

    def _check_cluster(self) -> None:
        if self.cluster is not None:
            self.cluster.on_this_machine()
        given = self._cluster_words()
        if self.connect is not None and given:
            raise InvalidInput(
                f"{given[0].partition('=')[0]} starts a cluster of its own, --connect joins one that runs: give one or the other"
            )
        if self.connect is not None and not _is_address(self.connect):
            raise InvalidInput(f"--connect {self.connect[:80]!r} is not an address: use HOST:PORT, for example 127.0.0.1:7070")

    def _cluster_words(self) -> list[str]:
        return [] if self.cluster is None else words(self.cluster)

    def _check_recording(self) -> None:
        if self.replay is not None and (self.connect or self._cluster_words()):
            raise InvalidInput("--replay shows a recording: it goes with neither --connect nor the options of an embedded cluster")
        if self.replay is not None and self.record is not None:
            raise InvalidInput("--replay and --record: a replay is a recording already, give one or the other")
        if self.serve is not None and not 1 <= self.serve <= 65535:
            raise InvalidInput(f"--serve {self.serve} is not a port: give 1 to 65535")
        if self.headless and self.record is None:
            raise InvalidInput("--headless records without a screen: give --record FILE too")
        if not MIN_SPEED <= self.speed <= MAX_SPEED:
            raise InvalidInput(f"--speed {self.speed:g} is not allowed: a replay runs at {MIN_SPEED:g} to {MAX_SPEED:g} times its pace")


def _is_address(text: str) -> bool:
    return bool(_ADDRESS.fullmatch(text)) and (text.startswith("unix:") or int(text.rpartition(":")[2]) <= 65535)


def parse(argv: Sequence[str], config: Config | None = None) -> Options:
    """Options from the command line over those of console.toml; exits 2 with the reason when they make no sense."""
    parser, groups, given = _read(argv)
    parts = {part: {name: given.pop(name) for name in names_in(options) if name in given} for part, options in groups.items()}
    if config is not None:  # it stands behind the command line and the environment
        parts["access"] = {**parts["access"], **{n: v for n, v in config.access.items() if not parts["access"].get(n)}}
    values = {name: value for name, value in given.items() if value is not None and value is not False}
    if values.pop("demo", False):
        if values.get("replay"):
            parser.error("--demo shows a recording of its own, --replay another one: give one or the other")
        values["replay"] = str(DEMO)
    try:
        chosen = {**_from_config(config), **values, **{part: build(options, parts[part]) for part, options in groups.items()}}
        if chosen.get("low_bandwidth"):
            chosen = {"hz": LOW_HZ, "theme": LOW_THEME, **chosen}
        return Options(**chosen)
    except InvalidInput as error:
        parser.error(str(error))


def _read(argv: Sequence[str]) -> tuple[argparse.ArgumentParser, dict[str, type], dict[str, Any]]:
    """The parser that read `argv`, its groups of options by the field they go to, and the values.

    The options of an embedded cluster take a tenth of the time to the first paint to import and declare: who joins a cluster or
    shows a recording does not wait for them.
    """
    groups: dict[str, type] = {"access": AccessOptions}
    flags = {word.partition("=")[0] for word in argv}
    if flags & {"--connect", "--replay", "--demo"} and not flags & {"-h", "--help"}:
        parser = _parser(groups)
        given, unknown = parser.parse_known_args(argv)
        if not unknown:
            return parser, groups, vars(given)
    from engine.service.local_options import LocalOptions

    groups["cluster"] = LocalOptions
    parser = _parser(groups)
    given, unknown = parser.parse_known_args(argv)
    if unknown:
        parser.error(not_taken("the console", parser, unknown))
    return parser, groups, vars(given)


def checked(options: Options) -> Options:
    """The same options; raises InvalidInput or Refused for tokens and certificates that cannot be shown to --connect.

    They are looked at before there is a screen, and before a connection that would be tried again and again.
    """
    if options.connect is not None and any(vars(options.access).values()):
        from engine.service.trust.credentials import check_travels, read_shown  # not for the first paint of everybody else

        check_travels(*read_shown(options.access), options.connect)
    return options


def _from_config(config: Config | None) -> dict[str, Any]:
    if config is None:
        return {}
    found = {"theme": config.theme, "hz": config.hz, "ascii": config.ascii, "low_bandwidth": config.low_bandwidth, "graphs": config.graphs}
    found["alert"] = config.alert
    return {name: value for name, value in found.items() if value is not None}


def is_loopback(address: str | None) -> bool:
    """Whether a coordinator's address is of this machine; None is the embedded cluster."""
    if address is None or address.startswith("unix:"):
        return True
    host = address.rpartition(":")[0].strip("[]")
    return host in ("localhost", "::1") or re.fullmatch(r"127(\.[0-9]{1,3}){3}", host) is not None


class _Parser(Parser):
    def error(self, message: str) -> NoReturn:
        """One sentence, and not the whole usage before it."""
        try:
            super().error(message)
        except InvalidInput as error:
            self.exit(error.exit_code, f"{self.prog}: {error}\n")


def _parser(groups: Mapping[str, type]) -> argparse.ArgumentParser:
    parser = _Parser(
        prog="noodle-console",
        description="Operations console in the terminal. Without --connect it starts a cluster of its own on this machine.",
        epilog=f"Themes: {', '.join(theme_names())} (default {DEFAULT_THEME}). Scripts use noodle-engine instead.",
        allow_abbrev=False,
    )
    cluster = parser.add_argument_group("cluster")
    cluster.add_argument("--connect", metavar="ADDR", help="join the coordinator at HOST:PORT")
    declare(parser.add_argument_group("access", "what the console shows the coordinator at --connect"), AccessOptions)
    if "cluster" in groups:
        declare(parser.add_argument_group("embedded cluster", "as for noodle-engine up"), groups["cluster"])
    recording = parser.add_argument_group("recording")
    recording.add_argument("--record", metavar="FILE", help="write every frame to a new file (.gz compresses)")
    recording.add_argument("--headless", action="store_true", help="record without a screen until interrupted")
    recording.add_argument("--replay", metavar="FILE", help="show a recording on the same screens")
    recording.add_argument("--demo", action="store_true", help="show a recorded story: a slowdown, a move, a kill; needs no model")
    recording.add_argument("--speed", type=float, default=1.0, metavar="X", help="pace of the replay (default 1)")
    display = parser.add_argument_group("display")
    display.add_argument("--ascii", action="store_true", help="draw with ASCII only (also NOODLE_ASCII=1)")
    display.add_argument(
        "--graphs",
        metavar="SET",
        help=f"glyphs of the graphs: {', '.join(SETS)}, or one by one, such as {GRAPHS[0]}=braille,{GRAPHS[1]}=block; the graphs are "
        f"{', '.join(GRAPHS)}; ASCII mode has ASCII only",
    )
    display.add_argument("--theme", metavar="NAME", help="colour theme")
    display.add_argument("--hz", type=float, default=None, metavar="F", help="paint F times a second, 0.2 to 4 (default 1)")
    display.add_argument("--low-bandwidth", action="store_true", help="for slow lines: half the frames, the terminal's own colours")
    display.add_argument(
        "--alert", metavar="HOW", help=f"when something begins to be wrong: {', '.join(ALERTS)} (default off; notify: the desktop's, OSC 9)"
    )
    display.add_argument("--mouse", action="store_true", help="let the terminal report the mouse; costs bytes, and selecting text")
    display.add_argument("--profile", metavar="FILE", help="profile.json to show on screen 7 (default: the newest here)")
    display.add_argument(
        "--serve", metavar="PORT", type=int, nargs="?", const=8000, help="in a browser on this machine, through textual-serve"
    )
    cluster.add_argument("--rw", action="store_true", help="allow changes although the coordinator is on another machine")
    prompt = parser.add_argument_group("prompt", "defaults of the fields under the prompt")
    prompt.add_argument("--max-new-tokens", type=int, default=64, metavar="N", help="tokens to generate at most (default 64)")
    prompt.add_argument("--temperature", type=float, default=0.0, metavar="T", help="0 is greedy (default)")
    prompt.add_argument("--seed", type=int, default=0, metavar="S", help="seed of the sampling (default 0)")
    return parser
