"""What the HTTP API costs: so many clients that stream answers through it, and through gRPC, in turns.

`python -m tests.bench.http_load MODEL_FOLDER [--clients 64] [--minutes 5] [--round 30]`

One cluster with its API serves both. In a round every client asks again as soon as its answer has ended; what ended or went on within the
round counts. Said are tokens/s, the median and the 95th percentile of the gap between two tokens of an answer, their ratios, and what the
API's process held in memory after the first round and at the end. `--minutes` is the time of each way, not of both.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import statistics
import sys
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil

from engine.client import AsyncClient
from tests.api.conftest import NAME, Served, started

NUM_TOKENS = 64
PROMPT = "Write about the river, number {}."
Ask = Callable[[int], AsyncGenerator[object, None]]


@dataclass
class Measured:
    """Of all rounds of one way."""

    num_tokens: int = 0
    took_s: float = 0.0
    gaps_s: list[float] = field(default_factory=list)

    def said(self) -> dict[str, float]:
        cuts = statistics.quantiles(self.gaps_s, n=20)
        return {
            "tokens_per_s": self.num_tokens / self.took_s,
            "gap_p50_ms": 1e3 * statistics.median(self.gaps_s),
            "gap_p95_ms": 1e3 * cuts[18],
        }


async def one_round(ask: Ask, num_clients: int, round_s: float, into: Measured) -> None:
    began_s = time.monotonic()

    async def client(number: int) -> None:
        while time.monotonic() - began_s < round_s:
            last_s = None
            async with contextlib.aclosing(ask(number)) as tokens:
                async for _ in tokens:
                    now_s = time.monotonic()
                    if now_s - began_s >= round_s:
                        return
                    into.num_tokens += 1
                    if last_s is not None:
                        into.gaps_s.append(now_s - last_s)
                    last_s = now_s

    await asyncio.gather(*(client(number) for number in range(num_clients)))
    into.took_s += round_s


def over_http(client: httpx.AsyncClient) -> Ask:
    async def ask(number: int) -> AsyncGenerator[object, None]:
        turns = [{"role": "user", "content": PROMPT.format(number)}]
        body = {"model": NAME, "messages": turns, "max_tokens": NUM_TOKENS, "temperature": 0, "stream": True, "ignore_eos": True}
        async with client.stream("POST", "/v1/chat/completions", json=body) as answer:
            answer.raise_for_status()
            async for row in answer.aiter_lines():
                if '"content":' in row and '"role"' not in row:
                    yield row

    return ask


def over_grpc(client: AsyncClient) -> Ask:
    async def ask(number: int) -> AsyncGenerator[object, None]:
        turns = [{"role": "user", "content": PROMPT.format(number)}]
        async with client.stream_chat(turns, max_new_tokens=NUM_TOKENS, temperature=0.0, ignore_eos=True) as stream:
            async for token in stream:
                if token.text:  # as many as the API sends
                    yield token

    return ask


async def measure(served: Served, api_pid: int, num_clients: int, minutes: float, round_s: float) -> dict[str, object]:
    limits = httpx.Limits(max_connections=num_clients)
    headers = {"authorization": f"Bearer {served.key}"}
    http, grpc, resident = Measured(), Measured(), list[int]()
    async with (
        httpx.AsyncClient(base_url=served.http, headers=headers, timeout=600, limits=limits) as over_web,
        AsyncClient(served.address, token=served.key) as direct,
    ):
        ways: list[tuple[Ask, Measured]] = [(over_http(over_web), http), (over_grpc(direct), grpc)]
        await one_round(ways[0][0], num_clients, round_s, Measured())
        await one_round(ways[1][0], num_clients, round_s, Measured())
        for number in range(max(1, round(minutes * 60 / round_s))):
            for ask, into in ways if number % 2 else ways[::-1]:
                await one_round(ask, num_clients, round_s, into)
            resident.append(psutil.Process(api_pid).memory_info().rss)
            print(f"round {number + 1}: {resident[-1] / 2**20:.1f} MiB", file=sys.stderr)
    web, wire = http.said(), grpc.said()
    return {
        "clients": num_clients,
        "http": web,
        "grpc": wire,
        "tokens_ratio": web["tokens_per_s"] / wire["tokens_per_s"],
        "gap_p95_ratio": web["gap_p95_ms"] / wire["gap_p95_ms"],
        "api_resident_mib": [round(n / 2**20, 1) for n in (resident[0], resident[-1])],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--round", type=float, default=30.0)
    asked = parser.parse_args()
    process, served = started(asked.folder)
    try:
        print(json.dumps(asyncio.run(measure(served, process.pid, asked.clients, asked.minutes, asked.round)), indent=1))
    finally:
        process.terminate()
        process.wait(60)
    return 0


if __name__ == "__main__":
    sys.exit(main())
