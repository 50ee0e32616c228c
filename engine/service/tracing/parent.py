"""To which trace a request belongs: W3C's `traceparent`, on its way from an HTTP header over gRPC's metadata to the coordinator.

It is a value of the task that answers the request, so that nothing between them has to hand it on. No OpenTelemetry here: who passes a
trace on needs none of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextvars import ContextVar

NAME = "traceparent"
_FORM = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_parent: ContextVar[str] = ContextVar("traceparent", default="")


def enter(headers: Iterable[tuple[str, str | bytes]]) -> None:
    """What is asked for in this task from now on belongs to the trace that `headers` name; to none if they name none, or not rightly."""
    found = next((value for name, value in headers if name == NAME), "")
    text = found.decode("latin-1") if isinstance(found, bytes) else found
    _parent.set(text if _FORM.fullmatch(text) else "")


def parent() -> str:
    """Of this task; empty: it belongs to no trace yet."""
    return _parent.get()


def metadata() -> tuple[tuple[str, str], ...]:
    """For calls to the coordinator."""
    return ((NAME, text),) if (text := _parent.get()) else ()
