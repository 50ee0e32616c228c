"""Whether tokens drawn on a GPU are those that the CPU draws, over many rows of logits, and how many were left to the CPU.

`python -m tests.bench.gpu_sampling [--draws N] [--device cuda:0] [--seed N]` prints one JSON document. Half of the logits are bfloat16
numbers, which have many equals; temperatures, top-k, top-p and penalties are mixed.
"""

from __future__ import annotations

import argparse
import json
import random
import time

import torch

from engine.data.sampling import Sampling
from engine.model.running.accelerator import device_sampling
from engine.model.running.accelerator.device_sampling import Draw, sample_together
from engine.model.running.sampling import sample

ROWS = 64


def draw(rng: random.Random, size: int) -> Draw:
    params = Sampling(
        temperature=rng.choice((0.0, 0.3, 0.8, 1.0, 1.5)),
        top_k=rng.choice((0, 0, 1, 20, 50)),
        top_p=rng.choice((1.0, 0.95, 0.9, 0.5)),
        repetition_penalty=rng.choice((1.0, 1.0, 1.1)),
        seed=rng.randrange(2**63),
    )
    return Draw(params, [rng.randrange(size) for _ in range(20)], rng.randrange(10_000))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--draws", type=int, default=10**6)
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--sizes", default="50,997,8192")
    parser.add_argument("--seed", type=int, default=0, help="other draws, so that several processes share the work")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rng, differing, alone, num_drawn, device_s = random.Random(options.seed), 0, 0, 0, 0.0

    def counted(*args: object) -> int:
        nonlocal alone
        alone += 1
        return sample(*args)  # type: ignore[arg-type]

    device_sampling.sample = counted  # type: ignore[assignment]
    sizes = [int(size) for size in options.sizes.split(",")]
    while num_drawn < options.draws:
        size, spread = rng.choice(sizes), rng.choice((0.5, 2.0, 6.0))
        generator = torch.Generator(options.device).manual_seed(options.seed << 32 | num_drawn)
        logits = torch.randn(ROWS, size, generator=generator, device=options.device) * spread
        logits = logits.bfloat16().float() if rng.random() < 0.5 else logits
        asked = [draw(rng, size) for _ in range(ROWS)]
        began_s = time.perf_counter()
        found = sample_together(logits, asked, "here")
        device_s += time.perf_counter() - began_s
        here = logits.cpu()
        differing += sum(a != sample(row, d.params, d.history, d.index) for a, row, d in zip(found, here, asked, strict=True))
        num_drawn += ROWS
    print(json.dumps({"draws": num_drawn, "differing": differing, "left_to_the_cpu": alone, "batch_ms": 1e3 * device_s * ROWS / num_drawn}))


if __name__ == "__main__":
    main()
