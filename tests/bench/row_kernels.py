"""Microseconds of each row kernel, compiled and as torch's operations, with everything that Python does around it.

python -m tests.bench.row_kernels [NUMBERS_OF_A_ROW]
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import torch

from engine.model.eight_bit_products import LARGEST_INPUT
from engine.model.row_kernels import plain
from engine.model.row_kernels.kernels import row_kernels

NUM_CALLS, NUM_TURNS, HEAD_SIZE, NUM_PARTS, LEAST = 50, 200, 64, 128, 1e-30


def fastest_us(call: Callable[[], Any]) -> float:
    """The best of many turns: whoever else uses the machine only adds."""
    turns = []
    for _ in range(NUM_TURNS):
        began_s = time.perf_counter()
        for _ in range(NUM_CALLS):
            call()
        turns.append((time.perf_counter() - began_s) / NUM_CALLS)
    return 1e6 * min(turns)


def main() -> None:
    torch.set_num_threads(1)
    size = int(sys.argv[1]) if len(sys.argv) > 1 else 576
    compiled = row_kernels()
    for num_rows in (1, 8):
        rows, weight = torch.randn(1, num_rows, size), torch.randn(size)
        sums, scales = torch.randn(2, num_rows, size), torch.rand(1, num_rows, 1)
        heads = torch.randn(1, num_rows, size // HEAD_SIZE, HEAD_SIZE).transpose(1, 2)
        angles, kept = torch.randn(1, num_rows, HEAD_SIZE), torch.zeros(size // HEAD_SIZE, 128, HEAD_SIZE)
        calls: dict[str, Callable[[Any], Any]] = {
            "rms_norm": lambda k, rows=rows, weight=weight: k.rms_norm(rows, weight, 1e-6, False),
            "rotary": lambda k, heads=heads, angles=angles: k.rotary(heads, angles, angles),
            "round_rows": lambda k, rows=rows: k.round_rows(rows, LARGEST_INPUT, NUM_PARTS, LEAST),
            "put_token": lambda k, heads=heads[0], kept=kept: k.put_token(heads, 0, kept, 70),
            "put_together": lambda k, sums=sums, scales=scales: k.put_together(sums, scales, NUM_PARTS),
        }
        for name, call in calls.items():
            took = fastest_us(lambda call=call: call(plain)), fastest_us(lambda call=call: call(compiled))
            print(f"{num_rows} rows of {size}  {name:12}  torch {took[0]:6.1f}  compiled {took[1]:6.1f}")


if __name__ == "__main__":
    main()
