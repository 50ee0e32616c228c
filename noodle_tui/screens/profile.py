"""Screen 7: where a model's time goes, from a profile on disk: items on one scale, their layers, how far to trust it."""

from __future__ import annotations

import re
from pathlib import PurePath

from noodle_tui.core.pages import PROFILE_METRICS, Page
from noodle_tui.core.profile_view import LayerTime, PhaseView, ProfileView
from noodle_tui.listings import cursor_row, table_of
from noodle_tui.listings.layers import HOW_TO, LayerRow, phase_of
from noodle_tui.listings.nodes import NodeRow
from noodle_tui.listings.stages import StageRow, stage_rows
from noodle_tui.state import ConsoleState
from noodle_tui.text.figures import age, clock, ms, percent, with_ms
from noodle_tui.text.lines import BLANK, Canvas, Line, Lines, Span, fit, line, width_of, wrap
from noodle_tui.text.tables import draw_table
from noodle_tui.widgets.history.trends import Trend, filling, of_node
from noodle_tui.widgets.plan.stage_split import memory_lines, per_item_lines, split_lines

_NUMBER = re.compile(r"\.\d+(?=\.|$)")
_NOTHING_BEFORE = (
    "{view.compare} compares with the profile shown before this one: {view.node} shows another, {cluster.profile} takes one; "
    "{view.compare} = not to compare"
)


def profile_body(state: ConsoleState, canvas: Canvas) -> Lines:
    """Head, items, and the layers of the item that the cursor is on."""
    view, phase, table = state.profile.view, phase_of(state), table_of(state, Page.PROFILE)
    if view is None or phase is None or table is None:
        return _empty(state, canvas)
    head = _head(state, view, phase, canvas)
    if view.doubt:
        return (*head, *_doubtful(state, view, canvas))
    row: LayerRow | None = cursor_row(state, Page.PROFILE)
    listing = state.ui.listing(Page.PROFILE)
    room = canvas.height - len(head) - 1
    wanted = len(table.rows) + 1
    pane = max(0, min(room - 6, max(6, room - wanted)) if room >= 12 else 0)
    if listing.detail:
        pane = max(pane, room - 6)
    rows = draw_table(table, listing, canvas.sized(canvas.width, room - pane))
    below = _layers(phase, row, canvas.sized(canvas.width, room - len(rows))) if row is not None and pane > 1 else ()
    served = _served(state, phase, row, canvas) if row is not None else ()
    fits = len(head) + len(rows) + len(below) + len(served) + 2 <= canvas.height
    shown = (*head, *rows, BLANK, *below, *((BLANK, *served) if served and fits else ()))
    shown += _everywhere(phase, canvas.sized(canvas.width, canvas.height - len(shown)))
    shown += _slowest(phase, canvas.sized(canvas.width, (canvas.height - len(shown)) // 2))
    return (*shown, *filling(state, _of_owner(state, phase, row), canvas.sized(canvas.width, canvas.height - len(shown))))[: canvas.height]


def _of_owner(state: ConsoleState, phase: PhaseView, row: LayerRow | None) -> tuple[Trend, ...]:
    """Graphs of the node that runs the chosen item, if it is this model that serves."""
    owner = _owner(state, phase, row) if row is not None else None
    return of_node(state, NodeRow(owner.node, owner.index, owner.stage)) if owner is not None and owner.node is not None else ()


def _slowest(phase: PhaseView, canvas: Canvas) -> Lines:
    """Where there still is room: the layers of all items one by one, the slowest first."""
    layers = sorted((layer for layer in phase.layers if layer.item is not None), key=lambda layer: -layer.self_s)
    if canvas.height < 5 or len(layers) < 2:
        return ()
    shown = layers[: canvas.height - 2]
    title = line(Span(" SLOWEST LAYERS", "title"), Span(f"  {len(shown)} of {len(layers)}, of every item", "dim"))
    width = max(8, min(40, canvas.width - 60))
    return (BLANK, title, *(_layer(layer, layers[0].self_s or 1.0, width, canvas) for layer in shown))


def _everywhere(phase: PhaseView, canvas: Canvas) -> Lines:
    """In rows that would be empty: layers of one kind in all items together, which is where another kernel would pay."""
    total_s: dict[str, float] = {}
    count: dict[str, int] = {}
    for layer in phase.layers:
        if layer.item is not None:
            name = _NUMBER.sub(".*", layer.name)
            total_s[name], count[name] = total_s.get(name, 0.0) + layer.self_s, count.get(name, 0) + 1
    found = sorted(total_s, key=lambda name: -total_s[name])
    if canvas.height < 5 or len(found) < 2:
        return ()
    longest_s, width = total_s[found[0]] or 1.0, max(8, min(60, canvas.width - 60))
    rows = [BLANK, line(Span(" ALL ITEMS", "title"), Span("  layers of one kind together", "dim"))]
    for name in found[: canvas.height - 2]:
        bar = canvas.glyphs.full * max(1, round(total_s[name] / longest_s * width))
        share = percent(total_s[name] / phase.step_s) if phase.step_s > 0 else ""
        head = f"  {fit(name, 20, canvas.glyphs)} {_fine(total_s[name]):>8}ms {share:>4} "
        rows.append(line(head, Span(f"{bar:<{width}}", "low"), Span(f" {count[name]} layer{'s' if count[name] > 1 else ''}", "dim")))
    return tuple(rows)


def _doubtful(state: ConsoleState, view: ProfileView, canvas: Canvas) -> Lines:
    """Instead of bars: shares of figures that are noise would look like findings."""
    text = f"Too noisy to use: {view.doubt}. Take it again when the machine is quiet: " + state.named("{cluster.profile} on Nodes.")
    return (BLANK, *(line(" ", Span(part, "error")) for part in wrap(text, canvas.width - 2)))


def _served(state: ConsoleState, phase: PhaseView, row: LayerRow, canvas: Canvas) -> Lines:
    """The same while serving, if it is this model that serves: the stage of the item, its memory, and an item on every node."""
    if not _serves(state, phase):
        return ()
    owner = _owner(state, phase, row)
    split, memory = (split_lines(owner.stage, f" {owner.name} ", canvas), _memory(phase, owner, canvas)) if owner else ((), ())
    return (*split, *memory, *per_item_lines(stage_rows(state), canvas))


def _serves(state: ConsoleState, phase: PhaseView) -> bool:
    return state.shown is not None and state.shown.status.model.num_items == len(phase.items)


def _owner(state: ConsoleState, phase: PhaseView, row: LayerRow) -> StageRow | None:
    """The stage that runs the item."""
    stages = stage_rows(state) if _serves(state, phase) else ()
    return next((stage for stage in stages if stage.stage.start <= row.item.index < stage.stage.stop), None)


def _memory(phase: PhaseView, owner: StageRow, canvas: Canvas) -> Lines:
    """Of the node that runs the stage: its weights by this profile, the rest as the node tells."""
    weight_bytes = sum(item.weight_bytes for item in phase.items if owner.stage.start <= item.index < owner.stage.stop)
    return memory_lines(owner, weight_bytes, canvas)


def _empty(state: ConsoleState, canvas: Canvas) -> Lines:
    rows = [line(Span(" PROFILE", "title"), "  where every item of the model spends its time on a machine")]
    rows += [line(" ", Span(part, "error")) for part in wrap(state.profile.error, canvas.width - 2)] if state.profile.error else []
    rows += [
        BLANK,
        line(Span(state.named(" No profile here yet. {cluster.profile} takes one on the node chosen on Nodes. Or by hand:"), "dim")),
    ]
    return (*rows, *(line(f"   {part}") for part in wrap(state.named(HOW_TO), canvas.width - 4)))


def _head(state: ConsoleState, view: ProfileView, phase: PhaseView, canvas: Canvas) -> Lines:
    """What was measured where and when; then how far to trust it."""
    when = f"{clock(view.wall_s)}, {age(max(0.0, state.latest.wall_s - view.wall_s))} ago" if state.latest else clock(view.wall_s)
    label = f"{view.model}{' (random weights)' if view.random_weights and 'random' not in view.model else ''}"
    first = f"  {label} on {view.host}: {view.device}, {view.num_threads} threads, {view.dtype}   {when}"
    trust = f"hooks cost {view.overhead:+.1%}, items cover {view.coverage:.0%} of a step, noise {_spread(view.noise_cv)}"
    trust += f", {view.num_steps} steps"
    phases = [p.point.phase.upper() if p is phase else p.point.phase for p in view.phases]
    against = _against(state)
    return (
        line(Span(" PROFILE", "title"), fit(first, canvas.width - 9, canvas.glyphs).rstrip()),
        _point(state, phase, phases, canvas),
        line(Span(f" {fit(against or trust, canvas.width - 2, canvas.glyphs).rstrip()}", "accent" if against else "dim")),
    )


def _against(state: ConsoleState) -> str:
    """With what `c` compares, or what it needs for that; empty while it does not."""
    if not state.ui.profile_compares:
        return ""
    earlier = state.profile.earlier
    if earlier is None:
        return state.named(_NOTHING_BEFORE)
    place = "/".join(PurePath(earlier.path).parts[-2:])  # the folder is named after the node
    return f"before: {place}, {clock(earlier.wall_s)}: {earlier.model} on {earlier.host}; " + state.named("{view.compare} = not to compare")


def _point(state: ConsoleState, phase: PhaseView, phases: list[str], canvas: Canvas) -> Line:
    """What was measured; then what the keys choose among, as far as it fits."""
    row = line(f" {phase.point.label}: {with_ms(phase.step_s)} a step")
    metrics = "/".join(name.upper() if i == state.ui.profile_metric else name for i, name in enumerate(PROFILE_METRICS))
    for hint in (state.named("   {view.phase}: ") + "/".join(phases), state.named("   {view.metric}: ") + metrics):
        if width_of(row) + len(hint) <= canvas.width:
            row = (*row, Span(hint, "dim"))
    return row


def _layers(phase: PhaseView, row: LayerRow, canvas: Canvas) -> Lines:
    """The layers inside one item, the slowest first, each with what limits it."""
    layers = sorted((layer for layer in phase.layers if layer.item == row.item.index), key=lambda layer: -layer.self_s)
    title = line(
        Span(f" ITEM {row.item.index} {row.item.name}", "title"),
        f"  {with_ms(row.item.p50_s)}, {percent(row.item.share)} of a step, noise {_spread(row.item.cv)}",
        Span(f"   +{row.num_alike} alike, {row.alike}, {row.unfold} = all" if row.num_alike else "", "dim"),
    )
    if not layers:
        return (title, line(Span("  its layers were not hooked: profile with --depth layer", "dim")))
    longest_s = layers[0].self_s or 1.0
    width = max(8, min(40, canvas.width - 60))
    return (title, *(_layer(layer, longest_s, width, canvas) for layer in layers[: canvas.height - 1]))


def _layer(layer: LayerTime, longest_s: float, width: int, canvas: Canvas) -> Line:
    bar = canvas.glyphs.full * max(1, round(layer.self_s / longest_s * width)) if layer.self_s > 0 else ""
    head = f"  {fit(layer.name, 20, canvas.glyphs)} {_fine(layer.self_s):>8}ms "
    why = fit(f"{layer.bound}: {layer.why}", max(0, canvas.width - len(head) - width - 2), canvas.glyphs).rstrip()
    return line(head, Span(f"{bar:<{width}}", "low"), " ", Span(why, "dim"))


def _spread(cv: float | None) -> str:
    return "not known" if cv is None else f"{cv:.0%}"


def _fine(seconds: float) -> str:
    return f"{seconds * 1000:.3f}" if 0 <= seconds < 0.001 else ms(seconds)
