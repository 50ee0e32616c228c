"""What a coordinator counts and times for Prometheus: sessions, tokens, steps, moves and decisions since it began.

The shell shows it every cluster event with the commands that followed, as it does the recorder. Names and buckets are vLLM's where both
mean the same, so that a dashboard for one is soon one for the other. Written on the event loop, read by the threads that answer scrapes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector

from engine.control import commands as do
from engine.control import events as on
from engine.control.adaptation.history import Verdict
from engine.control.adapting import DONE
from engine.control.cluster import Cluster
from engine.data.errors import NoodleError
from engine.data.generation import FinishReason
from engine.data.moves import MoveReport
from engine.report.prometheus import safe_label

FIRST_TOKEN_S = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640, 2560)
_NEXT_TOKEN_S = (0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80)
_REQUEST_S = (0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680)
_STEP_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_HOP_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1)


@dataclass(slots=True)
class _Times:
    """Of one session that runs, on the cluster's clock."""

    num_prompt: int
    submitted_s: float
    is_known_from_its_start: bool  # not taken over from a former coordinator in the middle
    was_sent: bool = False
    first_s: float | None = None
    last_s: float = 0.0
    num_tokens: int = 0


class RequestFigures:
    """Of whole requests, as a caller sees them."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def seconds(name: str, text: str, buckets: Sequence[float]) -> Histogram:
            return Histogram(name, text, buckets=buckets, registry=registry)

        self.first_token = seconds("noodle_time_to_first_token_seconds", "from a request to its first token", FIRST_TOKEN_S)
        self.next_token = seconds("noodle_inter_token_latency_seconds", "between two tokens of a request", _NEXT_TOKEN_S)
        self.mean_token = seconds("noodle_request_time_per_output_token_seconds", "mean of a request after its first token", _NEXT_TOKEN_S)
        self.queue = seconds("noodle_request_queue_time_seconds", "from a request to its first step", _REQUEST_S)
        self.whole = seconds("noodle_e2e_request_latency_seconds", "from a request to its end", _REQUEST_S)
        self.prompt_tokens = Counter("noodle_prompt_tokens", "of prompts that got their first token", registry=registry)
        self.generation_tokens = Counter("noodle_generation_tokens", "tokens generated", registry=registry)
        self.success = Counter("noodle_request_success", "requests that ended without an error", ["finished_reason"], registry=registry)
        self.failures = Counter("noodle_request_failures", "requests that ended with an error, by its kind", ["cause"], registry=registry)
        self.refused = Counter("noodle_requests_refused", "requests that never began, by the kind of error", ["cause"], registry=registry)
        for reason in (FinishReason.STOP, FinishReason.LENGTH, FinishReason.CANCELLED):
            self.success.labels(str(reason))  # a series that is there from the start has a rate at its first increase
        for cause in ("exhausted", "unavailable", "corrupt", "bug"):
            self.failures.labels(cause)
        for cause in ("exhausted", "unavailable", "invalid_input"):
            self.refused.labels(cause)


class StepFigures:
    """Of steps: all of the pipeline, and each stage's part."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.whole = Histogram("noodle_step_seconds", "from sending a step to its report", ["phase"], buckets=_STEP_S, registry=registry)
        self.stage = Histogram(
            "noodle_stage_step_seconds", "computing a step on a stage", ["worker", "phase"], buckets=_STEP_S, registry=registry
        )
        self.queue = Histogram(
            "noodle_stage_queue_seconds", "a step's wait for a stage's compute thread", ["worker"], buckets=_HOP_S, registry=registry
        )
        self.hop = Histogram(
            "noodle_hop_seconds", "what a step spent between stages, by the number of its hops", buckets=_HOP_S, registry=registry
        )
        for phase in ("prefill", "decode"):
            self.whole.labels(phase)


class ChangeFigures:
    """Of what changes under the sessions: plans, workers."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.moves = Counter("noodle_moves", "live changes of the plan that ended: done, or dropped", ["outcome"], registry=registry)
        self.moved = Counter("noodle_moved_bytes", "weights read and keys and values copied by moves", ["kind"], registry=registry)
        self.pause = Histogram("noodle_move_pause_seconds", "tokens waited for a move", buckets=_STEP_S, registry=registry)
        self.decisions = Counter("noodle_adaptation_decisions", "of adaptation, by verdict", ["verdict"], registry=registry)
        self.recoveries = Counter("noodle_session_recoveries", "sessions sent again from their first token", registry=registry)
        self.lost = Counter("noodle_workers_lost", "workers that were given up", registry=registry)
        for counter, values in ((self.moves, ("done", "dropped")), (self.moved, ("weights", "kv")), (self.decisions, Verdict)):
            for value in values:
                counter.labels(str(value))


class Tally:
    """Everything that is counted, in one `registry`."""

    def __init__(self, cluster: Cluster) -> None:
        self.registry = CollectorRegistry(auto_describe=False)
        ProcessCollector(registry=self.registry)
        self._requests, self._steps = RequestFigures(self.registry), StepFigures(self.registry)
        self._changes = ChangeFigures(self.registry)
        self._cluster = cluster
        self._sessions: dict[str, _Times] = {}
        self._sent_s: dict[int, float] = {}  # of steps in flight
        self._told_version = cluster.plan_version  # of the last move that was counted
        self._told_decision = 0

    # ------------------------------------------------------------------------------------------ called by the shell
    def observe(self, event: on.ClusterEvent, commands: Sequence[do.Command], now_s: float) -> None:
        """Called for every event of the cluster with what it led to."""
        if isinstance(event, on.SessionSubmitted):
            self._sessions[event.session_id] = _Times(len(event.prompt_ids), now_s, True)
        elif isinstance(event, on.SessionRestored):
            self._sessions[event.session_id] = _Times(len(event.prompt_ids), now_s - event.age_s, not event.generated)
        elif isinstance(event, on.StepReported):
            self._add_step(event, now_s)
        elif isinstance(event, on.StepUndelivered):
            self._sent_s.pop(event.step_id, None)
        for command in commands:
            if isinstance(command, do.SendStep):
                self._send(command, now_s)
            elif isinstance(command, do.EmitToken):
                self._add_token(command, now_s)
            elif isinstance(command, do.AdoptPlan):  # what was in flight under another plan does not come back
                self._sent_s.clear()
            elif isinstance(command, do.DropWorker):
                member = self._cluster.members.get(command.worker_id)
                self._changes.lost.inc(member is None or not member.leaving)
        self._add_changes()

    def refused(self, event: on.ClusterEvent, error: NoodleError) -> None:
        """The cluster did not take that event."""
        if isinstance(event, on.SessionSubmitted):
            self._requests.refused.labels(_kind(error)).inc()

    def ended(self, session_id: str, reason: FinishReason, error: Exception | None, now_s: float) -> None:
        """A session is over, as its client was told."""
        times = self._sessions.pop(session_id, None)
        if reason is FinishReason.ERROR:
            self._requests.failures.labels(_kind(error)).inc()
        else:
            self._requests.success.labels(str(reason)).inc()
        if times is None:
            return
        self._requests.whole.observe(now_s - times.submitted_s)
        if times.first_s is not None and times.num_tokens > 1:
            self._requests.mean_token.observe((times.last_s - times.first_s) / (times.num_tokens - 1))

    # ------------------------------------------------------------------------------------------ sessions
    def _send(self, command: do.SendStep, now_s: float) -> None:
        if command.segments:
            self._sent_s[command.step_id] = now_s
        for segment in command.segments:
            times = self._sessions.get(segment.session_id) if segment.sampling is not None else None  # it opens the session
            if times is None:
                continue
            if times.was_sent:
                self._changes.recoveries.inc()
            elif times.is_known_from_its_start:
                self._requests.queue.observe(now_s - times.submitted_s)
            times.was_sent = True

    def _add_token(self, command: do.EmitToken, now_s: float) -> None:
        self._requests.generation_tokens.inc()
        times = self._sessions.get(command.session_id)
        if times is None:
            return
        if times.first_s is not None:
            self._requests.next_token.observe(now_s - times.last_s)
        else:
            times.first_s = now_s
            if times.is_known_from_its_start:
                self._requests.first_token.observe(now_s - times.submitted_s)
                self._requests.prompt_tokens.inc(times.num_prompt)
        times.last_s, times.num_tokens = now_s, times.num_tokens + 1

    # ------------------------------------------------------------------------------------------ steps
    def _add_step(self, event: on.StepReported, now_s: float) -> None:
        sent_s = self._sent_s.pop(event.step_id, None)
        if sent_s is None or not event.outcomes or any(o.error for o in event.outcomes):
            return
        # The token at index 0 comes from the last prompt chunk: only later ones are decode steps.
        phase = "decode" if all(o.sample_index for o in event.outcomes) else "prefill"
        self._steps.whole.labels(phase).observe(now_s - sent_s)
        spent_s = 0.0
        for timing in event.timings:
            self._steps.stage.labels(timing.worker_id, phase).observe(timing.compute_s)
            self._steps.queue.labels(timing.worker_id).observe(timing.queue_s)
            spent_s += timing.compute_s + timing.queue_s
        self._steps.hop.observe(max(0.0, now_s - sent_s - spent_s) / (len(event.timings) + 1))

    # ------------------------------------------------------------------------------------------ plans
    def _add_changes(self) -> None:
        """Moves and decisions since the last event; both have numbers that rise."""
        for report in reversed(self._cluster.rebalancer.reports):
            if report.plan_version <= self._told_version:
                break
            self._add_move(report)
        if reports := self._cluster.rebalancer.reports:
            self._told_version = max(self._told_version, reports[-1].plan_version)
        history = self._cluster.adapting.planner.history
        if history.last_id > self._told_decision:
            for decision in history:
                if decision.decision_id > self._told_decision:
                    self._changes.decisions.labels(str(decision.verdict)).inc()
            self._told_decision = history.last_id

    def _add_move(self, report: MoveReport) -> None:
        self._changes.moves.labels("done" if report.outcome == DONE else "dropped").inc()
        self._changes.moved.labels("weights").inc(report.weight_bytes)
        self._changes.moved.labels("kv").inc(report.kv_bytes)
        if report.outcome == DONE:
            self._changes.pause.observe(report.pause_s)


def _kind(error: Exception | None) -> str:
    """`InvalidInput` is `invalid_input`."""
    return safe_label(re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(error).__name__).lower()) if error is not None else "unknown"
