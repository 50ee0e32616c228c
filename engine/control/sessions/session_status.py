"""One session as an operator sees it, while it runs and after its end. Pure."""

from __future__ import annotations

from dataclasses import replace

from engine.control.sessions.past_sessions import FAILED
from engine.control.sessions.session import Session
from engine.control.sessions.window import quantile
from engine.data.errors import NoodleError
from engine.data.generation import FinishReason
from engine.data.status import Guessed, SessionStatus

MAX_ERROR_CHARS = 200
_ENDS = {FinishReason.ERROR: FAILED, FinishReason.CANCELLED: "cancelled"}


def session_status(session: Session, now_s: float, proposals: tuple[int, int] = (0, 0)) -> SessionStatus:
    """Its figures as of `now_s`; `proposals` are the tokens that were proposed for it and those that were accepted."""
    s = session
    admitted_s, sampling_s, first_s = s.times.admitted_s, s.times.sampling_s, s.times.first_s
    num_read = min(s.num_landed, len(s.prompt_ids))
    reading_s = ((first_s or now_s) - admitted_s) if admitted_s is not None and num_read else 0.0
    has_parts = s.ttft_s() > 0.0 and admitted_s is not None and sampling_s is not None and first_s is not None
    return SessionStatus(
        session_id=s.session_id,
        state=s.state,
        num_prompt_tokens=len(s.prompt_ids),
        num_generated=len(s.generated),
        max_new_tokens=s.max_new_tokens,
        ttft_s=s.ttft_s(),
        tokens_per_s=s.tokens_per_s(),
        age_s=now_s - s.submitted_s,
        step_p95_s=quantile(list(s.times.step_s), 0.95),
        num_cached=s.reuse.num_cached,
        guessed=Guessed(*proposals),
        num_read=num_read,
        read_tokens_per_s=num_read / reading_s if reading_s > 0.0 else 0.0,
        queue_s=max(0.0, admitted_s - s.submitted_s) if admitted_s is not None else 0.0,
        prompt_s=sampling_s - admitted_s if has_parts and admitted_s is not None and sampling_s is not None else 0.0,
        first_step_s=first_s - sampling_s if has_parts and first_s is not None and sampling_s is not None else 0.0,
    )


def ended(
    session: Session, reason: FinishReason, error: NoodleError | None, now_s: float, proposals: tuple[int, int] = (0, 0)
) -> SessionStatus:
    """What is remembered of it: its age is how long it took."""
    why = str(error)[:MAX_ERROR_CHARS] if error is not None else ""
    return replace(session_status(session, now_s, proposals), state=_ENDS.get(reason, "done"), finish_reason=str(reason), why=why)


def with_error(status: SessionStatus, error: NoodleError) -> SessionStatus:
    """It has failed after all: its client was told of an error that came after its end."""
    return replace(status, state=FAILED, finish_reason=str(FinishReason.ERROR), why=str(error)[:MAX_ERROR_CHARS])
