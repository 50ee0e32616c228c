"""The buffers of a model that no checkpoint holds: rotary tables, masks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def compute_buffers(model: PreTrainedModel, prefixes: Iterable[str], device: str) -> None:
    """Give every unsaved buffer below `prefixes` (rotary tables, masks) its real value, as `from_pretrained` does.

    Call it before weights are filled in: the initialisers below run on whole modules.
    """
    from transformers import PreTrainedModel

    owners = {path: module for path, module in model.named_modules() if isinstance(module, PreTrainedModel)}
    with torch.no_grad():
        for prefix in prefixes:
            for path, module in model.get_submodule(prefix).named_modules(prefix=prefix):
                if not module._non_persistent_buffers_set:
                    continue
                for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
                    tensor._is_hf_initialized = tensor.is_meta
                for name in module._non_persistent_buffers_set & module._buffers.keys():
                    if (buffer := module._buffers[name]) is not None:
                        module._buffers[name] = torch.empty_like(buffer, device=device)
                owner = max((p for p in owners if p == "" or path == p or path.startswith(f"{p}.")), key=len)
                owners[owner]._init_weights(module)
