"""Single-process `generate()`: what every cluster must reproduce, token by token."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

from engine.data.model import ModelRef
from engine.data.sampling import Sampling
from engine.folders import cache_folder
from engine.model.profiling.native import native_generator
from engine.model.sources.card import prepare


@cache
def folder_of(model: str, seed: int = 0) -> Path:
    return Path(prepare(ModelRef(model, seed), cache_folder()).folder)


@cache
def _generator(folder: Path) -> object:
    return native_generator(folder, dtype="float32", num_threads=1)


def reference(model: str, prompt_ids: Sequence[int], num_tokens: int) -> list[int]:
    """Greedy tokens of one prompt, exactly `num_tokens` of them."""
    generate = _generator(folder_of(model))
    return generate(prompt_ids, num_tokens)[0]  # type: ignore[operator]


@cache
def _model(folder: Path) -> object:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype="float32").eval()


def sampled_reference(
    model: str, prompt_ids: Sequence[int], num_tokens: int, sampling: Sampling, noise: float = 0.0, noise_seed: int = 0
) -> list[int]:
    """The same with tokens drawn: `generate()` of one process, in which each row of logits leaves only the token that it draws.

    With `noise` each logit is off by that much at most, as it is when the sums behind it are taken in another order.
    """
    import torch

    generator = torch.Generator().manual_seed(noise_seed)

    from engine.model.running.sampling import sample

    def only_the_drawn(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        history = ids[0].tolist()
        off = noise * (2 * torch.rand(scores[0].shape, generator=generator) - 1)
        token_id = sample(scores[0] + off, sampling, history, len(history) - len(prompt_ids))
        return torch.full_like(scores, -torch.inf).index_fill(1, torch.tensor([token_id]), 0.0)

    prompt = torch.tensor([list(prompt_ids)])  # [1, n]
    whole = _model(folder_of(model))
    with torch.inference_mode():
        out = whole.generate(  # type: ignore[attr-defined]
            prompt,
            attention_mask=torch.ones_like(prompt),
            logits_processor=[only_the_drawn],
            max_new_tokens=num_tokens,
            min_new_tokens=num_tokens,
            do_sample=False,
            pad_token_id=0,
        )
    return [int(token_id) for token_id in out[0, len(prompt_ids) :]]


def reference_logprobs(model: str, prompt_ids: Sequence[int], token_ids: Sequence[int]) -> list[list[float]]:
    """For each of `token_ids` behind the prompt, the log probabilities of the whole vocabulary in its place."""
    import torch

    whole = _model(folder_of(model))
    with torch.inference_mode():
        logits = whole(torch.tensor([[*prompt_ids, *token_ids]])).logits[0]  # type: ignore[operator]
    rows: list[list[float]] = logits[len(prompt_ids) - 1 : -1].float().log_softmax(-1).tolist()
    return rows
