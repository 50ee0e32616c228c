"""The commands that ask and change a running cluster."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from engine.commands.connection import Connection
from engine.data.errors import InvalidInput
from engine.data.sampling import LogitBias, SamplingRequest
from engine.options.declared import argument, group, option
from engine.options.kinds import factor, ids, whole


def bias(text: str) -> LogitBias:
    """A kind of option: what to add to the logit of which token."""
    token_id, _, amount = text.partition("=")
    try:
        return LogitBias(int(token_id), float(amount))
    except InvalidInput as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text[:80]!r} is not allowed: give a token id and a number, e.g. 50256=-100") from error


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
    """How the next token is chosen; what is not given is as the model's generation_config.json recommends, else greedy."""

    temperature: float | None = option(kind=float, help="0 is greedy (default, unless the model recommends another)")
    top_k: int | None = option(kind=int, help="choose among so many of the likeliest; 0: among all (default)")
    top_p: float | None = option(kind=float, help="choose among the likeliest that have this share together (default 1)")
    repetition_penalty: float | None = option(kind=float, help="above 1 what was there already is less likely (default 1)")
    seed: int | None = option(kind=int, help="the same seed gives the same tokens (default 0)")
    min_p: float | None = option(kind=float, help="choose among what is at least so likely as this share of the likeliest; 0: off")
    presence_penalty: float | None = option(kind=float, help="above 0 what the answer holds already is less likely, -2 to 2")
    frequency_penalty: float | None = option(kind=float, help="the same, for each time that the answer holds it, -2 to 2")
    logit_bias: tuple[LogitBias, ...] = option(
        kind=bias, repeated=True, metavar="ID=BIAS", help="make a token likelier, or less likely, -100 to 100; may be repeated"
    )
    min_tokens: int | None = option(kind=whole(0), metavar="N", help="let nothing end the answer before so many tokens")
    stop_token: tuple[int, ...] = option(kind=whole(0), repeated=True, metavar="ID", help="end with this token; may be repeated")
    logprobs: int | None = option(kind=whole(0), metavar="N", help="with --json: log probabilities, and the N likeliest of each token")

    def request(self) -> SamplingRequest:
        """What is not given stays open: the model's makers may recommend something. Raises InvalidInput."""
        return SamplingRequest(
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
            repetition_penalty=self.repetition_penalty,
            seed=self.seed,
            min_p=self.min_p,
            presence_penalty=self.presence_penalty,
            frequency_penalty=self.frequency_penalty,
            logit_bias=self.logit_bias,
            min_tokens=self.min_tokens,
            stop_token_ids=self.stop_token,
            logprobs=None if self.logprobs is None else True,
            top_logprobs=self.logprobs,
        )


@dataclass(frozen=True, kw_only=True)
class Generate(Asking):
    """Generate text on a running cluster."""

    prompt: str | None = argument(optional=True, help="the prompt; read from stdin when it is '-'")
    prompt_ids: tuple[int, ...] = option(kind=ids, default=(), metavar="1,2,3", help="token ids instead of a text")
    raw: bool = option(default=False, help="send the text as it is (default: as a user's, if the model has a chat template)")
    chat: bool = option(default=False, help="refuse to send it as it is")
    system: str | None = option(metavar="TEXT", help="what the model is told before the prompt; needs a chat template")
    max_new_tokens: int = option(kind=whole(1), default=64, metavar="N", help="tokens to generate at most (default %(default)s)")
    sampling: SamplingOptions = group(SamplingOptions)
    stop: tuple[str, ...] = option(repeated=True, metavar="TEXT", help="end before this text; may be repeated")
    ignore_eos: bool = option(default=False, help="go on to --max-new-tokens")
    json_schema: Path | None = option(kind=Path, metavar="FILE", help="the answer is JSON of the schema in this file")


@dataclass(frozen=True, kw_only=True)
class Status(Asking):
    """Show nodes, stages and sessions."""


@dataclass(frozen=True, kw_only=True)
class Events(Asking):
    """Show what happened, newest last."""

    follow: bool = option(default=False, help="keep printing as things happen")


@dataclass(frozen=True, kw_only=True)
class Why(Asking):
    """Say what slows the cluster down or stops it, and what helps."""


@dataclass(frozen=True, kw_only=True)
class Drain(Changing):
    """Move workers' items elsewhere with one plan, and leave them out of plans."""

    worker_ids: tuple[str, ...] = argument(several=True, metavar="worker_id")


@dataclass(frozen=True, kw_only=True)
class Undrain(Changing):
    """Let plans use drained workers again."""

    worker_ids: tuple[str, ...] = argument(several=True, metavar="worker_id")


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
