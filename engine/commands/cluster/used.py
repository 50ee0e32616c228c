"""What a coordinator made of a request, for people and for scripts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, fields
from typing import Any

from engine.data.generation import Logprobs, Used
from engine.data.sampling import GREEDY


def used_notes(used: Used) -> Iterator[str]:
    """What was done that the caller did not ask for."""
    if used.template:
        name = "" if used.template == "default" else f" {used.template!r}"
        yield f"the prompt went through the model's chat template{name}; --raw sends it as it is"
    if text := sampling_note(used):
        yield text


def sampling_note(used: Used) -> str:
    """What the model's makers recommend and nobody changed; empty if nothing."""
    if not used.from_model:
        return ""
    settings = ", ".join(f"{name.replace('_', '-')} {getattr(used.sampling, name):g}" for name in used.from_model)
    return f"sampling as the model's generation_config.json recommends: {settings}; --temperature 0 is greedy"


def used_document(used: Used) -> dict[str, Any]:
    """`template` is empty if none was used; `sampling` says what is in force, and which of it the model recommends."""
    always = ("temperature", "top_k", "top_p", "seed")
    said = [f.name for f in fields(used.sampling) if f.name in always or getattr(used.sampling, f.name) != getattr(GREEDY, f.name)]
    settings = {name: value for name, value in asdict(used.sampling).items() if name in said}
    return {"template": used.template, "sampling": {**settings, "from_model": used.from_model}}


def logprobs_document(logprobs: Logprobs) -> dict[str, Any]:
    """Of one token, with what the likeliest in its place stand for as text."""
    chosen, *top = (
        {"token_id": entry.token_id, "text": entry.spelling.decode("utf-8", "replace"), "logprob": entry.logprob}
        for entry in (logprobs.chosen, *logprobs.top)
    )
    return {**chosen, "top": top}
