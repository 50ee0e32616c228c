"""Kinds of option values: from text to a checked value, or one sentence that names what is allowed."""

from __future__ import annotations

import argparse
import contextlib
import re
from collections.abc import Callable

_SIZES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20, "gi": 2**30}


def whole(low: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not re.fullmatch(r"-?[0-9]{1,18}", text) or int(text) < low:
            raise argparse.ArgumentTypeError(f"{text!r} is not allowed: give a whole number of at least {low}")
        return int(text)

    return parse


def size(text: str) -> int:
    match = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]{1,6})?)([kmg]?i?)b?", text.lower())
    if match is None or match[2] not in _SIZES:
        raise argparse.ArgumentTypeError(f"size {text!r} is not allowed: give bytes or a number with K, M, G, Ki, Mi or Gi, e.g. 2G")
    return int(float(match[1]) * _SIZES[match[2]])


def factor(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 1.0 <= float(text) <= 1000.0:
            return float(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not allowed: give a factor from 1 to 1000")


def factors(text: str) -> tuple[float, ...]:
    return tuple(factor(part) for part in text.split(","))


def positive(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0.0 < float(text) < 1e9:
            return float(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not allowed: give a number above 0")


def numbers(text: str) -> tuple[float, ...]:
    return tuple(positive(part) for part in text.split(","))


def ids(text: str) -> tuple[int, ...]:
    if not re.fullmatch(r"[0-9]{1,18}(,[0-9]{1,18})*", text):
        raise argparse.ArgumentTypeError(f"{text[:80]!r} is not allowed: give whole numbers joined by commas, e.g. 1,2,3")
    return tuple(int(part) for part in text.split(","))
