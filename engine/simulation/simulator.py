"""StagedSimulator: the real cluster and its scheduler under a virtual clock, with modelled workers and links.

Whatever the cluster decides (plans, admission, packing, order) is decided by the same code that serves; the simulator only
says how long things take. It is deterministic: equal scenarios give equal results, bit for bit.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import replace

from engine.control import commands as do
from engine.control import events as on
from engine.control.cluster import Cluster
from engine.control.config import ClusterConfig
from engine.control.invariants import check_cluster
from engine.control.nodes.members import LeaseRules
from engine.control.sessions.chunks import ChunkRule
from engine.data.errors import NoodleError, Refused
from engine.data.generation import GenerateRequest
from engine.data.measured_link import MeasuredLink
from engine.data.model import ModelCard, ModelRef
from engine.data.plan import NodeSpec
from engine.data.status import Phase
from engine.simulation.arrivals import Arrival
from engine.simulation.clock import VirtualClock
from engine.simulation.machines.node import Step
from engine.simulation.machines.pipeline import ONE_THREAD_CORES, Pipeline
from engine.simulation.machines.processor import SharedProcessor
from engine.simulation.native import StagedVsNative, simulate_native
from engine.simulation.result import SimulationResult, summarise
from engine.simulation.scenario import NodeSetup, Scenario
from engine.simulation.session_log import SessionLog

_GENERATION = 1
_TICK_S = 1.0
_TOKEN_ID = 0  # what the model says does not matter here


class StagedSimulator:
    """One run of one scenario. `check_every_event` asserts the cluster's invariants after each one, which is slow."""

    def __init__(self, scenario: Scenario, *, check_every_event: bool = False) -> None:
        self._scenario, self._checks = scenario, check_every_event
        self._clock = VirtualClock()
        self._processors = {host.host_id: SharedProcessor(host, self._clock) for host in scenario.hosts}
        self._cluster = Cluster(_config(scenario), 0.0)
        self._pipeline: Pipeline | None = None
        self._log = SessionLog()
        self._ticking = False
        self._prompts: dict[int, tuple[int, ...]] = {}
        self._opening: deque[tuple[str, Arrival]] = deque()  # the first of them is being opened

    def run(self) -> SimulationResult:
        """Serve all sessions. Raises InvalidInput, Exhausted or Infeasible when the cluster refuses the plan or a session."""
        rule: ChunkRule | None = None
        for group in self._scenario.earlier:
            before = StagedSimulator(replace(self._scenario, arrivals=group, earlier=()), check_every_event=self._checks)
            before._serve(rule)
            rule = before._cluster.serving.batcher.rule
        self._serve(rule)
        if self._pipeline is None or len(self._log.finished) != len(self._scenario.arrivals):
            raise AssertionError(f"{len(self._log.finished)} of {len(self._scenario.arrivals)} sessions ended")
        return summarise(self._scenario, self._pipeline, self._log)

    def simulate_inference(self) -> SimulationResult:
        """What the pipeline makes of the scenario's sessions; raises what `run` raises."""
        return self.run()

    def compare_staged_vs_native(self) -> StagedVsNative:
        """The same beside one process on the fastest of the nodes, which serves the sessions one after the other."""
        fastest = min(node.slowdown for node in self._scenario.nodes)
        return StagedVsNative(self.run(), simulate_native(self._scenario.costs, self._scenario.arrivals, fastest))

    def _serve(self, learnt: ChunkRule | None) -> None:
        """All arrivals, by a scheduler that knows of prompts what `learnt` says."""
        self._start()
        if learnt is not None:
            self._cluster.serving.batcher.rule = learnt
        for index, arrival in enumerate(self._scenario.arrivals):
            self._clock.at(arrival.arrival_s, self._arrive, (f"s{index}", arrival))
        self._clock.run()

    def _start(self) -> None:
        """Every worker joins, is measured and loads its stage, all in no time."""
        self._feed(on.ModelReady(_card(self._scenario)))
        for setup in self._scenario.nodes:
            self._feed(on.WorkerRegistered(_spec(setup, self._scenario), _GENERATION, ready=True))
        self._clock.run()
        if self._cluster.phase is not Phase.SERVING:
            raise Refused(self._cluster.state.failure or self._cluster.state.detail)

    def _arrive(self, session: tuple[str, Arrival]) -> None:
        """The coordinator opens one session at a time, for one thread handles its requests."""
        if self._scenario.software.open_s == 0.0:
            self._submit(session)
            return
        self._opening.append(session)
        if len(self._opening) == 1:
            self._open_next()

    def _open_next(self) -> None:
        open_s, host = self._scenario.software.open_s, self._processors.get(self._scenario.coordinator_host)
        if host is None:
            self._clock.at(self._clock.now_s + open_s, self._opened, self._opening[0])
        else:
            host.run(open_s, ONE_THREAD_CORES, self._opened, self._opening[0])

    def _opened(self, session: tuple[str, Arrival]) -> None:
        self._opening.popleft()
        if self._opening:
            self._open_next()
        self._submit(session)

    def _submit(self, session: tuple[str, Arrival]) -> None:
        session_id, arrival = session
        prompt = self._prompts.setdefault(arrival.prompt_tokens, (_TOKEN_ID,) * arrival.prompt_tokens)
        request = GenerateRequest(prompt_ids=prompt, max_new_tokens=arrival.new_tokens, ignore_eos=True)
        self._log.submitted(session_id, arrival)
        if not self._ticking:
            self._ticking = True
            self._clock.at(self._clock.now_s + _TICK_S, self._tick, on.Tick())
        self._feed(on.SessionSubmitted(session_id, prompt, request))

    def _tick(self, tick: on.Tick) -> None:
        """While sessions are there, as the coordinator does: recent figures are bounded by it."""
        self._feed(tick)
        self._ticking = any(True for _ in self._cluster.scheduler)
        if self._ticking:
            self._clock.at(self._clock.now_s + _TICK_S, self._tick, tick)

    def _feed(self, event: on.ClusterEvent) -> None:
        commands = self._cluster.handle(event, self._clock.now_s)
        if self._checks:
            check_cluster(self._cluster)
        for command in commands:
            self._carry_out(command)

    def _carry_out(self, command: do.Command) -> None:
        now_s = self._clock.now_s
        match command:
            case do.SendStep():
                if self._pipeline is None:
                    raise AssertionError("a step before any plan")
                self._pipeline.send(Step(command, now_s))
            case do.EmitToken():
                self._log.token(command.session_id, now_s)
            case do.FinishSession():
                self._finish(command)
            case do.Fault():
                raise command.error
            case do.MeasureWorker():
                times = self._measured(command.worker_id)
                self._clock.at(now_s, self._feed, on.WorkerMeasured(command.worker_id, command.generation, times))
            case do.MeasureLinks():
                links = tuple(
                    self._link(*pair) for peer in command.peer_ids for pair in ((command.worker_id, peer), (peer, command.worker_id))
                )
                self._clock.at(now_s, self._feed, on.LinksMeasured(command.worker_id, command.generation, links))
            case do.AdoptPlan():
                given = self._scenario.plan
                plan = command.plan if given is None else replace(command.plan, strategy=given.strategy)
                self._pipeline = Pipeline(self._scenario, plan, self._clock, self._processors, self._report, self._log.reserve_tokens)
            case do.LoadStage():
                self._clock.at(now_s, self._feed, on.StageLoaded(command.worker_id, command.plan_version, 0, 0, 0.0))

    def _finish(self, command: do.FinishSession) -> None:
        if isinstance(command.error, NoodleError):
            raise command.error
        self._log.finish(command.session_id, command.reason)

    def _measured(self, worker_id: str) -> tuple[float, ...]:
        slowdown = next(node.slowdown for node in self._scenario.nodes if node.node_id == worker_id)
        return tuple(time_s * slowdown for time_s in self._scenario.costs.decode_s())

    def _link(self, sender: str, receiver: str) -> MeasuredLink:
        model = self._scenario.link_between(sender, receiver)
        return MeasuredLink(sender, receiver, round_trip_s=2 * model.latency_s, bandwidth_bytes_per_s=model.bytes_per_s)

    def _report(self, step: Step) -> None:
        command = step.command
        if not step.shape.prompt_tokens:
            self._log.steps_s.append(self._clock.now_s - step.sent_s)
        outcomes = tuple(on.SegmentOutcome(s.session_id, s.epoch, s.sample_index, _TOKEN_ID) for s in command.segments)
        last = step.timings[-1].worker_id
        self._feed(on.StepReported(last, command.plan_version, command.step_id, outcomes, tuple(step.timings)))


def _config(scenario: Scenario) -> ClusterConfig:
    stages = scenario.plan.stages if scenario.plan is not None else ()
    return ClusterConfig(
        num_workers_expected=len(scenario.nodes),
        strategy=scenario.strategy,
        leases=LeaseRules(suspect_s=math.inf, lease_s=math.inf),  # nobody is lost here, so nobody beats
        limits=scenario.limits,
        layers=tuple(stage.num_items for stage in stages),
        order=tuple(stage.node_id for stage in stages),
    )


def _card(scenario: Scenario) -> ModelCard:
    return ModelCard(
        ref=ModelRef("simulated"),
        folder="",
        fingerprint="",
        architecture="",
        items=scenario.items,
        hidden_size=1,
        vocab_size=1,
        context_tokens=scenario.context_tokens,
        eos_token_ids=(),
        bos_token_id=None,
        num_parameters=0,
    )


def _spec(setup: NodeSetup, scenario: Scenario) -> NodeSpec:
    host = next((host for host in scenario.hosts if host.host_id == setup.host_id), None)
    return NodeSpec(
        node_id=setup.node_id,
        address="",
        host=setup.host_id or setup.node_id,
        pid=0,
        device="cpu",
        device_name="",
        num_threads=setup.num_threads,
        memory_bytes=setup.memory_bytes,
        kv_budget_bytes=setup.kv_budget_bytes,
        num_cores=int(host.num_cores) if host else setup.num_threads,
    )
