"""What a node can do, as measured there: the value that detection fills, the matcher judges and scaling divides by.

Every figure is what a probe reached, never what a data sheet promises. A dtype is supported when a matrix product in it ran
on the device and its result was right; `rooflines` holds exactly those dtypes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import StrEnum

from engine.data.errors import InvalidInput
from engine.profile.profile import Roofline

FLOAT32, BFLOAT16, FLOAT16, INT8 = "float32", "bfloat16", "float16", "int8"
DTYPES = (FLOAT32, BFLOAT16, FLOAT16, INT8)


class DeviceType(StrEnum):
    """An integrated GPU (Apple's too) computes on the host's memory, so that a node on it and one on its CPU share one pool."""

    CPU = "cpu"
    CUDA = "cuda"
    CUDA_INTEGRATED = "cuda_integrated"
    MPS = "mps"


@dataclass(frozen=True, slots=True)
class HardwareCapability:
    """One node. None stands for what nobody could tell. Raises InvalidInput for figures that no machine has."""

    node_id: str
    device_type: DeviceType
    device_name: str
    num_cores: int  # CPU cores that the process may use, also beside a GPU
    num_sms: int  # streaming multiprocessors; 0 on a CPU
    memory_bytes: int  # free for weights and KV when it was looked at
    memory_total_bytes: int
    rooflines: dict[str, Roofline] = field(default_factory=dict)  # by dtype: only those whose product ran and was right
    power_w: float | None = None  # what the device may draw
    link_latency_s: float | None = None  # one way, to the node that feeds it
    link_bandwidth_bytes_per_s: float | None = None
    dtypes: tuple[str, ...] = ()  # whose product ran and was right where nobody measured rates

    def __post_init__(self) -> None:
        if self.num_cores < 1 or self.num_sms < 0 or self.memory_bytes < 0 or self.memory_total_bytes < self.memory_bytes:
            raise InvalidInput(
                f"node {self.node_id[:80]!r}: {self.num_cores} cores, {self.num_sms} SMs, {self.memory_bytes} of "
                f"{self.memory_total_bytes} bytes free cannot be: measure it again with `noodle-engine doctor --hardware`"
            )
        for dtype, roof in self.rooflines.items():
            if dtype not in DTYPES:
                raise InvalidInput(f"node {self.node_id[:80]!r}: dtype {dtype[:80]!r} is not known: use {', '.join(DTYPES)}")
            _require_positive(self.node_id, f"{dtype} FLOP/s", roof.flops_per_s)
            _require_positive(self.node_id, f"{dtype} bytes/s", roof.bytes_per_s)
        for what in ("power_w", "link_latency_s", "link_bandwidth_bytes_per_s"):
            if (value := getattr(self, what)) is not None:
                _require_positive(self.node_id, what, value, or_zero=what == "link_latency_s")

    def supports(self, dtype: str) -> bool:
        """Whether a matrix product in `dtype` ran here and was right."""
        return dtype in self.rooflines or dtype in self.dtypes


def _require_positive(node_id: str, what: str, value: float, *, or_zero: bool = False) -> None:
    if not math.isfinite(value) or value < 0 or (value == 0 and not or_zero):
        raise InvalidInput(f"node {node_id[:80]!r}: {what} of {value} is not possible: measure it again")
