"""A plan as ASCII text of any width: blocks as wide as their stages take, hops between them, the bottleneck marked `!!`.

Widths are shares of the line by time, but no block is narrower than it takes to say its number; the heading
then says `width ~ time` instead of `width = time`. Where blocks do not fit side by side there is one line for each stage. Names are data:
what is not printable ASCII is written as an escape.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from engine.data.errors import InvalidInput

if TYPE_CHECKING:
    from engine.planning.documents.partition_plan import PartitionPlan

_LEAST_BLOCK = 10  # "|0.123 ms|"
_LEAST_HOP = 1
_MAX_BLOCKS = 12  # more are easier to read below each other
_BAR_SHARE = 0.4  # of a line per stage, for its bar


def draw(plan: PartitionPlan, width: int = 80) -> str:
    """Lines of at most `width` characters, joined. Raises InvalidInput for a width below 1."""
    if width < 1:
        raise InvalidInput(f"a drawing cannot be {width} columns wide: give 1 or more")
    columns = _columns(plan, width)
    body = _rows(plan, width) if columns is None else _blocks(plan, columns)
    is_broken = columns is not None and _is_broken(plan, columns)
    return "\n".join(line[:width].rstrip() for line in (_heading(plan, is_broken), *body))


def plain(text: str) -> str:
    """Printable ASCII: everything else as Python writes it in a literal."""
    return "".join(c if c.isascii() and c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def bottleneck_text(plan: PartitionPlan) -> str:
    """The stage or link that sets the pace: `S1 gpu 12.1 ms`, `link a>b 3.0 ms`."""
    index, is_hop = plan.bottleneck
    name = plain(plan.stages[index].node_id)
    if is_hop:
        return f"link {name}>{plain(plan.stages[index + 1].node_id)} {milliseconds(plan.stages[index].hop_s)}"
    return f"S{index} {name} {milliseconds(plan.bottleneck_s)}"


def milliseconds(time_s: float) -> str:
    """Three significant digits."""
    return f"{1e3 * time_s:#.3g}".rstrip(".") + " ms"


def _heading(plan: PartitionPlan, is_broken: bool) -> str:
    number = f" #{plan.plan_version}" if plan.plan_version else ""
    width = "width ~ time" if is_broken else "width = time"
    return f"plan{number} {plain(plan.strategy)}, {width}: step {milliseconds(plan.round_trip_s)}, bottleneck {bottleneck_text(plan)}"


def _times(plan: PartitionPlan) -> list[float]:
    """Stage, hop, stage, hop, ..., stage."""
    times = [time_s for stage in plan.stages for time_s in (stage.time_s, stage.hop_s)]
    return times[:-1]


def _least(plan: PartitionPlan) -> list[int]:
    index, is_hop = plan.bottleneck
    least = [_LEAST_BLOCK if k % 2 == 0 else _LEAST_HOP for k in range(2 * len(plan.stages) - 1)]
    if is_hop:
        least[2 * index + 1] = 4  # "!!>"
    return least


def _columns(plan: PartitionPlan, width: int) -> list[int] | None:
    """How wide blocks and hops are; None where they do not fit beside each other."""
    least = _least(plan)
    if len(plan.stages) > _MAX_BLOCKS or sum(least) > width:
        return None
    return share_out(_times(plan), width, least)


def share_out(weights: Sequence[float], total: int, least: Sequence[int]) -> list[int]:
    """`total` columns in proportion to `weights`, none below its `least` (whose sum is at most `total`).

    Those that fall below their least get exactly that, and the rest is shared again; fractions go to the largest remainders.
    """
    fixed: set[int] = set()
    while True:
        free = [k for k in range(len(weights)) if k not in fixed]
        room, weight = total - sum(least[k] for k in fixed), sum(weights[k] for k in free)
        exact = {k: room * (weights[k] / weight if weight > 0 else 1.0 / len(free)) for k in free}
        short = {k for k in free if exact[k] < least[k]}
        if not short:
            break
        fixed |= short
    columns = [least[k] if k in fixed else int(exact[k]) for k in range(len(weights))]
    spare = sorted(free, key=lambda k: (int(exact[k]) - exact[k], k))
    for k in spare[: total - sum(columns)]:
        columns[k] += 1
    return columns


def _is_broken(plan: PartitionPlan, columns: Sequence[int]) -> bool:
    times, total_s = _times(plan), sum(_times(plan))
    return any(columns[k] > 1 + sum(columns) * (time_s / total_s if total_s > 0 else 0.0) for k, time_s in enumerate(times))


def _blocks(plan: PartitionPlan, columns: Sequence[int]) -> list[str]:
    index, is_hop = plan.bottleneck
    lines = ["", "", "", ""]
    for k, stage in enumerate(plan.stages):
        inner = columns[2 * k] - 2
        mark = "!!" if k == index and not is_hop else ""
        name, time = f"S{k} {plain(stage.node_id)}", milliseconds(stage.time_s)
        names = (f"{name} {_range(stage.start, stage.stop)}", name, f"S{k}")
        cells = ("+" + "-" * inner + "+", f"|{_fit(names, inner, mark)}|", f"|{_fit((time, ''), inner)}|")
        lines = [line + cell for line, cell in zip(lines, (*cells, cells[0]), strict=True)]
        if k + 1 < len(plan.stages):
            hop = columns[2 * k + 1]
            arrow = ("!!" if k == index and is_hop else "").rjust(hop - 1, "-") + ">"
            lines = [line + (arrow if row == 1 else " " * hop) for row, line in enumerate(lines)]
    return lines


def _fit(texts: Sequence[str], width: int, mark: str = "") -> str:
    """The first text that leaves room for `mark` at the right end, else what fits of the last: half a number would mislead."""
    room = width - len(mark)
    return next((text for text in texts if len(text) <= room), texts[-1][:room]).ljust(room) + mark


def _rows(plan: PartitionPlan, width: int) -> list[str]:
    """One line for each stage; bars to one scale."""
    index, _ = plan.bottleneck
    names = [f"S{k} {plain(s.node_id)} {_range(s.start, s.stop)} {milliseconds(s.time_s)}" for k, s in enumerate(plan.stages)]
    bar_width = int(_BAR_SHARE * width)
    text_width = min(max(len(name) for name in names), max(0, width - bar_width - 4))
    longest_s = max(stage.time_s for stage in plan.stages)
    lines = []
    for k, stage in enumerate(plan.stages):
        bar = "#" * (max(1, round(bar_width * stage.time_s / longest_s)) if longest_s > 0 and bar_width else 0)
        mark = "!!" if k == index else "  "
        lines.append(f"{mark} {names[k][:text_width].ljust(text_width)} {bar}")
    return lines


def _range(start: int, stop: int) -> str:
    return f"{start}-{stop - 1}"
