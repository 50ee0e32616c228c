"""The commands that ask and change a running cluster."""

from __future__ import annotations

from dataclasses import dataclass

from engine.commands.connection import Connection
from engine.options.declared import argument, group, option
from engine.options.kinds import factor, ids, whole


@dataclass(frozen=True, kw_only=True)
class Asking:
    """What every command to a cluster takes."""

    connection: Connection = group(Connection)
    json: bool = option(default=False, help="one JSON document on stdout")


@dataclass(frozen=True, kw_only=True)
class Changing(Asking):
    """What every command takes that changes the plan or what runs on it."""

    for_plan: int | None = option(kind=whole(0), metavar="N", help="refuse if the plan is not #N any more (see `status`)")


@dataclass(frozen=True, kw_only=True)
class SamplingOptions:
    """How the next token is chosen."""

    temperature: float | None = option(kind=float, help="0 is greedy (default)")
    top_k: int | None = option(kind=int, help="choose among so many of the likeliest; 0: among all (default)")
    top_p: float | None = option(kind=float, help="choose among the likeliest that have this share together (default 1)")
    repetition_penalty: float | None = option(kind=float, help="above 1 what was there already is less likely (default 1)")
    seed: int | None = option(kind=int, help="the same seed gives the same tokens (default 0)")


@dataclass(frozen=True, kw_only=True)
class Generate(Asking):
    """Generate text on a running cluster."""

    prompt: str | None = argument(optional=True, help="the prompt; read from stdin when it is '-'")
    prompt_ids: tuple[int, ...] = option(kind=ids, default=(), metavar="1,2,3", help="token ids instead of a text")
    max_new_tokens: int = option(kind=whole(1), default=64, metavar="N", help="tokens to generate at most (default %(default)s)")
    sampling: SamplingOptions = group(SamplingOptions)
    stop: tuple[str, ...] = option(repeated=True, metavar="TEXT", help="end before this text; may be repeated")
    ignore_eos: bool = option(default=False, help="go on to --max-new-tokens")


@dataclass(frozen=True, kw_only=True)
class Status(Asking):
    """Show nodes, stages and sessions."""


@dataclass(frozen=True, kw_only=True)
class Events(Asking):
    """Show what happened, newest last."""

    follow: bool = option(default=False, help="keep printing as things happen")


@dataclass(frozen=True, kw_only=True)
class Drain(Changing):
    """Move a worker's items elsewhere and leave it out of plans."""

    worker_id: str = argument()


@dataclass(frozen=True, kw_only=True)
class Undrain(Changing):
    """Let plans use a drained worker again."""

    worker_id: str = argument()


@dataclass(frozen=True, kw_only=True)
class Forget(Asking):
    """Strike a lost node off the list."""

    worker_id: str = argument()


@dataclass(frozen=True, kw_only=True)
class Acknowledge(Asking):
    """Say that the warnings and errors so far have been seen."""

    sequence: int | None = argument(
        optional=True, kind=whole(1), metavar="EVENT", help="the newest that was seen (default: the newest there is)"
    )


@dataclass(frozen=True, kw_only=True)
class Rebalance(Changing):
    """Plan again from the present measurements."""

    dry_run: bool = option(default=False, help="show the plan, do not apply it")
    strategy: str = option(default="", help="what it minimises (default: what the coordinator does)")
    stages: str | None = option(metavar="NODE:FIRST-LAST,...", help="your own plan instead, e.g. w1:0-4,w2:5-9")


@dataclass(frozen=True, kw_only=True)
class Rollback(Changing):
    """Go back to the plan before this one, or to an earlier one."""

    plan_version: int | None = argument(optional=True, kind=whole(1), metavar="PLAN", help="its number (default: the last that differs)")
    dry_run: bool = option(default=False, help="show what it would do, do not do it")
    list_plans: bool = option("--list", default=False, help="show the plans there were")


@dataclass(frozen=True, kw_only=True)
class Cancel(Changing):
    """End a session."""

    session_id: str = argument()


@dataclass(frozen=True, kw_only=True)
class Slowdown(Asking):
    """Let a running worker play a slower machine; 1 ends it."""

    worker_id: str = argument()
    factor: float = argument(kind=factor)


@dataclass(frozen=True, kw_only=True)
class Adapt(Asking):
    """Let the cluster move layers when a worker drifts, or show what it decided."""

    action: str | None = argument(
        optional=True, choices=("off", "suggest", "auto", "confirm"), help="a mode, or confirm a suggestion (default: show the decisions)"
    )
    decision_id: int | None = argument(optional=True, kind=whole(1), metavar="ID", help="of the suggestion to confirm")


@dataclass(frozen=True, kw_only=True)
class Moves(Asking):
    """Show what the last live changes of plan moved."""
