"""What this server knows of the cluster: asked with a caller's own right, and kept for a moment."""

from __future__ import annotations

import asyncio
import time

from engine.api.problems import RETRY_AFTER_S, Problem
from engine.data.status import ClusterStatus, Phase
from engine.service.client import Client

FRESH_S = 0.5


class ClusterFacts:
    """The newest status, at most `FRESH_S` old when it is used."""

    def __init__(self) -> None:
        self._status: ClusterStatus | None = None
        self._asked_s = 0.0
        self._lock = asyncio.Lock()

    async def status(self, client: Client, is_known: bool = False) -> ClusterStatus:
        """Raises what a failed call raises. `is_known`: the cluster will check the caller anyway, so that another's answer does."""
        async with self._lock:
            if self._status is None or not is_known or time.monotonic() - self._asked_s > FRESH_S:
                self._status = await client.status()
                self._asked_s = time.monotonic()
            return self._status

    async def serving(self, client: Client) -> ClusterStatus:
        """The status of a cluster that serves. Raises Problem 503 with what is missing."""
        status = await self.status(client, is_known=True)
        if status.phase is not Phase.SERVING:
            why = status.failure or status.detail or "waiting for workers"
            message = f"the model is not served yet ({status.phase.lower()}): {why}"
            raise Problem(503, message, "server_error", code="not_serving", headers={"retry-after": RETRY_AFTER_S})
        return status
