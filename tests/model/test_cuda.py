"""The same identity on a CUDA GPU: three slices in one process against `generate()` on that GPU. Skipped without one."""

from __future__ import annotations

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from engine.data.model import ModelRef
from engine.data.sampling import Sampling
from engine.folders import cache_folder
from engine.model import families
from engine.model.hardware.devices import detect
from engine.model.profiling.measure import measure_config
from engine.model.running.accelerator.acceleration import Acceleration, CaptureLimits
from engine.model.running.sampling import sample
from engine.model.running.stage import StageModel
from engine.model.sources.source import resolve
from engine.model.weights.weight_folder import WeightFolder
from tests.model import tiny

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")

PROMPTS = {"a": [1, 2, 3], "b": [9], "c": list(range(4, 40))}


@pytest.mark.parametrize("name", ["gpt2:tiny", "llama:tiny", "qwen3:tiny", "gemma2:tiny", "gpt2"])
def test_three_slices_on_a_gpu_equal_generate_there(name: str) -> None:
    from transformers import AutoModelForCausalLM

    folder = resolve(ModelRef(name, 0), cache_dir=cache_folder())
    whole = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).to("cuda:0").eval()
    expected = {}
    for key, prompt in PROMPTS.items():
        out = whole.generate(torch.tensor([prompt], device="cuda:0"), max_new_tokens=12, min_new_tokens=12, do_sample=False, pad_token_id=0)
        expected[key] = out[0, len(prompt) :].tolist()
    num_items = whole.config.num_hidden_layers + 2
    bounds = (0, num_items // 3, 2 * num_items // 3, num_items)
    stages = [StageModel.load(folder, a, b, device="cuda:0", kv_budget_bytes=10**9) for a, b in itertools.pairwise(bounds)]
    assert generate(stages, 12) == expected
    assert all(keys.device.type == "cuda" for stage in stages for keys, _ in stage.kv.pools.values())
    assert all("are recorded" in stage.running_text for stage in stages), [stage.running_text for stage in stages]


FEW_ROWS = Acceleration(limits=CaptureLimits(max_rows=4))  # each number of rows may compile kernels of its own

# Grouped heads, windows, sinks, capped scores, experts, sandwich norms, norms of heads, partial rotary positions, ALiBi.
FAMILIES = [
    "llama",
    "mistral",
    "gpt_oss",
    "gemma2",
    "gemma3_text",
    "mixtral",
    "qwen2_moe",
    "qwen3",
    "olmo2",
    "phi",
    "phi3",
    "gpt_neox",
    "bloom",
]


@pytest.mark.parametrize("family", FAMILIES)
def test_families_over_slices_of_a_gpu_equal_generate_there(family: str, tmp_path: Path) -> None:
    """Ragged, in company, one session joining late, prompts whole and in chunks; one to three stages."""
    model = tiny.random_model(tiny.tiny_config(family))
    model.save_pretrained(tmp_path)
    if tiny.sliced(tiny.load_slices(tmp_path, (0, 6)), tiny.prompts(), 8) != tiny.whole(model, tiny.prompts(), 8):
        pytest.skip(f"transformers {transformers.__version__} answers differently on a CPU too; verified with {families.VERIFIED_WITH}")
    model.to("cuda:0")
    options: dict[str, Any] = {"max_new_tokens": 8, "min_new_tokens": 8, "do_sample": False, "pad_token_id": 0}
    asked = [torch.tensor([prompt], device="cuda:0") for prompt in tiny.prompts()]
    expected = [model.generate(p, attention_mask=torch.ones_like(p), **options)[0, p.shape[1] :].tolist() for p in asked]
    last = tiny.NUM_LAYERS + 2
    for cuts, chunk in (((0, last), None), ((0, 3, last), 3), ((0, 2, 4, last), None)):
        stages = tiny.load_slices(tmp_path, cuts, device="cuda:0", acceleration=FEW_ROWS)
        print(family, stages[0].running_text)
        assert tiny.sliced(stages, tiny.prompts(), 8, chunk) == expected


def test_a_stage_is_recorded_while_another_one_serves(tmp_path: Path) -> None:
    """A live move prepares on a thread of its own; the steps of the serving thread go on, with the same answers."""
    tiny.random_model(tiny.tiny_config("llama")).save_pretrained(tmp_path)
    (serving,) = tiny.load_slices(tmp_path, (0, 6), device="cuda:0", acceleration=FEW_ROWS)
    expected = tiny.sliced([serving], tiny.prompts(), 8)
    answers: list[list[list[int]]] = []
    is_over = threading.Event()

    def serve() -> None:
        while not is_over.is_set():
            answers.append(tiny.sliced([serving], tiny.prompts(), 8))

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(serve)
        prepared = [tiny.load_slices(tmp_path, (0, 6), device="cuda:0", acceleration=FEW_ROWS)[0] for _ in range(5)]
        is_over.set()
        running.result()
    assert all("are recorded" in stage.running_text for stage in prepared), prepared[0].running_text
    assert answers and all(answer == expected for answer in answers)
    assert tiny.sliced([prepared[-1]], tiny.prompts(), 8) == expected


@torch.inference_mode()
def generate(stages: list[StageModel], num_tokens: int) -> dict[str, list[int]]:
    new = {key: list(prompt) for key, prompt in PROMPTS.items()}
    tokens: dict[str, list[int]] = {key: [] for key in PROMPTS}
    for stage in stages:
        for key, prompt in PROMPTS.items():
            stage.open(key, len(prompt) + num_tokens)
    for index in range(num_tokens):
        hidden = None
        for stage in stages:
            hidden = stage.forward(list(new.items()), hidden)
        for row, key in enumerate(new):
            token = sample(hidden[row], Sampling(), PROMPTS[key] + tokens[key], index)  # type: ignore[index]
            tokens[key].append(token)
            new[key] = [token]
    return tokens


def test_hardware_and_item_times_of_a_gpu() -> None:
    facts = detect("cuda:0")
    assert facts.device == "cuda:0" and facts.memory_bytes > 10**9
    folder = resolve(ModelRef("gpt2", 0), cache_dir=cache_folder())
    found = measure_config(WeightFolder(folder).config, dtype="float32", device="cuda:0")
    print([round(1e3 * t, 3) for t in found.item_s], round(1e3 * found.base_s, 3))
    embedding_s, *others_s = found.item_s
    assert len(found.item_s) == 14 and embedding_s == 0.0 and all(0 < t < 0.1 for t in others_s) and 0 < found.base_s < 0.1
    assert found.rows.rows[-1] == 64 and found.rows.factor(64) < 16
