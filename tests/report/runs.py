"""Runs made up for the reports: two workers, a plan change, a lost worker, a pause, any names."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine.report.jsonl import LogRecord, encode

START_S = 1.7e9


def write_run(path: Path, num_samples: int = 120, workers: Sequence[str] = ("w1", "w2"), cluster_id: str = "noodle-ab12") -> Path:
    """A log of `num_samples` samples, two a second, appended to `path`."""
    rows = [_row(0, "run", {"cluster_id": cluster_id, "model": "gpt2 (random weights, seed 0)", "strategy": "balanced", "pid": 1})]
    rows.append(_row(1, "plan", _plan(1, workers)))
    rows.append(_row(1, "event", _event("OK", "plan", "#1", "serving on 2 stages")))
    for number in range(num_samples):
        at_s = 2 + number / 2 + (30 if number > num_samples // 2 else 0)  # half a minute of silence in the middle
        rows += _sample(at_s, number, 1 if number < num_samples // 2 else 2, workers)
        if number == num_samples // 2:
            rows.append(_row(at_s, "plan", _plan(2, workers[::-1])))
            rows.append(_row(at_s, "event", _event("ERROR", "node", workers[0], f"{workers[0]} lost: no heartbeat for 3.0 s")))
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as stream:
        stream.write(b"".join(encode(r) for r in rows))
    return path


def _sample(at_s: float, number: int, version: int, workers: Sequence[str]) -> list[LogRecord]:
    wave = 1 + 0.2 * math.sin(number / 7)
    rows = [_row(at_s, "cluster", {"plan_version": version, "tokens_per_s": 40 * wave, "num_sessions": 2, "decode_step_p50_s": 0.02})]
    for index, worker in enumerate(workers):
        for phase, factor in (("decode", 1.0), ("prefill", 6.0)):
            compute_s = 0.008 * (index + 1) * wave * factor
            times = {"compute_p50_s": compute_s, "compute_p95_s": 1.3 * compute_s, "queue_p50_s": 2e-4, "wire_in_p50_s": 1e-4}
            more = {"wire_out_p50_s": 2e-4, "predicted_s": 0.008 * (index + 1), "plan_version": version, "num_steps": 25}
            rows.append(_row(at_s, "stage", {"worker_id": worker, "phase": phase, **times, **more}))
        gauges = {
            "resident_bytes": 4e8 + 1e6 * number,
            "kv_used_bytes": 1e6 * number,
            "cpu_utilisation": 0.9 * wave,
            "queue_depth": number % 3,
        }
        heat = {
            "cpu_temperature_c": 55 + number / 20,
            "gpu_utilisation": 0.4 if index else None,
            "gpu_temperature_c": 60.0 if index else None,
        }
        rows.append(_row(at_s, "node", {"worker_id": worker, **gauges, **heat}))
    return rows


def _plan(version: int, workers: Sequence[str]) -> dict[str, Any]:
    stages = [{"node_id": w, "start": 7 * i, "stop": 7 * i + 7} for i, w in enumerate(workers)]
    return {"plan_version": version, "strategy": "balanced", "stages": stages}


def _event(severity: str, kind: str, subject: str, text: str) -> dict[str, Any]:
    return {"severity": severity, "kind": kind, "subject": subject, "text": text}


def _row(at_s: float, kind: str, data: dict[str, Any]) -> LogRecord:
    return LogRecord(kind, data, "", START_S + at_s, 50.0 + at_s)
