"""Elementwise chains of a block as single kernels, found by structure and kept only if the block's output stays the same.

Every piece is tried alone: the block runs with the arguments of a real step before and after, and a piece that changes more than
the rounding of the dtype is taken out again. Nothing here knows a model family; where nothing is found, nothing changes.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from engine.model.running.accelerator import elementwise_kernels as kernels
from engine.model.running.accelerator.joining import Joined, find_groups, restore
from engine.model.running.pieces import differ, find_norm, noise, tried, with_rotary

_TOLERANCE = {torch.float32: 2e-6, torch.bfloat16: 8e-3, torch.float16: 1e-3}  # norm of the difference over the norm
_CHAIN = "residual and norm"
Undo = Callable[[], None]
Piece = tuple[str, Callable[[], Undo]]


class Norm:
    """A root-mean-square norm that was found to be one."""

    def __init__(self, module: Any, eps: float, one_plus: bool) -> None:
        self.module, self.eps, self.one_plus = module, eps, one_plus
        self._own = type(module).forward

    def __call__(self, hidden: torch.Tensor) -> torch.Tensor:
        if not hidden.is_contiguous():
            result: torch.Tensor = self._own(self.module, hidden)
            return result
        return kernels.rms_norm(hidden, self.module.weight, self.eps, self.one_plus)

    def after(self, hidden: torch.Tensor, addend: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(hidden + addend, its norm)."""
        return kernels.add_rms_norm(hidden.contiguous(), addend.contiguous(), self.module.weight, self.eps, self.one_plus)


class BlockFuser:
    """Works on one block. `args` and `kwargs` are what it got in a step; `form` makes what it returns of hidden states."""

    def __init__(self, block: Any, args: tuple[Any, ...], kwargs: dict[str, Any], form: Callable[[torch.Tensor], Any]) -> None:
        self._block, self._args, self._kwargs, self._form = block, args, kwargs, form
        self.kept: Counter[str] = Counter()
        self._groups: list[Joined] = []
        self._norms: dict[nn.Module, Norm] = {}

    def fuse(self) -> Counter[str]:
        """Try every piece; returns how many of each kind were kept."""
        expected = self._output()
        self._groups = find_groups(self._block, self._output)
        for kind, install in self._pieces():
            undo = install()
            try:
                is_same = differ(self._output(), expected) <= _TOLERANCE[expected.dtype]
            except Exception:  # the piece does not fit what it was tried on
                is_same = False
            if is_same:
                self.kept[kind] += 1
            else:
                undo()
        return self.kept

    def _output(self) -> torch.Tensor:
        output = self._block.forward(*self._args, **self._kwargs)  # past the hooks of a cut, which would give it another input
        hidden: torch.Tensor = output if isinstance(output, torch.Tensor) else output[0]
        return hidden.clone()

    def _pieces(self) -> Iterator[Piece]:
        for group in self._groups:
            yield "joined product", group.install
        for module in self._block.modules():
            if (norm := tried(_as_norm, module)) is not None:
                self._norms[module] = norm
                yield "norm", _replace(module, norm)
            if (gate := tried(self._as_gate, module)) is not None:
                yield "gate", _replace(module, gate)
            if (forward := tried(_with_rotary, module)) is not None:
                yield "rotary", _replace(module, forward)
        for forward in self._chains():
            if not self.kept[_CHAIN]:
                yield _CHAIN, _replace(self._block, forward)

    def _as_gate(self, module: Any) -> Callable[[torch.Tensor], torch.Tensor] | None:
        """The forward of a module that is down(activation(gate(x)) * up(x)), its first two products joined or stored as one."""
        linears = [child for child in module.children() if type(child) is nn.Linear]
        if module is self._block or len(inspect.signature(type(module).forward).parameters) != 2 or len(linears) not in (2, 3):
            return None
        group = next((g for g in self._groups if g.layers == [*linears[:2]] or g.layers == [*linears[1::-1]]), None)
        first: Callable[[torch.Tensor], torch.Tensor] = linears[0] if group is None else group.all
        width = linears[0].out_features if group is None else group.weight.shape[0]
        down = linears[-1]
        if (len(linears) == 3) != (group is not None) or width != 2 * down.in_features:
            return None
        probe = noise((3, linears[0].in_features), down.weight)
        expected = module(probe)
        for kind in kernels.GATES:
            for gate_first in (True, False):
                found = _gate(first, down, kind, gate_first)
                if differ(found(probe), expected) <= _TOLERANCE[expected.dtype]:
                    return found
        return None

    def _chains(self) -> Iterator[Callable[..., Any]]:
        """Forwards of a block that is h = x + mix(norm(x)); h + feed(norm(h)): each way of giving its children these parts."""
        children = [child for child in self._block.children() if any(True for _ in child.parameters())]
        norms = [self._norms[child] for child in children if child in self._norms]
        others = [child for child in children if child not in self._norms]
        if len(norms) != 2 or len(others) != 2:
            return
        for first, second in (norms, norms[::-1]):
            for mix, feed in (others, others[::-1]):
                yield _pre_norm_block(self._block, first, mix, second, feed, self._form)


def _gate(
    first: Callable[[torch.Tensor], torch.Tensor], down: nn.Linear, kind: str, gate_first: bool
) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda hidden: down(kernels.gated(first(hidden), kind, gate_first))


def _pre_norm_block(block: Any, first: Norm, mix: Any, second: Norm, feed: Any, form: Callable[[torch.Tensor], Any]) -> Callable[..., Any]:
    own = type(block).forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        hidden, *rest = args or (kwargs["hidden_states"],)
        if rest:
            return own(block, *args, **kwargs)
        options = {name: value for name, value in kwargs.items() if name != "hidden_states"}
        mixed = mix(hidden_states=first(hidden), **options)
        hidden, normed = second.after(hidden, mixed[0] if isinstance(mixed, tuple) else mixed)
        return form(hidden + feed(normed))

    return forward


def _as_norm(module: Any) -> Norm | None:
    found = find_norm(module, kernels.rms_norm, _TOLERANCE[next(module.parameters()).dtype])
    return None if found is None else Norm(module, *found)


def _with_rotary(module: Any) -> Callable[..., Any] | None:
    weight = next(module.parameters())
    return with_rotary(module, kernels.rotary, weight, _TOLERANCE[weight.dtype])


def _replace(module: Any, forward: Callable[..., Any]) -> Callable[[], Undo]:
    def install() -> Undo:
        before = module.__dict__.get("forward")
        module.forward = forward

        def undo() -> None:
            restore([module])
            if before is not None:
                module.forward = before

        return undo

    return install
