"""Screen 6: sessions that are queued or running, and the chosen one in full; with `enter` its text too, where that is allowed."""

from __future__ import annotations

import functools

from engine.data.status import ClusterStatus, SessionStatus
from noodle_tui.core.generation import Generation
from noodle_tui.core.pages import Page
from noodle_tui.listings import cursor_row, table_of, warns
from noodle_tui.listings.sessions import first_token_s
from noodle_tui.listings.stage_times import stage_s
from noodle_tui.state import ConsoleState, TextKnown
from noodle_tui.text.figures import age, ms, percent, rate, size, with_ms
from noodle_tui.text.lines import BLANK, Canvas, Line, Lines, Span, beside, line, width_of, wrap
from noodle_tui.text.tables import draw_table
from noodle_tui.widgets.answer import stage_times
from noodle_tui.widgets.history.trends import FROM_WIDTH, of_session, trends
from noodle_tui.widgets.history.worst_list import worst_list
from noodle_tui.widgets.plan.plan_blocks import strip


def sessions_body(state: ConsoleState, canvas: Canvas) -> Lines:
    """Totals, the list, the chosen session; with `enter` its pane takes the room."""
    table, view = table_of(state, Page.SESSIONS), state.shown
    if table is None or view is None:
        return ()
    session: SessionStatus | None = cursor_row(state, Page.SESSIONS)
    listing = state.ui.listing(Page.SESSIONS)
    pane = 6 if session is not None and canvas.height >= 14 else 0
    if listing.detail and session is not None:
        pane = max(pane, canvas.height - 6)
    rows = draw_table(table, listing, canvas.sized(canvas.width, canvas.height - pane - 1), warn_only=warns(state, Page.SESSIONS))
    below = _session(state, view.status, session, canvas) if session is not None and pane else ()
    if listing.detail and session is not None:
        below += _text(state.text, session, canvas.sized(canvas.width, canvas.height - len(rows) - len(below) - 2))
    shown = (totals(view.status, canvas.width), *rows, *([BLANK, *below] if below else []))
    return (*shown, *_last_minutes(state, session, canvas.sized(canvas.width, canvas.height - len(shown))))[: canvas.height]


def _last_minutes(state: ConsoleState, session: SessionStatus | None, canvas: Canvas) -> Lines:
    """In rows that would be empty: the chosen session's graphs, and the sessions that are worst off."""
    if canvas.width < FROM_WIDTH or session is None:
        return ()
    left, room = (canvas.width - 3) // 2, canvas.height - 1
    graphs = trends(state, of_session(state, session), canvas.sized(left, room))
    worst = worst_list(state, canvas.sized(canvas.width - left - 3, room))
    return (BLANK, *beside(graphs, worst, left, canvas.glyphs)) if graphs else ()


def totals(status: ClusterStatus, width: int) -> Line:
    """All sessions in one row; the first token's time where it has room."""
    queued = sum(session.state == "queued" for session in status.sessions)
    failed = Span(f"{status.ended.num_failed} failed", "warn" if status.ended.num_failed else "text")
    head = f" {len(status.sessions) - queued} running  {queued} queued  {status.ended.num_done} done  "
    ttft_s = first_token_s(status.sessions)
    row = line(head, failed, f"   {rate(status.speed.tokens_per_s)} tok/s")
    parts = [f"   TTFT p95 {with_ms(ttft_s)} here"] if ttft_s else []
    cache = status.work.prefix_cache
    if cache.is_on and cache.prompt_tokens:
        parts.append(f"   prompts {percent(cache.hit_rate)} cached, {size(cache.kept_bytes)} kept")
    for part in parts:
        row = (*row, Span(part)) if width_of(row) + len(part) <= width else row
    return row


def _session(state: ConsoleState, status: ClusterStatus, session: SessionStatus, canvas: Canvas) -> Lines:
    left = session.max_new_tokens - session.num_generated
    ended = bool(session.finish_reason)
    eta = "ended" if ended else f"{age(left / session.tokens_per_s)} left at most" if session.tokens_per_s > 0 and left > 0 else "-"
    used = session.num_prompt_tokens + session.num_generated
    name, said = Span(session.session_id, "title"), (Span(_phrase(session)), Span(_whose(state.generation, session), "dim"))
    head = line(" ", name, "  ", *said)
    rows = [
        *([head] if width_of(head) <= canvas.width else [line(" ", name, said[1]), *_wrapped(said[0].text, canvas)]),
        line(
            Span("   tokens  ", "dim"),
            f"{session.num_prompt_tokens} prompt{_cached(session)} + {session.num_generated} of {session.max_new_tokens}, {eta}",
        ),
        line(Span("   context ", "dim"), f"{used} of {status.model.context_tokens} tokens"),
    ]
    guessed = session.guessed
    if guessed.num_proposed:
        rows.append(line(Span("   guessed ", "dim"), f"{guessed.num_accepted} of {guessed.num_proposed} proposed tokens came"))
    if session.why:
        rows.append(line(Span("   why     ", "dim"), Span(session.why, "error" if session.state == "failed" else "text")))
    if state.generation.session_id == session.session_id:
        rows += stage_times(state.generation, canvas)
    elif status.stages and not session.finish_reason:
        times = [stage_s(stage) for stage in status.stages]
        names = [f"S{i} {stage.worker_id}" for i, stage in enumerate(status.stages)]
        rows.append(line(Span("   step    ", "dim"), *strip(names, times, sum(times) or 1.0, canvas.width - 13, canvas.glyphs)))
    return tuple(rows)


def _wrapped(text: str, canvas: Canvas) -> Lines:
    return tuple(line(f"   {row}") for row in wrap(text, canvas.width - 4))


def _cached(session: SessionStatus) -> str:
    """Of its prompt, what an earlier session had left on the stages."""
    return f" ({session.num_cached} not computed again)" if session.num_cached else ""


def _text(known: TextKnown, session: SessionStatus, canvas: Canvas) -> Lines:
    """The beginning of the prompt in a third of the room at most, and the end of the answer in the rest."""
    text, room = known.text, canvas.height - 1
    if text.session_id != session.session_id or room < 3:
        return ()
    if known.error:
        return (BLANK, *(line("   ", Span(row, "dim")) for row in wrap(known.error, canvas.width - 4)))[:room]
    prompt, answer = _written(text.prompt, "you", canvas.width), _written(text.answer, "answer", canvas.width)
    most = max(2, room // 3, room - len(answer))
    if len(prompt) > most:
        prompt = (*prompt[: most - 1], line(Span(f"           ... {session.num_prompt_tokens:,} tokens in all", "dim")))
    if len(answer) > (left := room - len(prompt)):
        answer = answer[len(answer) - left :]
    return (BLANK, *prompt, *answer)


@functools.lru_cache(maxsize=8)
def _written(text: str, who: str, width: int) -> Lines:
    rows = wrap(text.strip("\n"), width - 12)
    return tuple(line(Span(f"   {who if i == 0 else '':<8}", "dim"), Span(row)) for i, row in enumerate(rows))


def _phrase(session: SessionStatus) -> str:
    if session.state == "queued":
        place = f"number {session.queue_place} in the queue" if session.queue_place else "waits for room"
        return f"{place} since {age(session.waiting_s or session.age_s)}"
    if session.finish_reason:
        took = f"{session.state} ({session.finish_reason}) after {age(session.age_s)}"
        return ": ".join(filter(None, (took, _figures(session, "TTFT"))))
    if session.state == "prefill":
        return _reading(session)
    return f"writes {_figures(session, 'first token after')}".rstrip()


def _reading(session: SessionStatus) -> str:
    """How far it is, how fast, and how long it will take."""
    if not session.num_read:
        return f"reads its prompt of {session.num_prompt_tokens} tokens"
    per_s, left = session.read_tokens_per_s, session.num_prompt_tokens - session.num_read
    pace = f", {rate(per_s)} tok/s, {age(left / per_s)} left" if per_s > 0 else ""
    return f"reads its prompt: {session.num_read} of {session.num_prompt_tokens} tokens{pace}"


def _figures(session: SessionStatus, ttft: str) -> str:
    """Those that are known."""
    rated = f"{rate(session.tokens_per_s)} tok/s" if session.tokens_per_s > 0 else ""
    parts = (("queue", session.queue_s), ("prompt", session.prompt_s), ("step", session.first_step_s))
    told = ", ".join(f"{name} {ms(part_s)}" for name, part_s in parts if part_s >= 0.0005) if session.first_step_s > 0 else ""
    first = f"{ttft} {with_ms(session.ttft_s)}" + (f" ({told})" if told else "") if session.ttft_s > 0 else ""
    slowest = f"step p95 {with_ms(session.step_p95_s)}" if session.step_p95_s > 0 else ""
    return ", ".join(filter(None, (rated, first, slowest)))


def _whose(generation: Generation, session: SessionStatus) -> str:
    return "   this console's own" if generation.session_id == session.session_id else ""
