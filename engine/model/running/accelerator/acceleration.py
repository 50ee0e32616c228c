"""What a stage may use of an accelerator, and the limits of recording."""

from __future__ import annotations

from dataclasses import dataclass, field

from engine.model.running.accelerator.attending import PagedAttention


@dataclass(frozen=True, slots=True)
class CaptureLimits:
    """When recording stops: what was not recorded runs as usual."""

    max_rows: int = 128
    time_s: float = 30.0
    memory_bytes: int = 2 * 2**30


@dataclass(frozen=True, slots=True)
class Acceleration:
    """`attention` None: what the device was found to run."""

    fuse: bool = True
    graphs: bool = True
    limits: CaptureLimits = field(default_factory=CaptureLimits)
    attention: PagedAttention | None = None


UNCHANGED = Acceleration(fuse=False, graphs=False)  # every module runs as it is, for hooks
