"""What a run leaves behind: step timings, gauges, plans and events, aggregated to at most two samples a second.

The shell shows it every cluster event with the commands that followed; it keeps numbers, and lets a `JsonlWriter` carry them to
disk on its own thread. It decides nothing, and no token waits for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from engine.control import commands as do
from engine.control import events as on
from engine.control.sessions.window import quantile
from engine.data.generation import StageTiming
from engine.data.status import ClusterStatus, Event, NodeStatus
from engine.report.jsonl_writer import JsonlWriter

SAMPLE_S = 0.5
IDLE_SAMPLE_S = 5.0  # memory and temperatures move while nothing runs, too
MAX_STEPS_KEPT = 4096  # per stage and sample: the first ones, if there are ever more
_TIMES = ("compute_s", "queue_s", "wire_in_s", "wire_out_s")


class Recorder:
    """`status` is asked once per sample; with `every_step` each step leaves a record of its own as well."""

    def __init__(self, writer: JsonlWriter, status: Callable[[], ClusterStatus], every_step: bool = False) -> None:
        self._writer, self._status, self._every_step = writer, status, every_step
        self._plan_version = 0
        self._sent_s: dict[int, float] = {}
        self._steps: dict[tuple[str, str], list[StageTiming]] = {}  # by (worker id, phase), of the current sample
        self._whole_s: dict[str, list[float]] = {}  # by phase: from sending a step to its report
        self._num_steps = 0
        self._sampled_s = float("-inf")

    def start(self, run: dict[str, Any]) -> None:
        """The first record of a run: what runs, and with which options."""
        self._writer.write("run", run)

    def event(self, event: Event) -> None:
        """Something that an operator should be able to read later."""
        self._writer.write("event", asdict(event), event.cause_id or f"{event.kind}:{event.subject}")

    def observe(self, event: on.ClusterEvent, commands: Sequence[do.Command], now_s: float) -> None:
        """Called for every event of the cluster with what it led to."""
        if isinstance(event, on.StepReported):
            self._add_step(event, now_s)
        elif isinstance(event, on.StepUndelivered):
            self._sent_s.pop(event.step_id, None)
        elif isinstance(event, on.Tick):
            self._sample(now_s)
        for command in commands:
            if isinstance(command, do.SendStep):
                if command.segments:
                    self._sent_s[command.step_id] = now_s
            elif isinstance(command, do.AdoptPlan):
                self._adopt(command)

    def close(self) -> None:
        self._writer.close()

    # ------------------------------------------------------------------------------------------ steps
    def _adopt(self, command: do.AdoptPlan) -> None:
        self._plan_version = command.plan.plan_version
        self._sent_s.clear()
        self._steps.clear()
        self._whole_s.clear()
        self._writer.write("plan", asdict(command.plan), f"plan-{command.plan.plan_version}")

    def _add_step(self, event: on.StepReported, now_s: float) -> None:
        sent_s = self._sent_s.pop(event.step_id, None)
        if event.plan_version != self._plan_version or not event.outcomes or any(o.error for o in event.outcomes):
            return
        # The token at index 0 comes from the last prompt chunk: only later ones are decode steps.
        phase = "decode" if all(o.sample_index for o in event.outcomes) else "prefill"
        self._num_steps += 1
        for timing in event.timings:
            kept = self._steps.setdefault((timing.worker_id, phase), [])
            if len(kept) < MAX_STEPS_KEPT:
                kept.append(timing)
        if sent_s is not None and len(whole_s := self._whole_s.setdefault(phase, [])) < MAX_STEPS_KEPT:
            whole_s.append(now_s - sent_s)
        if self._every_step:
            self._write_step(event, phase, now_s - sent_s if sent_s is not None else None)

    def _write_step(self, event: on.StepReported, phase: str, step_s: float | None) -> None:
        sessions = [*dict.fromkeys(o.session_id for o in event.outcomes)]
        data = {"plan_version": event.plan_version, "phase": phase, "step_s": step_s, "sessions": sessions, "stages": event.timings}
        self._writer.write("step", data, f"step-{event.step_id}")

    # ------------------------------------------------------------------------------------------ samples
    def _sample(self, now_s: float) -> None:
        waited_s = now_s - self._sampled_s
        if waited_s < (SAMPLE_S if self._num_steps else IDLE_SAMPLE_S):
            return
        status = self._status()
        cause_id = f"plan-{status.plan_version}"
        self._writer.write("cluster", self._cluster(status, min(waited_s, IDLE_SAMPLE_S)), cause_id)
        for (worker_id, phase), timings in self._steps.items():
            self._writer.write("stage", {"worker_id": worker_id, "phase": phase, **_figures(status, worker_id, timings)}, cause_id)
        for node in status.nodes:
            self._writer.write("node", _node(node), cause_id)
        self._steps, self._whole_s, self._num_steps, self._sampled_s = {}, {}, 0, now_s

    def _cluster(self, status: ClusterStatus, interval_s: float) -> dict[str, Any]:
        steps = {f"{phase}_step_p50_s": quantile(values, 0.5) for phase, values in self._whole_s.items()}
        return {
            "phase": str(status.phase),
            "plan_version": status.plan_version,
            "tokens_per_s": status.speed.tokens_per_s,
            "num_sessions": len(status.sessions),
            "num_sessions_done": status.ended.num_done,
            "num_sessions_failed": status.ended.num_failed,
            "num_steps": self._num_steps,
            "interval_s": interval_s,
            **steps,
            "num_records_lost": self._writer.num_lost,
        }


def _figures(status: ClusterStatus, worker_id: str, timings: list[StageTiming]) -> dict[str, Any]:
    """Medians of one stage's steps, seconds, and its 95th percentile of compute."""
    found: dict[str, Any] = {"plan_version": status.plan_version, "num_steps": len(timings)}
    for name in _TIMES:
        found[f"{name.removesuffix('_s')}_p50_s"] = quantile([getattr(t, name) for t in timings], 0.5)
    found["compute_p95_s"] = quantile([t.compute_s for t in timings], 0.95)
    stage = next((s for s in status.stages if s.worker_id == worker_id), None)
    if stage is not None:
        found.update(start=stage.start, stop=stage.stop, predicted_s=stage.predicted_s)
    return found


_NODE = ("worker_id", "state", "start", "stop", "memory_bytes", "kv_budget_bytes", "heartbeat_age_s")


def _node(node: NodeStatus) -> dict[str, Any]:
    """One node's line: where it is in the plan, and every gauge."""
    return {name: getattr(node, name) for name in _NODE} | asdict(node.gauges)
