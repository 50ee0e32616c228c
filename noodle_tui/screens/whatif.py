"""Screen 4: what each strategy would do, before anything is done: figures, what moves, how sure, what is unknown."""

from __future__ import annotations

from engine.data.plan import Plan
from noodle_tui.core.pages import WHATIF_METRICS, Page
from noodle_tui.listings import cursor_row, table_of
from noodle_tui.listings.base_plan import base_plan, gain_of
from noodle_tui.listings.nodes import node_rows
from noodle_tui.listings.strategies import StrategyRow, plan_owners
from noodle_tui.state import ConsoleState
from noodle_tui.text.figures import clock, middle, ms, percent, signed_percent
from noodle_tui.text.lines import BLANK, Canvas, Line, Lines, Span, line, wrap
from noodle_tui.text.tables import draw_table
from noodle_tui.widgets.history.trends import Trend, filling, of_node
from noodle_tui.widgets.plan.measures import Measure, base_of, measure_strips, measured, times_of
from noodle_tui.widgets.plan.move_lines import learning_hint, memory_lines, move_lines, unknown_lines
from noodle_tui.widgets.plan.owner_row import axis_row, legend, letters_of, moves_row, owner_row

FAR_OFF = 0.25  # of the time that a prediction rests on
ROWS_OF_DIFFERENCE = 13  # with one row of unknowns
ROWS_OF_DETAIL = 20  # the same with what memory and unknowns take at most; stages come on top


def whatif_body(state: ConsoleState, canvas: Canvas) -> Lines:
    """The comparison, then what the chosen strategy changes."""
    table = table_of(state, Page.WHATIF)
    if table is None or state.latest is None:
        return ()
    listing = state.ui.listing(Page.WHATIF)
    height = min(len(table.rows) + 1, max(4, canvas.height // (4 if listing.detail else 2)))
    rows = draw_table(table, listing, canvas.sized(canvas.width, max(2, height)))
    row: StrategyRow | None = cursor_row(state, Page.WHATIF)
    below = canvas.sized(canvas.width, canvas.height - len(rows) - 2)
    shown = (*rows, _asked(state), BLANK, *(_difference(state, row, below) if row else ()))
    return (*shown, *filling(state, _of_bottleneck(state), canvas.sized(canvas.width, canvas.height - len(shown))))[: canvas.height]


def _of_bottleneck(state: ConsoleState) -> tuple[Trend, ...]:
    """What another plan is to relieve."""
    rows = [row for row in node_rows(state.latest.status) if row.stage is not None] if state.latest else []
    slowest = max(rows, key=lambda row: row.stage.compute_p50_s if row.stage else 0.0, default=None)
    return of_node(state, slowest) if slowest is not None else ()


def _asked(state: ConsoleState) -> Line:
    whatif = state.whatif
    status = state.latest.status if state.latest else None
    if whatif.running:
        return line(Span(" asking the coordinator ...", "accent"))
    if whatif.plan_version < 0:
        return line(Span(state.named(" {cluster.whatif} = ask the coordinator what every strategy would do"), "dim"))
    moved = status is not None and status.plan_version != whatif.plan_version
    hint = (
        "the plan has moved: {cluster.whatif} = ask again" if moved else "{cluster.apply} apply   {view.compare} compare   {view.metric}: "
    )
    hint = state.named(hint) + ("" if moved else _metrics(state))
    asked = Span(f" asked {clock(whatif.wall_s)} for #{whatif.plan_version}   ", "dim")
    return line(asked, Span(hint, "warn" if moved else "dim"))


def _metrics(state: ConsoleState) -> str:
    """What `m` chooses among, the present one in capitals."""
    return " / ".join(name.upper() if i == state.ui.whatif_metric else name for i, name in enumerate(WHATIF_METRICS))


def _difference(state: ConsoleState, row: StrategyRow, canvas: Canvas) -> Lines:
    present, detail = base_plan(state), state.ui.listing(Page.WHATIF).detail
    if row.error:
        reason = wrap(row.error, canvas.width - 3)
        return (line(" ", Span(f"{row.name} cannot be", "error")), *(line(f"  {part}") for part in reason))
    if present is None or row.plan is None:
        has_room = present is not None and canvas.height > ROWS_OF_DIFFERENCE + len(present.stages)
        return (
            line(Span(" move down to a strategy to see what it would change", "dim")),
            *unknown_lines(unknowns(state, present), canvas),
            *(_stages(state, present) if present is not None and has_room else ()),
        )
    detail = detail or canvas.height > ROWS_OF_DETAIL + len(row.plan.stages)
    chosen = base_of(state)[0]
    unknown = (*(row.move.unknowns if row.move else ()), *unknowns(state, present))
    against = state.ui.compare_strategy if chosen else "now"
    return (
        line(Span(f" DIFF {against} > {row.name}", "title"), Span(f"   {error_band(state, present)}", "dim")),
        *(_evidence(state, canvas) if row.is_suggestion else ()),
        *(move_lines(row.move, canvas) if chosen is None else ()),
        *((*_stages(state, row.plan), *memory_lines(row.move, canvas)) if detail else ()),
        *unknown_lines(unknown, canvas, len(unknown) if detail else max(1, canvas.height - ROWS_OF_DIFFERENCE)),
        *plan_difference(chosen or present, row.plan, canvas, "base" if chosen else "now", measured(state, row)),
    )


def _evidence(state: ConsoleState, canvas: Canvas) -> Lines:
    """Why adaptation offers it."""
    if state.suggestion is None:
        return ()
    rows = wrap(state.suggestion.entry.sentence, canvas.width - 11)[: 1 if canvas.height < 14 else 3]
    return tuple(line(Span(f" {'WHY' if not i else '':<8}", "dim"), row) for i, row in enumerate(rows))


def plan_difference(base: Plan, plan: Plan, canvas: Canvas, word: str = "now", measure: Measure | None = None) -> Lines:
    """Owners in `base` (called `word`) and next, what moves, both plans on one scale: of time, or of what `m` chose."""
    before, after, num_items = plan_owners(base), plan_owners(plan), plan.stages[-1].stop if plan.stages else 0
    letters = letters_of([stage.node_id for stage in (*base.stages, *plan.stages)])
    strips = measure_strips(measure or times_of(base, plan), word, letters, canvas)
    return (
        axis_row(num_items, canvas),
        owner_row(word, before, letters, num_items, canvas),
        owner_row("next", after, letters, num_items, canvas),
        moves_row(before, after, num_items, canvas),
        *strips,
        legend(letters, canvas),
    )


def expectation(state: ConsoleState, base: Plan, plan: Plan) -> str:
    """A step and the bottleneck now and next, both as planned, with the band that this cluster's predictions have."""
    gain, offs = gain_of(plan, base), [abs(off) for _, off in _offs(state, base)]
    band = f" +-{percent(max(offs))}" if offs else ""
    times = f"step {ms(base.round_trip_s)} > {ms(plan.round_trip_s)} ms,  bottleneck {ms(base.bottleneck_s)} > {ms(plan.bottleneck_s)} ms"
    rates = [1 / found.bottleneck_s if found.bottleneck_s > 0 else 0.0 for found in (base, plan)]
    share = f"  ({signed_percent(gain)})" if gain is not None else ""
    return f"{times}{band}\n{rates[0]:.1f} > {rates[1]:.1f} tok/s at most{share}"


def error_band(state: ConsoleState, base: Plan) -> str:
    """How far the present plan's prediction is off, which is how far to trust the next one."""
    offs = _offs(state, base)
    if not offs:
        return "error band unknown: nothing has run on this plan"
    name, worst = max(offs, key=lambda pair: abs(pair[1]))
    typical = percent(middle([abs(off) for _, off in offs]))
    return f"error band: median {typical}, worst {signed_percent(worst)} {name}"


def _stages(state: ConsoleState, plan: Plan) -> Lines:
    """The candidate stage by stage, beside what its node has now."""
    now = {stage.worker_id: stage for stage in state.latest.status.stages} if state.latest else {}
    rows = []
    for i, (stage, time_s) in enumerate(zip(plan.stages, plan.stage_s, strict=False)):
        old, before = now.get(stage.node_id), "has no stage now"
        if old is not None:
            before = f"now {old.start}-{old.stop - 1}, {ms(old.planned_s)} planned, {ms(old.compute_p50_s)} measured"
        items = f"{stage.start}-{stage.stop - 1}"
        rows.append(line(f" S{i} {stage.node_id:<14} items {items:<7} {ms(time_s):>6}ms   ", Span(before, "dim")))
    return tuple(rows)


def unknowns(state: ConsoleState, base: Plan | None) -> tuple[str, ...]:
    """What the predicted times do not know."""
    if base is None or not base.stages or state.latest is None:
        return ()
    offs = _offs(state, base)
    far = sorted(((name, off) for name, off in offs if abs(off) > FAR_OFF), key=lambda pair: -abs(pair[1]))
    if not far:
        return () if offs else ("no stage has run on this plan yet",)
    names = ", ".join(f"{name} {signed_percent(off)}" for name, off in far[:3]) + (f" and {len(far) - 3} more" if far[3:] else "")
    return (f"{names} off the times predictions use{learning_hint(state, state.latest.status)}",)


def _offs(state: ConsoleState, base: Plan) -> list[tuple[str, float]]:
    """By how much every stage that ran is off what `base` says of it."""
    stages = state.latest.status.stages if state.latest else ()
    pairs = list(zip(stages, base.stage_s, strict=False)) if len(stages) == len(base.stage_s) else []
    return [(s.worker_id, s.compute_p50_s / time_s - 1) for s, time_s in pairs if s.num_steps and time_s > 0 and s.compute_p50_s > 0]
