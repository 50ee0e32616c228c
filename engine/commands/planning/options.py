"""The commands that compute with plans and need no cluster."""

from __future__ import annotations

import argparse
import math
import re
from dataclasses import dataclass
from pathlib import Path

from engine.commands.connection import Connection
from engine.options.declared import group, option
from engine.options.kinds import factors, ids, numbers, positive, size, whole
from engine.service.options import CacheOptions


@dataclass(frozen=True, slots=True)
class PlannedLink:
    """One way in seconds, bytes per second; `ends` is "" for every pair of machines."""

    latency_s: float
    bandwidth_bytes_per_s: float
    ends: str = ""


def link(text: str) -> PlannedLink:
    """`0.001,1.25e8`, or `A-B=0.001,1.25e8` for one pair."""
    number = r"([0-9]{1,15}(?:\.[0-9]{1,15})?(?:e-?[0-9]{1,2})?)"
    match = re.fullmatch(f"(?:(.{{3,200}})=)?{number},{number}", text)
    if match is None or not 0 <= float(match[2]) < 1e9 or not 0 < float(match[3]) < math.inf:
        raise argparse.ArgumentTypeError(f"link {text[:60]!r} is not allowed: give seconds and bytes per second, e.g. 0.001,1.25e8")
    return PlannedLink(float(match[2]), float(match[3]), match[1] or "")


# --- plan -----------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, kw_only=True)
class PlanSource:
    """Where the problem comes from: a document, a running cluster, or an estimate."""

    problem: Path | None = option(kind=Path, metavar="FILE", help="the problem as a JSON document; '-' reads stdin")
    connection: Connection = group(Connection, connect="")
    profile: Path | None = option(
        kind=Path, metavar="FILE", help="estimate instead: this profile.json, scaled to the --hardware of each machine"
    )
    hardware: tuple[Path, ...] = option(
        kind=Path, repeated=True, metavar="FILE", help="what `doctor --hardware --json` wrote on a machine; may be repeated"
    )
    link: tuple[PlannedLink, ...] = option(
        kind=link,
        repeated=True,
        metavar="[A-B=]S,BYTES/S",
        help="with --profile: latency and bandwidth between machines, or between A and B; may be repeated (default: what --hardware says)",
    )
    price: tuple[str, ...] = option(
        repeated=True, metavar="NAME=PER_S", help="with --profile: what a machine or node costs a second, instead of its watts"
    )
    current: Path | None = option(kind=Path, metavar="FILE", help="with --problem: the plan that runs, as `plan --json` wrote it")


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What the command line says instead of the problem's source; None leaves it as it is."""

    in_flight: int | None = option(kind=whole(1), metavar="M", help="sessions in the pipeline at once, instead of the document's")
    sessions: int | None = option(kind=whole(1), metavar="S", help="sessions whose KV every stage must hold")
    context_tokens: int | None = option(kind=whole(0), metavar="T", help="tokens of KV per session")
    node_order: str | None = option(choices=("free", "given"), help="whether the order of the nodes is searched")
    use_all_nodes: bool = option(default=False, help="leave no node out")
    pin: tuple[str, ...] = option(repeated=True, metavar="ITEM=NODE", help="an item, by name or index, on a node; may be repeated")
    forbid: tuple[str, ...] = option(repeated=True, metavar="NODE", help="leave a node out; may be repeated")
    max_stages: int | None = option(kind=whole(1), metavar="K", help="stages, at most")
    min_items: int | None = option(kind=whole(1), metavar="K", help="items per stage, at least")
    max_items: int | None = option(kind=whole(1), metavar="K", help="items per stage, at most")
    stage_items: str | None = option(metavar="4,4,5", help="the number of items of each stage; only the nodes are chosen")
    memory_reserve_bytes: int | None = option(
        "--memory-reserve", kind=size, metavar="SIZE", help="memory to keep free on every node, e.g. 500M"
    )
    latency_limit_s: float | None = option("--latency-limit", kind=float, metavar="SECONDS", help="longest round trip of one token")


@dataclass(frozen=True, kw_only=True)
class Exporting:
    """The plan for an engine that is used already."""

    export: str | None = option(
        metavar="ENGINE",
        help="print what makes vllm, sglang, llamacpp, accelerate or deepspeed run the plan; what it cannot do is said on stderr",
    )
    running: bool = option(default=False, help="with --export: the plan that runs (--connect, --current) instead of a new one")
    model: str | None = option(metavar="MODEL", help="with --export: the model, as that engine or this one is to load it")
    random_weights: int | None = option(kind=whole(0), metavar="SEED", help="with --model: an architecture, for its modules' names")
    device: tuple[str, ...] = option(
        repeated=True, metavar="NODE=DEVICE", help="with --export: what a node is called there, e.g. b=cuda:1; may be repeated"
    )
    cache: CacheOptions = group(CacheOptions)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Find and prove the best plan for a problem given as a document."""

    source: PlanSource = group(PlanSource)
    wanted: Wanted = group(Wanted)
    exporting: Exporting = group(Exporting)
    compare: bool = option(default=False, help="all strategies in one table, with the moves from the plan that runs")
    strategy: str = option(default="auto", help="what to minimise (default %(default)s)")
    write_problem: Path | None = option(kind=Path, metavar="FILE", help="write the problem as a document that --problem reads, to edit it")
    no_notes: bool = option(default=False, help="do not solve again to find out what would help")
    json: bool = option(default=False, help="one JSON document on stdout")


# --- simulate -------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, kw_only=True)
class SimulatedModel:
    """What is simulated, and what it costs."""

    profile: Path | None = option(kind=Path, metavar="FILE", help="profile.json of `noodle-engine profile`, or its folder")
    item_ms: tuple[float, ...] = option(
        kind=numbers, default=(), metavar="T,T,...", help="instead: each item's time for one token, as workers measure it"
    )
    extra_token_share: float = option(
        kind=float, default=0.05, help="with --item-ms: cost of a step's further tokens, as a share of the first (default %(default)s)"
    )
    plan: Path | None = option(kind=Path, metavar="FILE", help="a plan as JSON: stages with node, start, stop")
    layers: tuple[int, ...] = option(kind=ids, default=(), metavar="N,N,...", help="items per stage")
    strategy: str = option(default="auto", help="how to plan for the load when no plan is given (default %(default)s)")
    context_tokens: int | None = option(kind=whole(2), metavar="T", help="longest session that the model takes (default: any)")


@dataclass(frozen=True, kw_only=True)
class SimulatedMachines:
    """The nodes and the links between them."""

    workers: int | None = option(kind=whole(1), metavar="N", help="nodes w1, w2, ... (default: as many as the plan has stages, else 3)")
    slowdown: tuple[float, ...] = option(
        kind=factors, default=(), metavar="F[,F...]", help="how much slower than the profile each of them is"
    )
    node: tuple[str, ...] = option(
        repeated=True, metavar="NAME[,slowdown=F][,kv-memory=B][,busy-cores=F]", help="one node; may be repeated"
    )
    kv_memory_bytes: int | None = option(
        "--kv-memory", kind=size, metavar="SIZE", help="of each node, for keys and values (default: as much as is wanted)"
    )
    one_host: float | None = option(
        kind=positive, metavar="CORES", help="all nodes and the coordinator share one machine with so many cores"
    )
    busy_cores: float = option(
        kind=positive, default=1.0, metavar="F", help="with --one-host: cores that a decode step keeps busy (default %(default)s)"
    )
    prompt_busy_cores: float | None = option(kind=positive, metavar="F", help="the same for steps with prompts (default: as --busy-cores)")
    threads: int = option(
        kind=whole(1), default=1, metavar="N", help="compute threads of each node, as the scheduler is told (default %(default)s)"
    )
    latency_ms: float = option(kind=float, default=0.0, metavar="MS", help="of every link (default %(default)s)")
    bandwidth: int | None = option(kind=size, metavar="SIZE", help="of every link, bytes per second, e.g. 125M (default: unlimited)")
    link: tuple[str, ...] = option(
        repeated=True, metavar="FROM:TO,latency-ms=F,bandwidth=B", help="one link; the coordinator is 'coordinator'"
    )
    hop_ms: float = option(
        kind=float, default=0.4, metavar="MS", help="the program's own cost of a message (default %(default)s; `bench hop` measures it)"
    )
    neighbour_share: float = option(
        kind=float,
        default=0.0,
        metavar="SHARE",
        help="with --one-host: what every other stage adds to a stage's computing (default %(default)s; `bench staged` finds it)",
    )
    open_ms: float = option(
        kind=float,
        default=0.0,
        metavar="MS",
        help="the program's own cost of opening a session (default %(default)s; `bench staged` finds it)",
    )


@dataclass(frozen=True, kw_only=True)
class SimulatedSessions:
    """Who asks for what, and when."""

    sessions: int = option(kind=whole(1), default=1, metavar="N", help="how many (default %(default)s)")
    prompt_tokens: int = option(kind=whole(1), default=16, metavar="N", help="of each session (default %(default)s)")
    new_tokens: int = option(kind=whole(1), default=64, metavar="N", help="to generate in each session (default %(default)s)")
    rate: float | None = option(
        kind=positive, metavar="PER_S", help="sessions arrive at random, so many a second (default: all at the start)"
    )
    seed: int = option(kind=whole(0), default=0, metavar="N", help="of --rate (default %(default)s)")
    trace: Path | None = option(kind=Path, metavar="FILE", help="sessions as lines arrival_s,prompt_tokens,new_tokens instead")
    prompt_chunk: int = option(kind=whole(1), default=512, metavar="N", help="prompt tokens of a step at most (default %(default)s)")


@dataclass(frozen=True, kw_only=True)
class Simulate:
    """What a plan would do with given sessions, before anyone runs it."""

    model: SimulatedModel = group(SimulatedModel)
    machines: SimulatedMachines = group(SimulatedMachines)
    load: SimulatedSessions = group(SimulatedSessions)
    compare: str | None = option(choices=("native",), help="with one process that serves one session after the other")
    gantt: Path | None = option(kind=Path, metavar="FILE.html", help="write an interactive chart")
    width: int = option(kind=whole(20), default=100, metavar="N", help="columns of the text chart (default %(default)s)")
    json: bool = option(default=False, help="one JSON document on stdout")
