"""The options of `noodle-engine chat`."""

from __future__ import annotations

from dataclasses import dataclass

from engine.commands.cluster.options import SamplingOptions
from engine.commands.connection import Connection
from engine.options.declared import group, option
from engine.options.kinds import whole


@dataclass(frozen=True, kw_only=True)
class Chat:
    """Talk with the model of a running cluster; from a pipe, each line is a turn."""

    connection: Connection = group(Connection)
    system: str | None = option(metavar="TEXT", help="what the model is told before the conversation")
    max_new_tokens: int = option(kind=whole(1), default=1024, metavar="N", help="tokens of an answer at most (default %(default)s)")
    stop: tuple[str, ...] = option(repeated=True, metavar="TEXT", help="end an answer before this text; may be repeated")
    sampling: SamplingOptions = group(SamplingOptions)
    no_history: bool = option(default=False, help="keep no file of what was typed, for the up key of a later chat")
