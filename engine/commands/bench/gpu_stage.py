"""Decode steps and prompts of one stage on an accelerator, with made-up weights: no files, no network, no cluster.

A decode step is what a worker does for it: the step, the choice of the tokens where the logits are, and the wait for their ids.
The floor is the time to read the weights and the keys and values once, at the rate of a large copy on the same card.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from engine.model.running.stage import StageModel

WARM_UP_STEPS = 4
PROMPT_TOKENS = 2048
POINTS = ((1, 128), (32, 128), (32, 2048), (128, 2048))  # sessions, tokens that each has
SIZES: dict[str, dict[str, Any]] = {
    "llama-1b": {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16},
    "llama-8b": {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32},
}


@dataclass(frozen=True, slots=True)
class DecodeRow:
    """Steps with one token for each of `sessions`, which have `context` tokens; medians."""

    sessions: int
    context: int
    step_s: float
    floor_s: float

    @property
    def tokens_per_s(self) -> float:
        return self.sessions / self.step_s


def config_of(name: str) -> Any:
    """The configuration of a Llama of that size. Raises KeyError for a name that is not in SIZES."""
    from transformers import LlamaConfig

    return LlamaConfig(num_attention_heads=32, num_key_value_heads=8, vocab_size=128_256, max_position_embeddings=8192, **SIZES[name])


def build(config: Any, device: str, kv_budget_bytes: int, dtype: str = "bfloat16", **options: Any) -> StageModel:
    """The whole model as one stage."""
    from engine.model.running.stage import StageModel

    num_items = config.num_hidden_layers + 2
    return StageModel.synthetic(config, 0, num_items, dtype=dtype, device=device, kv_budget_bytes=kv_budget_bytes, **options)


def decode_row(stage: StageModel, sessions: int, context: int, num_steps: int, copy_bytes_per_s: float) -> DecodeRow:
    """Time `num_steps` steps of that many sessions. Their keys and values are made up."""
    from engine.data.sampling import Sampling
    from engine.model.running.accelerator.device_sampling import Draw, sample_rows

    names = open_sessions(stage, sessions, context, num_steps + WARM_UP_STEPS)
    tokens = [number % stage.vocab_size for number in range(sessions)]
    spent_s = []
    for index in range(num_steps + WARM_UP_STEPS):
        began_s = time.perf_counter()
        logits = stage.forward([(name, [token]) for name, token in zip(names, tokens, strict=True)], None)
        chosen = sample_rows(logits, [Draw(Sampling(), (), index)] * sessions, "bench", stage.picks)
        spent_s.append(time.perf_counter() - began_s)
        tokens = [token for token in chosen if isinstance(token, int)]
    for name in names:
        stage.close(name)
    read_bytes = stage.weight_bytes - embedding_bytes(stage) + sessions * context * stage.kv.bytes_per_token
    return DecodeRow(sessions, context, statistics.median(spent_s[WARM_UP_STEPS:]), read_bytes / copy_bytes_per_s)


def embedding_bytes(stage: StageModel) -> int:
    """Bytes of the input embedding, of which a step reads a few rows."""
    return stage.vocab_size * stage.hidden_size * stage.dtype.itemsize


def prompt_s(stage: StageModel, num_tokens: int, rounds: int) -> float:
    """Median seconds of a whole prompt in one step."""
    spent_s = []
    for number in range(rounds + 1):
        (name,) = open_sessions(stage, 1, 0, num_tokens)
        began_s = time.perf_counter()
        logits = stage.forward([(name, [(7 * i + number) % stage.vocab_size for i in range(num_tokens)])], None)
        logits.argmax().item()
        spent_s.append(time.perf_counter() - began_s)
        stage.close(name)
    return statistics.median(spent_s[1:])


def open_sessions(stage: StageModel, sessions: int, context: int, room: int) -> list[str]:
    """Sessions with `context` made-up tokens and room for more."""
    import torch

    names = [f"bench-{number}" for number in range(sessions)]
    made_up: dict[Any, tuple[torch.Tensor, torch.Tensor]] = {}
    for name in names:
        stage.open(name, context + room)
        for layer, shape in stage.kv.layers.items() if context else ():
            if shape not in made_up:
                keys = torch.randn(shape.num_key_heads, context, shape.key_size, device=stage.device).to(stage.dtype)
                made_up[shape] = keys, torch.randn_like(keys[..., :1].expand(-1, -1, shape.value_size))
            stage.kv.import_block(name, layer, 0, *made_up[shape])
    return names


def copy_bytes_per_s(device: str) -> float:
    """Bytes read and written a second by a large copy on the device."""
    import torch

    source = torch.empty(2**31, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / timed(lambda: target.copy_(source), device, 8)


def timed(work: Callable[[], object], device: str, repeats: int) -> float:
    """Seconds of one of `repeats` runs in a row, after two more."""
    from engine.model.hardware.devices import wait_for

    for _ in range(2):
        work()
    wait_for(device)
    began_s = time.perf_counter()
    for _ in range(repeats):
        work()
    wait_for(device)
    return (time.perf_counter() - began_s) / repeats


def decode_rows(stage: StageModel, points: Sequence[tuple[int, int]], num_steps: int, rate: float) -> list[DecodeRow]:
    """One row for each point."""
    return [decode_row(stage, sessions, context, num_steps, rate) for sessions, context in points]
