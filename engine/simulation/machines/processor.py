"""The cores of a machine that several nodes share.

Processor sharing: the running jobs want so many cores each. While that is no more than there are, each runs as if it were
alone; beyond that all are slowed by the same factor (an operating system gives every thread its turn). A job's work is the
time that it would take alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from engine.simulation.clock import VirtualClock
from engine.simulation.scenario import VirtualHost

_ROUNDING = 1e-12  # of a job's own work: what subtracting leaves of a job that is done


class _Job:
    __slots__ = ("argument", "cores", "done", "left_s", "work_s")

    def __init__(self, work_s: float, cores: float, done: Callable[[Any], None], argument: Any) -> None:
        self.work_s = self.left_s = work_s
        self.cores, self.done, self.argument = cores, done, argument


class SharedProcessor:
    """Jobs of one host under a virtual clock."""

    def __init__(self, host: VirtualHost, clock: VirtualClock) -> None:
        self.host = host
        self._clock = clock
        self._jobs: list[_Job] = []
        self._since_s = 0.0
        self._rate = 1.0
        self._version = 0  # of the completion that was last asked for

    def run(self, work_s: float, cores: float, done: Callable[[Any], None], argument: Any) -> None:
        """Start a job now; `done(argument)` is called when it is finished."""
        self._progress()
        self._jobs.append(_Job(work_s, cores, done, argument))
        self._plan_next()

    def _progress(self) -> None:
        now_s = self._clock.now_s
        worked_s = (now_s - self._since_s) * self._rate
        self._since_s = now_s
        if worked_s > 0:
            for job in self._jobs:
                job.left_s -= worked_s

    def _plan_next(self) -> None:
        self._version += 1
        if not self._jobs:
            return
        wanted = sum(job.cores for job in self._jobs)
        cores = self.host.num_cores
        self._rate = 1.0 if wanted <= cores else cores / wanted
        left_s = max(0.0, min(job.left_s for job in self._jobs))
        self._clock.at(self._clock.now_s + left_s / self._rate, self._complete, self._version)

    def _complete(self, version: int) -> None:
        if version != self._version:
            return
        self._progress()
        least_s = min(job.left_s for job in self._jobs)
        finished = [job for job in self._jobs if job.left_s <= max(least_s, _ROUNDING * job.work_s)]
        self._jobs = [job for job in self._jobs if job not in finished]
        self._plan_next()
        for job in finished:
            job.done(job.argument)
