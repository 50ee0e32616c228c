"""`python -m tests.api.against_transformers FOLDER [--requests 40] [--kill]`: what the API answers, against transformers in one process.

For each kind of request, so many are sent to `noodle-engine up --http` with FOLDER's model, eight at a time, through the `openai` package.
Each answer is compared with `generate()` of the same folder: same template, transformers' own logits processors, and tokens drawn from what
they leave by the same counter-based numbers. Equal must be the text, the number of tokens, the reason for the end, and each token's
logprob within 1e-4. It ends with 1 if one differs. With `--kill` each kind has a cluster of its own, and one of its two workers is killed
amid the first answers.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.generation.logits_process import MinPLogitsWarper, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from engine.client import AsyncClient
from engine.data.sampling import Sampling
from engine.model.running.sampling import sample
from tests.api.conftest import NAME, Served, started

NUM_TOKENS = 32
AT_ONCE = 8
AMID = 5  # tokens of an answer, when a worker is killed
TOLERANCE = 1e-4
OFF = {"temperature": 0, "top_p": 1}  # what a model's makers recommend must not act
WORDS = "river garden engine noodle seven light slow green window paper winter sound"
ASKED = (
    "Explain {} to a child.",
    "Write two lines about {}.",
    "Is {} a good name for a cat?",
    "Name three things like {}.",
    "{}: what is it?",
)
KINDS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "streamed": {"stream": True},
    "sampled": {"temperature": 0.8, "seed": 7},
    "nucleus": {"temperature": 1.0, "top_p": 0.9, "seed": 11},
    "top_k and min_p": {"temperature": 1.2, "seed": 5, "extra_body": {"top_k": 40, "min_p": 0.05}},
    "penalties": {"presence_penalty": 0.6, "frequency_penalty": 0.4, "extra_body": {"repetition_penalty": 1.2}},
    "biased": {"logit_bias": {"260": -100, "28": 2.5}},
    "min_tokens": {"extra_body": {"min_tokens": NUM_TOKENS}},
    "stop": {"stop": [" the", "\n"]},
    "completion": {},
    "response": {},
}


@dataclass(frozen=True)
class Answered:
    text: str
    num_tokens: int
    finish_reason: str
    logprobs: tuple[float, ...]

    def objection(self, other: Answered) -> str:
        """What differs, if anything does."""
        for name in ("text", "num_tokens", "finish_reason"):
            if getattr(self, name) != getattr(other, name):
                return f"{name}: {getattr(self, name)!r} against {getattr(other, name)!r}"
        worst = max((abs(a - b) for a, b in zip(self.logprobs, other.logprobs, strict=True)), default=0.0)
        return f"logprobs differ by {worst}" if worst > TOLERANCE else ""


class OpenAiPenalties:
    """mu[j] - c[j] * frequency - (c[j] > 0) * presence over what was generated, as OpenAI's API reference defines them."""

    def __init__(self, num_prompt: int, presence: float, frequency: float) -> None:
        self._num_prompt, self._presence, self._frequency = num_prompt, presence, frequency

    def __call__(self, ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        scores = scores.clone()
        for token_id, count in Counter(ids[0, self._num_prompt :].tolist()).items():
            scores[0, token_id] -= self._frequency * count + self._presence
        return scores


class Drawn:
    """Leave the one token that `seed` draws from what transformers' warpers leave."""

    def __init__(self, num_prompt: int, seed: int, warpers: list[Any]) -> None:
        self._num_prompt, self._seed, self._warpers = num_prompt, seed, warpers

    def __call__(self, ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        for warp in self._warpers:
            scores = warp(ids, scores)
        token_id = sample(scores[0], Sampling(temperature=1.0, seed=self._seed), (), ids.shape[1] - self._num_prompt)
        return torch.full_like(scores, -torch.inf).index_fill(1, torch.tensor([token_id]), 0.0)


def processors(settings: dict[str, Any], num_prompt: int) -> list[Any]:
    flat = settings | settings.get("extra_body", {})
    found: list[Any] = []
    if "presence_penalty" in flat:
        found.append(OpenAiPenalties(num_prompt, flat["presence_penalty"], flat["frequency_penalty"]))
    if flat.get("temperature"):
        warpers: list[Any] = [TemperatureLogitsWarper(float(flat["temperature"]))]
        warpers += [TopKLogitsWarper(flat["top_k"])] if "top_k" in flat else []
        warpers += [TopPLogitsWarper(flat["top_p"])] if flat.get("top_p", 1) < 1 else []
        warpers += [MinPLogitsWarper(flat["min_p"])] if "min_p" in flat else []
        found.append(Drawn(num_prompt, flat["seed"], warpers))
    return found


class Native:
    """transformers in this process."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self._model = AutoModelForCausalLM.from_pretrained(folder, dtype="float32").eval()

    def answer(self, kind: str, text: str, settings: dict[str, Any]) -> Answered:
        if kind == "completion":
            prompt = self.tokenizer(text, return_tensors="pt")["input_ids"]
        else:
            turns = [{"role": "user", "content": text}]
            rendered = self.tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_tensors="pt", return_dict=True)
            prompt = rendered["input_ids"]
        own = settings.get("extra_body", {})
        with torch.no_grad():
            done = self._model.generate(
                prompt,
                max_new_tokens=NUM_TOKENS,
                do_sample=False,
                return_dict_in_generate=True,
                output_logits=True,
                pad_token_id=0,
                repetition_penalty=own.get("repetition_penalty", 1.0),
                min_new_tokens=own.get("min_tokens", 0),
                sequence_bias=[[[int(i)], float(b)] for i, b in settings.get("logit_bias", {}).items()] or None,
                logits_processor=processors(settings, prompt.shape[1]),
            )
        ids = done.sequences[0, prompt.shape[1] :].tolist()
        logprobs = tuple(float(row[0].log_softmax(-1)[token]) for row, token in zip(done.logits, ids, strict=True))
        reason = "stop" if ids[-1] in ends(self._model.generation_config.eos_token_id) else "length"
        return self._stopped(Answered(self.tokenizer.decode(ids, skip_special_tokens=True), len(ids), reason, logprobs), ids, settings)

    def _stopped(self, whole: Answered, ids: list[int], settings: dict[str, Any]) -> Answered:
        """Cut where the first stop string begins; the token that completes it is the last."""
        for count in range(1, len(ids) + 1):
            text = self.tokenizer.decode(ids[:count], skip_special_tokens=True)
            if found := [at for stop in settings.get("stop", ()) if (at := text.find(stop)) >= 0]:
                return Answered(text[: min(found)], count, "stop", whole.logprobs[:count])
        return whole


def ends(ids: Any) -> list[int]:
    return ids if isinstance(ids, list) else [ids]


async def asked(client: openai.AsyncOpenAI, kind: str, text: str, settings: dict[str, Any]) -> Answered:
    if kind == "completion":
        got = await client.completions.create(model=NAME, prompt=text, max_tokens=NUM_TOKENS, logprobs=0, **settings)
        (choice,) = got.choices
        return Answered(choice.text, got.usage.completion_tokens, choice.finish_reason, tuple(choice.logprobs.token_logprobs))
    if kind == "response":
        answer = await client.responses.create(model=NAME, input=text, max_output_tokens=NUM_TOKENS, **settings)
        reason = "stop" if answer.status == "completed" else "length"
        return Answered(answer.output_text, answer.usage.output_tokens, reason, ())
    turns = [{"role": "user", "content": text}]
    if settings.get("stream"):
        stream = await client.chat.completions.create(model=NAME, messages=turns, max_tokens=NUM_TOKENS, logprobs=True, **settings)
        choices = [choice async for chunk in stream for choice in chunk.choices]
        entries = [entry for choice in choices if choice.logprobs for entry in choice.logprobs.content]
        said = "".join(choice.delta.content or "" for choice in choices)
        return Answered(said, len(entries), choices[-1].finish_reason, tuple(entry.logprob for entry in entries))
    got = await client.chat.completions.create(model=NAME, messages=turns, max_tokens=NUM_TOKENS, logprobs=True, **settings)
    (choice,) = got.choices
    entries = choice.logprobs.content
    return Answered(choice.message.content, got.usage.completion_tokens, choice.finish_reason, tuple(e.logprob for e in entries))


def texts(count: int, seed: int) -> Iterator[str]:
    chance, words = random.Random(seed), WORDS.split()
    for _ in range(count):
        yield chance.choice(ASKED).format(" ".join(chance.choices(words, k=chance.randint(1, 6))))


async def kill_amid_answers(served: Served) -> None:
    async with AsyncClient(served.address, token=served.key) as client:
        while True:
            status = await client.status()
            if any(session.num_generated >= AMID for session in status.sessions):
                break
            await asyncio.sleep(0.01)
    os.kill(served.pids["w2"], signal.SIGKILL)


async def compare(served: Served, native: Native, num_requests: int, kinds: Sequence[str], kills: bool) -> int:
    """How many answers differ, of these kinds."""
    differing = 0
    async with openai.AsyncOpenAI(base_url=served.base, api_key=served.key, max_retries=0, timeout=600) as client:
        room = asyncio.Semaphore(AT_ONCE)

        async def one(kind: str, text: str, settings: dict[str, Any]) -> Answered:
            async with room:
                return await asked(client, kind, text, settings)

        for number, (kind, own) in enumerate(KINDS.items()):
            if kind not in kinds:
                continue
            settings = OFF | own
            prompts = list(texts(num_requests, number))
            killing = asyncio.create_task(kill_amid_answers(served)) if kills else None
            answers = await asyncio.gather(*(one(kind, text, settings) for text in prompts))
            if killing is not None:
                await killing
            wrong = 0
            for text, answer in zip(prompts, answers, strict=True):
                wanted = await asyncio.to_thread(native.answer, kind, text, settings)
                if kind == "response":
                    wanted = Answered(wanted.text, wanted.num_tokens, wanted.finish_reason, ())
                if objection := answer.objection(wanted):
                    wrong += 1
                    print(f"{kind}: {text!r}: {objection}", file=sys.stderr)
            differing += wrong
            print(json.dumps({"kind": kind, "equal": num_requests - wrong, "of": num_requests}), flush=True)
    return differing


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--requests", type=int, default=40)
    parser.add_argument("--kill", action="store_true")
    asked_for = parser.parse_args()
    native, differing = Native(asked_for.folder), 0
    for kinds in [[kind] for kind in KINDS] if asked_for.kill else [[*KINDS]]:
        process, served = started(asked_for.folder)
        try:
            differing += asyncio.run(compare(served, native, asked_for.requests, kinds, asked_for.kill))
        finally:
            os.kill(process.pid, signal.SIGTERM)
            process.wait(60)
    return int(differing > 0)


if __name__ == "__main__":
    sys.exit(main())
