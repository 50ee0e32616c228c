"""`noodle-engine bench serve`: what many sessions at once get out of the cluster that serves one.

Rounds of one session and of all sessions alternate on the same cluster, so that a machine that gets slower or faster
meanwhile does so for both sides; the ratio is the median of the rounds' own. A round begins when every prompt is sent and ends
with the last token.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

from engine.client.local_cluster import wait_until_serving
from engine.commands.cluster.generate import Transcript, transcribe
from engine.commands.output import note, table
from engine.control.sessions.scheduler import SchedulerLimits
from engine.data.generation import GenerateRequest
from engine.data.model import ModelRef
from engine.service.client import Client
from engine.service.local import LocalCluster
from engine.service.local_options import local_options

# Random weights repeat themselves, so nothing is guessed; every worker takes part, and none moves meanwhile.
EVERY_WORKER: dict[str, Any] = {"speculate": "off", "strategy": "balanced", "adapt": "off"}
PROMPT_TOKENS = 32
LONG_PROMPT_TOKENS = 512
SETTLE_S = 1.0  # until the others decode


@dataclass(frozen=True, slots=True)
class Round:
    """Several sessions side by side."""

    spent_s: float
    transcripts: tuple[Transcript, ...]

    @property
    def tokens_per_s(self) -> float:
        return sum(len(t.arrived_s) for t in self.transcripts) / self.spent_s


async def bench_serve(num_tokens: int, rounds: int, num_sessions: int, num_workers: int) -> dict[str, Any]:
    """GPT-2 124M, or its random twin: one session against `num_sessions`, then a long prompt arriving among them."""
    from engine.model.hardware.limits import num_cores
    from engine.model.sources.source import default_ref

    ref: ModelRef = default_ref()
    async with AsyncExitStack() as stack:
        model = {"model": ref.model, "random_weights": ref.random_weights, **EVERY_WORKER}
        options = local_options(**model, num_workers=num_workers, num_threads=num_cores())
        cluster = LocalCluster(options)
        stack.push_async_callback(cluster.stop)
        note(f"starting {num_workers} workers with {ref.label}")
        await cluster.start()
        await wait_until_serving(cluster)
        client = await stack.enter_async_context(Client(cluster.address))
        await _round(client, num_sessions, 8)
        found: dict[int, list[Round]] = {1: [], num_sessions: []}
        for number in range(rounds):
            note(f"serve: round {number + 1} of {rounds}")
            for count, done in found.items():
                done.append(await _round(client, count, num_tokens))
        identical = all(_ids(t) == _ids(found[1][0].transcripts[0]) for r in found[num_sessions] for t in r.transcripts[:1])
        longest_s = await _long_prompt(client, num_sessions, num_tokens)
    rows = [{"sessions": n, **_figures(r)} for n, r in found.items()]
    return {
        "model": ref.label,
        "num_tokens": num_tokens,
        "rounds": rounds,
        "num_workers": num_workers,
        "identical": identical,
        "sessions": rows,
        "ratio": statistics.median(many.tokens_per_s / one.tokens_per_s for one, many in zip(found[1], found[num_sessions], strict=True)),
        "long_prompt": {
            "tokens": LONG_PROMPT_TOKENS,
            "usual_gap_s": rows[-1]["gap_p50_s"],
            "longest_gap_s": longest_s,
            "chunk_s": SchedulerLimits().chunk_s,
        },
    }


def _request(number: int, num_prompt: int, num_tokens: int) -> GenerateRequest:
    prompt = tuple((7 * number + 3 * i) % 251 for i in range(num_prompt))
    return GenerateRequest(prompt_ids=prompt, max_new_tokens=num_tokens, ignore_eos=True)


async def _round(client: Client, num_sessions: int, num_tokens: int) -> Round:
    started_s = time.monotonic()
    jobs = [transcribe(client, _request(n, PROMPT_TOKENS, num_tokens)) for n in range(num_sessions)]
    transcripts = await asyncio.gather(*jobs)
    return Round(time.monotonic() - started_s, tuple(transcripts))


async def _long_prompt(client: Client, num_sessions: int, num_tokens: int) -> float:
    """The longest gap between two tokens of the others while a long prompt is read."""
    others = [asyncio.create_task(transcribe(client, _request(n, PROMPT_TOKENS, num_tokens))) for n in range(max(1, num_sessions - 1))]
    await asyncio.sleep(SETTLE_S)
    sent_s = time.monotonic()
    long = await transcribe(client, _request(99, LONG_PROMPT_TOKENS, 1))
    read_s = long.arrived_s[0]
    others_gaps_s = [pair for transcript in await asyncio.gather(*others) for pair in _pairs(transcript)]
    return max((after - before for before, after in others_gaps_s if sent_s < after and before < read_s), default=0.0)


def _pairs(transcript: Transcript) -> list[tuple[float, float]]:
    return list(zip(transcript.arrived_s, transcript.arrived_s[1:], strict=False))


def _ids(transcript: Transcript) -> list[int]:
    return [c.token_id for c in transcript.chunks if c.index >= 0]


def _figures(rounds: list[Round]) -> dict[str, float]:
    gaps_s = [b - a for r in rounds for t in r.transcripts for a, b in _pairs(t)]
    ttft_s = [t.ttft_s for r in rounds for t in r.transcripts]
    return {
        "tokens_per_s": statistics.median(r.tokens_per_s for r in rounds),
        "ttft_p50_s": _quantile(ttft_s, 0.5),
        "ttft_p95_s": _quantile(ttft_s, 0.95),
        "gap_p50_s": _quantile(gaps_s, 0.5),
        "gap_p95_s": _quantile(gaps_s, 0.95),
        "gap_p99_s": _quantile(gaps_s, 0.99),
    }


def _quantile(values: list[float], fraction: float) -> float:
    return sorted(values)[min(len(values) - 1, int(fraction * len(values)))] if values else 0.0


def text(figures: dict[str, Any]) -> str:
    """The figures for people."""
    rounds = f"medians of {figures['rounds']} interleaved rounds"
    head = f"serve: {figures['model']}, {figures['num_workers']} workers, {figures['num_tokens']} tokens a session, {rounds}"
    names = ("ttft_p50_s", "ttft_p95_s", "gap_p50_s", "gap_p95_s", "gap_p99_s")
    rows = [(str(r["sessions"]), f"{r['tokens_per_s']:.1f}", *(f"{1e3 * r[n]:.1f}" for n in names)) for r in figures["sessions"]]
    columns = ("SESSIONS", "TOKENS/S", "TTFT p50 ms", "p95", "GAP p50 ms", "p95", "p99")
    foot = f"{figures['ratio']:.2f} times the tokens/s of one session; tokens {'identical' if figures['identical'] else 'DIFFERENT'}"
    long = figures["long_prompt"]
    arriving = f"a prompt of {long['tokens']} tokens arriving: longest gap of the others {1e3 * long['longest_gap_s']:.0f} ms"
    usual = f"usual {1e3 * long['usual_gap_s']:.0f} ms; a chunk is cut to add {1e3 * long['chunk_s']:.0f} ms"
    return "\n".join((head, table(columns, rows), foot, f"{arriving}, {usual}"))
