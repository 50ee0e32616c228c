"""Screen 4: what each strategy would do, before anything is done: figures, what moves, how sure, what is unknown."""

from __future__ import annotations

from engine.data import ClusterStatus, Plan
from noodle_tui.figures import clock, middle, ms, percent, signed_percent
from noodle_tui.lines import BLANK, Canvas, Line, Lines, Span, fit, line, wrap
from noodle_tui.listings import cursor_row, table_of
from noodle_tui.listings.strategies import StrategyRow, owners, plan_owners
from noodle_tui.pages import Page
from noodle_tui.present_plan import replanned
from noodle_tui.state import ConsoleState
from noodle_tui.tables import draw_table
from noodle_tui.widgets.owner_row import axis_row, legend, letters_of, moves_row, owner_row
from noodle_tui.widgets.plan_blocks import strip

FAR_OFF = 0.25  # of the time that a prediction rests on


def whatif_body(state: ConsoleState, canvas: Canvas) -> Lines:
    """The comparison, then what the chosen strategy changes."""
    table = table_of(state, Page.WHATIF)
    if table is None or state.latest is None:
        return ()
    status = replanned(state, state.latest.status)
    listing = state.ui.listing(Page.WHATIF)
    height = min(len(table.rows) + 1, max(4, canvas.height // 2))
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
        return line(Span(" S = ask the coordinator what every strategy would do", "dim"))
    moved = status is not None and status.plan_version != whatif.plan_version
    text = f" asked {clock(whatif.wall_s)} for plan #{whatif.plan_version}"
    return line(
        Span(text, "dim"),
        Span(
            "   the plan has moved: S = ask again" if moved else "   S = ask again   A = apply the chosen one", "warn" if moved else "dim"
        ),
    )


def _difference(state: ConsoleState, status: ClusterStatus, row: StrategyRow, canvas: Canvas) -> Lines:
    detail = state.ui.listing(Page.WHATIF).detail
    if row.error:
        reason = wrap(row.error, canvas.width - 3)
        return (line(" ", Span(f"{row.name} cannot be", "error")), *(line(f"  {part}") for part in reason))
    if row.plan is None:
        return (line(Span(" move down to a strategy to see what it would change", "dim")), *unknowns(status, canvas))
    return (
        line(Span(f" DIFF current > {row.name}", "title"), Span(f"   {error_band(status)}", "dim")),
        *plan_difference(status, row.plan, canvas),
        *_during(status, row, canvas),
        *(_stages(status, row.plan) if detail else ()),
        *unknowns(status, canvas),
    )


def plan_difference(status: ClusterStatus, plan: Plan, canvas: Canvas) -> Lines:
    """Owners now and next, what moves, both plans as strips on one scale."""
    before, after = owners(status.stages), plan_owners(plan)
    letters = letters_of([*(s.worker_id for s in status.stages), *(s.node_id for s in plan.stages)])
    now_s = [stage.predicted_s for stage in status.stages]
    scale_s = max(sum(now_s), sum(plan.stage_s)) or 1.0
    width = canvas.width - 11
    now_names = [letters[stage.worker_id] for stage in status.stages]
    next_names = [letters[stage.node_id] for stage in plan.stages]
    return (
        axis_row(status.num_items, canvas),
        owner_row("now", before, letters, status.num_items, canvas),
        owner_row("next", after, letters, status.num_items, canvas),
        moves_row(before, after, status.num_items, canvas),
        line(Span(" now     ", "dim"), *strip(now_names, now_s, scale_s, width, canvas.glyphs)),
        line(Span(" next    ", "dim"), *strip(next_names, list(plan.stage_s), scale_s, width, canvas.glyphs)),
        legend(letters, canvas),
    )


def expectation(status: ClusterStatus, plan: Plan) -> str:
    """Bottleneck and what it allows, now and next, both as planned."""
    now_s = max((stage.predicted_s for stage in status.stages), default=0.0)
    gain = signed_percent(now_s / plan.bottleneck_s - 1 if plan.bottleneck_s > 0 and now_s > 0 else None)
    before, after = (1 / now_s if now_s > 0 else 0.0), (1 / plan.bottleneck_s if plan.bottleneck_s > 0 else 0.0)
    return f"bottleneck {ms(now_s)} > {ms(plan.bottleneck_s)} ms,  {before:.1f} > {after:.1f} tok/s at most  ({gain})"


def _during(status: ClusterStatus, row: StrategyRow, canvas: Canvas) -> Lines:
    if not row.num_moved:
        return (line(Span(" No item would change its owner.", "dim")),)
    running = sum(session.state != "queued" for session in status.sessions)
    beside = f"{running} running session{'s go' if running != 1 else ' goes'} on, steps stop once" if running else "no session is running"
    text = f"On apply: {row.num_moved} items are loaded by their new owners; {beside}."
    return tuple(line(f" {part}") for part in wrap(text, canvas.width - 2))


def error_band(status: ClusterStatus) -> str:
    """How far this plan's own prediction was off, which is how far to trust the next one."""
    offs = _offs(status)
    if not offs:
        return "error band unknown: nothing has run on this plan"
    name, worst = max(offs, key=lambda pair: abs(pair[1]))
    typical = percent(middle([abs(off) for _, off in offs]))
    return f"plan #{status.plan_version} was off by {typical}, worst {signed_percent(worst)} {name}"


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
        rows.append(line(f" S{i} {stage.node_id:<14} items {stage.start}-{stage.stop - 1:<5} {ms(time_s):>6}ms   ", Span(before, "dim")))
    return tuple(rows)


def unknowns(status: ClusterStatus, canvas: Canvas) -> Lines:
    """What the prediction does not know."""
    if not status.stages:
        return ()
    offs = _offs(status)
    far = sorted(((name, off) for name, off in offs if abs(off) > FAR_OFF), key=lambda pair: -abs(pair[1]))
    text = "" if offs else "no stage has run on this plan yet"
    if far:
        names = ", ".join(f"{name} {signed_percent(off)}" for name, off in far[:3]) + (f" and {len(far) - 3} more" if far[3:] else "")
        text = f"{names} off the times predictions use"
    return (line(Span(" Unknown: ", "warn"), fit(text, canvas.width - 11, canvas.glyphs).rstrip()),) if text else ()


def _offs(status: ClusterStatus) -> list[tuple[str, float]]:
    ran = [s for s in status.stages if s.num_steps and s.predicted_s > 0 and s.compute_p50_s > 0]
    return [(s.worker_id, s.compute_p50_s / s.predicted_s - 1) for s in ran]
