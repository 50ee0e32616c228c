"""Which stage computed what, when: as rows of characters. The chart for browsers is drawn from the same spans."""

from __future__ import annotations

from collections.abc import Sequence

from engine.simulation.machines.node import Span

_LETTERS = "abcdefghijklmnopqrstuvwxyz"
SEVERAL, MIXED, IDLE = "#", "*", "."
LEGEND = f"a-z one session's token, A-Z its prompt, {SEVERAL} several sessions in one step, {MIXED} more steps than columns, {IDLE} idle"


def text_gantt(spans: Sequence[Span], names: Sequence[str], *, width: int = 100, until_s: float | None = None) -> str:
    """One row per stage, `width` columns from the first span to `until_s`; a column shows what took most of its time.

    `names` are the stages' labels, in order. Returns ASCII text without a final newline.
    """
    if not spans:
        return "nothing was computed"
    began_s = min(span.start_s for span in spans)
    ended_s = max(span.stop_s for span in spans) if until_s is None else until_s
    column_s = max(ended_s - began_s, 1e-12) / width
    label = max(len(name) for name in names)
    rows = [_row([s for s in spans if s.stage == stage], began_s, column_s, width) for stage in range(len(names))]
    lines = [f"{name:<{label}} |{row}|" for name, row in zip(names, rows, strict=True)]
    foot = f"{'':<{label}}  {1e3 * began_s:.1f} ms to {1e3 * ended_s:.1f} ms, a column is {1e3 * column_s:.3f} ms"
    return "\n".join((*lines, foot, LEGEND))


def _row(spans: Sequence[Span], began_s: float, column_s: float, width: int) -> str:
    """For every column the mark with the largest share of it; idle if less than half of it was used."""
    shares: list[dict[str, float]] = [{} for _ in range(width)]
    for span in spans:
        mark = mark_of(span)
        first = int((span.start_s - began_s) / column_s)
        for column in range(max(0, first), min(width, int((span.stop_s - began_s) / column_s) + 1)):
            left, right = began_s + column * column_s, began_s + (column + 1) * column_s
            used = min(span.stop_s, right) - max(span.start_s, left)
            if used > 0:
                shares[column][mark] = shares[column].get(mark, 0.0) + used
    return "".join(_column(share, column_s) for share in shares)


def _column(share: dict[str, float], column_s: float) -> str:
    if sum(share.values()) < 0.5 * column_s:
        return IDLE
    mark = max(share, key=lambda m: share[m])
    return mark if share[mark] >= 0.5 * sum(share.values()) else MIXED


def mark_of(span: Span) -> str:
    """A letter for one session, in capitals for a prompt."""
    if len(span.session_ids) > 1:
        return SEVERAL
    letter = _LETTERS[int(span.session_ids[0].lstrip("s")) % len(_LETTERS)]
    return letter.upper() if span.is_prompt else letter
