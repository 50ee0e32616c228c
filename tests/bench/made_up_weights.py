"""Writes a folder with random weights of a large model, one item a file, made on GPUs; in bfloat16, or with the blocks' matrices in fp8.

`engine.commands.bench` makes small ones in memory. A Llama of 70 B has 141 GB in bfloat16, more than many a disk has, and 70 in fp8.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, LlamaConfig

from engine.commands.bench.gpu_stage import SIZES

LARGE = {"llama-70b": {"hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80, "num_attention_heads": 64}}
BLOCK = 128
SPREAD = 0.02
_THREADS = 8


def write(name: str, folder: Path, *, fp8: bool, devices: Sequence[str]) -> int:
    """Returns the bytes of the tensors."""
    return write_model(config_of({"num_attention_heads": 32, **{**SIZES, **LARGE}[name]}), folder, fp8=fp8, devices=devices)


def config_of(sizes: dict[str, Any]) -> LlamaConfig:
    common = {"num_key_value_heads": 8, "vocab_size": 128_256, "max_position_embeddings": 8192, "dtype": "bfloat16"}
    return LlamaConfig(architectures=["LlamaForCausalLM"], **{**common, **sizes})


def write_model(config: LlamaConfig, folder: Path, *, fp8: bool, devices: Sequence[str]) -> int:
    """Of any configuration, whose matrices in blocks are multiples of BLOCK if `fp8`."""
    folder.mkdir(parents=True, exist_ok=True)
    with torch.device("meta"):
        shapes = {key: tuple(value.shape) for key, value in AutoModelForCausalLM.from_config(config).state_dict().items()}
    if fp8:
        config.quantization_config = {"quant_method": "fp8", "weight_block_size": [BLOCK, BLOCK], "activation_scheme": "dynamic"}
    config.save_pretrained(folder)
    files: dict[str, dict[str, tuple[int, ...]]] = defaultdict(dict)
    for key, shape in shapes.items():
        layer = re.search(r"layers\.(\d+)\.", key)
        files[f"item-{layer[1]}.safetensors" if layer else "rest.safetensors"][key] = shape
    with ThreadPoolExecutor(_THREADS) as threads:
        parts = [
            threads.submit(_write_file, folder / name, wanted, fp8 and name != "rest.safetensors", devices[number % len(devices)])
            for number, (name, wanted) in enumerate(files.items())
        ]
        found = {name: part.result() for name, part in zip(files, parts, strict=True)}
    index = {"metadata": {}, "weight_map": {key: name for name, (keys, _) in found.items() for key in keys}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return sum(num_bytes for _, num_bytes in found.values())


def _write_file(path: Path, shapes: dict[str, tuple[int, ...]], fp8: bool, device: str) -> tuple[list[str], int]:
    tensors: dict[str, torch.Tensor] = {}
    for key, shape in shapes.items():
        if len(shape) == 1:
            tensors[key] = torch.ones(shape, dtype=torch.bfloat16)
        elif fp8:
            tensors[key] = torch.randn(shape, device=device).to(torch.float8_e4m3fn).cpu()
            tensors[f"{key}_scale_inv"] = torch.full([-(-n // BLOCK) for n in shape], SPREAD)
        else:
            tensors[key] = (torch.randn(shape, device=device) * SPREAD).to(torch.bfloat16).cpu()
    save_file(tensors, path, metadata={"format": "pt"})
    return list(tensors), sum(tensor.nbytes for tensor in tensors.values())
