"""Row kernels for numba: one pass over a row where torch takes five to ten operations, each with a call of its own.

They get addresses of float32 numbers, so that a call costs less than a microsecond. Each does what the chain of torch's operations does,
in the same order and with the same roundings; `kernels.py` compares them before it trusts them, and holds what the addresses must be.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numba import carray, njit, types
from numba.extending import intrinsic

from engine.folders import cache_folder

# Beside the code nothing may be written. numba names the CPU in its index.
numba.config.CACHE_DIR = numba.config.CACHE_DIR or str(cache_folder() / "numba")

_ONE, _NONE, _NO_NUMBER = np.float32(1), np.float32(0), np.float32(np.nan)
_LEVELS = 4  # of partial sums
_AT_ONCE = 4  # vectors that a sum takes side by side


@intrinsic
def _pointer(typing_context: Any, address: Any) -> Any:
    """A whole number as the address of float32 numbers."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    return types.CPointer(types.float32)(types.intp), generate


def _compiled(num_whole: int, *further: Any) -> Any:
    """Compiled before it is called, for so many whole numbers and what follows them."""
    return njit([types.void(*[types.intp] * num_whole, *further)], cache=True, error_model="numpy")


@njit(inline="always", error_model="numpy")
def _add_squares(sums: Any, row: Any, first: int, count: int) -> None:
    for k in range(count):
        sums[k] += row[first + k] * row[first + k]


@njit(inline="always", error_model="numpy")
def _sum_of_squares(row: Any, size: int, lanes: int, partial: Any) -> Any:
    """The sum of row * row with torch's roundings: ATen/native/cpu/SumKernel.cpp, `vectorized_inner_sum`.

    Four vectors of `lanes` numbers are summed side by side, in a cascade of levels, so that long sums stay exact; what is left over
    comes in first. `partial` is scratch [4, 4 * lanes].
    """
    width, num_vectors = _AT_ONCE * lanes, size // lanes
    num_steps = num_vectors // _AT_ONCE
    log = 0
    while (1 << log) < num_steps:
        log += 1
    power = max(4, log // _LEVELS)
    step, mask = 1 << power, (1 << power) - 1
    partial[:] = _NONE
    index = 0
    while index + step <= num_steps:
        for _ in range(step):
            _add_squares(partial[0], row, index * width, width)
            index += 1
        for level in range(1, _LEVELS):
            for k in range(width):
                partial[level, k] += partial[level - 1, k]
                partial[level - 1, k] = _NONE
            if (index & (mask << (level * power))) != 0:
                break
    while index < num_steps:
        _add_squares(partial[0], row, index * width, width)
        index += 1
    for level in range(1, _LEVELS):
        for k in range(width):
            partial[0, k] += partial[level, k]
    for vector in range(num_steps * _AT_ONCE, num_vectors):
        _add_squares(partial[0], row, vector * lanes, lanes)
    for vector in range(1, _AT_ONCE):
        for k in range(lanes):
            partial[0, k] += partial[0, vector * lanes + k]
    total = _NONE
    for k in range(num_vectors * lanes, size):
        total += row[k] * row[k]
    for k in range(lanes):
        total += partial[0, k]
    return total


@_compiled(7, types.float32)
def rms_norm(hidden: Any, weight: Any, out: Any, num_rows: int, size: int, lanes: int, one_plus: int, eps: Any) -> None:
    """Rows [T, D] over the root of their mean square, times `weight` [D], or 1 + `weight`."""
    weights = carray(_pointer(weight), size)
    partial = np.empty((_LEVELS, _AT_ONCE * lanes), np.float32)
    for r in range(num_rows):
        row, result = carray(_pointer(hidden + 4 * r * size), size), carray(_pointer(out + 4 * r * size), size)
        scale = _ONE / np.sqrt(_sum_of_squares(row, size, lanes, partial) / np.float32(size) + eps)
        if one_plus:
            for k in range(size):
                result[k] = (row[k] * scale) * (_ONE + weights[k])
        else:
            for k in range(size):
                result[k] = weights[k] * (row[k] * scale)


@_compiled(6, types.float32, types.float32, types.float32)
def round_rows(
    hidden: Any, uppers: Any, lowers: Any, scales: Any, num_rows: int, size: int, largest: Any, num_parts: Any, least: Any
) -> None:
    """Rows [T, K] to whole numbers of at most `largest` as upper parts [T, K], lower parts [T, K] and scales [T]."""
    all_scales = carray(_pointer(scales), num_rows)
    for r in range(num_rows):
        skipped = 4 * r * size
        row = carray(_pointer(hidden + skipped), size)
        upper, lower = carray(_pointer(uppers + skipped), size), carray(_pointer(lowers + skipped), size)
        most, is_number = _NONE, True
        for k in range(size):
            most = max(most, abs(row[k]))
            is_number &= row[k] == row[k]
        scale = most * (_ONE / largest) + least if is_number else _NO_NUMBER
        all_scales[r] = scale
        for k in range(size):
            whole = np.rint(row[k] / scale)
            high = np.rint(whole * (_ONE / num_parts))
            upper[k] = high
            lower[k] = whole - high * num_parts


@_compiled(6, types.float32)
def put_together(uppers: Any, lowers: Any, scales: Any, out: Any, num_rows: int, size: int, num_parts: Any) -> None:
    """The sums [T, size] of upper and of lower parts as one product [T, size]."""
    all_scales = carray(_pointer(scales), num_rows)
    for r in range(num_rows):
        upper, lower = carray(_pointer(uppers + 4 * r * size), size), carray(_pointer(lowers + 4 * r * size), size)
        result, scale = carray(_pointer(out + 4 * r * size), size), all_scales[r]
        for k in range(size):
            result[k] = (lower[k] + num_parts * upper[k]) * scale


@_compiled(6)
def put_token(heads: Any, target: Any, num_heads: int, size: int, from_stride: int, to_stride: int) -> None:
    """Numbers [K] of each head of one token to where they are kept."""
    for h in range(num_heads):
        head, result = carray(_pointer(heads + 4 * h * from_stride), size), carray(_pointer(target + 4 * h * to_stride), size)
        for k in range(size):
            result[k] = head[k]


@_compiled(9)
def rotary(
    hidden: Any, cos: Any, sin: Any, out: Any, num_tokens: int, num_heads: int, size: int, token_stride: int, head_stride: int
) -> None:
    """The halves of each head turned against each other by cos and sin [T, K]; `out` is [T, H, K]."""
    half = size // 2
    for t in range(num_tokens):
        c, s = carray(_pointer(cos + 4 * t * size), size), carray(_pointer(sin + 4 * t * size), size)
        for h in range(num_heads):
            head = carray(_pointer(hidden + 4 * (t * token_stride + h * head_stride)), size)
            result = carray(_pointer(out + 4 * (t * num_heads + h) * size), size)
            for k in range(half):
                result[k] = head[k] * c[k] + -head[k + half] * s[k]
            for k in range(half, size):
                result[k] = head[k] * c[k] + head[k - half] * s[k]
