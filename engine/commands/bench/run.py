"""`noodle-engine bench`: the cost of a hop, the speed of decoding, and serving many, measured on this machine.

Rounds are interleaved, so that a machine that gets slower or faster meanwhile does so for all sides; medians are quoted.
"""

from __future__ import annotations

import asyncio
from typing import Any

from engine.commands.bench import serve as bench_serve
from engine.commands.bench.decode import bench_decode, bench_hop, decode_text, hop_text
from engine.commands.bench.options import Bench
from engine.commands.output import print_json, say


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
        return await bench_decode(options)
    return await bench_serve.bench_serve(min(options.tokens, 96), options.rounds, options.sessions, options.workers)


def _plan(as_json: bool) -> int:
    from engine.commands.bench.plan import bench_plan, plan_text

    figures = bench_plan()
    if as_json:
        print_json({"plan": figures})
    else:
        say(plan_text(figures))
    return 0


def _text(suite: str, figures: dict[str, Any]) -> str:
    return {"serve": bench_serve.text, "hop": hop_text, "decode": decode_text}[suite](figures)
