"""What a later turn of a conversation waits for its first token, against the first turn; one conversation, then several in rotation.

`python -m tests.bench.conversations MODEL` with a folder, or an architecture such as `gpt2` with random weights. The load of the machine is
printed too.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
from pathlib import Path

from engine.commands.cluster.generate import Transcript, transcribe
from engine.commands.serving.serve import wait_until_serving
from engine.data.generation import GenerateRequest
from engine.service.client import Client
from engine.service.local import LocalCluster
from engine.service.local_options import local_options

VOCABULARY = 20_000
NEW_TOKENS = 16  # of a user's next turn


async def turn(client: Client, prompt: tuple[int, ...], num_tokens: int) -> Transcript:
    return await transcribe(client, GenerateRequest(prompt_ids=prompt, max_new_tokens=num_tokens, ignore_eos=True))


def following(asked: Transcript, choose: random.Random) -> tuple[int, ...]:
    answer = tuple(chunk.token_id for chunk in asked.chunks if chunk.index >= 0)
    return (*asked.prompt_ids, *answer, *(choose.randrange(VOCABULARY) for _ in range(NEW_TOKENS)))


async def measure(client: Client, num_conversations: int, prompt_tokens: int, answer_tokens: int) -> dict[str, float]:
    """Medians over the conversations, which take turns: each waits until all others had theirs."""
    choose = random.Random(num_conversations)
    prompts = [tuple(choose.randrange(VOCABULARY) for _ in range(prompt_tokens)) for _ in range(num_conversations)]
    firsts = [await turn(client, prompt, answer_tokens) for prompt in prompts]
    seconds = [await turn(client, following(first, choose), answer_tokens) for first in firsts]
    first_s, second_s = (statistics.median(t.ttft_s for t in turns) for turns in (firsts, seconds))
    cached = sum(t.cached_tokens for t in seconds) / sum(len(t.prompt_ids) for t in seconds)
    return {"conversations": num_conversations, "first_s": first_s, "second_s": second_s, "ratio": second_s / first_s, "cached": cached}


async def run(options: argparse.Namespace) -> None:
    chosen = local_options(
        model=options.model,
        num_workers=options.workers,
        num_threads=1,
        prefix_cache=options.prefix_cache,
        strategy="balanced",
        adapt="off",
        random_weights=None if options.is_folder else 0,
    )
    cluster = LocalCluster(chosen)
    try:
        address = await cluster.start()
        await wait_until_serving(cluster)
        async with Client(address) as client:
            await turn(client, tuple(range(64)), 2)  # kernels are chosen, memory is touched
            for count in options.conversations:
                found = await measure(client, count, options.prompt_tokens, options.answer_tokens)
                print(json.dumps({**found, "load": os.getloadavg()[0]}), flush=True)
    finally:
        await cluster.stop()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--prompt-tokens", type=int, default=1500)
    parser.add_argument("--answer-tokens", type=int, default=16)
    parser.add_argument("--conversations", type=int, nargs="+", default=[1, 20])
    parser.add_argument("--prefix-cache", default="auto")
    options = parser.parse_args()
    options.is_folder = Path(options.model).exists()
    asyncio.run(run(options))


if __name__ == "__main__":
    main()
