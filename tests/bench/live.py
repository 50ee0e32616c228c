"""GPT-2 124M on three workers: the next token after `kill -9`, and what a live rebalance costs eight sessions.

`python -m tests.bench.live [--kills N] [--moves N]` prints one JSON document per line. Gaps are what a client sees.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import statistics
from itertools import pairwise
from typing import Any

from engine.commands.bench.serve import EVERY_WORKER
from engine.commands.cluster.generate import Transcript, transcribe
from engine.commands.serving.serve import wait_until_serving
from engine.data.generation import GenerateRequest
from engine.data.plan import Stage
from engine.data.status import ClusterStatus, Phase
from engine.model.hardware.limits import num_cores
from engine.model.sources.source import default_ref
from engine.service.client import Client
from engine.service.local import LocalCluster
from engine.service.local_options import local_options
from tests.service.reference import reference

NUM_TOKENS = 60


def request(number: int, num_tokens: int = NUM_TOKENS) -> GenerateRequest:
    prompt = tuple((7 * number + 3 * i) % 251 for i in range(32))
    return GenerateRequest(prompt_ids=prompt, max_new_tokens=num_tokens, ignore_eos=True)


def ids(transcript: Transcript) -> list[int]:
    return [c.token_id for c in transcript.chunks if c.index >= 0]


def gaps_s(transcript: Transcript) -> list[float]:
    return [b - a for a, b in pairwise(transcript.arrived_s)]


async def kill(victim: str) -> dict[str, Any]:
    """One cluster, one session, one kill at token 30."""
    cluster, client = await start()
    try:
        killed = False

        def show(chunk: Any) -> None:
            nonlocal killed
            if chunk.index == 30 and not killed:
                killed = True
                os.kill(cluster.pids()[victim], signal.SIGKILL)

        transcript = await transcribe(client, request(1), show)
        expected = reference(*_model(), request(1).prompt_ids, NUM_TOKENS)
        return {"victim": victim, "next_token_s": max(gaps_s(transcript)), "identical": ids(transcript) == expected}
    finally:
        await client.close()
        await cluster.stop()


async def moves(num_moves: int) -> dict[str, Any]:
    """Eight sessions, and `num_moves` changes of two items back and forth."""
    cluster, client = await start()
    try:
        usual = await asyncio.gather(*(transcribe(client, request(n)) for n in range(8)))
        tasks = [asyncio.create_task(transcribe(client, request(n, 40 * (1 + num_moves)))) for n in range(8)]
        status = await decoding(client)
        first = [(s.worker_id, s.start, s.stop) for s in status.stages]
        (one, _, cut), (two, _, second_cut), (three, _, stop) = first
        other = [(one, 0, cut - 1), (two, cut - 1, second_cut - 1), (three, second_cut - 1, stop)]
        for number in range(num_moves):
            stages = [Stage(*s) for s in (first, other)[(number + 1) % 2]]
            await client.apply((await client.status()).plan_version, "", stages)
            async for _ in client.watch(min_interval_s=1.0):
                if len(await client.moves()) > number:
                    break
        disturbed = await asyncio.gather(*tasks)
        reports = await client.moves()
        same = all(ids(d)[:NUM_TOKENS] == ids(u) for d, u in zip(disturbed, usual, strict=True))
        usual_s = [g for t in usual for g in gaps_s(t)[1:]]
        longest_s = max(g for t in disturbed for g in gaps_s(t)[1:])
        return {
            "usual_gap_p50_s": statistics.median(usual_s),
            "usual_gap_max_s": max(usual_s),
            "longest_gap_s": longest_s,
            "identical": same,
            "pauses_s": [r.pause_s for r in reports],
            "moves": [[r.num_items, r.weight_bytes, r.kv_bytes, r.prepare_s, r.outcome] for r in reports],
        }
    finally:
        await client.close()
        await cluster.stop()


async def decoding(client: Client) -> ClusterStatus:
    async for frame in client.watch(min_interval_s=0.1):
        if len(frame.status.sessions) == 8 and min(s.num_generated for s in frame.status.sessions) > 3:
            return frame.status
    raise AssertionError("the watch ended")


async def start(num_threads: int = 0) -> tuple[LocalCluster, Client]:
    ref = default_ref()
    threads = num_threads or num_cores()
    cluster = LocalCluster(
        local_options(model=ref.model, random_weights=ref.random_weights, num_workers=3, num_threads=threads, **EVERY_WORKER)
    )
    await cluster.start()
    status = await wait_until_serving(cluster)
    assert status.phase is Phase.SERVING
    client = Client(cluster.address)
    await transcribe(client, request(0, 4))
    return cluster, client


def _model() -> tuple[str]:
    return (default_ref().model,)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", default="w1,w2,w3")
    parser.add_argument("--moves", type=int, default=4)
    parser.add_argument("--slowdown", type=float, default=0.0, help="only this: play one worker so many times as slow, and let it recover")
    parser.add_argument("--threads", type=int, default=0, help="of each worker, with --slowdown; as many as there are cores")
    options = parser.parse_args()
    if options.slowdown:
        from tests.bench.live_slowdown import slowdown

        print(json.dumps(asyncio.run(slowdown(options.slowdown, options.threads)), indent=1), flush=True)
        return
    for victim in filter(None, options.kills.split(",")):
        print(json.dumps(asyncio.run(kill(victim))), flush=True)
    if options.moves:
        print(json.dumps(asyncio.run(moves(options.moves))), flush=True)


if __name__ == "__main__":
    main()
