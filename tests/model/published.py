"""Small models in the formats that their makers publish: fp8 and mxfp4 folders, GGUF files written as llama.cpp's converter does."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel
from transformers.integrations.finegrained_fp8 import Fp8Quantize
from transformers.modeling_gguf_pytorch_utils import TENSOR_PROCESSORS, TensorProcessor, get_gguf_hf_weights_map
from transformers.quantizers.auto import AutoHfQuantizer

from tests.model import tiny

FILE = "model.safetensors"
FP8 = {"quant_method": "fp8", "weight_block_size": [8, 8], "activation_scheme": "dynamic"}
MXFP8 = {"quant_method": "mxfp8", "weight_block_size": [1, 32], "scale_fmt": "ue8m0"}
MXFP4 = {"quant_method": "mxfp4", "modules_to_not_convert": ["model.embed_tokens", "lm_head"]}
_KEPT = ("norm", "embed", "lm_head", "mlp.gate.weight")  # what makers leave as it is
_FP4_SIZES = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])


def model_of(family: str, **sizes: Any) -> PreTrainedModel:
    """A tiny random model whose rows hold whole blocks, with nothing that a GGUF file does not hold."""
    config = tiny.tiny_config(family, with_scales=False)
    for name, size in {"hidden_size": 64, "intermediate_size": 96, "moe_intermediate_size": 32, **sizes}.items():
        if hasattr(config, name):
            setattr(config, name, size)
    return tiny.random_model(config)


def edit_config(folder: Path, **values: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def rename_tensors(folder: Path, change: Callable[[str], str | None]) -> None:
    """Give the tensors other names; None leaves one out."""
    tensors = {new: tensor for name, tensor in load_file(folder / FILE).items() if (new := change(name)) is not None}
    save_file(tensors, folder / FILE, metadata={"format": "pt"})


def to_fp8(folder: Path, stated: dict[str, Any] = FP8, *, cut_blocks: bool = False) -> None:
    """Quantise a folder's matrices by transformers' own code. `cut_blocks` takes the last row off each, as if 8 did not divide it."""
    quantise = Fp8Quantize(AutoHfQuantizer.from_config(dict(stated), pre_quantized=True))
    stored: dict[str, torch.Tensor] = {}
    for name, tensor in load_file(folder / FILE).items():
        if tensor.ndim != 2 or any(word in name for word in _KEPT):
            stored[name] = tensor
        elif cut_blocks and len(tensor) % 8:
            whole = torch.nn.functional.pad(tensor, (0, 0, 0, -len(tensor) % 8))
            parts = quantise._quantize_one(name, whole)
            stored |= parts | {name: parts[name][: len(tensor)].clone()}
        else:
            stored |= quantise._quantize_one(name, tensor)
    save_file(stored, folder / FILE, metadata={"format": "pt"})
    edit_config(folder, quantization_config=stated)


def to_mxfp4(folder: Path) -> None:
    """Store the experts as gpt-oss does: blocks of 32 numbers of 4 bits, and an exponent for each block."""
    stored: dict[str, torch.Tensor] = {}
    for name, tensor in load_file(folder / FILE).items():
        if tensor.ndim == 3 and name.endswith(("gate_up_proj", "down_proj")):
            stored[f"{name}_blocks"], stored[f"{name}_scales"] = _mxfp4(tensor)
        else:
            stored[name] = tensor
    save_file(stored, folder / FILE, metadata={"format": "pt"})
    edit_config(folder, quantization_config=MXFP4)


def _mxfp4(tensor: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """[experts, in, out] as blocks [experts, out, in / 32, 16] and exponents [experts, out, in / 32]."""
    blocks = tensor.transpose(1, 2).reshape(tensor.shape[0], tensor.shape[2], -1, 32)
    exponents = torch.floor(torch.log2(blocks.abs().amax(-1).clamp(min=1e-20))) - 2
    scaled = blocks / torch.exp2(exponents)[..., None]
    codes = (scaled.abs()[..., None] - _FP4_SIZES).abs().argmin(-1) + 8 * (scaled < 0)
    return (codes[..., 0::2] | codes[..., 1::2] << 4).to(torch.uint8), (exponents + 127).to(torch.uint8)


def write_gguf(
    model: PreTrainedModel, file: Path, kinds: Sequence[str] = ("F32",), more: Callable[[gguf.GGUFWriter], object] = lambda _: None
) -> None:
    """Write the model as llama.cpp's converter does; its matrices take turns at the types of `kinds`. `more` adds keys and tensors."""
    config: Any = model.config
    architecture = config.model_type.replace("_", "")
    writer = gguf.GGUFWriter(str(file), architecture)
    _write_keys(writer, config)
    for number, (name, tensor) in enumerate(_gguf_tensors(model, architecture)):
        kind = gguf.GGMLQuantizationType["F32" if tensor.ndim == 1 or "ffn_gate_inp" in name else kinds[number % len(kinds)]]
        if kind == gguf.GGMLQuantizationType.F32:
            writer.add_tensor(name, tensor)
        else:
            writer.add_tensor(name, gguf.quantize(tensor, kind), raw_dtype=kind)
    more(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _write_keys(writer: gguf.GGUFWriter, config: Any) -> None:
    writer.add_context_length(config.max_position_embeddings)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_embedding_length(config.hidden_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_vocab_size(config.vocab_size)
    writer.add_feed_forward_length(getattr(config, "intermediate_size", None) or config.n_inner or 4 * config.hidden_size)
    if hasattr(config, "num_key_value_heads"):
        writer.add_head_count_kv(config.num_key_value_heads)
    if hasattr(config, "rms_norm_eps"):
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    else:
        writer.add_layer_norm_eps(getattr(config, "layer_norm_epsilon", None) or config.norm_epsilon)
    head_size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    if config.model_type != "gpt2":
        writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
        writer.add_rope_dimension_count(head_size)
    if config.model_type in ("qwen3", "qwen3_moe"):
        writer.add_key_length(head_size)
        writer.add_value_length(head_size)
    if config.model_type == "qwen3_moe":
        writer.add_expert_count(config.num_experts)
        writer.add_expert_used_count(config.num_experts_per_tok)
        writer.add_expert_feed_forward_length(config.moe_intermediate_size)


def _gguf_tensors(model: PreTrainedModel, architecture: str) -> list[tuple[str, np.ndarray]]:
    config: Any = model.config
    names = get_gguf_hf_weights_map(model, TENSOR_PROCESSORS.get(architecture, TensorProcessor)(config=config.to_dict()))
    state, found = model.state_dict(), []
    for name, source in sorted(names.items()):
        tensor = state[source].float().numpy()
        if name == "output.weight" and config.tie_word_embeddings:
            continue
        if architecture == "llama" and (".attn_q." in name or ".attn_k." in name):
            tensor = _interleaved(tensor, config.num_attention_heads if ".attn_q." in name else config.num_key_value_heads)
        if architecture == "gpt2" and tensor.ndim == 2 and name.startswith("blk."):
            tensor = tensor.T
        if name.endswith(("ffn_gate_exps", "ffn_up_exps")):
            half = tensor.shape[1] // 2
            tensor = tensor[:, :half] if "gate" in name else tensor[:, half:]
        found.append((f"{name}.weight" if name.endswith("_exps") else name, np.ascontiguousarray(tensor)))
    return found


def _interleaved(tensor: np.ndarray, num_heads: int) -> np.ndarray:
    """The rows of every head in llama.cpp's order of rotary pairs."""
    return tensor.reshape(num_heads, 2, len(tensor) // num_heads // 2, *tensor.shape[1:]).swapaxes(1, 2).reshape(tensor.shape)
