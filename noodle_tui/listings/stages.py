"""The stages of the plan in execution order, measured beside predicted."""

from __future__ import annotations

from dataclasses import dataclass

from engine.data.status import NodeStatus, StageStatus
from noodle_tui.listings.nodes import is_warning, node_rows
from noodle_tui.listings.stage_times import bottleneck_hop, bottleneck_index, has_slow_hop, stage_s
from noodle_tui.state import ConsoleState
from noodle_tui.text.figures import ms, percent, signed_percent
from noodle_tui.text.tables import Column, Table, widest


@dataclass(frozen=True, slots=True)
class StageRow:
    """One stage with the node that runs it."""

    index: int
    stage: StageStatus
    node: NodeStatus | None
    time_s: float
    slowest_s: float
    is_bottleneck: bool
    warns: bool
    has_slow_hop: bool  # to the next one: far above its plan, or the bottleneck

    @property
    def name(self) -> str:
        return f"S{self.index} {self.stage.worker_id}"


def stage_rows(state: ConsoleState) -> tuple[StageRow, ...]:
    """The rows; empty while there is no plan."""
    if state.shown is None:
        return ()
    status = state.shown.status
    by_node = {row.node.worker_id: row for row in node_rows(status)}
    times = [stage_s(stage) for stage in status.stages]
    hop = bottleneck_hop(status)
    slowest = bottleneck_index(times) if hop is None else None
    rows = []
    for i, stage in enumerate(status.stages):
        node = by_node.get(stage.worker_id)
        warns = node is not None and is_warning(node, state.thresholds)
        rows.append(
            StageRow(
                i,
                stage,
                node.node if node else None,
                times[i],
                max(times),
                i == slowest,
                warns,
                has_slow_hop(stage) or (hop is not None and hop.index == i),
            )
        )
    return tuple(rows)


def stages_table(state: ConsoleState) -> Table:
    """See the module docstring."""
    rows = stage_rows(state)
    return Table(
        noun="stages",
        rows=rows,
        columns=(
            Column("stage", "STG", 3, lambda r: r.index, lambda r: f"S{r.index}"),
            Column("node", "NODE", widest([r.stage.worker_id for r in rows], 7, 16), lambda r: r.stage.worker_id),
            Column("items", "ITEMS", 7, lambda r: r.stage.start, lambda r: f"{r.stage.start}-{r.stage.stop - 1}"),
            Column("p50_s", "p50ms", 6, lambda r: r.time_s, lambda r: ms(r.time_s), right=True),
            Column("p95_s", "p95", 6, lambda r: r.stage.compute_p95_s, lambda r: ms(r.stage.compute_p95_s), right=True),
            Column("planned_s", "plan", 6, lambda r: r.stage.planned_s, lambda r: ms(r.stage.planned_s), right=True),
            Column("excess", "off", 5, _excess, lambda r: signed_percent(_excess(r)), right=True),
            Column("queue_s", "queue", 6, lambda r: r.stage.queue_p50_s, lambda r: ms(r.stage.queue_p50_s), right=True),
            Column("hop_s", "hop", 6, lambda r: r.stage.hop_p50_s, lambda r: ms(r.stage.hop_p50_s), right=True),
            Column("idle", "idle", 4, _idle, lambda r: percent(_idle(r)), right=True),
            Column("mark", "", 2, lambda r: r.is_bottleneck),
        ),
        identity=lambda row: row.name,
        is_warning=lambda row: row.warns,
        empty="No plan yet: it is made when the workers have joined and measured the model.",
    )


def _excess(row: StageRow) -> float | None:
    return row.time_s / row.stage.planned_s - 1 if row.stage.num_steps and row.stage.planned_s > 0 else None


def _idle(row: StageRow) -> float:
    return 1 - row.time_s / row.slowest_s if row.slowest_s > 0 else 0.0
