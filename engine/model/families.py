"""The model families (`model_type` in config.json) whose slices were verified, and why known others are refused.

A family is listed only if its greedy tokens over three slices, in ragged batches, equal those of `generate()`; the test
suite rebuilds the list from every architecture that transformers can build and compares. What is not listed is refused.
"""

from __future__ import annotations

# Sessions are packed into one row: every linear layer sees the whole batch.
PACKED: tuple[str, ...] = (
    "gpt2",
    "llama",
    "mistral",
    "qwen2",
    "qwen3",
)

# The model's own attention or position code needs one session per call; its sessions run one after another in a step.
ROW_BY_ROW: tuple[str, ...] = ()

REFUSED: dict[str, str] = {}
