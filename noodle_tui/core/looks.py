"""What every node and session did over the last minutes, for the graphs of one of them. Pure and bounded.

A look a second for five minutes and one in twelve seconds for an hour: the medians in a frame cover 10 s, so the fewer looks miss little.
Figures lie in arrays, which take a seventh of what as many numbers of Python take: an hour of 20 nodes is 0.3 MB.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass

from engine.data.status import ClusterStatus, NodeState, NodeStatus, StageStatus

FINE_SPAN_S, COARSE_SPAN_S = 300.0, 3600.0
FINE_EVERY_S, COARSE_EVERY_S = 0.9, 12.0
APART = 3  # looks; a longer silence is a gap in a graph
OF_NODE = ("time_s", "use", "memory", "kv")
OF_SESSION = ("tokens_per_s", "step_p95_s")
Points = list[tuple[float, float]]  # when, by the wall clock; how much, 0: nothing


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """One frame: `len(OF_NODE)` figures of each node, then `len(OF_SESSION)` of each session."""

    wall_s: float
    nodes: tuple[str, ...]
    sessions: tuple[str, ...]
    figures: array[float]


@dataclass(frozen=True, slots=True, eq=False)
class Looks:
    """Both series, oldest first."""

    fine: tuple[Look, ...] = ()
    coarse: tuple[Look, ...] = ()

    def with_frame(self, status: ClusterStatus, wall_s: float) -> Looks:
        """One frame more, unless the last look is too fresh; a clock that went back (a replay that jumped) takes what came after it."""
        fine = tuple(look for look in self.fine if look.wall_s <= wall_s) if self.fine and self.fine[-1].wall_s > wall_s else self.fine
        if fine and wall_s - fine[-1].wall_s < FINE_EVERY_S:
            return self
        look = _look(status, wall_s, fine[-1] if fine else None)
        coarse = tuple(old for old in self.coarse if old.wall_s <= wall_s and wall_s - old.wall_s <= COARSE_SPAN_S + COARSE_EVERY_S)
        if not coarse or wall_s - coarse[-1].wall_s >= COARSE_EVERY_S:
            coarse = (*coarse, look)
        first = next((i for i, old in enumerate(fine) if wall_s - old.wall_s <= FINE_SPAN_S + FINE_EVERY_S), len(fine))
        return Looks((*fine[first:], look), coarse)

    def of_node(self, name: str, figure: str, span_s: float) -> Points:
        """What was seen of one figure of a node; nothing where it was not there."""
        at = OF_NODE.index(figure)
        return [(look.wall_s, look.figures[look.nodes.index(name) * len(OF_NODE) + at]) for look in self._of(span_s) if name in look.nodes]

    def of_session(self, name: str, figure: str, span_s: float) -> Points:
        """The same of a session."""
        at, size = OF_SESSION.index(figure), len(OF_SESSION)
        return [
            (look.wall_s, look.figures[len(look.nodes) * len(OF_NODE) + look.sessions.index(name) * size + at])
            for look in self._of(span_s)
            if name in look.sessions
        ]

    def _of(self, span_s: float) -> tuple[Look, ...]:
        return self.fine if span_s <= FINE_SPAN_S else self.coarse


def _look(status: ClusterStatus, wall_s: float, before: Look | None) -> Look:
    """Names that did not change are not kept twice."""
    stages = {stage.worker_id: stage for stage in status.stages}
    figures = array("f")
    for node in status.nodes:
        figures.extend(_of_node(node, stages.get(node.worker_id)))
    for session in status.sessions:
        figures.extend((session.tokens_per_s, session.step_p95_s))
    nodes, sessions = tuple(node.worker_id for node in status.nodes), tuple(session.session_id for session in status.sessions)
    if before is not None:
        nodes = before.nodes if before.nodes == nodes else nodes
        sessions = before.sessions if before.sessions == sessions else sessions
    return Look(wall_s, nodes, sessions, figures)


def _of_node(node: NodeStatus, stage: StageStatus | None) -> tuple[float, ...]:
    """A lost node does nothing any more, whatever it did last."""
    from engine.diagnosis.diagnose import memory_share  # not for the first paint

    if node.state is NodeState.LOST:
        return (0.0,) * len(OF_NODE)
    gauges = node.gauges
    use = gauges.gpu_utilisation if gauges.gpu_utilisation is not None else gauges.cpu_utilisation
    kv = gauges.kv_used_bytes / node.kv_budget_bytes if node.kv_budget_bytes > 0 else 0.0
    return (stage.compute_p50_s if stage is not None and stage.num_steps else 0.0, use, memory_share(node), kv)


def columns(points: Sequence[tuple[float, float]], now_s: float, span_s: float, width: int) -> list[float]:
    """The highest figure of each column's time; the last column is now. Columns stand at fixed moments: between them nothing moves.

    A column that lies between two looks shows the later one; a silence of more than `APART` looks stays blank.
    """
    found, column_s = [0.0] * width, span_s / width
    gap_s = APART * (1.0 if span_s <= FINE_SPAN_S else COARSE_EVERY_S)
    before_s, before = -1e18, -1
    for wall_s, value in points:
        x = column_of(wall_s, now_s, column_s, width)
        for i in range(max(0, before + 1 if wall_s - before_s <= gap_s else x), min(x, width - 1) + 1):
            found[i] = max(found[i], value)
        if 0 <= x < width:
            found[x] = max(found[x], value)
        before_s, before = wall_s, x
    return found


def column_of(wall_s: float, now_s: float, column_s: float, width: int) -> int:
    """In which column a moment lies; negative before the first."""
    return int(wall_s // column_s) - int(now_s // column_s) + width - 1
