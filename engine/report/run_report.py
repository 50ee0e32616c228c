"""A run's metrics log as an HTML page and as a summary: stage latency over time, plan changes marked, events.

It reads what `service.recorder` wrote and knows nothing of a running cluster. Times on the page are wall-clock times.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.data.errors import NotFound
from engine.files import replace_whole
from engine.report.jsonl import LogRead, LogRecord, read_log
from engine.report.page import render_page

MAX_POINTS = 2000  # per line: more than a screen has columns
MAX_EVENTS = 5000
GAP_S = 6.0  # longer than the slowest sampling: the line breaks
_SCRIPTS = ("names.js", "chart.js", "table.js", "run.js")
_STAGE = ("compute_p50_s", "compute_p95_s", "queue_p50_s", "wire_in_p50_s", "wire_out_p50_s", "predicted_s")
_NODE = (
    "resident_bytes", "kv_used_bytes", "cpu_utilisation", "gpu_utilisation", "cpu_temperature_c", "gpu_temperature_c", "queue_depth",
)  # fmt: skip
_CLUSTER = ("tokens_per_s", "num_sessions", "decode_step_p50_s", "prefill_step_p50_s")


@dataclass(frozen=True, slots=True)
class Run:
    """The newest run of a log, and what of the log could not be read."""

    about: dict[str, Any]
    records: tuple[LogRecord, ...]
    num_earlier_runs: int
    num_torn: int
    num_damaged: int

    def of(self, kind: str) -> list[LogRecord]:
        return [r for r in self.records if r.kind == kind]

    @property
    def num_lost(self) -> int:
        """Records that could not be written; a lower bound, for a log that ends while it cannot be written does not say."""
        told = [int(r.data.get("num_records", 0)) for r in self.of("lost") if isinstance(r.data.get("num_records"), int)]
        return sum(told)


def read_run(path: Path) -> Run:
    """The newest run in a folder or log file; raises NotFound if there is none."""
    return newest_run(read_log(path), path)


def newest_run(read: LogRead, path: Path) -> Run:
    starts = [i for i, r in enumerate(read.records) if r.kind == "run"]
    first = starts[-1] if starts else 0
    records = read.records[first:]
    if not any(r.kind in ("stage", "node", "event") for r in records):
        raise NotFound(f"{path} holds no run ({len(read.records)} records, {read.num_damaged + read.num_torn} unreadable lines)")
    about = dict(records[0].data) if starts else {}
    return Run(about, records, max(0, len(starts) - 1), read.num_torn, read.num_damaged)


def write_run_report(run: Run, path: Path) -> None:
    """Write the page, whole or not at all; raises NoodleError when the disk refuses."""
    title = f"{run.about.get('cluster_id', 'run')}: run"
    replace_whole(path, render_page("run.html", title, run_document(run), _SCRIPTS))


def run_summary(run: Run) -> dict[str, Any]:
    """What a script wants to know of a run; medians over its samples, weighted by their steps."""
    return {
        "run": run.about,
        "start_wall_s": run.records[0].wall_s,
        "duration_s": run.records[-1].monotonic_s - run.records[0].monotonic_s,
        "stages": [_stage_summary(key, rows) for key, rows in _by_stage(run).items()],
        "plans": [{"wall_s": r.wall_s, **r.data} for r in run.of("plan")],
        "num_events": len(run.of("event")),
        "events": [{"wall_s": r.wall_s, **r.data} for r in run.of("event")][-MAX_EVENTS:],
        "num_records": len(run.records),
        "num_lost": run.num_lost,
        "num_torn": run.num_torn,
        "num_damaged": run.num_damaged,
        "num_earlier_runs": run.num_earlier_runs,
    }


def _by_stage(run: Run) -> dict[tuple[str, str], list[LogRecord]]:
    found: dict[tuple[str, str], list[LogRecord]] = defaultdict(list)
    for record in run.of("stage"):
        found[str(record.data.get("worker_id", "")), str(record.data.get("phase", ""))].append(record)
    return found


def _stage_summary(key: tuple[str, str], rows: list[LogRecord]) -> dict[str, Any]:
    weights = [n if isinstance(n := r.data.get("num_steps"), int) and n > 0 else 1 for r in rows]
    medians = {name: _weighted_median([(r.data.get(name), w) for r, w in zip(rows, weights, strict=True)]) for name in _STAGE}
    return {"worker_id": key[0], "phase": key[1], "num_steps": sum(weights), **medians}


def _weighted_median(pairs: Iterable[tuple[Any, int]]) -> float | None:
    known = sorted((float(value), weight) for value, weight in pairs if isinstance(value, int | float))
    left = sum(weight for _, weight in known) / 2
    for value, weight in known:
        left -= weight
        if left <= 0:
            return value
    return None


# --- the page -----------------------------------------------------------------------------------------------------
def run_document(run: Run) -> dict[str, Any]:
    """What the page draws: lines over time in milliseconds since 1970, and the events."""
    summary = run_summary(run)
    events = [
        {"time_ms": 1e3 * e.pop("wall_s"), **{k: str(e.get(k, "")) for k in ("severity", "kind", "subject", "text")}}
        for e in summary["events"]
    ]
    return {
        **{name: summary[name] for name in ("run", "start_wall_s", "duration_s", "stages", "num_events", "num_records", "num_lost")},
        **{name: summary[name] for name in ("num_torn", "num_damaged", "num_earlier_runs")},
        "events": events,
        "plans": [_plan(r) for r in run.of("plan")],
        "stage_lines": [{"worker_id": w, "phase": p, **_lines(rows, _STAGE)} for (w, p), rows in _by_stage(run).items()],
        "node_lines": [{"worker_id": w, **_lines(rows, _NODE)} for w, rows in _by_worker(run.of("node")).items()],
        "cluster_lines": _lines(run.of("cluster"), _CLUSTER),
    }


def _plan(record: LogRecord) -> dict[str, Any]:
    stages = record.data.get("stages")
    shown = [s for s in stages if isinstance(s, dict)] if isinstance(stages, list) else []
    text = " | ".join(f"{s.get('node_id')} {s.get('start')}..{s.get('stop')}" for s in shown)
    return {
        "time_ms": 1e3 * record.wall_s,
        "version": record.data.get("plan_version"),
        "strategy": str(record.data.get("strategy", "")),
        "text": text,
    }


def _by_worker(records: Sequence[LogRecord]) -> dict[str, list[LogRecord]]:
    found: dict[str, list[LogRecord]] = defaultdict(list)
    for record in records:
        found[str(record.data.get("worker_id", ""))].append(record)
    return found


def _lines(records: Sequence[LogRecord], names: Sequence[str]) -> dict[str, list[float | None]]:
    """Columns over time, thinned to MAX_POINTS by medians; a hole in time becomes an empty point."""
    columns: dict[str, list[float | None]] = {"time_ms": [], **{name: [] for name in names}}
    before_s = records[0].wall_s if records else 0.0
    for part in _parts(records, -(-len(records) // MAX_POINTS)):
        if part[0].wall_s - before_s > GAP_S:
            _append(columns, (before_s + part[0].wall_s) / 2, dict.fromkeys(names))
        _append(columns, part[len(part) // 2].wall_s, {name: _median(r.data.get(name) for r in part) for name in names})
        before_s = part[-1].wall_s
    return columns


def _parts(records: Sequence[LogRecord], size: int) -> Iterator[list[LogRecord]]:
    """Neighbours, at most `size` together, never across a hole in time."""
    part: list[LogRecord] = []
    for record in records:
        if part and (len(part) == size or record.wall_s - part[-1].wall_s > GAP_S):
            yield part
            part = []
        part.append(record)
    if part:
        yield part


def _append(columns: dict[str, list[float | None]], wall_s: float, values: dict[str, float | None]) -> None:
    columns["time_ms"].append(round(1e3 * wall_s))
    for name, value in values.items():
        columns[name].append(value)


def _median(values: Iterable[Any]) -> float | None:
    known = [float(v) for v in values if isinstance(v, int | float)]
    return float(f"{statistics.median(known):.6g}") if known else None
