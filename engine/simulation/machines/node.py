"""A worker of a simulation: a queue of steps, one computing at a time, and the KV of its stage."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from engine.control.commands import SendStep
from engine.data.generation import StageTiming
from engine.data.model import Item
from engine.data.plan import Stage
from engine.simulation.cost import StageCost, StepShape, shape_of
from engine.simulation.machines.kv_cache import VirtualKVCache
from engine.simulation.scenario import NodeSetup

_TOKEN_BYTES = 4


class Step:
    """A step on its way, and where its time went so far."""

    __slots__ = ("arrived_s", "command", "sent_s", "shape", "timings")

    def __init__(self, command: SendStep, sent_s: float) -> None:
        self.command, self.sent_s = command, sent_s
        self.shape: StepShape = shape_of(command.segments)
        self.arrived_s = 0.0  # at the stage where it is
        self.timings: list[StageTiming] = []


class Span(NamedTuple):
    """A stage computing one step."""

    stage: int
    start_s: float
    stop_s: float
    session_ids: tuple[str, ...]
    is_prompt: bool


class SimulatedWorker:
    """One stage on one node. It says how long a step takes and keeps the books; the pipeline says when."""

    def __init__(
        self,
        setup: NodeSetup,
        stage: Stage,
        items: tuple[Item, ...],
        cost: StageCost,
        neighbour_factor: float,
        reserve_tokens: Callable[[str], int],
    ) -> None:
        self.setup, self.stage = setup, stage
        held = items[stage.start : stage.stop]
        self.kv = VirtualKVCache(sum(item.kv_bytes_per_token for item in held), setup.kv_budget_bytes)
        self.output_bytes_per_token = held[-1].output_bytes_per_token
        self.queue: deque[Step] = deque()
        self.is_computing = False
        self.free_s = 0.0  # on a machine of its own: when everything that has arrived is done
        self.busy_s = self.queue_s = 0.0
        self.num_steps = self.num_bubbles = 0
        self.bubble_s = self.longest_bubble_s = 0.0
        self.first_start_s = self.last_stop_s = 0.0
        self._cost, self._neighbour_factor, self._reserve_tokens = cost, neighbour_factor, reserve_tokens

    def work_s(self, step: Step) -> float:
        """How long it computes when nothing else runs on its machine; 0 for a step that only releases sessions."""
        if not step.command.segments:
            return 0.0
        factor = self.setup.slowdown * (self.setup.prompt_slowdown if step.shape.prompt_tokens else 1.0)
        return self._cost(step.shape) * factor * self._neighbour_factor

    def cores(self, step: Step) -> float:
        """How many cores it keeps busy meanwhile."""
        return self.setup.prompt_busy_cores if step.shape.prompt_tokens else self.setup.busy_cores

    def done(self, step: Step, start_s: float, stop_s: float) -> None:
        """It computed the step in [start_s, stop_s); calls come in the order of time."""
        command, kv = step.command, self.kv
        for session_id in command.releases:
            kv.close(session_id)
        if command.segments:
            for segment in command.segments:
                if not kv.holds(segment.session_id):
                    kv.open(segment.session_id, self._reserve_tokens(segment.session_id))
                kv.append(segment.session_id, len(segment.token_ids))
            self._account(step, start_s, stop_s)
        kv.at(stop_s)

    def _account(self, step: Step, start_s: float, stop_s: float) -> None:
        if self.num_steps == 0:
            self.first_start_s = start_s
        elif (idle_s := start_s - self.last_stop_s) > 0:
            self.num_bubbles += 1
            self.bubble_s += idle_s
            self.longest_bubble_s = max(self.longest_bubble_s, idle_s)
        self.num_steps += 1
        self.busy_s += stop_s - start_s
        self.queue_s += start_s - step.arrived_s
        self.last_stop_s = stop_s
        step.timings.append(StageTiming(self.setup.node_id, stop_s - start_s, start_s - step.arrived_s, 0.0, 0.0))


def prompt_bytes(command: SendStep) -> int:
    """Payload of a step on its way to the first stage: token ids."""
    return _TOKEN_BYTES * sum(len(segment.token_ids) for segment in command.segments)


def answer_bytes(command: SendStep) -> int:
    """Payload of a report: a token id per sampled segment."""
    return _TOKEN_BYTES * sum(segment.sample_index is not None for segment in command.segments)
