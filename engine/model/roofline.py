"""What this device can do at best, measured: FLOP/s of a large matrix product and bytes/s of reading a large matrix.

Both use the dtype and the threads that the profile uses, and take the best of a few runs: a roof is a maximum.
S. Williams, A. Waterman, D. Patterson: Roofline, an insightful visual performance model (CACM 52(4), 2009).
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

import torch

from engine.model.clocks import clock_for
from engine.model.measure import cache_bytes
from engine.planning.profile import Bound, Roofline

_GEMM_SIZE = {"cpu": 1024, "cuda": 8192}
_BUDGET_S = 0.4  # for each of the two
_MIN_RUNS, _MAX_RUNS = 4, 40
_OVERHEAD_FACTOR = 2.0  # a layer that takes more than twice what bytes and FLOPs need is waiting for something else


@torch.inference_mode()
def measure_roofline(device: str, dtype: torch.dtype) -> Roofline:
    """About a second; allocates up to 512 MiB on a CPU, 1 GiB on a GPU, and gives it back."""
    size = _GEMM_SIZE[device.partition(":")[0]]
    square = torch.ones(size, size, dtype=dtype, device=device)
    gemm_s = _best_s(device, lambda: square @ square)
    rows = _streamed_bytes(device) // (4096 * dtype.itemsize)
    matrix = torch.ones(4096, rows, dtype=dtype, device=device).t()  # [rows, 4096], long side contiguous as weights are kept
    vector = torch.ones(1, rows, dtype=dtype, device=device)
    stream_s = _best_s(device, lambda: vector @ matrix)
    return Roofline(2.0 * size**3 / gemm_s, matrix.nbytes / stream_s)


def _streamed_bytes(device: str) -> int:
    """Far more than the caches hold."""
    return 2**30 if device != "cpu" else min(2**29, max(2**27, 4 * cache_bytes()))


def _best_s(device: str, run: Callable[[], torch.Tensor]) -> float:
    clock = clock_for(device)
    deadline_s = perf_counter() + _BUDGET_S
    best_s = float("inf")
    for count in range(_MAX_RUNS):
        clock.synchronise()
        began_s = perf_counter()
        run()
        clock.synchronise()
        best_s = min(best_s, perf_counter() - began_s)
        if count >= _MIN_RUNS and perf_counter() > deadline_s:
            break
    return best_s


def explain(spent_s: float, flops: int, moved_bytes: int, roof: Roofline) -> tuple[Bound, str]:
    """What limits a layer that took `spent_s`, and a sentence with the figures."""
    memory_s, compute_s = moved_bytes / roof.bytes_per_s, flops / roof.flops_per_s
    rates = (
        f"{moved_bytes / 1e6:.3g} MB at {moved_bytes / spent_s / 1e9:.3g} of {roof.bytes_per_s / 1e9:.3g} GB/s, "
        f"{flops / 1e6:.3g} MFLOP at {flops / spent_s / 1e9:.3g} of {roof.flops_per_s / 1e9:.3g} GFLOP/s"
    )
    needed_s = max(memory_s, compute_s)
    if spent_s > _OVERHEAD_FACTOR * needed_s:
        return Bound.OVERHEAD, f"takes {1e6 * spent_s:.3g} us where bytes and FLOPs need {1e6 * needed_s:.3g} us ({rates})"
    if memory_s >= compute_s:
        return Bound.MEMORY, f"moves {rates}"
    return Bound.COMPUTE, f"computes {rates}"
