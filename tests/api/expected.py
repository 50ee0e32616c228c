"""What single-process transformers answers: the same template, the same model, greedy, with the logarithms of its probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Expected:
    prompt_ids: list[int]
    token_ids: list[int]
    text: str
    logprobs: list[float]
    finish_reason: str


@cache
def _loaded(folder: Path) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    return AutoModelForCausalLM.from_pretrained(folder, dtype="float32").eval(), AutoTokenizer.from_pretrained(folder)


def expected(folder: Path, asked: Sequence[dict[str, str]] | str, num_tokens: int, **settings: Any) -> Expected:
    """Of a conversation, or of a text as it is; `settings` are `generate()`'s."""
    import torch

    model, tokenizer = _loaded(folder)
    if isinstance(asked, str):
        prompt = tokenizer(asked, return_tensors="pt")["input_ids"]
    else:
        prompt = tokenizer.apply_chat_template(list(asked), add_generation_prompt=True, return_tensors="pt", return_dict=True)["input_ids"]
    with torch.no_grad():
        done = model.generate(
            prompt, max_new_tokens=num_tokens, do_sample=False, return_dict_in_generate=True, output_logits=True, pad_token_id=0, **settings
        )
    ids = done.sequences[0, prompt.shape[1] :].tolist()
    logprobs = [float(row[0].log_softmax(-1)[token]) for row, token in zip(done.logits, ids, strict=True)]
    has_ended = ids[-1] == model.config.eos_token_id
    text = tokenizer.decode(ids, skip_special_tokens=True)
    return Expected(prompt[0].tolist(), ids, text, logprobs, "stop" if has_ended else "length")
