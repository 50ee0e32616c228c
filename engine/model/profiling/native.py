"""Single-process `generate()`, the reference that every benchmark compares with."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from engine.data.errors import NotSupported


def native_generator(folder: Path, *, dtype: str, num_threads: int) -> Callable[[Sequence[int], int], tuple[list[int], float]]:
    """Load the whole model once; the result generates exactly n tokens greedily and returns (token ids, seconds).

    For int8, which only the engine has, it computes in float32. Raises NotSupported for a folder that transformers does not load by itself.
    """
    import torch
    from transformers import AutoModelForCausalLM

    from engine.model.running.slicing import torch_dtype

    torch.set_num_threads(num_threads)
    try:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch_dtype(dtype)).eval()
    except Exception as error:  # GGUF and fp8 ask for another package, and each family objects in its own way
        first_line = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        raise NotSupported(
            f"{folder} cannot be compared with generate(), because transformers does not load it whole: {first_line}"
        ) from error

    def generate(prompt_ids: Sequence[int], num_tokens: int) -> tuple[list[int], float]:
        prompt = torch.tensor([list(prompt_ids)])  # [1, n]
        started_s = time.perf_counter()
        with torch.inference_mode():
            out = model.generate(
                prompt,
                attention_mask=torch.ones_like(prompt),
                max_new_tokens=num_tokens,
                min_new_tokens=num_tokens,
                do_sample=False,
                pad_token_id=0,
            )
        return out[0, prompt.shape[1] :].tolist(), time.perf_counter() - started_s

    return generate
