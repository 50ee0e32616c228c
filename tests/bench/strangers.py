"""What strangers and watchers cost a cluster: memory while calls of 200 MB come without a token, CPU while 200 viewers watch.

`python -m tests.bench.strangers`
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time

import grpc
import grpc.aio
import psutil

from engine.service.client import Client
from engine.service.local import LocalCluster
from engine.service.local_options import local_options
from engine.service.trust.access import Access

CALL_BYTES, NUM_CALLS = 200_000_000, 6
NUM_VIEWERS, SPAN_S = 200, 15.0
METHODS = {"coordinator": "/noodle.v1.Control/Generate", "w1": "/noodle.v1.StageService/Load"}


async def flood(address: str, pid: int, method: str) -> dict[str, float]:
    """Resident memory in MiB before, at most during, and after calls that nobody knows."""
    process, content = psutil.Process(pid), bytes(CALL_BYTES)
    before = peak = process.memory_info().rss
    async with grpc.aio.insecure_channel(address, options=[("grpc.max_send_message_length", -1)]) as channel:
        waiting = [asyncio.ensure_future(channel.unary_unary(method)(content).code()) for _ in range(NUM_CALLS)]
        while not all(task.done() for task in waiting):
            peak = max(peak, process.memory_info().rss)
            await asyncio.sleep(0.01)
        assert {task.result() for task in waiting} == {grpc.StatusCode.UNAUTHENTICATED}
    return {"before_mib": before / 2**20, "peak_mib": peak / 2**20, "after_mib": process.memory_info().rss / 2**20}


async def watch(address: str, token: str, pid: int) -> dict[str, float]:
    """Share of a core that the coordinator spends on viewers who look twice a second."""
    process = psutil.Process(pid)
    num_frames = 0

    async def look() -> None:
        nonlocal num_frames
        async with Client(address, Access(token)) as client:
            async for _ in client.watch(min_interval_s=0.5):
                num_frames += 1

    async def measured() -> float:
        began_s, spent = time.monotonic(), process.cpu_times()
        await asyncio.sleep(SPAN_S)
        now = process.cpu_times()
        return (now.user + now.system - spent.user - spent.system) / (time.monotonic() - began_s)

    idle = await measured()
    viewers = [asyncio.create_task(look()) for _ in range(NUM_VIEWERS)]
    await asyncio.sleep(5.0)
    num_frames = 0
    busy = await measured()
    for viewer in viewers:
        viewer.cancel()
    await asyncio.gather(*viewers, return_exceptions=True)
    return {"idle_share": idle, "with_viewers_share": busy, "frames_per_s": num_frames / SPAN_S}


async def main() -> None:
    async with contextlib.AsyncExitStack() as stack:
        cluster = LocalCluster(local_options(model="gpt2:tiny", random_weights=0, num_workers=1, num_threads=1, adapt="off"))
        stack.push_async_callback(cluster.stop)
        await cluster.start()
        async with Client(cluster.address, Access(cluster.tokens.operator)) as client:
            async for frame in client.watch():
                if frame.status.phase == "serving":
                    break
            addresses = {"coordinator": cluster.address, "w1": (await client.status()).nodes[0].address}
        for name, method in METHODS.items():
            print(json.dumps({name: await flood(addresses[name], cluster.pids()[name], method)}))
        print(json.dumps({"viewers": await watch(cluster.address, cluster.tokens.operator, cluster.pids()["coordinator"])}))


if __name__ == "__main__":
    asyncio.run(main())
