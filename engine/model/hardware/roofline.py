"""What this device can do at best, measured: FLOP/s of a large matrix product, bytes/s of reading a large matrix, and the
time of an operation too small to count.

All use the dtype and the threads that the profile uses, and take the best of a few runs: a roof is a maximum.
S. Williams, A. Waterman, D. Patterson: Roofline, an insightful visual performance model (CACM 52(4), 2009).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter

import torch

from engine.model.eight_bit_products import whole_product
from engine.model.hardware.clocks import clock_for
from engine.model.hardware.cpu import cache_bytes
from engine.model.hardware.devices import usable_memory
from engine.profile.profile import Bound, Roofline
from engine.profile.scaling import OVERHEAD_FACTOR

_GEMM_SIZE = {"cpu": 1024, "cuda": 8192}
_SMALLEST_GEMM = 128
_ROWS = 4096
_LEAST_BYTES = 2**24  # a multiple of a row in every dtype
_BUDGET_S = 0.4  # for each of product and reading
_MIN_RUNS, _MAX_RUNS = 4, 40
_DISPATCH_RUNS = 50
_FILL = 0x3C  # this byte repeated is an ordinary number in every dtype: 0.0115 (float32, bfloat16), 1.06 (float16), 60 (int8)


@torch.inference_mode()
def measure_roofline(device: str, dtype: torch.dtype) -> Roofline:
    """About a second; allocates up to 512 MiB on a CPU, 1 GiB on a GPU, and gives it back."""
    found, failures = measure_rooflines(device, [dtype], 2 * _BUDGET_S)
    if failures:
        raise failures[dtype]
    return found[dtype]


@torch.inference_mode()
def measure_rooflines(
    device: str, dtypes: Sequence[torch.dtype], budget_s: float
) -> tuple[dict[torch.dtype, Roofline], dict[torch.dtype, Exception]]:
    """Every dtype on one device, over one buffer. A dtype that is slow here gets smaller sizes, so that the budget holds.

    Takes about `budget_s` and the time to fill the buffer. The second answer holds the dtypes whose products failed.
    """
    share_s = budget_s / (2 * len(dtypes))
    buffer = torch.full((_streamed_bytes(device),), _FILL, dtype=torch.uint8, device=device)
    dispatch_s = _dispatch_s(device)
    found: dict[torch.dtype, Roofline] = {}
    failures: dict[torch.dtype, Exception] = {}
    for dtype in dtypes:
        try:
            flops_per_s = _product_flops_per_s(device, dtype, share_s)
            found[dtype] = Roofline(flops_per_s, _read_bytes_per_s(device, dtype, buffer, share_s), dispatch_s)
        except Exception as error:  # a kernel that lacks this shape, or no memory for it; torch has many kinds of both
            failures[dtype] = error
    return found, failures


def product(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """left [m, k] x right [k, n] in their dtype; int8 accumulates in int32."""
    if left.dtype != torch.int8:
        return left @ right
    return whole_product(left, right)() if left.device.type == "cpu" else torch._int_mm(left, right)


def prepared(left: torch.Tensor, right: torch.Tensor) -> Callable[[], torch.Tensor]:
    """What computes `product` as a stage does, whose 8-bit weights are laid out once."""
    is_laid_out = left.dtype == torch.int8 and left.device.type == "cpu"
    return whole_product(left, right) if is_laid_out else lambda: product(left, right)


def _product_flops_per_s(device: str, dtype: torch.dtype, budget_s: float) -> float:
    """The best over square products, doubled while three of the next size fit the rest of the budget."""
    first = torch.ones(_SMALLEST_GEMM, _SMALLEST_GEMM, dtype=dtype, device=device)
    _best_s(device, _squaring(first), 0.0, num_runs=1)  # a GPU's first product starts its library, which can take the whole budget
    size, largest, best, deadline_s = _SMALLEST_GEMM, _GEMM_SIZE[device.partition(":")[0]], 0.0, perf_counter() + budget_s
    while True:
        square = torch.ones(size, size, dtype=dtype, device=device)
        once_s = _best_s(device, _squaring(square), 0.0, num_runs=3)  # the best of three: a pause must not end the climb
        best = max(best, 2.0 * size**3 / once_s)
        left_s = deadline_s - perf_counter()
        if size == largest or 3 * 8 * once_s > left_s:
            return max(best, 2.0 * size**3 / _best_s(device, _squaring(square), left_s, num_runs=1))
        size *= 2


def _squaring(matrix: torch.Tensor) -> Callable[[], torch.Tensor]:
    """Times its transpose: the long side contiguous, as weights are kept. CUDA multiplies int8 in no other layout."""
    return prepared(matrix, matrix.t())


def _read_bytes_per_s(device: str, dtype: torch.dtype, buffer: torch.Tensor, budget_s: float) -> float:
    """A vector times a matrix, as decoding one token does; `buffer` is cut where reading it all would take too long."""
    num_vectors = 32 if dtype == torch.int8 and device != "cpu" else 1  # the int8 kernel of CUDA wants more than 16
    probed_s = _best_s(device, _reader(dtype, buffer[:_LEAST_BYTES], num_vectors), 0.0, num_runs=2)
    wanted_bytes = int(_LEAST_BYTES * budget_s / (_MIN_RUNS * probed_s))
    matrix_bytes = max(_LEAST_BYTES, min(len(buffer), wanted_bytes) // _LEAST_BYTES * _LEAST_BYTES)
    return matrix_bytes / _best_s(device, _reader(dtype, buffer[:matrix_bytes], num_vectors), budget_s)


def _reader(dtype: torch.dtype, data: torch.Tensor, num_vectors: int) -> Callable[[], torch.Tensor]:
    matrix = data.view(dtype).view(_ROWS, -1).t()  # [k, _ROWS], long side contiguous as weights are kept
    vectors = torch.ones(num_vectors, matrix.shape[0], dtype=dtype, device=data.device)
    return prepared(vectors, matrix)


def _dispatch_s(device: str) -> float:
    """The time from one operation to the next when they have next to nothing to do. It is the same in every dtype."""
    tiny = torch.ones(32, device=device)

    def run() -> torch.Tensor:
        result = tiny
        for _ in range(_DISPATCH_RUNS):
            result = tiny + tiny
        return result

    return _best_s(device, run, 0.0, num_runs=10) / _DISPATCH_RUNS


def _streamed_bytes(device: str) -> int:
    """Far more than the caches hold, where a quarter of the free memory is that much."""
    wanted = 2**30 if device != "cpu" else min(2**29, max(2**27, 4 * cache_bytes()))
    return max(_LEAST_BYTES, min(wanted, usable_memory(device)[0] // 4) // _LEAST_BYTES * _LEAST_BYTES)


def _best_s(device: str, run: Callable[[], torch.Tensor], budget_s: float, num_runs: int = _MIN_RUNS) -> float:
    """The shortest of at least `num_runs` runs, and more while the budget lasts."""
    clock = clock_for(device)
    deadline_s = perf_counter() + budget_s
    best_s = float("inf")
    for count in range(1, _MAX_RUNS + 1):
        clock.synchronise()
        began_s = perf_counter()
        run()
        clock.synchronise()
        best_s = min(best_s, perf_counter() - began_s)
        if count >= num_runs and perf_counter() > deadline_s:
            break
    return best_s


def explain(spent_s: float, flops: int, moved_bytes: int, roof: Roofline) -> tuple[Bound, str]:
    """What limits a layer that took `spent_s`, and a sentence with the figures."""
    memory_s, compute_s = moved_bytes / roof.bytes_per_s, flops / roof.flops_per_s
    rates = (
        f"{_figure(moved_bytes / 1e6)} MB at {_figure(moved_bytes / spent_s / 1e9)} of {_figure(roof.bytes_per_s / 1e9)} GB/s, "
        f"{_figure(flops / 1e6)} MFLOP at {_figure(flops / spent_s / 1e9)} of {_figure(roof.flops_per_s / 1e9)} GFLOP/s"
    )
    needed_s = max(memory_s, compute_s)
    if spent_s > OVERHEAD_FACTOR * needed_s:
        return Bound.OVERHEAD, f"takes {_figure(1e6 * spent_s)} us where bytes and FLOPs need {_figure(1e6 * needed_s)} us ({rates})"
    if memory_s >= compute_s:
        return Bound.MEMORY, f"moves {rates}"
    return Bound.COMPUTE, f"computes {rates}"


def _figure(value: float) -> str:
    """Three digits, and never a power of ten."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
