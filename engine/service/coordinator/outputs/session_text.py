"""What a session was asked and has answered, as text, for an operator who may read it."""

from __future__ import annotations

from engine.data.generation import SessionText
from engine.service.coordinator.journal.journal import JournalledSession
from engine.service.coordinator.text.codec import TextCodec

MOST_TOKENS = 4096  # of the prompt, and of the answer: what nobody scrolls through is not sent each second


def text_of(session: JournalledSession, codec: TextCodec) -> SessionText:
    """The end of both; a prompt has what its template wrote around it, without the tokens that never show."""
    prompt, answer = session.prompt_ids, tuple(token.token_id for token in session.tokens)
    return SessionText(
        session.session_id,
        codec.decode(prompt[-MOST_TOKENS:]),
        codec.decode(answer[-MOST_TOKENS:]),
        max(0, len(prompt) - MOST_TOKENS),
        max(0, len(answer) - MOST_TOKENS),
    )
