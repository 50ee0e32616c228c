"""Names of architectures as people write them: `llama:tiny`, `GPT-2`, `qwen2.5`."""

from __future__ import annotations

import re

from engine.data.errors import InvalidInput

TINY = ":tiny"
_ARCHITECTURE = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")
# What people call a family, where it is not the name that its config carries.
_ALIASES = {
    "gpt-2": "gpt2",
    "distilgpt2": "gpt2",
    "gptj": "gptj",
    "gpt-j": "gptj",
    "gpt-neo": "gpt_neo",
    "gpt-neox": "gpt_neox",
    "gptneox": "gpt_neox",
    "pythia": "gpt_neox",
    "gpt-oss": "gpt_oss",
    "llama2": "llama",
    "llama3": "llama",
    "llama-2": "llama",
    "llama-3": "llama",
    "phi-2": "phi",
    "phi2": "phi",
    "phi-3": "phi3",
    "phi-4": "phi3",
    "phi4": "phi3",
    "qwen2.5": "qwen2",
    "qwen-2": "qwen2",
    "qwen-3": "qwen3",
    "gemma-2": "gemma2",
    "gemma-3": "gemma3_text",
    "gemma3": "gemma3_text",
    "olmo-2": "olmo2",
}


def architecture_of(model: str) -> tuple[str, bool]:
    """(model_type, tiny) of an architecture name as people write it: `llama:tiny`, `GPT-2`, `qwen2.5`."""
    tiny = model.endswith(TINY)
    name = model.removesuffix(TINY).lower()
    name = _ALIASES.get(name, name)
    if not _ARCHITECTURE.fullmatch(name):
        raise InvalidInput(
            f"model {model!r} cannot have random weights: --random-weights takes an architecture name, such as"
            f" `{likely_architecture(model)}` or `llama{TINY}`; leave it out to load {model!r} itself"
        )
    return name, tiny


def likely_architecture(model: str) -> str:
    """The family that a hub id most likely names, for a hint: the longest known name that it starts with."""
    name = model.rstrip("/").rsplit("/", 1)[-1].lower()
    known = {**_ALIASES, **{kind: kind for kind in ("gpt2", "llama", "mistral", "qwen2", "qwen3", "gemma2", "phi3", "olmo2", "opt")}}
    matches = [alias for alias in known if name.startswith(alias)]
    return known[max(matches, key=len)] if matches else "gpt2"
