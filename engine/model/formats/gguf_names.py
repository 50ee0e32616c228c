"""Where the tensors of a GGUF file go in a transformers model, and what is done to them on the way, by transformers' own tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers.modeling_gguf_pytorch_utils import TENSOR_PROCESSORS, TensorProcessor, get_gguf_hf_weights_map

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_READ_ALREADY = ("rope_freqs.weight",)  # what `gguf_folder` put into the configuration


class _Flat:
    """A model without children: transformers goes through each of them again, and a table of all blocks each time."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.config, self.state_dict = model.config, model.state_dict

    def named_children(self) -> tuple[()]:
        return ()


class GgufNames:
    """For one model on the meta device."""

    def __init__(self, model: PreTrainedModel) -> None:
        config = model.config.to_dict()
        self._processor = TENSOR_PROCESSORS.get(model.config.gguf_architecture, TensorProcessor)(config=config)
        self._targets: dict[str, str] = get_gguf_hf_weights_map(_Flat(model), self._processor)

    def target(self, name: str) -> str:
        """The model's name of a stored tensor; the stored one if the model has no place for it."""
        return self._targets.get(name) or self._targets.get(name.removesuffix(".weight"), name)  # experts are listed without it

    def strangers(self, names: Iterable[str]) -> list[str]:
        """The stored tensors that the model has no place for, so that leaving them out would give another model."""
        return sorted(name for name in names if self.target(name) == name and name not in _READ_ALREADY)

    def conversion(self) -> GgufConversion:
        """To collect the stored tensors of one of the model's."""
        return GgufConversion(self._processor, self._targets)


class GgufConversion:
    """Undoes what llama.cpp's converter did to the tensors that make up one of the model's; used like transformers' converters."""

    def __init__(self, processor: TensorProcessor, targets: dict[str, str]) -> None:
        self._processor, self._targets = processor, targets
        self._readers: list[tuple[str, Callable[[], torch.Tensor]]] = []

    def add_tensor(self, _target: str, name: str, _pattern: str, reader: Callable[[], torch.Tensor]) -> None:
        """One more stored tensor, read when `convert` runs."""
        self._readers.append((name, reader))

    def convert(self, _target: str, **_: Any) -> dict[str, torch.Tensor]:
        """The finished tensors, by the model's names."""
        parsed: dict[str, Any] = {"tensors": {}}
        for name, reader in self._readers:
            numbers = reader().numpy()
            result = self._processor.process(weights=numbers, name=name, tensor_key_mapping=self._targets, parsed_parameters=parsed)
            if result.name is not None:
                parsed["tensors"][self._targets[result.name]] = torch.from_numpy(np.ascontiguousarray(result.weights))
        return parsed["tensors"]
