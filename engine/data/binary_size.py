"""Bytes as people read them: the one spelling of `noodle-engine` and of the console."""

from __future__ import annotations

import math

_UNITS = ("B", "K", "M", "G", "T", "P")


def binary_size(num_bytes: float) -> str:
    """Binary sizes in at most five cells: `512B`, `7.0G`, `16G`; a dash for what is no size."""
    if not math.isfinite(num_bytes) or num_bytes < 0:
        return "-"
    value, unit = float(num_bytes), 0
    while value >= 1023.5 and unit < len(_UNITS) - 1:
        value, unit = value / 1024, unit + 1
    return f"{value:.1f}{_UNITS[unit]}" if unit >= 3 and value < 9.95 else f"{value:.0f}{_UNITS[unit]}"
