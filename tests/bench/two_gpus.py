"""Two GPUs of one host: a stage on each under load, half of one's layers moved to the other and back, then a worker killed.

`python -m tests.bench.two_gpus FOLDER [--devices cuda:0,cuda:1] [--sessions 32] [--kv-memory BYTES] [--moves 2]` prints one JSON document
a line. Gaps are what clients see. FOLDER holds a model, for instance what `--write llama-8b` puts there: random weights, stored as fp8
with `--fp8`, which halves the disk that they need.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import statistics
import time
from contextlib import AsyncExitStack, aclosing
from pathlib import Path
from typing import Any

from engine.commands.cluster.generate import Transcript, transcribe
from engine.commands.serving.serve import wait_until_serving
from engine.data.errors import NoodleError
from engine.data.generation import GenerateRequest
from engine.data.plan import Stage
from engine.data.status import ClusterStatus, Phase
from engine.service.client import Client
from engine.service.local import LocalCluster
from engine.service.local_options import local_options
from tests.bench.live import gaps_s
from tests.bench.made_up_weights import write

PATIENCE_S = 90.0


def request(number: int, num_tokens: int, context: int = 128) -> GenerateRequest:
    prompt = tuple((7 * number + 3 * i) % 251 + 1 for i in range(context))
    return GenerateRequest(prompt_ids=prompt, max_new_tokens=num_tokens, ignore_eos=True)


def say(**document: Any) -> None:
    print(json.dumps(document), flush=True)


async def answers(client: Client, sessions: int, num_tokens: int) -> list[Transcript]:
    return list(await asyncio.gather(*(transcribe(client, request(n, num_tokens)) for n in range(sessions))))


def speed(sessions: int, transcripts: list[Transcript], began_s: float) -> dict[str, Any]:
    gaps = [gap for transcript in transcripts for gap in gaps_s(transcript)[1:]]
    return {"sessions": sessions, "gap_p50_s": statistics.median(gaps), "longest_gap_s": max(gaps), "spent_s": time.monotonic() - began_s}


async def moved(client: Client, sessions: int, num_moves: int) -> None:
    """Half of the first stage's layers to the second worker and back, again and again, while all sessions decode."""
    tasks = [asyncio.create_task(transcribe(client, request(n, 4000))) for n in range(sessions)]
    began_s = time.monotonic()
    status = await until(client, lambda s: len(s.sessions) == sessions and min(x.num_generated for x in s.sessions) > 8)
    one, two = status.stages
    first = [Stage(one.worker_id, 0, one.stop), Stage(two.worker_id, one.stop, two.stop)]
    other = [Stage(one.worker_id, 0, one.stop // 2), Stage(two.worker_id, one.stop // 2, two.stop)]
    for number in range(num_moves):
        await client.apply((await client.status()).plan_version, "", (other, first)[number % 2])
        await until(client, lambda _: True)
        while len(await client.moves()) <= number:  # noqa: ASYNC110 - a bench
            await asyncio.sleep(0.05)
    for report in await client.moves():
        figures = {
            "pause_s": report.pause_s,
            "prepare_s": report.prepare_s,
            "kv_bytes": report.kv_bytes,
            "weight_bytes": report.weight_bytes,
        }
        say(what="live move", items=report.num_items, outcome=report.outcome, **figures)
    for session in (await client.status()).sessions:
        await client.cancel(session.session_id)
    ended = await asyncio.gather(*tasks, return_exceptions=True)
    say(what="sessions of the moves", **speed(sessions, [t for t in ended if isinstance(t, Transcript)], began_s))


async def killed(cluster: LocalCluster, client: Client, victim: str, num_tokens: int) -> None:
    """One session whose worker dies at its 30th token; what the cluster says after that if no more comes."""
    arrived_s: list[float] = []

    def show(chunk: Any) -> None:
        arrived_s.append(time.monotonic())
        if chunk.index == 30:
            os.kill(cluster.pids()[victim], signal.SIGKILL)

    try:
        transcript = await asyncio.wait_for(transcribe(client, request(1, num_tokens), show), PATIENCE_S)
        pause_s = max(gaps_s(transcript)[25:])
        stages = [f"{s.worker_id}: [{s.start}, {s.stop})" for s in (await client.status()).stages]
        say(what=f"kill {victim}", tokens=len(transcript.arrived_s), next_token_s=pause_s, stages=stages)
    except (TimeoutError, NoodleError) as error:
        status = await client.status()
        said = {"phase": status.phase, "detail": status.detail}
        say(what=f"kill {victim}", tokens=len(arrived_s), error=f"{type(error).__name__}: {error}", status=said)


async def until(client: Client, condition: Any) -> ClusterStatus:
    async with aclosing(client.watch(min_interval_s=0.1)) as frames:
        async for frame in frames:
            if condition(frame.status):
                return frame.status
    raise AssertionError("the watch ended")


async def run(options: argparse.Namespace) -> None:
    values: dict[str, Any] = {"model": str(options.folder), "dtype": "bfloat16", "num_workers": 2, "device": options.devices}
    values |= {"kv_memory_bytes": options.kv_memory, "strategy": "balanced", "adapt": "off", "compile": options.compile}
    async with AsyncExitStack() as stack:
        cluster = LocalCluster(local_options(**values))
        stack.push_async_callback(cluster.stop)
        began_s = time.monotonic()
        await cluster.start()
        status = await wait_until_serving(cluster)
        assert status.phase is Phase.SERVING
        client = await stack.enter_async_context(Client(cluster.address))
        say(what="loaded", spent_s=time.monotonic() - began_s, stages=[f"{s.worker_id}: [{s.start}, {s.stop})" for s in status.stages])
        for sessions in sorted({1, options.sessions}):
            await answers(client, sessions, 16)
            began_s = time.monotonic()
            say(what="decode", **speed(sessions, await answers(client, sessions, options.tokens), began_s))
        if options.moves:
            await moved(client, options.sessions, options.moves)
        if options.kill:
            await killed(cluster, client, options.kill, 2 * options.tokens)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--devices", default="cuda:0,cuda:1")
    parser.add_argument("--write", metavar="CONFIG", default="", help="first write random weights of that size into FOLDER")
    parser.add_argument("--fp8", action="store_true", help="with --write: store them in 8 bits")
    parser.add_argument("--sessions", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--kv-memory", type=int, default=4 * 2**30)
    parser.add_argument("--moves", type=int, default=2)
    parser.add_argument("--kill", default="w2", metavar="WORKER")
    parser.add_argument("--compile", default="auto")
    options = parser.parse_args()
    if options.write:
        began_s = time.monotonic()
        num_bytes = write(options.write, options.folder, fp8=options.fp8, devices=options.devices.split(","))
        say(what="written", bytes=num_bytes, spent_s=time.monotonic() - began_s)
    asyncio.run(run(options))


if __name__ == "__main__":
    main()
