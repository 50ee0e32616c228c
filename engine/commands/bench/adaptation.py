"""`noodle-engine bench adaptation`: how much time each policy loses on the traces, beside a clairvoyant.

Everything is simulated from seeds, so the table is the same on every machine.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import asdict

from engine.commands.bench.options import Bench
from engine.commands.output import note, print_json, say, table
from engine.simulation.adaptation.table import POLICIES, Cell, Row, compare
from engine.simulation.adaptation.traces import Trace, all_traces


def bench_adaptation(options: Bench) -> int:
    """Print the table; `--rounds` is the number of seeds, `--steps` the length of the steady traces."""
    rows = list(compare(_announced(all_traces(options.steps)), random.Random, options.rounds))
    if options.json:
        print_json({"adaptation": {"seeds": options.rounds, "rows": [asdict(row) for row in rows]}})
    else:
        say(_text(rows, options.rounds))
    return 0


def _announced(traces: Iterable[Trace]) -> Iterable[Trace]:
    for trace in traces:
        note(f"adaptation: {trace.name}")
        yield trace


def _text(rows: list[Row], num_seeds: int) -> str:
    head = (
        f"adaptation: time lost against always being in the best placement for free, and (migrations); medians of {num_seeds} seeds.\n"
        "26 items on 3 nodes, 4 steps in flight, about 10 ms a step; the clairvoyant knows how long each change will last."
    )
    cells = [(row.trace, f"{row.oracle_s:.1f} s ({row.oracle_migrations})", *(_cell(c) for c in row.cells)) for row in rows]
    total = ("all traces", f"{sum(r.oracle_s for r in rows):.1f} s", *(_total(rows, k) for k in range(len(POLICIES))))
    return "\n".join((head, table(("TRACE", "CLAIRVOYANT", *(p.upper() for p in POLICIES)), [*cells, total]), _promises(rows)))


def _cell(cell: Cell) -> str:
    died = f", {cell.deaths} died" if cell.deaths else ""
    return f"{cell.regret_s:.1f} s ({cell.migrations:.0f}{died})"


def _total(rows: list[Row], policy: int) -> str:
    return f"{sum(r.cells[policy].regret_s for r in rows):.1f} s ({sum(r.cells[policy].migrations for r in rows):.0f})"


def _promises(rows: list[Row]) -> str:
    """The figures that the design asks for, of our own policy."""
    steady = [r for r in rows if r.trace.startswith("steady")]
    num_steps = sum(r.num_steps for r in steady)
    alarms, moves = sum(r.cells[0].alarms for r in steady), sum(r.cells[0].migrations for r in steady)
    single, oscillation = (_worst(rows, change) for change in ("single", "oscillation"))
    again = max(r.cells[0].useless_again for r in rows)
    steps = [(r.trace, r.cells[0].noticed_after) for r in rows if r.trace.startswith("one node")]
    noticed = "; ".join(f"{trace} noticed after {after:.0f} steps" for trace, after in steps if after is not None)
    return (
        f"ours: {moves:.0f} migrations and {alarms:.0f} alarms in {num_steps} steady steps; at most {single:.1f}x the clairvoyant's loss "
        f"on single changes, {oscillation:.1f}x on oscillation; the same useless migration twice: {again}; {noticed}"
    )


def _worst(rows: list[Row], change: str) -> float:
    """Of the traces of that kind where even the clairvoyant loses something."""
    return max(r.cells[0].regret_s / r.oracle_s for r in rows if r.change == change and r.oracle_s > 0)
