"""A trace of each request for OpenTelemetry: from its arrival to its end, with a span per stage for some of its steps.

The shell shows it every cluster event with the commands that followed, as it does the tally. The stages' clocks are not this machine's:
a stage's span has the length that the stage measured, and lies in its step behind those before it, with equal hops between them.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_INSTANCE_ID, SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from engine.control import commands as do
from engine.control import events as on
from engine.data.errors import InvalidInput
from engine.data.generation import FinishReason, StageTiming
from engine.data.version import own_version
from engine.service.tracing.parent import NAME, parent

FIRST_STEPS = 3  # of a session, which have spans: its prompt, and how it begins
EACH_STEP = 32  # and of those after them each so manyth
FLUSH_LIMIT_MS = 500
_PATH = "/v1/traces"


@dataclass(slots=True)
class _Traced:
    """One session that runs."""

    span: Span
    num_steps: int = 0  # sent
    num_tokens: int = 0


@dataclass(slots=True)
class _Flight:
    """A step in flight, and the spans of the sessions that follow it."""

    sent_s: float
    spans: list[tuple[str, Span]] = field(default_factory=list)


class Tracer:
    """Ended by `close`. All times of its callers are those of the monotonic clock."""

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("noodlecore", own_version().package_version)
        self._sessions: dict[str, _Traced] = {}
        self._flights: dict[int, _Flight] = {}

    def observe(self, event: on.ClusterEvent, commands: Sequence[do.Command], now_s: float) -> None:
        """Called for every event of the cluster with what it led to."""
        if isinstance(event, on.SessionSubmitted):
            self._begin(event.session_id, len(event.prompt_ids), _context(parent()), now_s)
        elif isinstance(event, on.SessionRestored):
            self._begin(event.session_id, len(event.prompt_ids), Context(), now_s)
        elif isinstance(event, on.StepReported):
            self._end_step(event, now_s)
        elif isinstance(event, on.StepUndelivered):
            self._drop(event.step_id, event.message, now_s)
        for command in commands:
            if isinstance(command, do.SendStep):
                self._begin_step(command, now_s)
            elif isinstance(command, do.EmitToken):
                self._add_token(command.session_id, now_s)
            elif isinstance(command, do.AdoptPlan):  # what was in flight under another plan does not come back
                for step_id in [*self._flights]:
                    self._drop(step_id, "the plan changed", now_s)

    def ended(self, session_id: str, reason: FinishReason, error: Exception | None, now_s: float) -> None:
        """A session is over, as its client was told."""
        traced = self._sessions.pop(session_id, None)
        if traced is None:
            return
        traced.span.set_attribute("gen_ai.usage.output_tokens", traced.num_tokens)
        traced.span.set_attribute("gen_ai.response.finish_reasons", (str(reason),))
        if reason is FinishReason.ERROR:
            traced.span.set_attribute("error.type", type(error).__name__ if error is not None else "unknown")
            traced.span.set_status(Status(StatusCode.ERROR, str(error or "")))
        traced.span.end(_ns(now_s))

    def close(self) -> None:
        """Send what is left, for a moment."""
        self._provider.force_flush(FLUSH_LIMIT_MS)

    def _begin(self, session_id: str, num_prompt: int, context: Context, now_s: float) -> None:
        span = self._tracer.start_span("generate", context, SpanKind.SERVER, start_time=_ns(now_s))
        span.set_attributes({"noodle.session_id": session_id, "gen_ai.usage.input_tokens": num_prompt})
        self._sessions[session_id] = _Traced(span)

    def _add_token(self, session_id: str, now_s: float) -> None:
        if (traced := self._sessions.get(session_id)) is not None:
            traced.num_tokens += 1
            if traced.num_tokens == 1:
                traced.span.add_event("first token", timestamp=_ns(now_s))

    # ------------------------------------------------------------------------------------------ steps
    def _begin_step(self, command: do.SendStep, now_s: float) -> None:
        flight = _Flight(now_s)
        for session_id, num_tokens in _tokens_of(command).items():
            traced = self._sessions.get(session_id)
            if traced is None:
                continue
            traced.num_steps += 1
            if not traced.span.is_recording() or not is_chosen(traced.num_steps):
                continue
            span = self._tracer.start_span("step", set_span_in_context(traced.span, Context()), start_time=_ns(now_s))
            span.set_attributes({"noodle.step_id": command.step_id, "noodle.step_number": traced.num_steps, "noodle.tokens": num_tokens})
            flight.spans.append((session_id, span))
        if flight.spans:
            self._flights[command.step_id] = flight

    def _end_step(self, event: on.StepReported, now_s: float) -> None:
        flight = self._flights.pop(event.step_id, None)
        if flight is None:
            return
        for _, span in flight.spans:
            span.set_attribute("noodle.plan_version", event.plan_version)
            for timing, begin_s, end_s in laid_out(event.timings, flight.sent_s, now_s):
                stage = self._tracer.start_span(f"stage {timing.worker_id}", set_span_in_context(span, Context()), start_time=_ns(begin_s))
                stage.set_attributes(
                    {
                        "noodle.worker_id": timing.worker_id,
                        "noodle.compute_s": timing.compute_s,
                        "noodle.queue_s": timing.queue_s,
                        "noodle.wire_s": timing.wire_in_s + timing.wire_out_s,
                    }
                )
                stage.end(_ns(end_s))
            span.end(_ns(now_s))

    def _drop(self, step_id: int, why: str, now_s: float) -> None:
        flight = self._flights.pop(step_id, None)
        for _, span in flight.spans if flight is not None else ():
            span.set_status(Status(StatusCode.ERROR, why))
            span.end(_ns(now_s))


def is_chosen(number: int) -> bool:
    """Whether the step of that number of a session, from 1 on, has spans."""
    return number <= FIRST_STEPS or number % EACH_STEP == 0


def laid_out(timings: Sequence[StageTiming], sent_s: float, reported_s: float) -> list[tuple[StageTiming, float, float]]:
    """Each stage with its begin and end within the step: one behind the other, and what is left over shared by the hops around them."""
    spent_s = [timing.queue_s + timing.wire_in_s + timing.compute_s + timing.wire_out_s for timing in timings]
    hop_s = max(0.0, reported_s - sent_s - sum(spent_s)) / (len(timings) + 1)
    found, at_s = [], sent_s
    for timing, length_s in zip(timings, spent_s, strict=True):
        begin_s = min(at_s + hop_s, reported_s)
        at_s = min(begin_s + length_s, reported_s)  # stages that overlap in time do not end behind their step
        found.append((timing, begin_s, at_s))
    return found


def tracer_to(url: str, cluster_id: str) -> Tracer:
    """Sends spans to a collector in the background, by OTLP over HTTP. Raises InvalidInput for what is no such address."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InvalidInput(f"--otel {url[:80]!r} is not allowed: give the address of a collector, e.g. http://127.0.0.1:4318")
    endpoint = url if parts.path.strip("/") else url.rstrip("/") + _PATH
    names = {SERVICE_NAME: "noodlecore", SERVICE_INSTANCE_ID: cluster_id, SERVICE_VERSION: own_version().package_version}
    provider = TracerProvider(resource=Resource.create(names), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
    return Tracer(provider)


def _context(traceparent: str) -> Context:
    return TraceContextTextMapPropagator().extract({NAME: traceparent}, Context()) if traceparent else Context()


def _tokens_of(command: do.SendStep) -> dict[str, int]:
    """Tokens of each session in a step."""
    found: dict[str, int] = {}
    for segment in command.segments:
        found[segment.session_id] = found.get(segment.session_id, 0) + len(segment.token_ids)
    return found


def _ns(monotonic_s: float) -> int:
    """Nanoseconds since the epoch."""
    return time.time_ns() - int(1e9 * (time.monotonic() - monotonic_s))
