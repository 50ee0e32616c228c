"""Traces of requests: what the spans say, and a caller's trace that goes on through HTTP, coordinator and stages to a collector."""

from __future__ import annotations

import http.server
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

pytest.importorskip("opentelemetry.sdk", reason="OpenTelemetry is not installed: pip install 'noodlecore[otel]'")

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from engine import cli
from engine.control import commands as do
from engine.control import events as on
from engine.data.errors import Exhausted
from engine.data.generation import FinishReason, GenerateRequest, StageTiming
from engine.service.coordinator.metrics.tracer import EACH_STEP, FIRST_STEPS, Tracer, is_chosen, laid_out
from engine.service.tracing import parent
from tests.control.harness import Driver

TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{CALLER}-01"
DEADLINE_S = 120.0


class Observed:
    """A cluster without a network, whose every event a tracer sees, and the spans that ended."""

    def __init__(self, num_workers: int = 2) -> None:
        self._exporter, provider = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracer, self.driver = Tracer(provider), Driver(num_workers, hold=True)
        self.driver.now_s = time.monotonic()
        handle = self.driver.cluster.handle

        def observed(event: on.ClusterEvent, now_s: float) -> Sequence[do.Command]:
            commands = handle(event, now_s)
            self.tracer.observe(event, commands, now_s)
            for command in commands:
                if isinstance(command, do.FinishSession):
                    self.tracer.ended(command.session_id, command.reason, None, now_s)
            return commands

        self.driver.cluster.handle = observed  # type: ignore[assignment, method-assign]
        self.driver.start()

    def ask(self, session_id: str, num_tokens: int) -> None:
        request = GenerateRequest(prompt_ids=(1, 2, 3), max_new_tokens=num_tokens, ignore_eos=True)
        self.driver.feed(on.SessionSubmitted(session_id, (1, 2, 3), request))

    def step(self) -> None:
        """The oldest step in flight comes back after 30 ms, of which each of two stages computed 10."""
        self.driver.now_s += 0.03
        timings = tuple(StageTiming(worker_id, 0.01, 0.0, 0.0, 0.0) for worker_id in ("w1", "w2"))
        self.driver.report(self.driver.held.pop(0), timings)

    def spans(self, name: str = "") -> list[ReadableSpan]:
        return [span for span in self._exporter.get_finished_spans() if span.name.startswith(name)]


@pytest.fixture(autouse=True)
def no_trace() -> Iterator[None]:
    yield
    parent.enter(())


def test_a_request_is_a_span_of_its_callers_trace_with_its_steps_and_their_stages() -> None:
    observed = Observed()
    parent.enter([("traceparent", TRACEPARENT)])
    observed.ask("s-1", 3)
    while observed.driver.held:
        observed.step()
    (whole,) = observed.spans("generate")
    assert (f"{whole.context.trace_id:032x}", f"{whole.parent.span_id:016x}") == (TRACE, CALLER)  # type: ignore[union-attr]
    assert whole.attributes is not None and whole.attributes["gen_ai.usage.input_tokens"] == 3
    assert (whole.attributes["gen_ai.usage.output_tokens"], whole.attributes["gen_ai.response.finish_reasons"]) == (3, ("length",))
    assert [event.name for event in whole.events] == ["first token"]
    steps = observed.spans("step")
    assert len(steps) == 3 and all(step.parent is not None and step.parent.span_id == whole.context.span_id for step in steps)
    for step in steps:
        stages = [span for span in observed.spans("stage") if span.parent is not None and span.parent.span_id == step.context.span_id]
        assert [stage.name for stage in stages] == ["stage w1", "stage w2"]
        assert [round((stage.end_time - stage.start_time) / 1e6) for stage in stages] == [10, 10]  # type: ignore[operator]
        times = [step.start_time, *(t for stage in stages for t in (stage.start_time, stage.end_time)), step.end_time]
        assert times == sorted(times, key=int)  # type: ignore[arg-type]


def test_of_a_long_answer_some_steps_have_spans() -> None:
    observed = Observed()
    observed.ask("s-1", 40)
    while observed.driver.held:
        observed.step()
    numbers = [span.attributes["noodle.step_number"] for span in observed.spans("step") if span.attributes is not None]
    assert numbers == [1, 2, 3, EACH_STEP] and [n for n in range(1, 100) if is_chosen(n)] == [*range(1, FIRST_STEPS + 1), 32, 64, 96]


def test_callers_that_do_not_sample_cost_no_span() -> None:
    observed = Observed()
    parent.enter([("traceparent", TRACEPARENT.removesuffix("1") + "0")])
    observed.ask("s-1", 2)
    while observed.driver.held:
        observed.step()
    assert observed.spans() == []


def test_what_fails_says_so() -> None:
    observed = Observed()
    observed.ask("s-1", 8)
    observed.driver.feed(on.StepUndelivered(observed.driver.cluster.plan_version, observed.driver.held[0].step_id, "w1 is gone"))
    (step,) = observed.spans("step")
    assert step.status.status_code is StatusCode.ERROR and step.status.description == "w1 is gone"
    observed.tracer.ended("s-1", FinishReason.ERROR, Exhausted("the disk is full"), observed.driver.now_s)
    (whole,) = observed.spans("generate")
    assert whole.status.description == "the disk is full" and whole.attributes is not None and whole.attributes["error.type"] == "Exhausted"


def test_stages_that_overlap_end_with_their_step() -> None:
    found = laid_out([StageTiming("w1", 3.0, 0.0, 0.0, 0.0), StageTiming("w2", 3.0, 0.0, 0.0, 0.0)], 10.0, 14.0)
    assert [(begin_s, end_s) for _, begin_s, end_s in found] == [(10.0, 13.0), (13.0, 14.0)]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "00",
        TRACEPARENT.upper(),
        f"00-{'0' * 32}-{CALLER}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"ff-{TRACE}-{CALLER}-01",
        TRACEPARENT + "x",
    ],
)
def test_a_header_that_is_none_is_left_behind(text: str) -> None:
    parent.enter([("traceparent", TRACEPARENT)])
    parent.enter([("traceparent", text)])
    assert parent.parent() == "" and parent.metadata() == ()


@pytest.mark.parametrize("url", ["collector:4318", "ftp://collector", "http://"])
def test_what_is_no_collector_is_refused(url: str, capfd: pytest.CaptureFixture[str]) -> None:
    command = [sys.executable, "-m", "engine", "coordinator", "--model", "gpt2:tiny", "--listen", "127.0.0.1:0", "--otel", url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2 and f"--otel '{url}' is not allowed" in done.stderr and done.stderr.count("\n") == 1


# --- over processes ---------------------------------------------------------------------------------------------------
class Collector:
    """Keeps the spans that it is sent by OTLP over HTTP."""

    def __init__(self) -> None:
        spans: list[Any] = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                content = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    import gzip

                    content = gzip.decompress(content)
                request = ExportTraceServiceRequest.FromString(content)
                assert self.path == "/v1/traces"
                spans.extend(s for r in request.resource_spans for scope in r.scope_spans for s in scope.spans)
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.spans = spans
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def wait_for(self, name: str) -> None:
        end_s = time.monotonic() + DEADLINE_S
        while not any(span.name == name for span in self.spans):
            assert time.monotonic() < end_s, f"waited for {name}; there are {[span.name for span in self.spans]}"
            time.sleep(0.05)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.mark.timeout(300)
def test_a_callers_trace_reaches_a_collector_through_the_api_and_two_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
    collector = Collector()
    words = ["--model", "llama:tiny", "--random-weights", "0", "--workers", "2", "--layers", "3,3", "--http", "0", "--otel", collector.url]
    up = subprocess.Popen([sys.executable, "-m", "engine", "up", *words, "--json"], stdout=subprocess.PIPE, text=True)
    try:
        assert up.stdout is not None
        announced = json.loads(up.stdout.readline())
        key = Path(announced["key_file"]).read_text()
        body = {"model": "llama:tiny", "prompt": [1, 2, 3], "max_tokens": 4, "stream": True}
        headers = {"authorization": f"Bearer {key}", "traceparent": TRACEPARENT}
        answer = httpx.post(f"{announced['http']}/v1/completions", json=body, headers=headers, timeout=60)
        assert answer.status_code == 200, answer.text
        assert cli.main(["generate", "--prompt-ids", "1,2", "--max-new-tokens", "1", "--connect", announced["address"], "--json"]) == 0
        collector.wait_for("generate")
        end_s = time.monotonic() + DEADLINE_S
        while sum(span.name == "generate" for span in collector.spans) < 2 and time.monotonic() < end_s:
            time.sleep(0.05)
    finally:
        up.terminate()
        up.wait(60)
        collector.close()
    own = [span for span in collector.spans if span.trace_id.hex() == TRACE]
    (whole,) = [span for span in own if span.name == "generate"]
    assert whole.parent_span_id.hex() == CALLER
    steps = {span.span_id for span in own if span.name == "step" and span.parent_span_id == whole.span_id}
    assert len(steps) >= FIRST_STEPS
    for worker_id in ("w1", "w2"):
        assert {span.parent_span_id for span in own if span.name == f"stage {worker_id}"} == steps
    (other,) = [span for span in collector.spans if span.name == "generate" and span.trace_id.hex() != TRACE]
    assert other.parent_span_id == b""
