"""What this server knows of the cluster: asked in each caller's name, and kept for a moment."""

from __future__ import annotations

import time
from weakref import WeakKeyDictionary

from engine.api.problems import RETRY_AFTER_S, Problem
from engine.data.status import ClusterStatus, Phase
from engine.service.client import Client

FRESH_S = 0.5


class ClusterFacts:
    """The newest status that each caller got: nobody learns from another's answer what the cluster would not tell him."""

    def __init__(self) -> None:
        self._known: WeakKeyDictionary[Client, tuple[float, ClusterStatus]] = WeakKeyDictionary()

    async def status(self, client: Client) -> ClusterStatus:
        """At most `FRESH_S` old; raises what a failed call raises."""
        asked_s, status = self._known.get(client, (0.0, None))
        if status is None or time.monotonic() - asked_s > FRESH_S:
            status = await client.status()
            self._known[client] = (time.monotonic(), status)
        return status

    async def serving(self, client: Client) -> ClusterStatus:
        """The status of a cluster that serves. Raises Problem 503 with what is missing."""
        status = await self.status(client)
        if status.phase is not Phase.SERVING:
            why = status.failure or status.detail or "waiting for workers"
            message = f"the model is not served yet ({status.phase.lower()}): {why}"
            raise Problem(503, message, "server_error", code="not_serving", headers={"retry-after": RETRY_AFTER_S})
        return status
