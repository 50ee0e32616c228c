"""The stages of a large plan, one row for every machine: what its stages take together, and its slowest one."""

from __future__ import annotations

from dataclasses import dataclass, replace

from engine.data.status import NodeStatus, StageStatus
from noodle_tui.core.pages import FOLD_FROM, Page
from noodle_tui.listings.stages import StageRow, stage_rows, stages_table
from noodle_tui.state import ConsoleState
from noodle_tui.text.figures import ms, percent, signed_percent
from noodle_tui.text.tables import Column, Table, widest


@dataclass(frozen=True, slots=True)
class MachineRow:
    """The stages that run on one machine, in execution order; there is at least one."""

    host: str
    rows: tuple[StageRow, ...]

    @property
    def slowest(self) -> StageRow:
        return max(self.rows, key=lambda row: row.time_s)

    @property
    def index(self) -> int:
        """Of its first stage."""
        return self.rows[0].index

    @property
    def stage(self) -> StageStatus:
        """Its slowest: what `enter` opens."""
        return self.slowest.stage

    @property
    def name(self) -> str:
        return f"{self.host} ({len(self.rows)})"

    @property
    def time_s(self) -> float:
        return sum(row.time_s for row in self.rows)

    @property
    def num_items(self) -> int:
        return sum(row.stage.stop - row.stage.start for row in self.rows)

    @property
    def is_bottleneck(self) -> bool:
        return any(row.is_bottleneck for row in self.rows)

    @property
    def node(self) -> NodeStatus | None:
        """Its nodes as one, for their memory; None until one has told."""
        nodes = [row.node for row in self.rows if row.node is not None]
        if not nodes:
            return None
        resident_bytes, kv_used_bytes = sum(n.gauges.resident_bytes for n in nodes), sum(n.gauges.kv_used_bytes for n in nodes)
        return replace(
            nodes[0],
            runtime_bytes=sum(n.runtime_bytes for n in nodes),
            gauges=replace(nodes[0].gauges, resident_bytes=resident_bytes, kv_used_bytes=kv_used_bytes),
            memory_bytes=sum(n.memory_bytes for n in nodes),
            kv_budget_bytes=sum(n.kv_budget_bytes for n in nodes),
        )


def folds_stages(state: ConsoleState, page: Page = Page.PLAN) -> bool:
    """Whether a screen shows the plan by machine: `z` shows every stage, and a filter on the Plan screen looks at all."""
    num_stages = len(state.shown.status.stages) if state.shown else 0
    return num_stages >= FOLD_FROM and page not in state.ui.expanded and not (page is Page.PLAN and state.ui.listing(page).filter)


def owner_names(state: ConsoleState) -> dict[str, str]:
    """The name under which every node owns items on the Plan screen: its own, or its machine's where those are shown."""
    nodes = state.shown.status.nodes if state.shown else ()
    return {node.worker_id: node.host for node in nodes if node.host} if folds_stages(state) else {}


def machine_rows(state: ConsoleState) -> tuple[MachineRow, ...]:
    """In the order of their first stages; a node that has not told its machine stands for itself."""
    found: dict[str, list[StageRow]] = {}
    for row in stage_rows(state):
        found.setdefault((row.node.host if row.node else "") or row.stage.worker_id, []).append(row)
    return tuple(MachineRow(host, tuple(rows)) for host, rows in found.items())


def plan_table(state: ConsoleState) -> Table:
    """The stages, or above forty of them their machines."""
    return machines_table(state) if folds_stages(state) else stages_table(state)


def machines_table(state: ConsoleState) -> Table:
    """See the module docstring."""
    rows = machine_rows(state)
    return Table(
        noun="machines",
        rows=rows,
        columns=(
            Column("node", "MACHINE", widest([row.host for row in rows], 8, 24), lambda r: r.host),
            Column("stages", "STAGES", 6, lambda r: len(r.rows), right=True),
            Column("items", "ITEMS", 5, lambda r: r.num_items, right=True),
            Column("p50_s", "p50ms", 7, lambda r: r.time_s, lambda r: ms(r.time_s), right=True),
            Column("planned_s", "plan", 7, _planned_s, lambda r: ms(_planned_s(r)), right=True),
            Column("excess", "off", 5, _excess, lambda r: signed_percent(_excess(r)), right=True),
            Column("slowest", "SLOWEST", 22, _slowest, style=lambda r: "warn" if r.is_bottleneck else "text"),
            Column("idle", "idle", 4, _idle, lambda r: percent(_idle(r)), right=True),
            Column("mark", "", 2, lambda r: r.is_bottleneck),
        ),
        identity=lambda row: row.host,
        is_warning=lambda row: any(inner.warns for inner in row.rows),
    )


def _planned_s(row: MachineRow) -> float:
    return sum(inner.stage.planned_s for inner in row.rows)


def _excess(row: MachineRow) -> float | None:
    ran = all(inner.stage.num_steps for inner in row.rows)
    return row.time_s / _planned_s(row) - 1 if ran and _planned_s(row) > 0 else None


def _slowest(row: MachineRow) -> str:
    return f"{row.slowest.name} {ms(row.slowest.time_s)}ms"


def _idle(row: MachineRow) -> float:
    """Of its slowest stage; its other nodes wait longer."""
    slowest = row.slowest
    return 1 - slowest.time_s / slowest.slowest_s if slowest.slowest_s > 0 else 0.0
