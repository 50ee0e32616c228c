"""What transformers itself reaches on the same card with the same random weights: generate(), generate_batch, a compiled static cache.

Each peer is tried alone; one that this release or card refuses is a row that says so.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from engine.commands.bench.gpu_stage import timed

PROMPT_TOKENS = 128
_NEW_TOKENS = 32


@dataclass(frozen=True, slots=True)
class PeerRow:
    """`step_s` seconds a token of every session; `refusal` says why there are none."""

    name: str
    sessions: int
    step_s: float = 0.0
    refusal: str = ""

    @property
    def tokens_per_s(self) -> float:
        return self.sessions / self.step_s if self.step_s else 0.0


def peer_rows(config: Any, device: str, dtype: str) -> list[PeerRow]:
    """Build the model once and time each peer."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.inference_mode(False), torch.no_grad():
        with torch.device(device):
            model = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype)).eval()
        model.generation_config.eos_token_id = None
        ways: tuple[tuple[str, int, Callable[[Any, int, str], float]], ...] = (
            ("generate()", 1, _generate),
            ("generate()", 32, _generate),
            ("generate_batch", 32, _generate_batch),
            ("compiled static cache", 1, _compiled),
        )
        rows = [_tried(name, sessions, way, model, device) for name, sessions, way in ways]
        del model
        torch._dynamo.reset()
    return rows


def _tried(name: str, sessions: int, way: Callable[[Any, int, str], float], model: Any, device: str) -> PeerRow:
    try:
        return PeerRow(name, sessions, way(model, sessions, device))
    except Exception as error:  # each release of transformers takes other arguments here
        return PeerRow(name, sessions, refusal=f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:120]}")


def _generate(model: Any, sessions: int, device: str) -> float:
    """Seconds a step: longer answers less shorter ones, so that the prompt falls out."""
    import torch

    prompts = torch.randint(1, 1000, (sessions, PROMPT_TOKENS), device=device)
    options = {"attention_mask": torch.ones_like(prompts), "do_sample": False, "pad_token_id": 0}

    def run(count: int) -> float:
        return timed(lambda: model.generate(prompts, max_new_tokens=count, min_new_tokens=count, **options), device, 1)

    return (run(2 + _NEW_TOKENS) - run(2)) / _NEW_TOKENS


def _generate_batch(model: Any, sessions: int, device: str) -> float:
    """Seconds a token of every session, prompts included: it takes them all at once."""
    from transformers import GenerationConfig
    from transformers.generation import ContinuousBatchingConfig

    prompts = [[(7 * row + column) % 1000 + 1 for column in range(PROMPT_TOKENS)] for row in range(sessions)]
    options = GenerationConfig(max_new_tokens=2 * _NEW_TOKENS, do_sample=False, eos_token_id=-1, pad_token_id=0)
    batching = ContinuousBatchingConfig(use_cuda_graph=True, num_blocks=1024, max_batch_tokens=4096)
    spent_s = 0.0
    for _ in range(2):
        began_s = time.perf_counter()
        model.generate_batch(prompts, generation_config=options, continuous_batching_config=batching, progress_bar=False)
        spent_s = time.perf_counter() - began_s
    return spent_s / (2 * _NEW_TOKENS)


def _compiled(model: Any, sessions: int, device: str) -> float:
    """One decode step of the whole model, compiled, over transformers' static cache."""
    import torch
    from transformers import StaticCache

    cache = StaticCache(config=model.config, max_cache_len=256)
    prompt = torch.randint(1, 1000, (sessions, PROMPT_TOKENS), device=device)
    model(input_ids=prompt, past_key_values=cache, use_cache=True)
    step = torch.compile(model.forward, fullgraph=True)
    token, position = prompt[:, :1].clone(), torch.full((sessions, 1), PROMPT_TOKENS, device=device)

    def run() -> Any:
        return step(input_ids=token, position_ids=position, past_key_values=cache, use_cache=True).logits

    for _ in range(3):
        run()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return timed(graph.replay, device, 24)
