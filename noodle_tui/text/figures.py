"""Numbers as people read them: milliseconds, bytes, ages, counts, in few and steady cells."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from datetime import datetime

from engine.data.binary_size import binary_size as size

__all__ = ["age", "clock", "middle", "ms", "percent", "quantile", "rate", "short_id", "signed_percent", "size", "up_for", "with_ms"]

SHORT_ID = 10
DAY_MINUTES = 24 * 60
_SESSION_ID = re.compile(r"s-[0-9a-f]{32}")


def ms(seconds: float) -> str:
    """Milliseconds with one decimal below 100 (`11.8`, `412`); a dash when nothing was measured."""
    if not math.isfinite(seconds) or seconds <= 0:
        return "-"
    value = seconds * 1000
    return f"{value:.1f}" if value < 99.95 else f"{min(value, 999_999):.0f}"


def with_ms(seconds: float) -> str:
    """`ms` with its unit; from ten seconds on in seconds (`14.7s`), from ten minutes on as an age."""
    text = ms(seconds)
    if text == "-" or seconds < 9.9995:
        return text if text == "-" else f"{text}ms"
    return f"{seconds:.1f}s" if seconds < 99.95 else f"{seconds:.0f}s" if seconds < 600 else age(seconds)


def short_id(name: str) -> str:
    """A session's id as far as anybody reads it, as lists show it; every other name as it is."""
    return name[:SHORT_ID] if _SESSION_ID.fullmatch(name) else name


def age(seconds: float) -> str:
    """A duration in whole seconds and up, so that a healthy screen does not change every second."""
    if not math.isfinite(seconds) or seconds < 0:
        return "-"
    if seconds < 1:
        return "<1s"
    if seconds < 120:
        return f"{int(seconds)}s"
    minutes = int(seconds // 60)
    if minutes >= 2 * DAY_MINUTES:
        return f"{minutes // DAY_MINUTES}d"
    return f"{minutes}m" if minutes < 120 else f"{minutes // 60}h{minutes % 60:02d}m"


def up_for(seconds: float) -> str:
    """How long something has been up, in whole minutes: seconds would be a clock that nobody asked for."""
    minutes = int(seconds // 60)
    return "<1m" if minutes < 1 else f"{minutes}m" if minutes < 120 else age(seconds)


def percent(share: float) -> str:
    return f"{min(share, 99.99) * 100:.0f}%" if math.isfinite(share) and share >= 0 else "-"


def rate(per_s: float) -> str:
    return f"{per_s:.1f}" if math.isfinite(per_s) and per_s > 0 else "-"


def clock(wall_s: float) -> str:
    """Local time of day; dashes when the value cannot be a time."""
    try:
        return datetime.fromtimestamp(wall_s).strftime("%H:%M:%S")
    except (OverflowError, ValueError, OSError):
        return "--:--:--"


def signed_percent(share: float | None) -> str:
    """A change: `+55%`, `-3%`, from ten times on `x12`; a dash when there is nothing to compare."""
    if share is None or not math.isfinite(share):
        return "-"
    if share >= 9.0:
        return f"x{min(1 + share, 9999):.0f}"
    text = f"{max(-9.99, min(share, 99.99)) * 100:+.0f}%"
    return "+0%" if text == "-0%" else text


def quantile(values: Sequence[float], share: float) -> float:
    """The nearest-rank quantile; 0 without values."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, math.ceil(share * len(ordered)) - 1))] if ordered else 0.0


def middle(values: Sequence[float]) -> float:
    """The median; 0 without values. The standard library's costs 9 ms of start."""
    ordered = sorted(values)
    half = len(ordered) // 2
    if not ordered:
        return 0.0
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2
