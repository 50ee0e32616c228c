"""The stages of one plan: how steps move from the coordinator through all of them and back.

Queues and links are first in, first out, so steps never overtake each other. On a machine of its own a node's times then
follow from those of the step before (Lindley's recursion), and a step is followed through such nodes at once, ahead of the
clock. A shared machine depends on what else runs meanwhile: there a step waits for the clock.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import pairwise

from engine.data.plan import Plan
from engine.simulation.clock import VirtualClock
from engine.simulation.machines.node import SimulatedWorker, Span, Step, answer_bytes, prompt_bytes
from engine.simulation.machines.processor import SharedProcessor
from engine.simulation.machines.transfer import SimulatedTensorTransfer
from engine.simulation.scenario import COORDINATOR, Scenario

ONE_THREAD_CORES = 1.0  # a message or a request is handled by one thread


class Pipeline:
    """`report(step)` is called when the coordinator has read a step's outcome; steps without segments are not reported."""

    def __init__(
        self,
        scenario: Scenario,
        plan: Plan,
        clock: VirtualClock,
        processors: dict[str, SharedProcessor],
        report: Callable[[Step], None],
        reserve_tokens: Callable[[str], int],
    ) -> None:
        """`reserve_tokens` says how long a session may grow: each stage's KV reserves so much when the session opens."""
        self.plan = plan
        self.spans: list[Span] = []
        self._scenario, self._clock, self._report = scenario, clock, report
        setups = {node.node_id: node for node in scenario.nodes}
        on_host = Counter(setups[s.node_id].host_id for s in plan.stages)
        self.nodes = []
        for s in plan.stages:
            setup = setups[s.node_id]
            neighbours = on_host[setup.host_id] - 1 if setup.host_id else 0
            factor = 1.0 + scenario.software.neighbour_share * neighbours
            self.nodes.append(SimulatedWorker(setup, s, scenario.items, scenario.costs.stage(s.start, s.stop), factor, reserve_tokens))
        ends = [COORDINATOR, *(s.node_id for s in plan.stages), COORDINATOR]
        self.links = [SimulatedTensorTransfer(a, b, scenario.link_between(a, b)) for a, b in pairwise(ends)]
        self._processors = [processors.get(node.setup.host_id) for node in self.nodes]
        self._coordinator = processors.get(scenario.coordinator_host)
        self._hop_s = scenario.software.hop_s

    def send(self, step: Step) -> None:
        """The coordinator sends a step now."""
        self._travel(step, 0, self._clock.now_s, prompt_bytes(step.command))

    def _travel(self, step: Step, stage: int, ready_s: float, num_bytes: int) -> None:
        """From `ready_s` on, over the link into `stage` and on through every node on a machine of its own."""
        while True:
            arrives_s = self.links[stage].send(ready_s, num_bytes)
            if stage == len(self.nodes):
                self._return(step, arrives_s)
                return
            if self._processors[stage] is not None:
                self._clock.at(arrives_s, self._receive, (step, stage))
                return
            node = self.nodes[stage]
            step.arrived_s = arrives_s + self._hop_s
            start_s = max(step.arrived_s, node.free_s)
            ready_s = node.free_s = start_s + node.work_s(step)
            self._done(step, stage, start_s, ready_s)
            if not self._goes_on(step, stage):
                return
            stage, num_bytes = stage + 1, self._output_bytes(step, stage)

    def _output_bytes(self, step: Step, stage: int) -> int:
        if stage == len(self.nodes) - 1:
            return answer_bytes(step.command)
        return step.shape.num_tokens * self.nodes[stage].output_bytes_per_token

    def _goes_on(self, step: Step, stage: int) -> bool:
        """The last stage has nothing to report of a step that only releases sessions."""
        return bool(step.command.segments) or stage < len(self.nodes) - 1

    def _done(self, step: Step, stage: int, start_s: float, stop_s: float) -> None:
        self.nodes[stage].done(step, start_s, stop_s)
        if len(self.spans) < self._scenario.max_spans and step.command.segments:
            sessions = tuple(segment.session_id for segment in step.command.segments)
            self.spans.append(Span(stage, start_s, stop_s, sessions, step.shape.prompt_tokens > 0))

    # ------------------------------------------------------------------------------------------ shared machines
    def _receive(self, arrival: tuple[Step, int]) -> None:
        processor = self._processors[arrival[1]]
        if processor is None:
            raise AssertionError("a node on a machine of its own needs no event")
        processor.run(self._hop_s, ONE_THREAD_CORES, self._enqueue, arrival)

    def _enqueue(self, arrival: tuple[Step, int]) -> None:
        step, stage = arrival
        step.arrived_s = self._clock.now_s
        self.nodes[stage].queue.append(step)
        self._compute_next(stage)

    def _compute_next(self, stage: int) -> None:
        node, processor = self.nodes[stage], self._processors[stage]
        if node.is_computing or not node.queue or processor is None:
            return
        node.is_computing = True
        step = node.queue.popleft()
        processor.run(node.work_s(step), node.cores(step), self._computed, (step, stage, self._clock.now_s))

    def _computed(self, running: tuple[Step, int, float]) -> None:
        step, stage, start_s = running
        self.nodes[stage].is_computing = False
        self._done(step, stage, start_s, self._clock.now_s)
        if self._goes_on(step, stage):
            self._travel(step, stage + 1, self._clock.now_s, self._output_bytes(step, stage))
        self._compute_next(stage)

    def _return(self, step: Step, arrives_s: float) -> None:
        if self._coordinator is None:
            self._clock.at(arrives_s + self._hop_s, self._report, step)
        else:
            self._clock.at(arrives_s, self._returned, step)

    def _returned(self, step: Step) -> None:
        if self._coordinator is None:
            raise AssertionError("a coordinator on a machine of its own needs no event")
        self._coordinator.run(self._hop_s, ONE_THREAD_CORES, self._report, step)
