"""What was said in a conversation, as rows: every prompt behind a mark, every answer, and what the earlier ones cost."""

from __future__ import annotations

import functools

from noodle_tui.core.generation import AnswerState, Generation
from noodle_tui.core.talk import Conversation
from noodle_tui.text.figures import rate, with_ms
from noodle_tui.text.lines import BLANK, Canvas, Lines, Span, line, wrap

MAX_PROMPT_ROWS = 12  # of each: a pasted book is known to who pasted it
MARK = " > "
NO_TEMPLATE = "the model has no chat template: every prompt goes alone, as it is, without what was said before"


def transcript(conversation: Conversation, scroll: int, canvas: Canvas) -> Lines:
    """At most `canvas.height` rows, which end `scroll` rows before the end."""
    rows = _rows(conversation, canvas.width)
    stop = len(rows) - max(0, min(scroll, len(rows) - canvas.height))
    return rows[max(0, stop - canvas.height) : stop]


def num_rows(conversation: Conversation, width: int) -> int:
    """Of all that was said."""
    return len(_rows(conversation, width))


def system_rows(conversation: Conversation, width: int) -> Lines:
    """What the model is told first."""
    if not conversation.system:
        return ()
    return tuple(line(Span(f" {row}", "dim")) for row in wrap(f"system: {conversation.system}", width - 2)[:MAX_PROMPT_ROWS])


def _rows(conversation: Conversation, width: int) -> Lines:
    rows = list(system_rows(conversation, width))
    for i, turn in enumerate(conversation.turns):
        is_newest = i == len(conversation.turns) - 1
        said = _said(turn.prompt, turn.text, turn.error, width) if is_newest else _earlier(turn, width)
        rows += [*([BLANK] if rows else []), *said]
    return tuple(rows)


def _earlier(turn: Generation, width: int) -> Lines:
    """A turn that others followed; its cost stands below it."""
    return (*_kept(turn.prompt, turn.text, turn.error, width), line(Span(f"   ({cost(turn)})", "dim")))


@functools.lru_cache(maxsize=256)
def _kept(prompt: str, text: str, error: str, width: int) -> Lines:
    """They change no more, and there may be many."""
    return _said(prompt, text, error, width)


def _said(prompt: str, text: str, error: str, width: int) -> Lines:
    answer = [line(f" {row}") for row in wrap(text.lstrip(), width - 2)] if text else []
    wrong = [line(" ", Span(row, "error")) for row in wrap(error, width - 2)] if error else []
    return (*_prompt(prompt, width), *answer, *wrong)


def _prompt(prompt: str, width: int) -> Lines:
    room = width - len(MARK) - 1
    rows = wrap(prompt[: MAX_PROMPT_ROWS * room], room)
    if len(rows) > MAX_PROMPT_ROWS or len(prompt) > MAX_PROMPT_ROWS * room:
        rows = [*rows[: MAX_PROMPT_ROWS - 1], f"... {len(prompt):,} characters in all"]
    marks = (MARK, *[" " * len(MARK)] * len(rows))
    return tuple(line(Span(mark, "accent"), Span(row, "title")) for mark, row in zip(marks, rows, strict=False))


def cost(turn: Generation) -> str:
    """Of a whole answer, in one row."""
    figures = f"{turn.num_tokens}/{turn.max_new_tokens} tok  {rate(turn.tokens_per_s)} tok/s  TTFT {with_ms(turn.ttft_s)}"
    return f"{figures}  {turn.finish_reason}" if turn.state is AnswerState.ENDED else figures
