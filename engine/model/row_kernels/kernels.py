"""The row kernels of this machine: compiled where that gives the bits of torch's operations, else those operations themselves.

Which it is, is found by trying, once in a process. Compiled ones need numba; on a CPU whose vectors torch sums in another order than
is known here, the norm stays torch's. Answers have the same bits either way.

Shapes are those of `plain`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any

import torch

from engine.model.row_kernels import plain

log = logging.getLogger(__name__)

_LANES = (8, 16, 4)  # float32 numbers in a vector that torch may use: AVX2, AVX512, NEON
_LONGEST_ROW = 2**14  # of a longer one torch may sum two parts in two threads
_ROWS_AT_ONCE = 128  # in one call, which holds the interpreter's lock
_SIZES = (2, 32, 40, 100, 576, 1000, 4096, 8192)  # of rows that are tried


@dataclass(frozen=True, slots=True)
class RowKernels:
    """Functions of `plain`, with the same results. What they are given is float32 on the CPU; sums and scales are contiguous."""

    rms_norm: Callable[[torch.Tensor, torch.Tensor, float, bool], torch.Tensor] = plain.rms_norm
    round_rows: Callable[[torch.Tensor, int, int, float], tuple[torch.Tensor, torch.Tensor]] = plain.round_rows
    put_together: Callable[[torch.Tensor, torch.Tensor, int], torch.Tensor] = plain.put_together
    rotary: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor] = plain.rotary
    put_token: Callable[[torch.Tensor, int, torch.Tensor, int], None] = plain.put_token

    @property
    def names(self) -> list[str]:
        """Those that are compiled."""
        return [name for name in self.__slots__ if getattr(self, name) is not getattr(plain, name)]


@cache
def row_kernels() -> RowKernels:
    """Those of this machine. The first call takes tenths of a second, the first one on a machine some seconds to compile them."""
    try:
        from engine.model.row_kernels import compiled
    except Exception as error:  # numba is not there, or knows neither this Python nor this CPU, or can write no cache
        log.info("no compiled row kernels: %s: %s", type(error).__name__, error)
        return RowKernels()
    return RowKernels(
        _first_equal(plain.rms_norm, (_rms_norm(compiled, lanes) for lanes in _LANES), _norms()),
        _first_equal(plain.round_rows, [_round_rows(compiled)], _rows()),
        _first_equal(plain.put_together, [_put_together(compiled)], _sums()),
        _first_equal(plain.rotary, [_rotary(compiled)], _heads()),
        _first_equal(plain.put_token, [_put_token(compiled)], _tokens(), _written),
    )


def _first_equal(
    known: Callable[..., Any],
    found: Iterable[Callable[..., Any]],
    cases: list[tuple[Any, ...]],
    given_by: Callable[..., Any] = lambda kernel, *case: kernel(*case),
) -> Callable[..., Any]:
    """The first that gives the bits of `known` in every case, or `known`."""
    expected = [given_by(known, *case) for case in cases]
    return next((f for f in found if all(_equal(given_by(f, *case), right) for case, right in zip(cases, expected, strict=True))), known)


def _equal(found: Any, expected: Any) -> bool:
    pairs = zip(found, expected, strict=True) if isinstance(expected, tuple) else [(found, expected)]
    return all(torch.equal(a, b) for a, b in pairs)


def _in_pieces(call: Callable[[int, int], None], num_rows: int) -> None:
    """`call(first row, how many)` for all rows."""
    for first in range(0, num_rows, _ROWS_AT_ONCE):
        call(first, min(_ROWS_AT_ONCE, num_rows - first))


def _rms_norm(compiled: ModuleType, lanes: int) -> Callable[[torch.Tensor, torch.Tensor, float, bool], torch.Tensor]:
    kernel = compiled.rms_norm

    def rms_norm(hidden: torch.Tensor, weight: torch.Tensor, eps: float, one_plus: bool) -> torch.Tensor:
        size = weight.shape[0]
        if not (lanes <= size <= _LONGEST_ROW and hidden.stride(-1) == 1):  # shorter ones torch sums in another order
            return plain.rms_norm(hidden, weight, eps, one_plus)
        hidden = hidden.contiguous()
        out = torch.empty_like(hidden)
        source, factors, target, num_rows = hidden.data_ptr(), weight.data_ptr(), out.data_ptr(), hidden.numel() // size
        if num_rows <= _ROWS_AT_ONCE:
            kernel(source, factors, target, num_rows, size, lanes, one_plus, eps)
            return out

        def call(first: int, count: int) -> None:
            skipped = 4 * first * size
            kernel(source + skipped, factors, target + skipped, count, size, lanes, one_plus, eps)

        _in_pieces(call, num_rows)
        return out

    return rms_norm


def _round_rows(compiled: ModuleType) -> Callable[[torch.Tensor, int, int, float], tuple[torch.Tensor, torch.Tensor]]:
    kernel = compiled.round_rows

    def round_rows(rows: torch.Tensor, largest: int, num_parts: int, least: float) -> tuple[torch.Tensor, torch.Tensor]:
        if not rows.is_contiguous():
            return plain.round_rows(rows, largest, num_parts, least)
        shape = rows.shape
        first_size, size = shape[0], shape[-1]
        parts, scales = torch.empty(2 * first_size, *shape[1:]), torch.empty(*shape[:-1], 1)
        num_rows, source, uppers, factors = rows.numel() // size, rows.data_ptr(), parts.data_ptr(), scales.data_ptr()
        lowers = uppers + 4 * num_rows * size
        if num_rows <= _ROWS_AT_ONCE:
            kernel(source, uppers, lowers, factors, num_rows, size, largest, num_parts, least)
            return parts, scales

        def call(first: int, count: int) -> None:
            skipped = 4 * first * size
            kernel(source + skipped, uppers + skipped, lowers + skipped, factors + 4 * first, count, size, largest, num_parts, least)

        _in_pieces(call, num_rows)
        return parts, scales

    return round_rows


def _put_together(compiled: ModuleType) -> Callable[[torch.Tensor, torch.Tensor, int], torch.Tensor]:
    kernel = compiled.put_together

    def put_together(sums: torch.Tensor, scales: torch.Tensor, num_parts: int) -> torch.Tensor:
        num_rows, size = scales.numel(), sums.shape[-1]
        out = torch.empty(*scales.shape[:-1], size)
        uppers, factors, target = sums.data_ptr(), scales.data_ptr(), out.data_ptr()
        lowers = uppers + 4 * num_rows * size
        if num_rows <= _ROWS_AT_ONCE:
            kernel(uppers, lowers, factors, target, num_rows, size, num_parts)
            return out

        def call(first: int, count: int) -> None:
            skipped = 4 * first * size
            kernel(uppers + skipped, lowers + skipped, factors + 4 * first, target + skipped, count, size, num_parts)

        _in_pieces(call, num_rows)
        return out

    return put_together


def _rotary(compiled: ModuleType) -> Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]:
    kernel = compiled.rotary

    def rotary(heads: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        _, num_heads, num_tokens, size = heads.shape
        _, by_head, by_token, by_number = heads.stride()
        if by_number != 1 or size % 2 or not (cos.is_contiguous() and sin.is_contiguous()) or cos.numel() != num_tokens * size:
            return plain.rotary(heads, cos, sin)
        out = torch.empty(1, num_tokens, num_heads, size)
        source, target, cosines, sines = heads.data_ptr(), out.data_ptr(), cos.data_ptr(), sin.data_ptr()

        def call(first: int, count: int) -> None:
            skipped = 4 * first * size
            kernel(
                source + 4 * first * by_token, cosines + skipped, sines + skipped, target + num_heads * skipped,
                count, num_heads, size, by_token, by_head,
            )  # fmt: skip

        _in_pieces(call, num_tokens)
        return out.transpose(1, 2)

    return rotary


def _put_token(compiled: ModuleType) -> Callable[[torch.Tensor, int, torch.Tensor, int], None]:
    kernel = compiled.put_token

    def put_token(heads: torch.Tensor, token: int, target: torch.Tensor, position: int) -> None:
        by_head, by_token, by_number = heads.stride()
        num_heads, length, size = target.shape
        if by_number != 1 or not target.is_contiguous():
            return plain.put_token(heads, token, target, position)
        source, place = heads.data_ptr() + 4 * token * by_token, target.data_ptr() + 4 * position * size
        kernel(source, place, num_heads, size, by_head, length * size)
        return None

    return put_token


def _noise(*shape: int) -> torch.Tensor:
    """Numbers of very different sizes, so that another order of a sum has other bits."""
    generator = torch.Generator().manual_seed(shape[-1])
    return torch.randn(shape, generator=generator) * torch.randn(shape, generator=generator).exp()


def _norms() -> list[tuple[Any, ...]]:
    cases = [(rows, size) for size in _SIZES for rows in (_noise(1, size), _noise(3, size), _noise(3, size + 5)[:, :size])]
    return [(rows, _noise(1, size)[0], 1e-5, one_plus) for rows, size in cases for one_plus in (False, True)]


def _rows() -> list[tuple[Any, ...]]:
    cases = [(_noise(rows, size), 2**13, 128, 1e-30) for size in _SIZES for rows in (1, 3)]
    return [*cases, (torch.zeros(2, 64), 2**13, 128, 1e-30)]


def _sums() -> list[tuple[Any, ...]]:
    return [(_noise(2, rows, size).round_(), _noise(1, rows, 1), 128) for size in _SIZES for rows in (1, 3)]


def _heads() -> list[tuple[Any, ...]]:
    turns = [_noise(1, 3, size) for size in (2, 64, 80)]
    return [(_noise(1, 3, 4, angles.shape[-1]).transpose(1, 2), angles.cos(), angles.sin()) for angles in turns]


def _tokens() -> list[tuple[Any, ...]]:
    heads = _noise(4, 3, 40)
    return [(states, token, position) for states in (heads, heads.transpose(0, 1)) for token, position in ((0, 5), (2, 0))]


def _written(put_token: Callable[..., None], heads: torch.Tensor, token: int, position: int) -> torch.Tensor:
    target = torch.zeros(len(heads), 7, heads.shape[2])
    put_token(heads, token, target, position)
    return target
