"""Linear layers in 8 bits: they take the place of a stock model's own, which keeps its forward, its names and its shapes.

The weight stays on the meta device, so that loaders find its name and models may read its shape and dtype; what is computed
with is `held`.

Shapes: T tokens, K inputs, N outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeGuard

import torch
from torch import nn

from engine.model.eight_bit_products import MOST_INPUTS, Rows, Weight, round_rows, round_weight, side_by_side, weight_bytes

if TYPE_CHECKING:
    from engine.model.running.chain import Chain


class Part(NamedTuple):
    """Where a layer's weight is."""

    weight: Weight  # its own, or that of several layers side by side
    start: int  # its first output in there


@dataclass(slots=True, eq=False)
class Held:
    """The weight of one layer. Stages that share a layer share this object, so joining in one of them shows in all.

    They may run in two threads: `part` is read once and replaced whole.
    """

    part: Part
    num_outputs: int


class LastInput:
    """What was computed last, for layers that are given the very same tensor one after another: they share its rounded rows.

    From the second time on they share one product too: a product of a few rows costs as much in calls as in sums.
    """

    def __init__(self) -> None:
        self._input: torch.Tensor | None = None  # held, so that no other tensor can be taken for it
        self._rows: Rows | None = None
        self._apart: list[Held] = []  # that took it each with a product of their own
        self._weight: Weight | None = None
        self._product: torch.Tensor | None = None  # while layers are still to take their part of it

    def product(self, held: Held, hidden: torch.Tensor) -> torch.Tensor:
        """[.., K] times a layer's weight, [.., N]."""
        if hidden is not self._input or self._rows is None:
            if len(self._apart) > 1:
                _join(self._apart)
            self._apart, self._product = [], None
            self._rows = round_rows(hidden)
            self._input = hidden
        (weight, start), num_outputs = held.part, held.num_outputs
        if weight.num_outputs == num_outputs:
            if held not in self._apart:
                self._apart.append(held)
            return weight.product(self._rows)
        stop, product = start + num_outputs, self._product
        if product is None or weight is not self._weight:
            product = weight.product(self._rows)
        self._weight, self._product = weight, None if stop == weight.num_outputs else product
        return product[..., start:stop]


def _join(layers: Sequence[Held]) -> None:
    """Lay the weights of two layers or more that share their input side by side, unless another stage has."""
    weights = [held.part.weight for held in layers]
    if any(weight.num_outputs != held.num_outputs for weight, held in zip(weights, layers, strict=True)):
        return
    joined, start = side_by_side(weights), 0
    for held in layers:
        held.part = Part(joined, start)
        start += held.num_outputs


class EightBitLinear(nn.Module):
    """`nn.Linear`, or transformers' Conv1D, whose weight is [K, N]."""

    def __init__(self, layer: nn.Linear, last_input: LastInput) -> None:
        super().__init__()
        self.weight, self.bias = layer.weight, layer.bias
        self._is_conv = type(layer).__name__ == "Conv1D"
        self.out_features, self.in_features = reversed(layer.weight.shape) if self._is_conv else layer.weight.shape
        self.held: Held | None = None
        self._last_input = last_input

    @property
    def num_bytes(self) -> int:
        """Of the weight, held or not."""
        return weight_bytes(self.out_features, self.in_features)

    def hold(self, weight: torch.Tensor) -> None:
        """Round a weight, in the shape of the layer's own."""
        self.held = Held(Part(round_weight(weight.t() if self._is_conv else weight), 0), self.out_features)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        if self.held is None:
            raise RuntimeError("a layer in 8 bits runs before its weight is loaded")
        product = self._last_input.product(self.held, hidden)
        return product if self.bias is None else product + self.bias


def to_eight_bits(model: nn.Module, chain: Chain) -> None:
    """Replace the linear layers of the blocks and of the head; embedding and norms stay as they are."""
    last_input = LastInput()
    for prefix in (path for item in range(1, chain.num_items) for path in chain.prefixes(item)):
        parent, _, name = prefix.rpartition(".")
        if _is_linear(head := model.get_submodule(prefix)):
            setattr(model.get_submodule(parent), name, EightBitLinear(head, last_input))
            continue
        for module in list(model.get_submodule(prefix).modules()):
            for name, layer in list(module.named_children()):
                if _is_linear(layer):
                    setattr(module, name, EightBitLinear(layer, last_input))


def held_in(model: nn.Module, name: str) -> EightBitLinear | None:
    """The layer whose weight has that name, if it is in 8 bits."""
    path, _, leaf = name.rpartition(".")
    module = model.get_submodule(path)
    return module if leaf == "weight" and isinstance(module, EightBitLinear) else None


def bytes_of(model: nn.Module, name: str, tensor: torch.Tensor) -> int:
    """What the tensor of that name takes in memory once it is loaded."""
    layer = held_in(model, name)
    return tensor.nbytes if layer is None else layer.num_bytes


def place_of(model: nn.Module, name: str, tensor: torch.Tensor) -> int:
    """Where the weight of that name lies: the same for two that share it."""
    layer = held_in(model, name)
    return tensor.data_ptr() if layer is None else id(layer.held)


def why_not_exact(model: nn.Module, chain: Chain) -> str:
    """Why a row's bits may depend on the rows beside it although the model is in 8 bits; empty if they do not."""
    if not chain.feeding.is_packed:
        return "the model computes its attention itself"
    path = chain.prefixes(1)[0]
    kept = [name for name, t in model.get_submodule(path).named_parameters() if t.dim() > 1 and held_in(model, f"{path}.{name}") is None]
    return f"{', '.join(kept[:3])}{' and more' if len(kept) > 3 else ''} of a block stay in float32" if kept else ""


def _is_linear(layer: Any) -> TypeGuard[nn.Linear]:
    if type(layer).__name__ == "Conv1D":
        return int(layer.weight.shape[0]) <= MOST_INPUTS
    return type(layer) is nn.Linear and layer.in_features <= MOST_INPUTS
