"""Parts of a block that are known by what they compute, whatever the family: root-mean-square norms, rotary positions.

A part is tried on made-up numbers beside the kernel that is to take its place. Nothing here knows a model family; what is not found
stays as it is.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable
from typing import Any, TypeVar

import torch

_ROTARY = "apply_rotary_pos_emb"  # the name that transformers gives the function; what it does is compared
T = TypeVar("T")
RmsNorm = Callable[[torch.Tensor, torch.Tensor, float, bool], torch.Tensor]  # of rows, weight, epsilon, whether it scales by 1 + weight
Rotary = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]  # of query, key, cos, sin


def tried(finder: Callable[[Any], T | None], module: Any) -> T | None:
    """What the finder makes of a module; nothing if the module cannot even be tried like that."""
    try:
        return finder(module)
    except Exception:  # a module of another kind may object in any way
        return None


def find_norm(module: Any, kernel: RmsNorm, tolerance: float) -> tuple[float, bool] | None:
    """(epsilon, whether it scales by 1 + weight) of a module without children, with one weight and an epsilon, that computes what `kernel`
    does; how far they may be apart is the norm of the difference over the norm."""
    parameters = list(module.named_parameters())
    eps = getattr(module, "variance_epsilon", getattr(module, "eps", None))
    if not isinstance(eps, float) or [name for name, _ in parameters] != ["weight"] or parameters[0][1].dim() != 1:
        return None
    weight = parameters[0][1]
    probe = noise((3, *weight.shape), weight)
    expected = module(probe)
    return next(((eps, plus) for plus in (False, True) if differ(kernel(probe, weight, eps, plus), expected) <= tolerance), None)


def with_rotary(module: Any, kernel: Rotary, like: torch.Tensor, tolerance: float) -> Callable[..., Any] | None:
    """The module's forward with rotary positions by `kernel`, if that is the function it calls; tried with numbers of a kind `like` it."""
    own = inspect.unwrap(type(module).forward)
    function = getattr(own, "__globals__", {}).get(_ROTARY)
    if not isinstance(own, types.FunctionType) or function is None or _ROTARY not in own.__code__.co_names:
        return None
    query, key = noise((1, 5, 4, 16), like).transpose(1, 2), noise((1, 5, 2, 16), like).transpose(1, 2)
    angles = torch.randn(1, 5, 8, generator=torch.Generator().manual_seed(3)).repeat(1, 1, 2).to(like.device)
    cos, sin = angles.cos().to(like.dtype), angles.sin().to(like.dtype)
    expected, found = function(query, key, cos, sin), kernel(query, key, cos, sin)
    if any(differ(a, b) > tolerance for a, b in zip(found, expected, strict=True)):
        return None

    def rotary(query: torch.Tensor, key: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        is_plain = not args and not kwargs and query.shape[-1] == cos.shape[-1] and query.shape[0] == 1
        return kernel(query, key, cos, sin) if is_plain else function(query, key, cos, sin, *args, **kwargs)

    changed = types.FunctionType(own.__code__, {**own.__globals__, _ROTARY: rotary}, own.__name__, own.__defaults__, own.__closure__)
    changed.__kwdefaults__ = own.__kwdefaults__
    return types.MethodType(changed, module)


def noise(shape: tuple[int, ...], like: torch.Tensor) -> torch.Tensor:
    """Made-up numbers, the same each time, of the kind of `like`."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(2)).to(like.device, like.dtype)


def differ(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Norm of the difference over the norm; NaN if a value is not finite."""
    return float((found.float() - expected.float()).norm() / expected.float().norm())
