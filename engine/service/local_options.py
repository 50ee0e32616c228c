"""The options of an embedded cluster, made of those of its processes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from engine.data.errors import InvalidInput
from engine.options.declared import build, group, option
from engine.options.kinds import factors
from engine.service.coordinator.options import AUTO, CoordinatorOptions
from engine.service.worker.options import WorkerOptions

MAX_WORKERS = 64


@dataclass(frozen=True, kw_only=True)
class LocalOptions:
    """What to start: a coordinator, and workers that are alike but for their slowdown. What each process must be told in
    any case, such as its name, is not asked for.
    """

    coordinator: CoordinatorOptions = group(CoordinatorOptions, is_embedded=True, num_workers=3, adapt="auto", listen="127.0.0.1:0")
    worker: WorkerOptions = group(WorkerOptions, is_embedded=True)
    slowdowns: tuple[float, ...] = option(
        "--slowdown",
        kind=factors,
        default=(),
        metavar="F[,F...]",
        help="emulate slower workers, e.g. 1,3,1; the others stay as they are",
    )

    def __post_init__(self) -> None:
        if not AUTO <= self.num_workers <= MAX_WORKERS:
            raise InvalidInput(f"--workers {self.num_workers} is not allowed: start 1 to {MAX_WORKERS} workers on one machine")
        device = self.worker.device
        if device is not None and not all(name.strip() for name in device.split(",")):
            raise InvalidInput(f"--device {device[:60]!r} has an empty name: give names with commas between them, such as cuda:0,cuda:1")

    @property
    def num_workers(self) -> int:
        """AUTO or more."""
        return self.coordinator.num_workers

    def on_this_machine(self) -> LocalOptions:
        """The same; raises InvalidInput where the number of workers is left to a cluster of machines."""
        if self.num_workers == AUTO:
            raise InvalidInput(f"--workers auto goes with `noodle-engine up --on ray`: on one machine say how many, 1 to {MAX_WORKERS}")
        return self


def local_options(**values: Any) -> LocalOptions:
    """The options of an embedded cluster from values by field name, such as `num_workers=2, kv_memory_bytes=2**20`."""
    return build(LocalOptions, values)
