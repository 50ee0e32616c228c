"""What a real cluster tells that a profile does not: the program's own costs, fitted to two measured plans.

A plan of one stage and one of two, one session at a time, give two equations each for the compute and for the rest of a
step. Everything else (other plans, more stages, sessions that compete for cores) is then a prediction.
"""

from __future__ import annotations

from dataclasses import dataclass

from engine.data.errors import InvalidInput
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
    """`compute = slowdown * profile * (1 + (num_stages - 1) * neighbour_share)` and `step = compute + (num_stages + 1) * hop_s`.

    All stages are taken to share one host. Decode steps and prompts each tell a share; their mean is taken, then the slowdown
    that fits both plans best. The second law is solved by least squares. A step with a prompt has a slowdown of its own: a worker
    also gives memory to the new session in it, which a profile's repeated steps do not.
    Raises InvalidInput for observations of equal length.
    """
    if one.num_stages == two.num_stages:
        raise InvalidInput(f"both observations have {one.num_stages} stages: calibrate with plans of different lengths")
    profile_s = costs.stage(0, costs.num_items)(StepShape(1, 0, round(one.context_tokens) + 1, 0))
    share = (_share(one, two, one.compute_s, two.compute_s) + _share(one, two, one.prompt_compute_s, two.prompt_compute_s)) / 2
    factors = [1.0 + (seen.num_stages - 1) * share for seen in (one, two)]
    slowdown = (one.compute_s / factors[0] + two.compute_s / factors[1]) / 2 / profile_s
    prompt_s = slowdown * costs.stage(0, costs.num_items)(StepShape(0, prompt_tokens, 0, prompt_tokens * (prompt_tokens + 1) // 2))
    prompt_slowdown = (one.prompt_compute_s / factors[0] + two.prompt_compute_s / factors[1]) / 2 / prompt_s
    hops = [(seen.num_stages + 1, seen.step_s - seen.compute_s) for seen in (one, two)]
    hop_s = max(0.0, sum(count * rest_s for count, rest_s in hops) / sum(count * count for count, _ in hops))
    busy_cores = (one.cpu_per_compute + two.cpu_per_compute) / 2
    software = SoftwareCosts(hop_s, share, max(0.0, (one.open_s + two.open_s) / 2))
    return Calibration(max(slowdown, 1e-6), max(prompt_slowdown, 1e-6), software, busy_cores)


def _share(one: Observation, two: Observation, one_s: float, two_s: float) -> float:
    """The s of `time = c * (1 + (num_stages - 1) * s)` through both; noise may make it negative, it is 0 then."""
    weight = one_s * (two.num_stages - 1) - two_s * (one.num_stages - 1)
    return max(0.0, (two_s - one_s) / weight) if weight > 0 else 0.0
