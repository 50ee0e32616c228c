"""Answers in 8 bits against one whole stage that computes them token by token, alone: the same ids in any setting, or this ends with 1.

`python -m tests.service.exact FOLDER --answers 1000` runs clusters of real processes: 1, 2 and 3 workers, 1 and 2 threads each, KV in
float32 and in 8 bits, with and without proposals. In each of them prompts are asked alone and all together, greedy and with a seed, and
a worker is killed while all run, at another token each time. The tests run a sample.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from engine.commands.cluster.generate import transcribe
from engine.data.generation import GenerateRequest
from engine.data.model import ModelRef
from engine.data.precision import Identity
from engine.data.sampling import Sampling, SamplingRequest
from engine.data.status import ClusterStatus
from engine.folders import cache_folder
from engine.model.running.sampling import sample
from engine.model.running.stage import StageModel
from engine.model.sources.card import prepare
from engine.service.client import Client
from tests.service.matrix import Matrix, ids, until
from tests.service.nursery import Nursery
from tests.service.reference import folder_of

COMPANY = 8  # sessions at once
LONGEST_PROMPT = 90  # tokens: more than one block of keys


@dataclass(frozen=True, slots=True)
class Setting:
    """One cluster."""

    num_workers: int
    num_threads: int
    kv_dtype: str
    speculate: str

    def __str__(self) -> str:
        return f"{self.num_workers} workers, {self.num_threads} threads, KV {self.kv_dtype}, speculate {self.speculate}"


SETTINGS = tuple(Setting(*chosen) for chosen in itertools.product((1, 2, 3), (1, 2), ("auto", "int8"), ("off", "always")))


@dataclass(frozen=True, slots=True)
class Asked:
    """One prompt, greedy or sampled."""

    prompt: tuple[int, ...]
    temperature: float
    seed: int


@dataclass(frozen=True, slots=True)
class Wrong:
    """An answer with another token, and where it was given."""

    asked: Asked
    where: str
    at: int  # the first one that differs


class Reference:
    """One stage of all items. What it computes is what `exact` promises."""

    def __init__(self, model: str, kv_dtype: str) -> None:
        folder = Path(model) if Path(model).is_dir() else folder_of(model)
        torch.set_num_threads(1)
        ref = ModelRef(str(folder), dtype="int8", kv_dtype=kv_dtype)
        num_items = prepare(ref, cache_folder()).num_items  # a coordinator finds the card ready, too
        self._stage = StageModel.load(folder, 0, num_items, dtype="int8", kv_dtype=kv_dtype, kv_budget_bytes=2**28)
        self._known: dict[tuple[Asked, int], list[int]] = {}

    @property
    def vocabulary(self) -> int:
        return self._stage.vocab_size

    def answer(self, asked: Asked, num_tokens: int) -> list[int]:
        """Its tokens, the prompt read one by one."""
        key = (asked, num_tokens)
        if key not in self._known:
            self._known[key] = self._computed(asked, num_tokens)
        return self._known[key]

    def _computed(self, asked: Asked, num_tokens: int) -> list[int]:
        sampling, text, waiting = Sampling(temperature=asked.temperature, seed=asked.seed), list(asked.prompt), list(asked.prompt)
        self._stage.open("a", len(text) + num_tokens)
        for index in range(num_tokens):
            for token in waiting:
                logits = self._stage.forward([("a", [token])], None)
            waiting = [sample(logits[0], sampling, text, index)]
            text += waiting
        self._stage.close("a")
        return text[len(asked.prompt) :]


def questions(choose: random.Random, vocabulary: int) -> Iterator[tuple[Asked, ...]]:
    """Prompts of any length, half of them sampled, as many as run at once; some repeat themselves, so that something is proposed."""
    while True:
        group = []
        for index in range(COMPANY):
            size = choose.choice((1, 3, 9, 30, 64, LONGEST_PROMPT))
            piece = [choose.randrange(vocabulary) for _ in range(choose.choice((3, size)))]
            prompt = tuple((piece * size)[:size])
            group.append(Asked(prompt, 0.8 * (index % 2), choose.randrange(2**31)))
        yield tuple(group)


async def compare(
    matrix: Matrix, setting: Setting, reference: Reference, groups: Sequence[tuple[Asked, ...]], num_tokens: int, kill_at: Sequence[int]
) -> tuple[int, list[Wrong]]:
    """Ask every group together, its first alone too; then each with a kill once an answer has so many tokens. Returns how many answers
    were compared, and those that differ."""
    wrong: list[Wrong] = []
    count = 0

    async def ask(client: Client, asked: Asked, how: str) -> None:
        nonlocal count
        sampling = SamplingRequest(temperature=asked.temperature, seed=asked.seed)
        request = GenerateRequest(prompt_ids=asked.prompt, max_new_tokens=num_tokens, sampling=sampling, ignore_eos=True)
        found, expected = ids(await transcribe(client, request)), reference.answer(asked, num_tokens)
        count += 1
        if found != expected:
            at = next((i for i, (a, b) in enumerate(zip(found, expected, strict=False)) if a != b), min(len(found), len(expected)))
            wrong.append(Wrong(asked, f"{setting}, {how}", at))

    async with Client(matrix.address) as client:
        status = await matrix.ready(client)
        assert status.identity is Identity.EXACT and status.model.precision.computed_dtype == "int8"
        assert status.model.precision.kv_dtype == ("float32" if setting.kv_dtype == "auto" else setting.kv_dtype)
        for group in groups:
            await ask(client, group[0], "alone")
            await asyncio.gather(*(ask(client, asked, "in company") for asked in group))
        for group, token in zip(groups, kill_at, strict=False):
            await matrix.ready(client)
            running = asyncio.gather(*(ask(client, asked, f"killed at {token}") for asked in group))
            await until(client, lambda s, token=token: _has_begun(s, token))
            victim = matrix.workers[token % len(matrix.workers)]
            matrix.nursery.kill(matrix.pids[victim])
            await asyncio.to_thread(matrix.start_worker, victim)
            await running
    return count, wrong


def _has_begun(status: ClusterStatus, token: int) -> bool:
    return bool(status.sessions) and max(session.num_generated for session in status.sessions) > token


def started(nursery: Nursery, setting: Setting, model: str) -> Matrix:
    """A cluster of that kind."""
    words = ("--dtype", "int8", "--kv-dtype", setting.kv_dtype, "--speculate", setting.speculate, "--prefix-cache", "off")
    workers = tuple(f"w{index + 1}" for index in range(setting.num_workers))
    memory = ("1500M", "300M")
    matrix = Matrix(nursery, coordinator_arguments=words, model=model, workers=workers, num_threads=setting.num_threads, memory=memory)
    matrix.start()
    return matrix


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--answers", type=int, default=1000)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    choose, total, wrong, began_s = random.Random(options.seed), 0, list[Wrong](), time.monotonic()
    references = {kv_dtype: Reference(options.model, kv_dtype) for kv_dtype in ("auto", "int8")}
    groups = [group for group, _ in zip(questions(choose, references["auto"].vocabulary), range(2), strict=False)]
    for setting in itertools.cycle(SETTINGS):
        nursery = Nursery()
        try:
            kills = [choose.randrange(options.tokens // 2) for _ in groups]
            matrix = started(nursery, setting, options.model)
            count, found = asyncio.run(compare(matrix, setting, references[setting.kv_dtype], groups, options.tokens, kills))
        finally:
            nursery.close()
        total, wrong = total + count, wrong + found
        print(f"{setting}: {count - len(found)} of {count} the same, {total} so far, {time.monotonic() - began_s:.0f} s", flush=True)
        for one in found:
            print(f"  {one}", flush=True)
        if total >= options.answers:
            break
    print(f"{total - len(wrong)} of {total} answers of {options.tokens} tokens the same")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
