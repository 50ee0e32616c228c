"""The items of a profile: what each takes, as bars on one scale, the slow ones marked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from noodle_tui.figures import middle, ms, percent, size
from noodle_tui.glyphs import Glyphs
from noodle_tui.lines import Line, Span, line
from noodle_tui.state import ConsoleState
from noodle_tui.tables import Column, Table, widest

if TYPE_CHECKING:
    from noodle_tui.profile_file import ItemTime, PhaseView

HOW_TO = "noodle-engine profile MODEL --out profile-MODEL   then : profile FILE, or open this screen again"
STANDS_OUT = 1.5  # times the median item


@dataclass(frozen=True, slots=True)
class LayerRow:
    """One item with what is needed to draw it beside the others."""

    item: ItemTime
    longest_s: float
    typical_s: float
    is_slowest: bool
    node: str  # that owns it now


def phase_of(state: ConsoleState) -> PhaseView | None:
    """The phase on screen; None without a profile."""
    view = state.profile.view
    return view.phases[state.ui.profile_phase % len(view.phases)] if view and view.phases else None


def layer_rows(state: ConsoleState) -> tuple[LayerRow, ...]:
    """The items of the phase on screen, in the model's order."""
    phase = phase_of(state)
    if phase is None or not phase.items:
        return ()
    longest_s = max(item.p50_s for item in phase.items)
    typical_s = middle([item.p50_s for item in phase.items])
    stages = state.shown.status.stages if state.shown else ()
    owner = {i: stage.worker_id for stage in stages for i in range(stage.start, stage.stop)}
    return tuple(LayerRow(item, longest_s, typical_s, item.p50_s == longest_s, owner.get(item.index, "")) for item in phase.items)


def layers_table(state: ConsoleState) -> Table:
    """See the module docstring."""
    rows = layer_rows(state)
    return Table(
        noun="items",
        rows=rows,
        columns=(
            Column("item", "ITEM", 4, lambda r: r.item.index, right=True),
            Column("name", "NAME", widest([r.item.name for r in rows], 5, 16), lambda r: r.item.name),
            Column("p50_s", "p50ms", 7, lambda r: r.item.p50_s, lambda r: _fine(r.item.p50_s), right=True),
            Column("p95_s", "p95", 7, lambda r: r.item.p95_s, lambda r: _fine(r.item.p95_s), right=True),
            Column("share", "STEP", 4, lambda r: r.item.share, lambda r: percent(r.item.share), right=True),
            Column("weight_bytes", "WEIGHTS", 7, _weight, lambda r: size(_weight(r)), right=True, from_width=90),
            Column("node", "NODE", 8, lambda r: r.node, lambda r: r.node or "-", from_width=100),
            Column("time", "TIME, one scale", 0, lambda r: r.item.p50_s, draw=_bar),
        ),
        identity=lambda row: str(row.item.index),
        is_warning=lambda row: row.item.p50_s > STANDS_OUT * row.typical_s,
        empty=state.profile.error or f"No profile here yet:  {HOW_TO}",
    )


def _weight(row: LayerRow) -> int:
    return row.item.weight_bytes


def _fine(seconds: float) -> str:
    """Items take fractions of a millisecond: three significant digits."""
    return f"{seconds * 1000:.3f}" if 0 < seconds < 0.001 else ms(seconds)


def _bar(row: LayerRow, width: int, glyphs: Glyphs) -> Line:
    ratio = row.item.p50_s / row.typical_s if row.typical_s > 0 else 1.0
    mark = f" {glyphs.bottleneck if row.is_slowest else ''} {ratio:.1f}x" if ratio > STANDS_OUT else ""
    room = max(1, width - 9)
    length = max(1, round(room * row.item.p50_s / row.longest_s)) if row.longest_s > 0 else 0
    return line(Span(glyphs.full * length, "high" if row.is_slowest else "low"), Span(mark, "warn"))
