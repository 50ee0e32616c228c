"""The items of a profile: what each takes, holds or reads, as bars on one scale, the slow ones marked, those alike folded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from noodle_tui.core.pages import PROFILE_METRICS, Page
from noodle_tui.glyphs import Glyphs
from noodle_tui.state import ConsoleState
from noodle_tui.text.figures import middle, ms, percent, signed_percent, size
from noodle_tui.text.lines import Line, Span, line
from noodle_tui.text.tables import Column, Table, widest

if TYPE_CHECKING:
    from noodle_tui.core.profile_view import ItemTime, PhaseView

HOW_TO = "noodle-engine profile MODEL --out profile-MODEL   then {app.command} profile FILE, or open this screen again"
STANDS_OUT = 1.5  # times the median item
ALIKE = 0.1  # of the first of a run: what differs by less is folded into it
MIN_FOLDED = 3  # fewer are shown: a row that says how many are hidden is a row too
NAME_CELLS = 16
EMBEDDING = "embed"  # the name that the engine gives the first item


@dataclass(frozen=True, slots=True)
class LayerRow:
    """One item with what is needed to draw it beside the others; `value` is by the measure on screen."""

    item: ItemTime
    value: float
    highest: float
    typical: float  # 0 for measures in which nothing stands out
    is_slowest: bool
    node: str  # that owns it now
    text_of: Callable[[float], str]
    before_s: float = 0.0  # in the profile before, if the two are compared and it has this item
    num_alike: int = 0  # that follow it and are folded
    alike: str = ""  # between which values those lie
    unfold: str = ""  # the key that shows them

    @property
    def name(self) -> str:
        return f"{self.item.name} [+{self.num_alike}, {self.unfold}]" if self.num_alike else self.item.name


def phase_of(state: ConsoleState) -> PhaseView | None:
    """The phase on screen; None without a profile."""
    view = state.profile.view
    return view.phases[state.ui.profile_phase % len(view.phases)] if view and view.phases else None


def layer_rows(state: ConsoleState) -> tuple[LayerRow, ...]:
    """The items of the phase on screen, in the model's order."""
    phase = phase_of(state)
    if phase is None or not phase.items:
        return ()
    metric = PROFILE_METRICS[state.ui.profile_metric]
    value_of, text_of = _MEASURES[metric]
    values = [value_of(item) for item in phase.items]
    typical = middle(values) if metric == "time" else 0.0
    slowest_s = max(item.p50_s for item in phase.items)
    before_s = _before_s(state, phase)
    stages = state.shown.status.stages if state.shown else ()
    owner = {i: stage.worker_id for stage in stages for i in range(stage.start, stage.stop)}
    rows = tuple(
        LayerRow(
            item, value, max(values), typical, item.p50_s == slowest_s, owner.get(item.index, ""), text_of, before_s.get(item.name, 0.0)
        )
        for item, value in zip(phase.items, values, strict=True)
    )
    return _folded(rows, state.named("{view.expand}")) if _folds(state) else rows


def _before_s(state: ConsoleState, phase: PhaseView) -> dict[str, float]:
    """What every item took in the profile that was shown before, in the same phase; nothing unless `c` compares."""
    earlier = state.profile.earlier if state.ui.profile_compares else None
    same = next((p for p in earlier.phases if p.point.phase == phase.point.phase), None) if earlier else None
    return {item.name: item.p50_s for item in same.items} if same else {}


def _folds(state: ConsoleState) -> bool:
    """`z` shows all; a filter looks at all, and another order tears runs apart."""
    listing = state.ui.listing(Page.PROFILE)
    return Page.PROFILE not in state.ui.expanded and not listing.filter and not listing.sort


def _folded(rows: tuple[LayerRow, ...], unfold: str) -> tuple[LayerRow, ...]:
    """Of items in a row that are alike the first; the slowest of all stays in sight."""
    kept: list[LayerRow] = []
    at = 0
    while at < len(rows):
        stop = at + 1
        while stop < len(rows) and _alike(rows[at], rows[stop]):
            stop += 1
        hidden = rows[at + 1 : stop]
        if len(hidden) >= MIN_FOLDED:
            low, high = min(row.value for row in hidden), max(row.value for row in hidden)
            alike = f"{rows[at].text_of(low)}..{rows[at].text_of(high)}"
            kept.append(replace(rows[at], num_alike=len(hidden), alike=alike, unfold=unfold))
        else:
            kept += rows[at:stop]
        at = stop
    return tuple(kept)


def _alike(first: LayerRow, other: LayerRow) -> bool:
    return not first.is_slowest and not other.is_slowest and abs(other.value - first.value) <= ALIKE * first.value


def layers_table(state: ConsoleState) -> Table:
    """See the module docstring."""
    rows = layer_rows(state)
    compared = state.ui.profile_compares and state.profile.earlier is not None
    return Table(
        noun="items",
        rows=rows,
        columns=(
            Column("item", "ITEM", 4, lambda r: r.item.index, right=True),
            Column("name", "NAME", widest([r.name for r in rows], 5, NAME_CELLS), lambda r: r.item.name, lambda r: r.name),
            Column("p50_s", "p50ms", 7, lambda r: r.item.p50_s, lambda r: _fine(r.item.p50_s), right=True),
            Column("p95_s", "p95", 7, lambda r: r.item.p95_s, lambda r: _fine(r.item.p95_s), right=True),
            *(_COMPARED if compared else ()),
            Column("share", "STEP", 4, lambda r: r.item.share, lambda r: percent(r.item.share), right=True),
            Column("weight_bytes", "WEIGHTS", 7, _weight, lambda r: size(_weight(r)), right=True, from_width=90),
            Column("node", "NODE", 8, lambda r: r.node, lambda r: r.node or "-", from_width=100),
            Column("time", _scale(state, rows), 0, lambda r: r.value, draw=_bar),
        ),
        identity=lambda row: str(row.item.index),
        is_warning=lambda row: row.value > STANDS_OUT * row.typical > 0,
        empty=state.profile.error or state.named(f"No profile here yet:  {HOW_TO}"),
    )


def _scale(state: ConsoleState, rows: tuple[LayerRow, ...]) -> str:
    """The heading of the bars: what they show, from nothing to what."""
    name = PROFILE_METRICS[state.ui.profile_metric].upper()
    return f"{name}, 0..{rows[0].text_of(rows[0].highest)}" if rows else name


def _weight(row: LayerRow) -> int:
    return row.item.weight_bytes


def _fine(seconds: float) -> str:
    """Items take fractions of a millisecond: three significant digits."""
    return f"{seconds * 1000:.3f}" if 0 < seconds < 0.001 else ms(seconds)


def _bar(row: LayerRow, width: int, glyphs: Glyphs) -> Line:
    """The mark is of time, whatever the bar shows: the slowest item is the one to look at."""
    ratio = row.value / row.typical if row.typical > 0 else 1.0
    slowest = glyphs.bottleneck if row.is_slowest else ""
    mark = f" {slowest} {ratio:.1f}x" if ratio > STANDS_OUT else f" {slowest}" if slowest else ""
    room = max(1, width - 9)
    length = max(1, round(room * row.value / row.highest)) if row.highest > 0 and row.value > 0 else 0
    return line(Span(glyphs.full * length, "high" if row.is_slowest else "low"), Span(mark, "warn"))


def _bytes_per_s(item: ItemTime) -> float:
    """How fast an item passes over its weights; of an embedding a step reads a few rows only, so it has none."""
    return item.weight_bytes / item.p50_s if item.p50_s > 0 and item.name != EMBEDDING else 0.0


def _change(row: LayerRow) -> float | None:
    return row.item.p50_s / row.before_s - 1 if row.before_s > 0 else None


_COMPARED = (
    Column("before_s", "before", 7, lambda r: r.before_s or None, lambda r: _fine(r.before_s), right=True),
    Column("change", "off", 5, _change, lambda r: signed_percent(_change(r)), right=True),
)

_MEASURES: Mapping[str, tuple[Callable[[ItemTime], float], Callable[[float], str]]] = {
    "time": (lambda item: item.p50_s, lambda value: f"{_fine(value)}ms"),
    "memory": (lambda item: float(item.weight_bytes), lambda value: size(int(value))),
    "bytes": (_bytes_per_s, lambda value: f"{size(int(value))}/s"),
}
