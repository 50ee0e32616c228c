"""A caller's trace goes on in the cluster: its header `traceparent` reaches whatever the request asks of it."""

from __future__ import annotations

from typing import Any

from engine.service.tracing import parent


class Traced:
    """ASGI middleware around the whole application."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            parent.enter((name.decode("latin-1"), value) for name, value in scope["headers"])
        await self._app(scope, receive, send)
