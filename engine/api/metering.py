"""What this server counts: requests by path and status, those that run now, and how long they took."""

from __future__ import annotations

import time
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_REGISTRY = CollectorRegistry()
_REQUESTS = Counter("noodle_api_requests", "Answered requests", ["path", "status"], registry=_REGISTRY)
_RUNNING = Gauge("noodle_api_requests_running", "Requests that are being answered", registry=_REGISTRY)
_SECONDS = Histogram(
    "noodle_api_request_seconds",
    "From a request to the end of its answer",
    ["path"],
    buckets=(0.1, 0.3, 1, 3, 10, 30, 100, 300),
    registry=_REGISTRY,
)


def exposition() -> bytes:
    """In the text format."""
    return generate_latest(_REGISTRY)


class Metering:
    """ASGI middleware around the whole application."""

    def __init__(self, app: Any, paths: frozenset[str]) -> None:
        self._app, self._paths = app, paths

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = scope["path"] if scope["path"] in self._paths else "other"
        status = 499  # of a caller that went before it was answered

        async def watched(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        began_s = time.perf_counter()
        with _RUNNING.track_inprogress():
            try:
                await self._app(scope, receive, watched)
            finally:
                _REQUESTS.labels(path, str(status)).inc()
                _SECONDS.labels(path).observe(time.perf_counter() - began_s)
