"""The error tree, and the checks of names and ranges that raise it.

This room knows nothing of torch, gRPC or files; it imports the standard library only. Ranges are half-open,
times are seconds (`_s`), sizes are bytes (`_bytes`), counts start with `num_`.
"""

from __future__ import annotations

import math
import re

NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class NoodleError(Exception):
    """Base of every error a user can cause or must act on; the message says what is wrong and the way out."""

    exit_code = 1


class InvalidInput(NoodleError, ValueError):
    """The caller's input is wrong; sending it again cannot succeed."""

    exit_code = 2


class NotFound(NoodleError):
    """A session, worker or file that was named does not exist."""


class Refused(NoodleError):
    """The request is well-formed, but the cluster's state forbids it (wrong phase, wrong plan, no permission)."""

    exit_code = 2


class NotSupported(Refused):
    """The model or feature cannot be run here; the message names it and why."""


class Stale(NoodleError):
    """The message carries an old plan version or epoch and was dropped."""


class Gap(NoodleError):
    """The message's position lies beyond what this stage has seen."""


class Exhausted(NoodleError):
    """A bounded resource (KV budget, queue, memory) is full."""


class Unavailable(NoodleError):
    """The other side cannot be reached, is draining, or was lost; trying again later may succeed."""


class Corrupt(NoodleError):
    """Data arrived or was read damaged: bad checksum, truncated file, non-finite values."""


class Cancelled(NoodleError):
    """The session was cancelled by its client or an operator."""


class Unauthorized(NoodleError):
    """The token is missing, unknown, or its role does not allow the method."""

    exit_code = 2


class Unauthenticated(Unauthorized):
    """Nothing was shown, or nothing that is known here: another token or certificate may do."""


class Bug(NoodleError):
    """An unexpected failure on the other side; the message carries only an incident id to look for in its log."""


def check_name(what: str, name: str) -> str:
    """Return `name` if it may be shown, logged and used as an id; else raise InvalidInput."""
    if not NAME_PATTERN.fullmatch(name):
        raise InvalidInput(f"{what} {name[:80]!r} is not allowed: use 1 to 64 letters, digits, '.', '_' or '-', first a letter or digit")
    return name


def require_range(what: str, value: float, low: float, high: float, hint: str) -> None:
    if not (math.isfinite(value) and low <= value <= high):
        raise InvalidInput(f"{what} {value} is not allowed: it must lie in [{low:g}, {high:g}] ({hint})")
