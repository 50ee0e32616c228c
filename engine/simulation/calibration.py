"""What a real cluster tells that a profile does not: the program's own costs, fitted to two measured plans.

A plan of one stage and one of two, one session at a time, give two equations each for the compute and for the rest of a
step. Everything else (other plans, more stages, sessions that compete for cores) is then a prediction.
"""

from __future__ import annotations

from dataclasses import dataclass

from engine.data import InvalidInput
from engine.simulation.cost import CostSource, StepShape
from engine.simulation.scenario import SoftwareCosts


@dataclass(frozen=True, slots=True)
class Observation:
    """One session on a pipeline of `num_stages`: medians over its decode steps, and the CPU time of all workers."""

    num_stages: int
    context_tokens: float  # mean of the decode steps
    step_s: float
    compute_s: float  # sum over the stages
    cpu_per_compute: float  # workers' CPU seconds per second of computing
    prompt_compute_s: float  # of the step of a whole prompt, sum over the stages
    open_s: float  # from the client's request to its first token, less the time of the prompt's step


@dataclass(frozen=True, slots=True)
class Calibration:
    """What to give a scenario: the nodes' slowdowns against the profile, the cores that a decode step keeps busy."""

    slowdown: float
    prompt_slowdown: float
    software: SoftwareCosts
    busy_cores: float


def calibrate(costs: CostSource, one: Observation, two: Observation, prompt_tokens: int) -> Calibration:
    """`compute = slowdown * profile + num_stages * stage_s` and `step = compute + (num_stages + 1) * hop_s`.

    The first is solved exactly, the second by least squares. A step with a prompt has a slowdown of its own, the mean of both
    plans: a worker also gives memory to the new session in it, which a profile's repeated steps do not.
    Raises InvalidInput for observations of equal length.
    """
    if one.num_stages == two.num_stages:
        raise InvalidInput(f"both observations have {one.num_stages} stages: calibrate with plans of different lengths")
    profile_s = costs.stage(0, costs.num_items)(StepShape(1, 0, round(one.context_tokens) + 1, 0))
    stage_s = max(0.0, (two.compute_s - one.compute_s) / (two.num_stages - one.num_stages))
    slowdown = (one.compute_s - one.num_stages * stage_s) / profile_s
    prompt_s = slowdown * costs.stage(0, costs.num_items)(StepShape(0, prompt_tokens, 0, prompt_tokens * (prompt_tokens + 1) // 2))
    prompt_slowdown = max(sum(seen.prompt_compute_s - seen.num_stages * stage_s for seen in (one, two)) / 2 / prompt_s, 1e-6)
    hops = [(seen.num_stages + 1, seen.step_s - seen.compute_s) for seen in (one, two)]
    hop_s = max(0.0, sum(count * rest_s for count, rest_s in hops) / sum(count * count for count, _ in hops))
    busy_cores = (one.cpu_per_compute + two.cpu_per_compute) / 2
    software = SoftwareCosts(hop_s, stage_s, max(0.0, (one.open_s + two.open_s) / 2))
    return Calibration(max(slowdown, 1e-6), prompt_slowdown, software, busy_cores)
