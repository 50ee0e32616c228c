"""Nodes in the order of their stages: state in a word, stage, latency beside its graph, memory, heartbeat age.

While a node starts, measures or loads, its row tells that instead: the sentence and how far it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from engine.data.status import ClusterStatus, MachineGauges, NodeState, NodeStatus, StageStatus
from engine.diagnosis.diagnose import memory_share
from engine.diagnosis.step import NOTICEABLE_S
from noodle_tui.glyphs import Glyphs
from noodle_tui.state import ConsoleState, Thresholds
from noodle_tui.text.figures import age, ms, percent, size
from noodle_tui.text.lines import Line, Span, fit, line
from noodle_tui.text.sparkline import sparkline
from noodle_tui.text.tables import Column, Table, widest

STATE_STYLES = {
    NodeState.OK: "ok",
    NodeState.WARN: "warn",
    NodeState.SUSPECT: "warn",
    NodeState.DRAINING: "warn",
    NodeState.LOST: "error",
    NodeState.STARTING: "accent",
    NodeState.MEASURING: "accent",
    NodeState.LOADING: "accent",
}
BOOTING = frozenset({NodeState.STARTING, NodeState.MEASURING, NodeState.LOADING})


@dataclass(frozen=True, slots=True)
class NodeRow:
    """A node with the stage it runs, if any."""

    node: NodeStatus
    stage_index: int | None
    stage: StageStatus | None

    @property
    def time_s(self) -> float:
        return (self.stage.compute_p50_s or self.stage.planned_s) if self.stage else 0.0


def node_rows(status: ClusterStatus) -> tuple[NodeRow, ...]:
    """Nodes in the order of their stages, then those without one."""
    where = {stage.worker_id: i for i, stage in enumerate(status.stages)}
    nodes = sorted(status.nodes, key=lambda n: (where.get(n.worker_id, len(where)), n.worker_id))
    indices = [where.get(node.worker_id) for node in nodes]
    return tuple(NodeRow(node, i, None if i is None else status.stages[i]) for node, i in zip(nodes, indices, strict=True))


def nodes_table(state: ConsoleState) -> Table:
    """See the module docstring."""
    status = state.shown.status if state.shown else None
    rows = node_rows(status) if status else ()
    join = f"noodle-engine worker --join {state.link.address or 'HOST:PORT'}"
    return Table(
        noun="nodes",
        rows=rows,
        columns=_columns(rows, state.thresholds),
        identity=lambda row: row.node.worker_id,
        is_warning=lambda row: is_warning(row, state.thresholds),
        sentence=_sentence,
        empty=f"No workers joined.  On a worker: {join}",
    )


def is_warning(row: NodeRow, limits: Thresholds) -> bool:
    """Whether something about a node is worth a look."""
    node = row.node
    if node.state in (NodeState.WARN, NodeState.SUSPECT, NodeState.DRAINING, NodeState.LOST):
        return True
    return over_plan(row.stage, limits) or memory_share(node) > limits.memory or kv_share(node) > limits.kv


def state_of(row: NodeRow, limits: Thresholds) -> NodeState:
    """The node's own word, or WARN where it says that all is well and a figure of it says otherwise."""
    return NodeState.WARN if row.node.state is NodeState.OK and is_warning(row, limits) else row.node.state


def over_plan(stage: StageStatus | None, limits: Thresholds) -> bool:
    """Whether a stage takes far longer than planned, and long enough for anybody to notice."""
    if stage is None or not stage.num_steps or stage.planned_s <= 0:
        return False
    return stage.compute_p50_s > max(stage.planned_s * (1 + limits.over_plan), stage.planned_s + NOTICEABLE_S)


def kv_share(node: NodeStatus) -> float:
    return node.gauges.kv_used_bytes / node.kv_budget_bytes if node.kv_budget_bytes > 0 else 0.0


def _columns(rows: tuple[NodeRow, ...], limits: Thresholds) -> tuple[Column, ...]:
    name_width = widest([row.node.worker_id for row in rows], 7, 16)
    return (
        Column("node", "NODE", name_width, lambda r: r.node.worker_id),
        Column("state", "STATE", 9, lambda r: state_of(r, limits), style=lambda r: STATE_STYLES[state_of(r, limits)]),
        *_stage_columns(limits),
        Column("utilisation", "UTIL", 4, utilisation, lambda r: _present(r, percent(utilisation(r))), right=True, from_width=72),
        *_memory_columns(limits),
        Column("queue", "Q", 2, lambda r: r.node.gauges.queue_depth, right=True, from_width=90),
        Column("temperature_c", "TEMP", 4, _temperature, _temperature_text, right=True, from_width=130),
        Column("seen_s", "SEEN", 4, _seen_s, lambda r: age(_seen_s(r)), lambda r: _seen_style(r, limits), right=True),
        *(Column(name, "", 0, value) for name, value in _MORE),
    )


_MORE: tuple[tuple[str, Callable[[NodeRow], Any]], ...] = (  # exported only
    ("pid", lambda r: r.node.pid),
    ("host", lambda r: r.node.host),
    ("address", lambda r: r.node.address),
    ("device", lambda r: r.node.device),
    ("detail", lambda r: r.node.detail),
    ("resident_bytes", lambda r: r.node.gauges.resident_bytes),
    ("memory_bytes", lambda r: r.node.memory_bytes),
    ("kv_used_bytes", lambda r: r.node.gauges.kv_used_bytes),
    ("kv_budget_bytes", lambda r: r.node.kv_budget_bytes),
)


def _stage_columns(limits: Thresholds) -> tuple[Column, ...]:
    """What the node's stage does; replaced by a sentence while it does not run one."""

    def number(name: str, title: str, value: Callable[[NodeRow], float], from_width: int = 0) -> Column:
        return Column(name, title, 6, value, lambda r: ms(value(r)), style, right=True, from_width=from_width, covered=True)

    def style(row: NodeRow) -> str:
        return "warn" if over_plan(row.stage, limits) else "text"

    return (
        Column("stage", "STG", 3, lambda r: r.stage_index, _stage_name, covered=True),
        Column("items", "ITEMS", 7, lambda r: r.node.start if r.stage else None, _items, covered=True),
        number("p50_s", "p50ms", lambda r: r.time_s),
        number("p95_s", "p95", lambda r: r.stage.compute_p95_s if r.stage else 0.0, 104),
        number("planned_s", "plan", lambda r: r.stage.planned_s if r.stage else 0.0, 112),
        Column("history", "LAST, 0..2x plan", 0, lambda r: None, draw=_graph, covered=True, short="0..2x plan"),
    )


def _memory_columns(limits: Thresholds) -> tuple[Column, ...]:
    def share(row: NodeRow) -> float:
        return memory_share(row.node)

    def kv(row: NodeRow) -> float:
        return kv_share(row.node)

    def style(row: NodeRow) -> str:
        return "warn" if share(row) > limits.memory else "text"

    return (
        Column("memory", "MEM", 4, share, lambda r: _present(r, percent(share(r))), style, right=True, until_width=71),
        Column("memory", "MEMORY", 10, share, lambda r: _present(r, _memory(r.node)), style, right=True, from_width=72),
        Column("kv", "KV", 4, kv, lambda r: percent(kv(r)), lambda r: "warn" if kv(r) > limits.kv else "text", right=True, from_width=84),
    )


def _stage_name(row: NodeRow) -> str:
    return "-" if row.stage_index is None else f"S{row.stage_index}"


def _items(row: NodeRow) -> str:
    stage = row.stage
    return f"{stage.start}-{stage.stop - 1}" if stage is not None and stage.stop > stage.start else "-"


def _graph(row: NodeRow, width: int, glyphs: Glyphs) -> Line:
    if row.stage is None:
        return ()
    reference = row.stage.planned_s or row.stage.compute_p50_s
    return line("[", *sparkline(row.stage.history_s, reference, width - 2, glyphs, graph="stage"), "]")


def _memory(node: NodeStatus) -> str:
    """What counts against its limit, and the limit."""
    used_bytes = max(0, node.gauges.resident_bytes - node.runtime_bytes)
    return f"{size(used_bytes)}/{size(node.memory_bytes)}" if node.memory_bytes > 0 else size(used_bytes)


def _present(row: NodeRow, text: str) -> str:
    """A lost node uses nothing any more: its last figures would look like present ones."""
    return "-" if row.node.state is NodeState.LOST else text


def utilisation(row: NodeRow) -> float:
    """Of the device that computes: its GPU where it tells, else its threads."""
    node = row.node
    return node.gauges.gpu_utilisation if node.gauges.gpu_utilisation is not None else node.gauges.cpu_utilisation


def _temperature(row: NodeRow) -> float | None:
    return row.node.gauges.gpu_temperature_c if row.node.gauges.gpu_temperature_c is not None else row.node.gauges.cpu_temperature_c


def _temperature_text(row: NodeRow) -> str:
    value = _temperature(row)
    return "-" if value is None else f"{value:.0f}C"


def _seen_s(row: NodeRow) -> float:
    return row.node.heartbeat_age_s


def _seen_style(row: NodeRow, limits: Thresholds) -> str:
    return "warn" if row.node.heartbeat_age_s >= limits.heartbeat_s else "text"


def _sentence(row: NodeRow, width: int, glyphs: Glyphs) -> Line | None:
    """What a node says about itself, with a bar if it knows how far it is; None when its figures say more."""
    node = row.node
    if node.state not in BOOTING and node.state is not NodeState.LOST:
        return None if row.stage is not None else line(Span(fit(node.detail or "holds no stage now", width, glyphs), "dim"))
    if not 0 <= node.progress <= 1:
        return line(fit(node.detail, width, glyphs))
    bar_width = max(6, min(20, width // 5))
    done = int(node.progress * bar_width)
    bar = glyphs.full * done + glyphs.empty * (bar_width - done)
    return line(fit(node.detail, width - bar_width - 6, glyphs), " ", Span(bar, "accent"), f" {percent(node.progress):>4}")


def _machine(gauges: MachineGauges) -> str:
    """What all processes of its machine leave, and what holds it down; empty where it does not tell."""
    facts = []
    if gauges.busy is not None:
        facts.append(f"{percent(gauges.busy)} of {gauges.num_cores} cores busy" if gauges.num_cores else f"{percent(gauges.busy)} busy")
    if gauges.free_bytes is not None and gauges.total_bytes:
        facts.append(f"{size(gauges.free_bytes)} of {size(gauges.total_bytes)} free")
    if gauges.clock is not None and gauges.clock < 0.995:
        facts.append(f"clock {percent(gauges.clock)}")
    if gauges.stolen is not None and gauges.stolen >= 0.01:
        facts.append(f"{percent(gauges.stolen)} taken by the hypervisor")
    if gauges.swapped_bytes_per_s:
        facts.append(f"swaps {size(int(gauges.swapped_bytes_per_s))}/s")
    if gauges.disk_free_bytes is not None:
        facts.append(f"disk {size(gauges.disk_free_bytes)} free")
    return ", ".join(facts)


def details(row: NodeRow) -> tuple[tuple[str, str], ...]:
    """Everything about a node as name and text, for its pane."""
    node = row.node
    warm = f", {_temperature_text(row)}" if _temperature(row) is not None else ""
    return (
        ("device", f"{node.device} on {node.host}, pid {node.pid}"),
        ("address", node.address),
        ("memory", f"{_memory(node)} = {percent(memory_share(node))}, {size(node.gauges.resident_bytes)} resident"),
        ("KV", f"{size(node.gauges.kv_used_bytes)} of {size(node.kv_budget_bytes)} = {percent(kv_share(node))}"),
        ("use", f"{percent(utilisation(row))}{warm}, queue {node.gauges.queue_depth}"),
        *((("machine", machine),) if (machine := _machine(node.gauges.machine)) else ()),
        ("seen", f"{age(node.heartbeat_age_s)} ago"),
        ("says", node.detail or "-"),
    )
