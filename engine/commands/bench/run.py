"""`noodle-engine bench`: the cost of a hop, the speed of decoding, and serving many, measured on this machine.

Rounds are interleaved, so that a machine that gets slower or faster meanwhile does so for all sides; medians are quoted.
"""

from __future__ import annotations

import asyncio
import statistics
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.client.local_cluster import wait_until_serving
from engine.commands.bench import serve as bench_serve
from engine.commands.bench.options import Bench
from engine.commands.cluster.generate import Transcript, transcribe
from engine.commands.output import note, print_json, say, table
from engine.data.generation import GenerateRequest
from engine.data.model import ModelRef
from engine.service.client import Client
from engine.service.local import LocalCluster
from engine.service.local_options import LocalOptions, local_options

TINY = "llama:tiny"
PROMPT_IDS = (1, 2, 3, 4, 5, 6, 7, 8)


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


def bench(options: Bench) -> int:
    """Run the suites that were asked for and print their figures."""
    if options.suite == "plan":
        return _plan(options.json)
    if options.suite == "adaptation":
        from engine.commands.bench.adaptation import bench_adaptation

        return bench_adaptation(options)
    if options.suite == "quality":
        from engine.commands.bench.quality import bench_quality

        return bench_quality(options)
    if options.suite == "gpu":
        from engine.commands.bench.gpu import bench_gpu

        return bench_gpu(options)
    if options.suite == "staged":
        from engine.commands.bench import staged as bench_staged

        return bench_staged.bench_staged(options)
    suites = ("hop", "decode", "serve") if options.suite == "all" else (options.suite,)
    document = {suite: asyncio.run(_measure(suite, options)) for suite in suites}
    if options.json:
        print_json(document)
    else:
        say("\n\n".join(_text(suite, figures) for suite, figures in document.items()))
    return 0


async def _measure(suite: str, options: Bench) -> dict[str, Any]:
    if suite == "hop":
        return await bench_hop(options.tokens, options.rounds)
    if suite == "decode":
        return await bench_decode(min(options.tokens, 200), options.rounds)
    return await bench_serve.bench_serve(min(options.tokens, 96), options.rounds, options.sessions, options.workers)


def _plan(as_json: bool) -> int:
    from engine.commands.bench.plan import bench_plan, plan_text

    figures = bench_plan()
    if as_json:
        print_json({"plan": figures})
    else:
        say(plan_text(figures))
    return 0


async def bench_hop(num_tokens: int, rounds: int) -> dict[str, Any]:
    """A tiny model on 2 and on 3 workers: what one more hop adds to a step beyond its compute."""
    runs: dict[int, list[Run]] = {2: [], 3: []}
    async with AsyncExitStack() as stack:
        clients = {
            n: await _start(stack, local_options(model=TINY, random_weights=0, num_workers=n, num_threads=1, **bench_serve.EVERY_WORKER))
            for n in runs
        }
        for number in range(rounds):
            note(f"hop: round {number + 1} of {rounds}")
            for workers, client in clients.items():
                runs[workers].append(await _generate(client, num_tokens))
    rows = {n: _median_run(r) for n, r in runs.items()}
    over_s = {n: r["step_p50_s"] - r["compute_p50_s"] for n, r in rows.items()}
    return {
        "model": TINY,
        "num_tokens": num_tokens,
        "rounds": rounds,
        "workers": [{"workers": n, **rows[n], "over_compute_s": over_s[n]} for n in rows],
        "hop_s": over_s[3] - over_s[2],
    }


async def bench_decode(num_tokens: int, rounds: int) -> dict[str, Any]:
    """GPT-2 124M on 1 and on 3 workers against single-process `generate()` with the same threads."""
    from engine.model.hardware.limits import num_cores
    from engine.model.profiling.native import native_generator
    from engine.model.sources.card import prepare
    from engine.model.sources.source import default_cache_dir, default_ref

    ref: ModelRef = default_ref()
    card, threads = prepare(ref, default_cache_dir()), num_cores()
    generate = native_generator(Path(card.folder), dtype=ref.dtype, num_threads=threads)
    native_s: list[float] = []
    runs: dict[int, list[Run]] = {1: [], 3: []}
    identical = True
    async with AsyncExitStack() as stack:
        model = {"model": ref.model, "random_weights": ref.random_weights, **bench_serve.EVERY_WORKER}
        options = [local_options(**model, num_workers=n, num_threads=threads) for n in runs]
        clients = dict(zip(runs, [await _start(stack, o) for o in options], strict=True))
        generate(PROMPT_IDS, num_tokens)
        for number in range(rounds):
            note(f"decode: round {number + 1} of {rounds}")
            expected, spent_s = await asyncio.to_thread(generate, PROMPT_IDS, num_tokens)
            native_s.append(spent_s)
            for workers, client in clients.items():
                runs[workers].append(await _generate(client, num_tokens))
                identical = identical and list(runs[workers][-1].token_ids) == expected
    native = num_tokens / statistics.median(native_s)
    rows = {n: _median_run(r) for n, r in runs.items()}
    return {
        "model": ref.label,
        "num_tokens": num_tokens,
        "rounds": rounds,
        "num_threads": threads,
        "identical": identical,
        "native_tokens_per_s": native,
        "workers": [{"workers": n, **rows[n], "ratio_to_native": rows[n]["tokens_per_s"] / native} for n in rows],
    }


async def _start(stack: AsyncExitStack, options: LocalOptions) -> Client:
    cluster = LocalCluster(options)
    stack.push_async_callback(cluster.stop)
    note(f"starting {options.num_workers} workers with {options.coordinator.model.model}")
    await cluster.start()
    await wait_until_serving(cluster)
    client = await stack.enter_async_context(Client(cluster.address))
    await _generate(client, 8)
    return client


async def _generate(client: Client, num_tokens: int) -> Run:
    transcript: Transcript = await transcribe(client, GenerateRequest(prompt_ids=PROMPT_IDS, max_new_tokens=num_tokens, ignore_eos=True))
    tokens = [c for c in transcript.chunks if c.index >= 0]
    steps = tokens[1:]
    return Run(
        tuple(c.token_id for c in tokens),
        transcript.arrived_s[-1] - transcript.started_s,
        statistics.median(c.step_s for c in steps),
        statistics.median(sum(t.compute_s for t in c.timings) for c in steps),
    )


def _median_run(runs: list[Run]) -> dict[str, float]:
    return {
        "tokens_per_s": statistics.median(r.tokens_per_s for r in runs),
        "step_p50_s": statistics.median(r.step_p50_s for r in runs),
        "compute_p50_s": statistics.median(r.compute_p50_s for r in runs),
    }


def _text(suite: str, figures: dict[str, Any]) -> str:
    if suite == "serve":
        return bench_serve.text(figures)
    head = f"{suite}: {figures['model']}, {figures['num_tokens']} tokens, medians of {figures['rounds']} interleaved rounds"
    if suite == "hop":
        rows = [(str(r["workers"]), _ms(r["step_p50_s"]), _ms(r["compute_p50_s"]), _ms(r["over_compute_s"])) for r in figures["workers"]]
        foot = f"one more hop costs {_ms(figures['hop_s'])} ms over the compute"
        return "\n".join((head, table(("WORKERS", "STEP ms", "COMPUTE ms", "OVER ms"), rows), foot))
    native = ("generate()", f"{figures['native_tokens_per_s']:.2f}", "1.00", "", "")
    staged = [(f"{r['workers']} workers", *_decode_cells(r)) for r in figures["workers"]]
    foot = f"{figures['num_threads']} threads each; tokens {'identical' if figures['identical'] else 'DIFFERENT'}"
    return "\n".join((head, table(("WHAT", "TOKENS/S", "RATIO", "STEP ms", "COMPUTE ms"), [native, *staged]), foot))


def _decode_cells(row: dict[str, Any]) -> tuple[str, str, str, str]:
    return f"{row['tokens_per_s']:.2f}", f"{row['ratio_to_native']:.2f}", _ms(row["step_p50_s"]), _ms(row["compute_p50_s"])


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:.3f}"
