"""What a step brings to one stage, session by session, and how the last stage answers it. Runs on the compute thread.

A part with proposals has a row of logits for its last known token and for each proposal. Its tokens are sampled one after the other,
each as if those before it had come in steps of their own, for as long as they are the proposed ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from engine.data.errors import NoodleError
from engine.data.generation import Logprobs, Segment
from engine.model.running.accelerator.device_sampling import Draw, needs_history, sample_rows
from engine.model.running.sampling import logprobs
from engine.service.errors import as_noodle_error
from engine.service.worker import payload


@dataclass(frozen=True, slots=True)
class Sampled:
    """A token that the last stage picked."""

    token_id: int
    logprobs: Logprobs | None


@dataclass(slots=True)
class Row:
    """One admitted segment of a step: its tokens still to run, or the reply it already got."""

    segment: Segment
    decision: Any  # Append | Replay
    offset: int  # first row of the incoming hidden states
    reply: Any = None  # hidden [n, D], or the tokens that the last stage sampled; none for a prompt chunk there
    error: NoodleError | None = None  # why no token could be sampled for it
    has_ended: bool = False  # a place behind its first one has no token

    @property
    def chosen(self) -> list[int]:
        """The tokens that the last stage sampled; none on another one, or for a prompt chunk."""
        return [] if self.segment.sample_index is None or not isinstance(self.reply, tuple) else [s.token_id for s in self.reply]

    @property
    def num_logits(self) -> int:
        """One for its last known token, and one for each proposal."""
        return 1 + self.segment.num_proposed


def sample(rows: Sequence[Row], logits: torch.Tensor, where: str, picks: torch.Tensor | None) -> None:
    """Fill in each row's tokens from the step's float32 `logits` [sum of num_logits, V], or why it has none.

    `picks` is what `sample_rows` may know of them. Raises Corrupt for the step, naming `where`, if a logit is not finite.
    """
    asked, first = list[tuple[int, Row]](), 0
    for row in rows:
        if row.segment.sample_index is not None:
            asked.append((first, row))
            row.reply = ()
        first += row.num_logits
    if len(asked) < len(logits):  # those of prompt chunks are nobody's, and those of proposals may be, but must be finite too
        payload.check_finite(logits, where)
    while asked:  # the first token of each, then the next one where a proposal holds
        is_all = len(asked) == len(logits)
        places = logits if is_all else logits[[at for at, _ in asked]]  # [rows that sample, V]
        answers = sample_rows(places, [_draw(row) for _, row in asked], where, picks if is_all else None)
        for (at, row), answer in zip(asked, answers, strict=True):
            _take(row, answer, logits[at])
        asked = [(at + 1, row) for at, row in asked if _goes_on(row)]


def _take(row: Row, answer: int | Exception, logits: torch.Tensor) -> None:
    """The next token of a row, or why there is none; behind others that ends the row's answer, and its next step will say why."""
    if not isinstance(answer, Exception):
        wanted = row.decision.session.sampling
        row.reply += (Sampled(answer, logprobs(logits, answer, wanted.top_logprobs) if wanted.logprobs else None),)
    elif not row.reply:
        row.error = as_noodle_error(answer)
    else:
        row.has_ended = True


def _draw(row: Row) -> Draw:
    """What the row's next token depends on beside its logits: what comes before it, and its index, as if tokens came one by one."""
    session, segment, num_sampled = row.decision.session, row.segment, len(row.reply)
    params = session.sampling
    before = segment.token_ids[: segment.num_known + num_sampled]
    history = session.token_ids + list(before) if needs_history(params) or segment.mask else ()
    return Draw(params, history, (segment.sample_index or 0) + num_sampled, segment.mask)


def _goes_on(row: Row) -> bool:
    """Whether the newest token of the row is the one that was proposed, so that the next place holds the next one.

    A mask is of the first place alone: where a grammar decides, nothing is known of the others.
    """
    segment, num_sampled = row.segment, len(row.reply)
    if row.error is not None or row.has_ended or segment.mask or num_sampled > segment.num_proposed:
        return False
    return bool(segment.token_ids[segment.num_known + num_sampled - 1] == row.reply[-1].token_id)
