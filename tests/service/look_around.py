"""What else must be true of a cluster over several hosts, as facts for a test to judge; see `partition` for the network."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from statistics import median
from typing import TYPE_CHECKING, Any

from engine.commands.cluster.generate import transcribe
from engine.data.generation import GenerateRequest
from engine.service.client import Client

if TYPE_CHECKING:
    from tests.service.partition import Network

LONG_PROMPT = tuple(i % 250 for i in range(600))
WRONG_ADDRESS = "10.77.0.99"
DEADLINE_S = 30.0


async def look_around(network: Network, client: Client, expected: list[int]) -> dict[str, Any]:
    """Facts from the operator's host. `expected` is the answer to `LONG_PROMPT`."""
    short = await transcribe(client, GenerateRequest(prompt_ids=(1, 2, 3), max_new_tokens=12, ignore_eos=True))
    long = await transcribe(client, GenerateRequest(prompt_ids=LONG_PROMPT, max_new_tokens=len(expected), ignore_eos=True))
    balanced, quickest = await client.plan("balanced"), await client.plan("latency_optimized")
    return {
        "status": await asyncio.to_thread(status, network.address),
        "links": [(link.from_id, link.to_id, link.round_trip_s, link.bandwidth_bytes_per_s, link.failure) for link in await client.links()],
        "num_stages": len(balanced.stages),
        "num_stages_quickest": len(quickest.stages),
        "predicted_step_s": balanced.round_trip_s,
        "step_s": median(c.step_s for c in short.chunks if c.index > 0),
        "long_prompt_ttft_s": long.ttft_s,
        "long_prompt_is_identical": [c.token_id for c in long.chunks if c.index >= 0] == expected,
        "told_to_advertise_wrongly": await wrongly_advertised(network, client),
    }


def status(address: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "engine", "status", "--connect", address, "--json"]
    document: dict[str, Any] = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return document


async def wrongly_advertised(network: Network, client: Client) -> dict[str, str]:
    """What the coordinator's events and the worker's own log say of a worker that gives an address where it is not."""
    said = await asyncio.to_thread(network.start_worker, "w9", "--listen", "0.0.0.0:0", "--advertise", WRONG_ADDRESS, host="w1")
    began_s, event = time.monotonic(), ""
    async for frame in client.watch(min_interval_s=0.1):
        event = next((e.text for e in frame.events if e.subject == "w9"), "")
        if event or time.monotonic() - began_s > DEADLINE_S:
            break
    log = await asyncio.to_thread(network.nursery.log_of, int(str(said["pid"])), "--advertise", DEADLINE_S)
    await asyncio.to_thread(network.nursery.kill, network.pids["w9"])
    return {"event": event, "log": log}
