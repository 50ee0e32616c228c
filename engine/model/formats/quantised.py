"""How a model's weights are quantised, by its configuration: which methods are read, and what is said of the others. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

READ = ("fp8", "mxfp8", "mxfp4")  # turned into numbers of the computed dtype while a stage loads, by transformers' own code
_NAMES = {
    "aqlm": "AQLM",
    "auto-round": "AutoRound",
    "awq": "AWQ",
    "bitnet": "BitNet",
    "bitsandbytes": "bitsandbytes",
    "compressed-tensors": "compressed-tensors",
    "eetq": "EETQ",
    "exl2": "EXL2",
    "exl3": "EXL3",
    "fbgemm_fp8": "FBGEMM fp8",
    "gptq": "GPTQ",
    "higgs": "HIGGS",
    "hqq": "HQQ",
    "mlx": "MLX",
    "modelopt": "ModelOpt",
    "nvfp4": "NVFP4",
    "quanto": "Quanto",
    "quark": "Quark",
    "spqr": "SpQR",
    "torchao": "torchao",
    "vptq": "VPTQ",
}


def quantisation(config: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The quantisation that a config.json states, of the model or of the text model inside, with its `quant_method`; None if none."""
    for part in (config, config.get("text_config")):
        if not isinstance(part, Mapping):
            continue
        if isinstance(stated := part.get("quantization_config") or part.get("compression_config"), Mapping) and stated:
            return {"quant_method": _unnamed(stated), **stated}
        if isinstance(stated := part.get("quantization"), Mapping) and stated:
            return {"quant_method": "mlx", **stated}
    return None


def _unnamed(stated: Mapping[str, Any]) -> str:
    """bitsandbytes did not write its name at first."""
    return "bitsandbytes" if stated.get("load_in_8bit") or stated.get("load_in_4bit") else "unknown"


def refusal(stated: Mapping[str, Any] | None) -> str:
    """Why weights that are quantised in this way cannot be loaded, with the way out; empty if they can."""
    if stated is None or stated["quant_method"] in READ:
        return ""
    method = str(stated["quant_method"])
    bits = stated.get("bits") or stated.get("w_bit") or (4 if stated.get("load_in_4bit") else 8 if stated.get("load_in_8bit") else None)
    name = _NAMES.get(method, method[:40]) + (f", {bits} bit" if isinstance(bits, int) else "")
    return f"its weights are quantised ({name}), which is not read: use the model without it, or a version in fp8, mxfp4 or GGUF"
