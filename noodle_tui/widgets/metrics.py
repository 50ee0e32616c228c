"""The cluster's own figures: throughput, step time, the bottleneck against its plan, sessions, memory, hops."""

from __future__ import annotations

from engine.data.measured_link import COORDINATOR
from engine.data.plan import GIVEN
from engine.data.status import QUIET_S, ClusterStatus
from engine.diagnosis.diagnose import memory_share
from noodle_tui.glyphs import Glyphs
from noodle_tui.listings.nodes import kv_share, over_plan
from noodle_tui.listings.sessions import first_token_s
from noodle_tui.listings.stage_times import bottleneck_hop, bottleneck_index, has_slow_hop, stage_s, step_times, whole_step_s
from noodle_tui.state import ConsoleState
from noodle_tui.text.figures import age, ms, percent, rate, signed_percent, up_for, with_ms
from noodle_tui.text.lines import Canvas, Line, Lines, Span, beside, crop, line, pad, width_of
from noodle_tui.text.sparkline import sparkline

GAP = "   "
OVER_PLAN = 0.15  # a bottleneck this far above its prediction is worth a colour
LABEL = 11
TWO_COLUMNS_FROM = 116
GRAPH_CELLS = 24
MIN_GRAPH_CELLS = 8
STEP_CELLS = 1 + LABEL + 2 * len("p50 1234ms []  ")


def metrics(state: ConsoleState, canvas: Canvas) -> Lines:
    """At most `canvas.height` rows: the most important first, two columns on a wide canvas."""
    status = state.shown.status if state.shown else None
    if status is None or not status.stages:
        return ()
    if canvas.width >= TWO_COLUMNS_FROM and canvas.height >= 3:
        left = canvas.width * 9 // 20
        return tuple(
            beside(
                _left(state, status, canvas.sized(left, canvas.height)), _right(state, status, canvas.width - left - 3), left, canvas.glyphs
            )[: canvas.height]
        )
    return _flow(state, status, canvas)


def _flow(state: ConsoleState, status: ClusterStatus, canvas: Canvas) -> Lines:
    """One fact after the other. Each has room for the figures that it may come to, so that none changes its row when one grows."""
    rows: list[Line] = []
    used, news = canvas.width, _adapt_news(state, status)
    facts: tuple[tuple[Line, int], ...] = (
        (_throughput(status), len("THROUGHPUT 1234.5 tok/s")),
        (_step(status), len("STEP p50 1234ms  p95 1234ms of 10s")),
        (_bottleneck(status), len("BOTTLENECK S10 w1 12.3ms = 99% of a step  planned 12.3 +999%")),
        (() if news else _adapt_mode(status), len("ADAPT suggest")),
        (_sessions(status), len("SESSIONS 12 run 0 wait")),
        (_finished(status), len("FINISHED 123 done 0 failed")),
        ((*_adapt_mode(status), *news) if news else _context(status, ""), len("CONTEXT 1234  UP 12h34m")),
        (_kv(state, status), len("KV MAX 100% w1  MEM 100% w1")),
        (_over_plan(state, status), 0),
    )
    for fact, room in ((_flowing(fact), room) for fact, room in facts if fact):
        room = max(width_of(fact), room)
        if rows and used + len(GAP) + room <= canvas.width:
            rows[-1] = (*pad(rows[-1], used), Span(GAP), *fact)
            used += len(GAP) + room
        else:
            rows.append(line(" ", *fact))
            used = 1 + room
    return tuple(crop(row, canvas.width) for row in rows[: canvas.height])


def _flowing(fact: Line) -> Line:
    """A fact whose label takes no more cells than it needs."""
    return (Span(f"{fact[0].text.strip()} ", fact[0].style), *fact[1:]) if fact else ()


def _left(state: ConsoleState, status: ClusterStatus, canvas: Canvas) -> Lines:
    """Where steps have graphs, or a sentence beside them, the first token's time stands where it has room."""
    known = [sample.tokens_per_s for sample in state.history.samples]
    throughput, first = line(" ", *_throughput(status)), _first_token(status)
    cells = min(GRAPH_CELLS, (canvas.width - STEP_CELLS) // 2)
    wide = cells >= MIN_GRAPH_CELLS and any(sample.step_p95_s for sample in state.history.samples)
    step = _step_graphs(state, status, cells, canvas.glyphs) if wide else _step(status)
    beside_step = not wide and 1 + width_of(step) + width_of(first) <= canvas.width
    beside_throughput = () if wide or beside_step else first
    room = min(GRAPH_CELLS, canvas.width - width_of(throughput) - width_of(beside_throughput) - len(" []"))
    graph: Line = ()
    if any(known) and room >= MIN_GRAPH_CELLS:
        top = max(known) / 2 or 1.0
        graph = line(" [", *sparkline(known, top, room, canvas.glyphs, graph="throughput", high=False), "]")
    last = _last_left(state, status)
    return (
        (*throughput, *graph, *beside_throughput),
        line(" ", *step, *(first if beside_step else ())),
        line(" ", *_sessions(status), "  ", *_finished(status)),
        (*last, *first) if wide else last,
    )


def _step_graphs(state: ConsoleState, status: ClusterStatus, cells: int, glyphs: Glyphs) -> Line:
    """Median and 95th percentile, each with its graph on the scale of 0 to twice the plan."""
    parts: list[Span | str] = [_label("STEP")]
    planned_s, _ = step_times(status)
    for name, now_s, known in (
        ("p50", status.speed.step_p50_s, [sample.step_p50_s for sample in state.history.samples]),
        ("p95", status.speed.step_p95_s, [sample.step_p95_s for sample in state.history.samples]),
    ):
        parts += [f"{name} {with_ms(now_s):>6} [", *sparkline(known, planned_s, cells, glyphs, graph="step"), "]  "]
    return line(*parts)


def _last_left(state: ConsoleState, status: ClusterStatus) -> Line:
    """An offer comes before what never changes."""
    context = line() if status.adaptation.suggestion_id else line(*_context(status), "  ")
    return line(" ", *context, *_adapt(state, status))


def _right(state: ConsoleState, status: ClusterStatus, width: int) -> Lines:
    times = [stage_s(stage) for stage in status.stages]
    idle = [f"S{i} {percent(1 - t / max(times))}" for i, t in enumerate(times)] if any(times) else []
    shown = "  ".join(idle[:4]) + (f"  and {len(idle) - 4} more" if len(idle) > 4 else "")
    return (
        line(*_bottleneck(status)),
        line(Span(f"{'IDLE':<{LABEL}}", "dim"), shown or "-"),
        line(*_kv(state, status), *((Span("  "), *over) if (over := _over_plan(state, status)) else ())),
        line(*_hop(status, width)),
    )


def _label(text: str) -> Span:
    return Span(f"{text:<{LABEL}}", "dim")


def _throughput(status: ClusterStatus) -> Line:
    return line(_label("THROUGHPUT"), f"{rate(status.speed.tokens_per_s):>5} tok/s")


def _step(status: ClusterStatus) -> Line:
    style, when = _freshness(status)
    figures = f"p50 {with_ms(status.speed.step_p50_s):>6}  p95 {with_ms(status.speed.step_p95_s):>6}"
    return line(_label("STEP"), Span(figures, style), Span(when, "dim" if style == "text" else style))


def _freshness(status: ClusterStatus) -> tuple[str, str]:
    """How medians of steps look, and what they are of: the last seconds, or a while ago."""
    speed = status.speed
    if not speed.window_s or speed.newest_s < 0:
        return "text", ""
    return ("stale", f" {age(speed.newest_s)} ago") if speed.newest_s > QUIET_S else ("text", f" of {speed.window_s:.0f}s")


def _first_token(status: ClusterStatus) -> Line:
    """Of the sessions that run now."""
    ttft_s = first_token_s(status.sessions)
    return line(Span("  TTFT ", "dim"), f"p95 {with_ms(ttft_s)}") if ttft_s else ()


def _sessions(status: ClusterStatus) -> Line:
    queued = sum(session.state == "queued" for session in status.sessions)
    return line(_label("SESSIONS"), f"{len(status.sessions) - queued} run {queued} wait")


def _finished(status: ClusterStatus) -> Line:
    failed = Span(f"{status.ended.num_failed} failed", "warn" if status.ended.num_failed else "text")
    return line(Span("FINISHED ", "dim"), f"{status.ended.num_done} done ", failed)


def _bottleneck(status: ClusterStatus) -> Line:
    times = [stage_s(stage) for stage in status.stages]
    index = bottleneck_index(times)
    if index is None:
        return ()
    stage, total = status.stages[index], whole_step_s(status)
    if (hop := bottleneck_hop(status)) is not None:
        text = f"{hop.from_id[:16]} > {hop.to_id[:16]} {with_ms(hop.time_s)} = {percent(min(1.0, hop.time_s / total))} of a step"
        return line(_label("BOTTLENECK"), text, *_against_plan(hop.time_s, hop.planned_s, stage.num_steps))
    text = f"S{index} {stage.worker_id[:16]} {with_ms(times[index])} = {percent(times[index] / total)} of a step"
    return line(_label("BOTTLENECK"), text, *_against_plan(times[index], stage.planned_s, stage.num_steps))


def _against_plan(actual_s: float, predicted_s: float, num_steps: int) -> Line:
    if not num_steps or predicted_s <= 0:
        return line(Span("  planned", "dim"))
    excess = actual_s / predicted_s - 1
    return line(f"  planned {ms(predicted_s)} ", Span(signed_percent(excess), "warn" if excess > OVER_PLAN else "ok"))


def _context(status: ClusterStatus, unit: str = " tokens") -> Line:
    return line(_label("CONTEXT"), f"{status.model.context_tokens}{unit}", Span("  UP ", "dim"), up_for(status.uptime_s))


def _adapt(state: ConsoleState, status: ClusterStatus) -> Line:
    """Whether layers move by themselves, and what there is to know about that."""
    return (*_adapt_mode(status), *_adapt_news(state, status))


def _adapt_mode(status: ClusterStatus) -> Line:
    return line(Span("ADAPT ", "dim"), status.adaptation.mode) if status.adaptation.mode else ()


def _adapt_news(state: ConsoleState, status: ClusterStatus) -> Line:
    """Why it does nothing, and what waits to be confirmed."""
    if not status.adaptation.mode:
        return ()
    known = state.suggestion
    gain = 1 - known.entry.predicted_s / known.entry.before_s if known and known.entry.before_s > 0 else None
    what = "another plan" if gain is None else f"{signed_percent(-gain)} a step"
    offer = f"  offers {what}" if status.adaptation.suggestion_id else ""
    offer += state.named(" ({screen.what-if} shows it)") if offer else ""
    rests = "  rests: plan by hand" if status.strategy == GIVEN and status.adaptation.mode != "off" else ""
    return line(Span(rests, "dim"), Span(offer, "warn"))


def _kv(state: ConsoleState, status: ClusterStatus) -> Line:
    """The fullest node, for KV and for memory."""
    if not status.nodes:
        return ()
    fullest = max(status.nodes, key=kv_share)
    largest = max(status.nodes, key=memory_share)
    kv, memory = kv_share(fullest), memory_share(largest)
    return line(
        _label("KV MAX"),
        Span(f"{percent(kv)} {fullest.worker_id[:12]}", "warn" if kv > state.thresholds.kv else "text"),
        Span("  MEM ", "dim"),
        Span(f"{percent(memory)} {largest.worker_id[:12]}", "warn" if memory > state.thresholds.memory else "text"),
    )


def _over_plan(state: ConsoleState, status: ClusterStatus) -> Line:
    """The stage that is furthest above what was planned, and how many others are."""
    late = sorted((-s.compute_p50_s / s.planned_s, s.worker_id) for s in status.stages if over_plan(s, state.thresholds))
    if not late:
        return ()
    return line(Span("OVER PLAN ", "warn"), Span(f"{late[0][1][:12]} x{-late[0][0]:.1f}{f' +{len(late) - 1}' if late[1:] else ''}", "warn"))


def _hop(status: ClusterStatus, width: int) -> Line:
    """The slowest hop between stages; what all take together where there is room for it."""
    hops = [(stage.hop_p50_s, i) for i, stage in enumerate(status.stages)]
    hop_s, index = max(hops)
    if hop_s <= 0:
        return line(_label("HOP"), Span("not measured yet", "dim"))
    last, planned_s = index + 1 == len(hops), status.stages[index].planned_hop_s
    total_s = sum(h for h, _ in hops) + status.speed.entry_hop_s
    slow = has_slow_hop(status.stages[index])
    worst = line(
        _label("HOP"),
        f"worst {status.stages[index].worker_id[:12]} > {COORDINATOR if last else status.stages[index + 1].worker_id[:12]} ",
        Span(with_ms(hop_s), "warn" if slow else "text"),
        f" planned {ms(planned_s)}" if planned_s > 0 else "",
    )
    both = (*worst, *line(f", all {with_ms(total_s)}"))
    return both if width_of(both) <= width else worst
