"""To which replica of the HTTP API a request goes, on Ray Serve: of two at random the one with less to do.

Serve itself would first take those on the proxy's own node, and one of them has room for a thousand streams.
"""

from __future__ import annotations

import random

from ray.serve.request_router import FIFOMixin, PendingRequest, RequestRouter, RunningReplica


class LessBusyOfTwo(FIFOMixin, RequestRouter):
    """Serve asks the two for their queues, and takes the shorter one."""

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        """Two of them, or all if there are fewer; they are replicas that live, wherever."""
        return [random.sample(candidate_replicas, min(2, len(candidate_replicas)))]
