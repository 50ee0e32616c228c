"""One run of one policy on one trace, and what it lost.

Time is the pipeline's own. A migration takes its loading time while the old plan serves, then costs what serving loses.
Regret is the time lost against being in the best placement always and for free.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Protocol

from engine.control.adaptation.cost import MigrationCost, MigrationRates
from engine.control.adaptation.watching.view import AdaptationView, MemorySample, StepSample
from engine.data.generation import StageTiming
from engine.data.plan import Plan, Stage
from engine.planning.problem import Problem
from engine.planning.strategies import make_plan
from engine.simulation.adaptation.plant import (
    CAP_BYTES,
    IN_FLIGHT,
    RUNTIME_BYTES,
    best_plan,
    cost_model,
    period_s,
    problem,
    runs_as,
)
from engine.simulation.adaptation.traces import Condition, Trace

TICK_STEPS = 8
MAX_LOG_NOISE = 3.0  # a step of a twentieth or of twenty times its time is the end of any noise
DEATH_S = 5.0  # what serving loses when a node dies unplanned


class Generator(Protocol):
    """The part of `random.Random` that is used; it comes seeded from outside."""

    def gauss(self, mu: float, sigma: float) -> float: ...
    def random(self) -> float: ...


class Policy(Protocol):
    """`tick` returns the plan to move to, or None; `num_alarms` counts how often it thought that something changed."""

    @property
    def num_alarms(self) -> int: ...
    def observe(self, sample: StepSample, now_s: float) -> None: ...
    def observe_memory(self, sample: MemorySample, now_s: float) -> None: ...
    def tick(self, view: AdaptationView, now_s: float) -> Plan | None: ...
    def committed(self, pause_s: float, load_s: float, now_s: float) -> None: ...


@dataclass(slots=True)
class Loss:
    """What a run cost and did."""

    excess_s: float = 0.0  # regret without the migrations
    migrations_s: float = 0.0
    num_migrations: int = 0
    num_useless: int = 0  # migrations into a placement that was slower when they were ordered
    num_useless_again: int = 0  # ... and that had been useless before
    num_deaths: int = 0
    num_alarms: int = 0
    noticed_after: int | None = None  # steps from the first change to the next alarm

    @property
    def regret_s(self) -> float:
        return self.excess_s + self.migrations_s


class Run:
    """Drives `policy` through `trace`; `finish` returns the loss. `rates` are what migrations really take."""

    def __init__(self, trace: Trace, policy: Policy, rng: Generator, rates: MigrationRates | None = None) -> None:
        self.rates = rates or MigrationRates()
        self.trace, self.policy, self.rng = trace, policy, rng
        self.loss, self.now_s, self.step = Loss(), 0.0, 0
        self.problem: Problem = problem(trace.started_with)
        self.plan = make_plan(self.problem, trace.strategy, 1)
        self._order: tuple[Plan, MigrationCost, float] | None = None  # (plan, cost, when it is loaded)
        self._useless: set[tuple[Stage, ...]] = set()
        self._noise = dict.fromkeys((n.node_id for n in problem().nodes), 0.0)
        self._cost_model = cost_model()
        self._dead: set[str] = set()

    def finish(self) -> Loss:
        """Run the whole trace."""
        self.policy.tick(self._view(), self.now_s)
        alarms = 0
        for number, (steps, condition) in enumerate(self.trace.segments):
            self._enter(condition)
            if number == 1:
                alarms, changed_at = self.policy.num_alarms, self.step
            for _ in range(steps):
                self._one_step(condition)
                if number and self.loss.noticed_after is None and self.policy.num_alarms > alarms:
                    self.loss.noticed_after = self.step - changed_at
                if self.step % TICK_STEPS == 0:
                    self._manage(condition)
        self.loss.num_alarms = self.policy.num_alarms
        return self.loss

    # ------------------------------------------------------------------------------------------ the world
    def _enter(self, condition: Condition) -> None:
        """Conditions change; nodes that died of full memory stay away."""
        self.condition = replace(condition, nodes=tuple(n for n in condition.nodes if n not in self._dead))
        self.problem = problem(self.condition.nodes)
        self.best_s = period_s(best_plan(self.condition, self.trace.strategy).stages, self.condition)
        self._settle()

    def _settle(self) -> None:
        """Precompute what a step does; a plan that cannot run is replaced at once, by whoever drives."""
        running = runs_as(self.plan.stages, self.condition)
        if running is None:
            self._survive()
            return
        self.stage_s, self.hop_s, self.period_s = running.stage_s, running.hop_s, running.period_s

    def _survive(self) -> None:
        """A node is gone: every cluster plans anew on the others, whatever the policy."""
        full = [s.node_id for s in self.plan.stages if s.node_id in self.condition.nodes and not self._fits(s)]
        self._dead.update(full)
        self.loss.num_deaths += len(full)
        self.loss.excess_s += DEATH_S * len(full)
        self.condition = replace(self.condition, nodes=tuple(n for n in self.condition.nodes if n not in self._dead))
        self.problem = problem(self.condition.nodes)
        self.best_s = period_s(best_plan(self.condition, self.trace.strategy).stages, self.condition)
        ordered = self.policy.tick(self._view(), self.now_s)
        plan = ordered or make_plan(self.problem, self.trace.strategy, self.plan.plan_version + 1)
        cost = self._cost(plan)
        if self._commit(plan, cost) and ordered:
            self.policy.committed(cost.pause_s, cost.busiest_s, self.now_s)

    def _fits(self, stage: Stage) -> bool:
        held_bytes = self.problem.stage_bytes(stage.start, stage.stop)
        return held_bytes + self.condition.leak_bytes.get(stage.node_id, 0.0) <= CAP_BYTES - RUNTIME_BYTES

    def _one_step(self, condition: Condition) -> None:
        noise, factor = self.trace.noise, self._factor
        fresh = noise.deviation * math.sqrt(1.0 - noise.rho * noise.rho)
        timings = tuple(
            StageTiming(s.node_id, time_s * factor(s.node_id, fresh), 0.0, 0.0, 0.0)
            for s, time_s in zip(self.plan.stages, self.stage_s, strict=True)
        )
        gauss = self.rng.gauss
        hop_s = tuple(h * math.exp(gauss(0.0, 0.2)) for h in self.hop_s)
        self.step += 1
        self.now_s += self.period_s
        self.loss.excess_s += self.period_s - self.best_s
        self.policy.observe(StepSample(self.plan.plan_version, condition.point, timings, hop_s), self.now_s)

    def _factor(self, node_id: str, fresh: float) -> float:
        noise = self.trace.noise
        own = self.rng.gauss(0.0, fresh)
        if noise.heavy_tails:  # Student's t(2): a normal variable over the root of an exponential one
            own = max(-MAX_LOG_NOISE, min(MAX_LOG_NOISE, own / math.sqrt(-math.log(1.0 - self.rng.random()))))
        self._noise[node_id] = noise.rho * self._noise[node_id] + own
        spike = noise.spike_factor if noise.spike_share and self.rng.random() < noise.spike_share else 1.0
        return spike * math.exp(self._noise[node_id])

    # ------------------------------------------------------------------------------------------ migrations
    def _manage(self, condition: Condition) -> None:
        for sample in self._memory(condition):
            self.policy.observe_memory(sample, self.now_s)
        if self._order and self.now_s >= self._order[2]:
            plan, cost, _ = self._order
            if self._commit(plan, cost):
                self.policy.committed(cost.pause_s, cost.busiest_s, self.now_s)
        wanted = self.policy.tick(self._view(), self.now_s)
        if wanted and self._order is None and wanted.stages != self.plan.stages:
            cost = self._cost(wanted)
            self._order = (wanted, cost, self.now_s + cost.load_s)
            self._judge(wanted)

    def _judge(self, wanted: Plan) -> None:
        if period_s(wanted.stages, self.condition) > self.period_s and not self.condition.leak_bytes:
            self.loss.num_useless += 1
            self.loss.num_useless_again += wanted.stages in self._useless
            self._useless.add(wanted.stages)

    def _commit(self, plan: Plan, cost: MigrationCost) -> bool:
        """False if a node of the plan is gone."""
        self._order = None
        if any(s.node_id not in self.condition.nodes for s in plan.stages):
            return False
        self.plan = replace(plan, plan_version=self.plan.plan_version + 1)
        self.now_s += cost.pause_s
        self.loss.migrations_s += cost.cost_s
        self.loss.num_migrations += 1
        self._settle()
        return True

    def _cost(self, plan: Plan) -> MigrationCost:
        return self.rates.cost(self.problem.items, self.plan.stages, plan.stages, self._kv_tokens())

    def _kv_tokens(self) -> int:
        return self.condition.point.context * IN_FLIGHT

    def _view(self) -> AdaptationView:
        return AdaptationView(self.plan, self.problem, self.trace.strategy, IN_FLIGHT, 64, self._cost_model)

    def _memory(self, condition: Condition) -> Iterable[MemorySample]:
        if not condition.leak_bytes:
            return
        for stage in self.plan.stages:
            held = self.problem.stage_bytes(stage.start, stage.stop) + condition.leak_bytes.get(stage.node_id, 0.0)
            yield MemorySample(stage.node_id, int(RUNTIME_BYTES + held), int(CAP_BYTES))
