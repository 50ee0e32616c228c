"""Screen 4: what each strategy would do, before anything is done: figures, what moves, how sure, what is unknown."""

from __future__ import annotations

from engine.data.plan import Plan
from engine.data.status import ClusterStatus
from noodle_tui.figures import clock, middle, ms, percent, signed_percent
from noodle_tui.lines import BLANK, Canvas, Line, Lines, Span, line, wrap
from noodle_tui.listings import cursor_row, table_of
from noodle_tui.listings.strategies import StrategyRow, owners, plan_owners
from noodle_tui.pages import WHATIF_METRICS, Page
from noodle_tui.present_plan import replanned
from noodle_tui.screens.measures import Measure, base_of, measure_strips, measured, times_of
from noodle_tui.screens.move_lines import learning_hint, memory_lines, move_lines, unknown_lines
from noodle_tui.state import ConsoleState
from noodle_tui.tables import draw_table
from noodle_tui.widgets.owner_row import axis_row, legend, letters_of, moves_row, owner_row

FAR_OFF = 0.25  # of the time that a prediction rests on
ROWS_OF_DIFFERENCE = 13  # with one row of unknowns


def whatif_body(state: ConsoleState, canvas: Canvas) -> Lines:
    """The comparison, then what the chosen strategy changes."""
    table = table_of(state, Page.WHATIF)
    if table is None or state.latest is None:
        return ()
    status = replanned(state, state.latest.status)
    listing = state.ui.listing(Page.WHATIF)
    height = min(len(table.rows) + 1, max(4, canvas.height // (4 if listing.detail else 2)))
    rows = draw_table(table, listing, canvas.sized(canvas.width, max(2, height)))
    row: StrategyRow | None = cursor_row(state, Page.WHATIF)
    below = canvas.sized(canvas.width, canvas.height - len(rows) - 2)
    return (*rows, _asked(state), BLANK, *(_difference(state, status, row, below) if row else ()))[: canvas.height]


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


def _difference(state: ConsoleState, status: ClusterStatus, row: StrategyRow, canvas: Canvas) -> Lines:
    detail = state.ui.listing(Page.WHATIF).detail
    if row.error:
        reason = wrap(row.error, canvas.width - 3)
        return (line(" ", Span(f"{row.name} cannot be", "error")), *(line(f"  {part}") for part in reason))
    if row.plan is None:
        return (
            line(Span(" move down to a strategy to see what it would change", "dim")),
            *unknown_lines(unknowns(state, status), canvas),
        )
    base = base_of(state)[0]
    unknown = (*(row.move.unknowns if row.move else ()), *unknowns(state, status))
    against = state.ui.compare_strategy if base else "current"
    return (
        line(Span(f" DIFF {against} > {row.name}", "title"), Span(f"   {error_band(status)}", "dim")),
        *(_evidence(state, canvas) if row.is_suggestion else ()),
        *(move_lines(row.move, canvas) if base is None else ()),
        *((*_stages(status, row.plan), *memory_lines(row.move, canvas)) if detail else ()),
        *unknown_lines(unknown, canvas, len(unknown) if detail else max(1, canvas.height - ROWS_OF_DIFFERENCE)),
        *plan_difference(status, row.plan, canvas, base, measured(state, row)),
    )


def _evidence(state: ConsoleState, canvas: Canvas) -> Lines:
    """Why adaptation offers it."""
    if state.suggestion is None:
        return ()
    rows = wrap(state.suggestion.entry.sentence, canvas.width - 11)[: 1 if canvas.height < 14 else 3]
    return tuple(line(Span(f" {'WHY' if not i else '':<8}", "dim"), row) for i, row in enumerate(rows))


def plan_difference(status: ClusterStatus, plan: Plan, canvas: Canvas, base: Plan | None = None, measure: Measure | None = None) -> Lines:
    """Owners now (or in `base`) and next, what moves, both plans as strips on one scale: of time, or of what `m` chose."""
    before = plan_owners(base) if base else owners(status.stages)
    after = plan_owners(plan)
    now_nodes = [stage.node_id for stage in base.stages] if base else [stage.worker_id for stage in status.stages]
    word = "base" if base else "now"
    letters = letters_of([*now_nodes, *(s.node_id for s in plan.stages)])
    strips = measure_strips(measure or times_of(status, plan, base), word, letters, canvas)
    return (
        axis_row(status.num_items, canvas),
        owner_row(word, before, letters, status.num_items, canvas),
        owner_row("next", after, letters, status.num_items, canvas),
        moves_row(before, after, status.num_items, canvas),
        *strips,
        legend(letters, canvas),
    )


def expectation(status: ClusterStatus, plan: Plan) -> str:
    """Bottleneck and what it allows, now and next, both as predicted, with the band that this cluster's predictions have."""
    now_s = max((stage.predicted_s for stage in status.stages), default=0.0)
    gain = signed_percent(now_s / plan.bottleneck_s - 1 if plan.bottleneck_s > 0 and now_s > 0 else None)
    before, after = (1 / now_s if now_s > 0 else 0.0), (1 / plan.bottleneck_s if plan.bottleneck_s > 0 else 0.0)
    offs = [abs(off) for _, off in _offs(status)]
    band = f" +-{percent(max(offs))}" if offs else ""
    return f"bottleneck {ms(now_s)} > {ms(plan.bottleneck_s)} ms{band},  {before:.1f} > {after:.1f} tok/s at most  ({gain})"


def error_band(status: ClusterStatus) -> str:
    """How far the present plan's prediction is off, which is how far to trust the next one."""
    offs = _offs(status)
    if not offs:
        return "error band unknown: nothing has run on this plan"
    name, worst = max(offs, key=lambda pair: abs(pair[1]))
    typical = percent(middle([abs(off) for _, off in offs]))
    return f"error band: #{status.plan_version} median {typical}, worst {signed_percent(worst)} {name}"


def _stages(status: ClusterStatus, plan: Plan) -> Lines:
    """The candidate stage by stage, beside what its node has now."""
    now = {stage.worker_id: stage for stage in status.stages}
    rows = []
    for i, (stage, time_s) in enumerate(zip(plan.stages, plan.stage_s, strict=False)):
        old = now.get(stage.node_id)
        before = (
            f"now {old.start}-{old.stop - 1}, {ms(old.predicted_s)} planned, {ms(old.compute_p50_s)} measured"
            if old
            else "has no stage now"
        )
        items = f"{stage.start}-{stage.stop - 1}"
        rows.append(line(f" S{i} {stage.node_id:<14} items {items:<7} {ms(time_s):>6}ms   ", Span(before, "dim")))
    return tuple(rows)


def unknowns(state: ConsoleState, status: ClusterStatus) -> tuple[str, ...]:
    """What the predicted times do not know."""
    if not status.stages:
        return ()
    offs = _offs(status)
    far = sorted(((name, off) for name, off in offs if abs(off) > FAR_OFF), key=lambda pair: -abs(pair[1]))
    if not far:
        return () if offs else ("no stage has run on this plan yet",)
    names = ", ".join(f"{name} {signed_percent(off)}" for name, off in far[:3]) + (f" and {len(far) - 3} more" if far[3:] else "")
    return (f"{names} off the times predictions use{learning_hint(state, status)}",)


def _offs(status: ClusterStatus) -> list[tuple[str, float]]:
    ran = [s for s in status.stages if s.num_steps and s.predicted_s > 0 and s.compute_p50_s > 0]
    return [(s.worker_id, s.compute_p50_s / s.predicted_s - 1) for s in ran]
