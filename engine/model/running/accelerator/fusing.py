"""Elementwise chains of a block as single kernels, found by structure and kept only if the block's output stays the same.

Every piece is tried alone: the block runs with the arguments of a real step before and after, and a piece that changes more than
the rounding of the dtype is taken out again. Nothing here knows a model family; where nothing is found, nothing changes.
"""

from __future__ import annotations

import inspect
import types
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
from torch import nn

from engine.model.running.accelerator import elementwise_kernels as kernels
from engine.model.running.accelerator.joining import Joined, find_groups, restore

_TOLERANCE = {torch.float32: 2e-6, torch.bfloat16: 8e-3, torch.float16: 1e-3}  # norm of the difference over the norm
_ROTARY = "apply_rotary_pos_emb"  # the name that transformers gives the function; what it does is compared
T = TypeVar("T")
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
            if (norm := _tried(_as_norm, module)) is not None:
                self._norms[module] = norm
                yield "norm", _replace(module, norm)
            if (gate := _tried(self._as_gate, module)) is not None:
                yield "gate", _replace(module, gate)
            if (forward := _tried(_with_rotary, module)) is not None:
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
        probe = _noise((3, linears[0].in_features), down.weight)
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


def _tried(finder: Callable[[Any], T | None], module: Any) -> T | None:
    """What the finder makes of a module; nothing if the module cannot even be tried like that."""
    try:
        return finder(module)
    except Exception:  # a module of another kind may object in any way
        return None


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
    """A module without children, with one weight and an epsilon, whose output is that of a root-mean-square norm."""
    parameters = list(module.named_parameters())
    eps = getattr(module, "variance_epsilon", getattr(module, "eps", None))
    if not isinstance(eps, float) or [name for name, _ in parameters] != ["weight"] or parameters[0][1].dim() != 1:
        return None
    probe = _noise((3, *module.weight.shape), module.weight)
    expected = module(probe)
    for one_plus in (False, True):
        norm = Norm(module, eps, one_plus)
        if differ(norm(probe), expected) <= _TOLERANCE[expected.dtype]:
            return norm
    return None


def _with_rotary(module: Any) -> Callable[..., Any] | None:
    """The module's forward with rotary positions as one kernel, if that is the function it calls."""
    own = inspect.unwrap(type(module).forward)
    function = getattr(own, "__globals__", {}).get(_ROTARY)
    if not isinstance(own, types.FunctionType) or function is None or _ROTARY not in own.__code__.co_names:
        return None
    weight = next(module.parameters())
    query, key = _noise((1, 5, 4, 16), weight).transpose(1, 2), _noise((1, 5, 2, 16), weight).transpose(1, 2)
    angles = torch.randn(1, 5, 8, generator=torch.Generator().manual_seed(3)).repeat(1, 1, 2).to(weight.device)
    cos, sin = angles.cos().to(weight.dtype), angles.sin().to(weight.dtype)
    expected, found = function(query, key, cos, sin), kernels.rotary(query, key, cos, sin)
    if any(differ(a, b) > _TOLERANCE[weight.dtype] for a, b in zip(found, expected, strict=True)):
        return None

    def rotary(query: torch.Tensor, key: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        is_plain = not args and not kwargs and query.shape[-1] == cos.shape[-1] and query.shape[0] == 1
        return kernels.rotary(query, key, cos, sin) if is_plain else function(query, key, cos, sin, *args, **kwargs)

    changed = types.FunctionType(own.__code__, {**own.__globals__, _ROTARY: rotary}, own.__name__, own.__defaults__, own.__closure__)
    changed.__kwdefaults__ = own.__kwdefaults__
    return types.MethodType(changed, module)


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


def _noise(shape: tuple[int, ...], like: torch.Tensor) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(2)).to(like.device, like.dtype)


def differ(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Norm of the difference over the norm; NaN if a value is not finite."""
    return float((found.float() - expected.float()).norm() / expected.float().norm())
