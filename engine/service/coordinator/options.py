"""The options of a coordinator."""

from __future__ import annotations

import argparse
import math
import re
from dataclasses import dataclass
from pathlib import Path

from engine.options.declared import group, option
from engine.options.kinds import ids, whole
from engine.service.options import ModelOptions, ServerOptions

MODES = ("off", "suggest", "auto")
SPECULATE = ("auto", "always", "off")
AUTO = 0  # workers: as many as there is room for
_UNITS_S = {"m": 60.0, "h": 3600.0, "d": 86400.0}


@dataclass(frozen=True)
class Keep:
    """Sessions younger than `age_s` are kept, but for those beyond the newest `num_sessions`."""

    age_s: float = 30 * 86400.0
    num_sessions: int = 10_000

    def __str__(self) -> str:
        number = str(self.num_sessions)
        return number if math.isinf(self.age_s) else f"{round(self.age_s / 60)}m,{number}"


def keep(text: str) -> Keep:
    """`30d`, `12h,500` or `500`: an age, a number of sessions, or both."""
    match = re.fullmatch(r"(?:([0-9]{1,9})([mhd]))?,?([0-9]{1,9})?", text)
    if match is None or not text or text in (",",) or (match[1] and match[3] and "," not in text):
        raise argparse.ArgumentTypeError(f"{text[:80]!r} is not allowed: give an age, a number of sessions or both, e.g. 30d,10000")
    age_s = float(match[1]) * _UNITS_S[match[2]] if match[1] else math.inf
    return Keep(age_s, int(match[3]) if match[3] else 10**9)


def workers(text: str) -> int:
    """A number, or `auto`."""
    return AUTO if text == "auto" else whole(1)(text)


@dataclass(frozen=True, kw_only=True)
class RecordingOptions:
    """What is told of a run: its log, and traces of requests; nothing of it by default."""

    metrics_dir: Path | None = option(kind=Path, metavar="DIR", help="keep the run's metrics here as JSONL, for `report`")
    metrics_every_step: bool = option(default=False, help="a record per step besides the samples")
    otel: str | None = option(
        metavar="URL", help="send a trace of each request to this OpenTelemetry collector (OTLP over HTTP), e.g. http://127.0.0.1:4318"
    )


@dataclass(frozen=True, kw_only=True)
class CoordinatorOptions:
    """Serve a cluster that workers join."""

    model: ModelOptions = group(ModelOptions)
    num_workers: int = option(
        "--workers",
        kind=workers,
        default=1,
        metavar="N",
        help="workers to begin with (default %(default)s); auto with `up --on ray`: as many as its nodes hold",
    )
    strategy: str = option(default="auto", help="what the planner minimises (default %(default)s)")
    layers: tuple[int, ...] = option(kind=ids, default=(), metavar="N,N,...", help="items per stage, instead of a plan that is searched")
    adapt: str = option(default="off", choices=MODES, help="move layers when a worker drifts from its plan (default %(default)s)")
    speculate: str = option(
        default="auto", choices=SPECULATE, help="let steps carry guessed tokens: what pays, whatever repeats, or none (default %(default)s)"
    )
    state_dir: Path | None = option(kind=Path, help="where the journal is kept (default: a temporary folder)")
    keep: Keep = option(
        kind=keep,
        default=Keep(),
        metavar="AGE,N",
        help="how long the journal remembers sessions that are over, and how many, e.g. 12h,500 (default 30d,10000)",
    )
    show_text: bool = option(default=False, help="let operators read the prompts and answers of all sessions")
    recover: bool = option(default=False, help="begin with what can be read of a damaged journal in --state-dir")
    metrics_sd: Path | None = option(
        kind=Path,
        metavar="FILE",
        help="keep a list of all that can be scraped here, for Prometheus' file_sd_configs; scraping begins with it",
    )
    recording: RecordingOptions = group(RecordingOptions)
    prefix_cache: str = option(
        default="auto", choices=("auto", "off"), help="keep KV of sessions that ended for prompts that begin alike (default %(default)s)"
    )
    shared_prefix: tuple[Path, ...] = option(
        kind=Path, repeated=True, metavar="FILE", help="a system prompt, or token ids, whose KV all callers may share; may be repeated"
    )
    announce: bool = option(
        default=False, of_process=True, help="say on the local network where it is, for `worker --join auto`; needs tokens or certificates"
    )
    server: ServerOptions = group(ServerOptions, listen="127.0.0.1:7070")
