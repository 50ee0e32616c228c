"""Products that share their input, as one product. Found by running: linear layers that were given the very same tensor.

The weights move into one tensor, of which the layers keep views, so memory stays the same and each layer still works alone.

Shapes: T tokens, D inputs, N outputs of all layers of a group together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from engine.model.running.accelerator.row_products import product


@dataclass(slots=True)
class Joined:
    """Linear layers with one input. The first that is called computes for all; the others take their part."""

    layers: list[nn.Linear]
    weight: torch.Tensor  # [N, D]
    bias: torch.Tensor | None  # [N]
    _input: torch.Tensor | None = None
    _parts: dict[int, torch.Tensor] = field(default_factory=dict)

    def all(self, hidden: torch.Tensor) -> torch.Tensor:
        """[.., N]: the outputs of all layers, in their order."""
        return product(self.weight, self.bias, hidden)

    def one(self, index: int, hidden: torch.Tensor) -> torch.Tensor:
        """The output of one layer, [.., its outputs], a view of the joined product."""
        if hidden is not self._input or index not in self._parts:
            self._input = hidden
            parts = self.all(hidden).split([layer.out_features for layer in self.layers], -1)
            self._parts = dict(enumerate(parts))
        part = self._parts.pop(index)
        if not self._parts:
            self._input = None
        return part

    def install(self) -> Callable[[], None]:
        """Have the layers work together; returns what undoes it."""
        for index, layer in enumerate(self.layers):
            layer.forward = _member(self, index)  # type: ignore[method-assign,assignment]
        return lambda: restore(self.layers)


def _member(group: Joined, index: int) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda hidden: group.one(index, hidden)


def restore(modules: Sequence[nn.Module]) -> None:
    """Give modules the forward of their class again."""
    for module in modules:
        module.__dict__.pop("forward", None)


def find_groups(block: nn.Module, run: Callable[[], Any]) -> list[Joined]:
    """The groups of a block's linear layers while `run` runs it once. Layers with hooks of their own, or called twice, are left alone."""
    calls: list[tuple[nn.Linear, torch.Tensor]] = []

    def note(layer: nn.Module, args: tuple[Any, ...]) -> None:
        if isinstance(layer, nn.Linear):
            calls.append((layer, args[0]))

    plain = [m for m in block.modules() if type(m) is nn.Linear and not m._forward_hooks and not m._forward_pre_hooks]
    hooks = [layer.register_forward_pre_hook(note) for layer in plain]
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
    once = [(layer, given) for layer, given in calls if sum(layer is other for other, _ in calls) == 1]
    groups: list[tuple[torch.Tensor, list[nn.Linear]]] = []
    for layer, given in once:
        if groups and groups[-1][0] is given and _alike(groups[-1][1][0], layer):
            groups[-1][1].append(layer)
        else:
            groups.append((given, [layer]))
    return [join(layers) for _, layers in groups if len(layers) > 1]


def _alike(first: nn.Linear, other: nn.Linear) -> bool:
    same = (first.weight.dtype, first.weight.device, first.bias is None) == (other.weight.dtype, other.weight.device, other.bias is None)
    return same and not first.weight.is_meta


def join(layers: list[nn.Linear]) -> Joined:
    """One tensor for the weights of the layers, which keep views of it; nothing is copied if they lie side by side already."""
    weight = _side_by_side([layer.weight for layer in layers])
    bias = None if layers[0].bias is None else _side_by_side([layer.bias for layer in layers])
    start = 0
    for layer in layers:
        stop = start + layer.out_features
        layer.weight = nn.Parameter(weight[start:stop], requires_grad=False)
        if bias is not None:
            layer.bias = nn.Parameter(bias[start:stop], requires_grad=False)
        start = stop
    return Joined(layers, weight, bias)


def _side_by_side(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    first, end = tensors[0], tensors[0].data_ptr()
    for tensor in tensors:
        is_next = tensor.data_ptr() == end and tensor.untyped_storage().data_ptr() == first.untyped_storage().data_ptr()
        if not (is_next and tensor.is_contiguous()):
            return torch.cat([t.detach() for t in tensors])
        end += tensor.nbytes
    size = (sum(t.shape[0] for t in tensors), *first.shape[1:])
    return first.detach().as_strided(size, first.stride(), first.storage_offset())
