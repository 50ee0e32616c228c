"""Turns fp8 and mxfp4 weights into numbers while an item is loaded, by transformers' own arithmetic; see `quantised`.

What is needed beside an item's finished weights is one stored tensor and one piece of it in float32.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.integrations.finegrained_fp8 import Fp8Dequantize
from transformers.integrations.mxfp4 import Mxfp4Dequantize
from transformers.quantizers.auto import AutoHfQuantizer

from engine.data.errors import NotSupported

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def conversions(model: PreTrainedModel, stated: Mapping[str, Any]) -> list[Any]:
    """What transformers does to the stored tensors of a model with this quantisation, so that plain weights come out.

    Raises NotSupported for a quantisation whose parameters transformers refuses.
    """
    try:
        quantizer = AutoHfQuantizer.from_config({**stated, "dequantize": True}, pre_quantized=True)
    except Exception as error:  # every method checks its own parameters and raises as it likes
        method = str(stated["quant_method"])[:40]
        raise NotSupported(f"the {method} quantisation of this {model.config.model_type!r} model cannot be read: {error}") from error
    quantizer.get_load_operations = lambda: {"dequantize": _OPERATIONS[type(quantizer.quantization_config).__name__]}
    return list(quantizer.update_weight_conversions(get_model_conversion_mapping(model), model))


class _Fp8ByBlocks(Fp8Dequantize):
    """Also weights whose last blocks are cut off, such as DeepSeek-V3's 576 rows in blocks of 128, which transformers refuses."""

    def _dequantize_one(self, quantized: torch.Tensor, scales: torch.Tensor, output_dtype: torch.dtype | None = None) -> torch.Tensor:
        rows, columns = quantized.shape[-2:]
        grid = scales.shape[-2:] if scales.ndim >= 2 else (1, 1)
        if rows % grid[0] == 0 and columns % grid[1] == 0:
            return super()._dequantize_one(quantized, scales, output_dtype)
        block_rows, block_columns = self.hf_quantizer.quantization_config.weight_block_size
        missing = (0, grid[1] * block_columns - columns, 0, grid[0] * block_rows - rows)
        whole = nn.functional.pad(quantized.float(), missing)
        return super()._dequantize_one(whole, scales, output_dtype)[..., :rows, :columns].contiguous()


class _Mxfp4ByExpert(Mxfp4Dequantize):
    """One expert after another: all at once takes twice the finished weights beside them."""

    def convert(self, input_dict: dict[str, Any], *args: Any, **named: Any) -> Any:
        stored = {name: value[0] if isinstance(value, list) else value for name, value in input_dict.items()}
        target = named["model"].get_parameter(named["full_layer_name"])  # on the meta device: its shape and dtype alone
        whole = torch.empty(target.shape, dtype=target.dtype, device=next(iter(stored.values())).device)
        for expert in range(len(whole)):
            one = {name: value[expert : expert + 1] for name, value in stored.items()}
            whole[expert] = super().convert(one, *args, **named)[named["full_layer_name"]][0]
        return {named["full_layer_name"]: whole}


_OPERATIONS = {"FineGrainedFP8Config": _Fp8ByBlocks, "Mxfp4Config": _Mxfp4ByExpert}
