"""Recordings of clusters that live: the deterministic source of frames for byte budgets and benchmarks.

Alone it writes one to look at: `python -m tests.tui.recordings FILE [NODES] [FRAMES]`, then `noodle-console --replay FILE`.
"""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from pathlib import Path

from engine.data.status import SessionStatus, Severity
from engine.data.watch_frame import WatchFrame
from noodle_tui.cluster.recording import Recorder
from tests.tui import frames

WALL_S = 1_700_000_000.0
HISTORY = 40


def lively(tick: int, num_nodes: int) -> WatchFrame:
    """Every row changes at every tick: times wander, sessions grow, now and then there is an event."""
    stages, nodes = [], []
    for i in range(num_nodes):
        history = tuple(_time_s(i, tick - HISTORY + 1 + j) for j in range(HISTORY))
        name = f"node-{i:03}"
        stages.append(
            frames.stage(name, i, i + 1, _planned_s(i), compute_p50_s=history[-1], compute_p95_s=history[-1] * 1.3, history_s=history)
        )
        kv = int((0.3 + 0.2 * math.sin(tick / 7 + i)) * frames.GIB)
        nodes.append(frames.node(name, i, i + 1, cpu_utilisation=0.4 + 0.3 * math.sin(tick / 3 + i), kv_used_bytes=kv))
    times = [stage.compute_p50_s for stage in stages]
    status = frames.status(
        nodes=tuple(nodes), stages=tuple(stages), num_items=num_nodes, num_workers_expected=num_nodes, sessions=_sessions(tick),
        tokens_per_s=80 + 5 * math.sin(tick / 5), step_p50_s=sum(times) + 0.003, step_p95_s=sum(times) * 1.3, uptime_s=3600.0 + tick,
    )  # fmt: skip
    events = [frames.event(tick, f"event number {tick}", Severity.OK)] if tick % 10 == 1 else []
    return frames.frame(status, *events)


def write(path: Path, num_nodes: int, num_frames: int, *, still: bool = False) -> Path:
    """A recording at one frame a second; a still one says the same every time."""
    recorder = Recorder(path, "fake", WALL_S, 0.0)
    for tick in range(1, num_frames + 1):
        frame = lively(1 if still else tick, num_nodes)
        recorder.frame(replace(frame, events=frame.events if not still or tick == 1 else ()), WALL_S + tick, float(tick))
    recorder.close()
    return path


def _planned_s(i: int) -> float:
    return 0.002 + 0.0007 * (i % 7)


def _time_s(i: int, tick: int) -> float:
    return _planned_s(i) * (1 + 0.25 * math.sin(tick / 3 + i))


def _sessions(tick: int) -> tuple[SessionStatus, ...]:
    return tuple(
        SessionStatus(f"s-{i:08x}", "decode", 12 + i, (tick * 9 + 30 * i) % 512, 512, 0.2, 9.0 + math.sin(tick + i), float(tick))
        for i in range(8)
    )


if __name__ == "__main__":
    write(Path(sys.argv[1]), *(int(text) for text in sys.argv[2:4] or ("4", "600")))
