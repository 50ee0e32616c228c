"""`noodle-engine bench hop` and `bench decode`: what one session gets.

Decoding is measured in one dtype or more against single-process `generate()`. Float32 always runs too: what another dtype gains is a
ratio of one run. All clusters are up for all of it and asked in turns.
"""

from __future__ import annotations

import asyncio
import itertools
import statistics
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from engine.client.local_cluster import wait_until_serving
from engine.commands.bench.options import Bench
from engine.commands.bench.serve import EVERY_WORKER
from engine.commands.cluster.generate import Transcript, transcribe
from engine.commands.output import note, table
from engine.data.generation import GenerateRequest
from engine.data.model import ModelRef
from engine.data.precision import kept_dtype
from engine.service.client import Client
from engine.service.local import LocalCluster
from engine.service.local_options import LocalOptions, local_options

MOST_TOKENS = 200
NUM_WORKERS = (1, 3)
TINY = "llama:tiny"
PROMPT_IDS = (1, 2, 3, 4, 5, 6, 7, 8)


@dataclass(frozen=True, slots=True)
class Side:
    """One cluster of those that are compared."""

    dtype: str
    kv_dtype: str
    workers: int


@dataclass(frozen=True, slots=True)
class Run:
    """One generation: `spent_s` is all of it, the other figures are medians over its decode steps."""

    token_ids: tuple[int, ...]
    spent_s: float
    step_p50_s: float
    compute_p50_s: float

    @property
    def tokens_per_s(self) -> float:
        return len(self.token_ids) / self.spent_s


async def bench_hop(num_tokens: int, rounds: int) -> dict[str, Any]:
    """A tiny model on 2 and on 3 workers: what one more hop adds to a step beyond its compute."""
    runs: dict[int, list[Run]] = {2: [], 3: []}
    async with AsyncExitStack() as stack:
        clients = {
            n: await start(stack, local_options(model=TINY, random_weights=0, num_workers=n, num_threads=1, **EVERY_WORKER)) for n in runs
        }
        for number in range(rounds):
            note(f"hop: round {number + 1} of {rounds}")
            for workers, client in clients.items():
                runs[workers].append(await generated(client, num_tokens))
    rows = {n: median_run(r) for n, r in runs.items()}
    over_s = {n: r["step_p50_s"] - r["compute_p50_s"] for n, r in rows.items()}
    return {
        "model": TINY,
        "num_tokens": num_tokens,
        "rounds": rounds,
        "workers": [{"workers": n, **rows[n], "over_compute_s": over_s[n]} for n in rows],
        "hop_s": over_s[3] - over_s[2],
    }


async def bench_decode(options: Bench) -> dict[str, Any]:
    """Figures by dtype, dtype of KV and number of workers, medians of the rounds."""
    from engine.folders import cache_folder
    from engine.model.hardware.limits import num_cores
    from engine.model.profiling.native import native_generator
    from engine.model.sources.card import prepare
    from engine.model.sources.source import default_ref

    ref = replace(default_ref() if options.model is None else ModelRef(options.model), dtype="float32")
    num_tokens, threads = min(options.tokens, MOST_TOKENS), num_cores()
    pairs = dict.fromkeys([("float32", "float32"), *((d, kept_dtype(kv, d)) for d in options.dtype for kv in options.kv_dtype)])
    sides = [Side(dtype, kv_dtype, workers) for (dtype, kv_dtype), workers in itertools.product(pairs, NUM_WORKERS)]
    generate = native_generator(Path(prepare(ref, cache_folder()).folder), dtype=ref.dtype, num_threads=threads)
    native_s: list[float] = []
    expected: list[int] = []
    runs: dict[Side, list[Run]] = {side: [] for side in sides}
    async with AsyncExitStack() as stack:
        clients = {}
        for side in sides:
            model = {"model": ref.model, "random_weights": ref.random_weights, "dtype": side.dtype, "kv_dtype": side.kv_dtype}
            # random weights repeat themselves, which would flatter speculation
            clients[side] = await start(stack, local_options(**model, **EVERY_WORKER, num_workers=side.workers, num_threads=threads))
        generate(PROMPT_IDS, num_tokens)
        for number in range(options.rounds):
            note(f"decode: round {number + 1} of {options.rounds}")
            expected, spent_s = await asyncio.to_thread(generate, PROMPT_IDS, num_tokens)
            native_s.append(spent_s)
            for side, client in clients.items():
                runs[side].append(await generated(client, num_tokens))
    native = num_tokens / statistics.median(native_s)
    return {
        "model": ref.label,
        "num_tokens": num_tokens,
        "rounds": options.rounds,
        "num_threads": threads,
        "identical": all(
            list(run.token_ids) == expected for side in sides if side.kv_dtype == side.dtype == "float32" for run in runs[side]
        ),
        "native_tokens_per_s": native,
        "workers": [_row(side, runs, native) for side in sides],
    }


def _row(side: Side, runs: dict[Side, list[Run]], native: float) -> dict[str, Any]:
    """`same_on_any_split` compares the answers of all its numbers of workers and rounds with each other."""
    row, plain = median_run(runs[side]), median_run(runs[replace(side, dtype="float32", kv_dtype="float32")])
    answers = {run.token_ids for other in runs if (other.dtype, other.kv_dtype) == (side.dtype, side.kv_dtype) for run in runs[other]}
    return {
        "dtype": side.dtype,
        "kv_dtype": side.kv_dtype,
        "workers": side.workers,
        **row,
        "ratio_to_native": row["tokens_per_s"] / native,
        "ratio_to_float32": row["tokens_per_s"] / plain["tokens_per_s"],
        "same_on_any_split": len(answers) == 1,
    }


async def start(stack: AsyncExitStack, options: LocalOptions) -> Client:
    cluster = LocalCluster(options)
    stack.push_async_callback(cluster.stop)
    note(f"starting {options.num_workers} workers with {options.coordinator.model.model}")
    await cluster.start()
    await wait_until_serving(cluster)
    client = await stack.enter_async_context(Client(cluster.address))
    await generated(client, 8)
    return client


async def generated(client: Client, num_tokens: int) -> Run:
    transcript: Transcript = await transcribe(client, GenerateRequest(prompt_ids=PROMPT_IDS, max_new_tokens=num_tokens, ignore_eos=True))
    tokens = [c for c in transcript.chunks if c.index >= 0]
    steps = tokens[1:]
    return Run(
        tuple(c.token_id for c in tokens),
        transcript.arrived_s[-1] - transcript.started_s,
        statistics.median(c.step_s for c in steps),
        statistics.median(sum(t.compute_s for t in c.timings) for c in steps),
    )


def median_run(runs: list[Run]) -> dict[str, float]:
    return {
        "tokens_per_s": statistics.median(r.tokens_per_s for r in runs),
        "step_p50_s": statistics.median(r.step_p50_s for r in runs),
        "compute_p50_s": statistics.median(r.compute_p50_s for r in runs),
    }


def hop_text(figures: dict[str, Any]) -> str:
    """The figures as a table."""
    head = f"hop: {figures['model']}, {figures['num_tokens']} tokens, medians of {figures['rounds']} interleaved rounds"
    rows = [(str(r["workers"]), ms(r["step_p50_s"]), ms(r["compute_p50_s"]), ms(r["over_compute_s"])) for r in figures["workers"]]
    foot = f"one more hop costs {ms(figures['hop_s'])} ms over the compute"
    return "\n".join((head, table(("WORKERS", "STEP ms", "COMPUTE ms", "OVER ms"), rows), foot))


def decode_text(figures: dict[str, Any]) -> str:
    """The figures as a table."""
    head = f"decode: {figures['model']}, {figures['num_tokens']} tokens, medians of {figures['rounds']} interleaved rounds"
    native = ("generate(), float32", "", f"{figures['native_tokens_per_s']:.2f}", "1.00", "", "", "", "")
    rows = [
        (
            f"{r['workers']} worker{'s' if r['workers'] > 1 else ''}, {r['dtype']}",
            r["kv_dtype"],
            f"{r['tokens_per_s']:.2f}",
            f"{r['ratio_to_native']:.2f}",
            f"{r['ratio_to_float32']:.2f}",
            ms(r["step_p50_s"]),
            ms(r["compute_p50_s"]),
            "yes" if r["same_on_any_split"] else "NO",
        )
        for r in figures["workers"]
    ]
    titles = ("WHAT", "KV", "TOKENS/S", "TO generate()", "TO float32", "STEP ms", "COMPUTE ms", "SAME IDS")
    foot = f"{figures['num_threads']} threads each; tokens of float32 {'identical' if figures['identical'] else 'DIFFERENT'}"
    return "\n".join((head, table(titles, [native, *rows]), foot))


def ms(seconds: float) -> str:
    return f"{1e3 * seconds:.3f}"
