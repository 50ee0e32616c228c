"""Cuts a causal LM to the items [start, stop) while it keeps its own `forward`.

Blocks outside the slice return their input. On later stages weighted modules before the blocks become stubs of the
right shape, and the received hidden states replace the input of the block at the cut, so nothing (embedding scale,
positions, norms) is applied twice. A stage that is not the last leaves the forward pass right behind its last block.

Shapes: T packed tokens, D hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from engine.model.running.buffers import compute_buffers
from engine.model.running.chain import FORMS, Chain, stations

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from engine.model.running.cache import StepCache


class _Left(Exception):
    def __init__(self, hidden: torch.Tensor) -> None:
        super().__init__()
        self.hidden = hidden  # [1, T, D]


class CutModel:
    """A meta model reduced to one slice; its held tensors are still to be filled."""

    def __init__(self, model: PreTrainedModel, chain: Chain, start: int, stop: int, dtype: torch.dtype, device: str) -> None:
        self.model, self._chain, self.start, self.stop, self._dtype, self._device = model, chain, start, stop, dtype, device
        self._received: torch.Tensor | None = None
        self._cache: StepCache | None = None
        self._num_tokens = 0
        blocks: Any = model.get_submodule(chain.blocks)
        self._hollow_blocks(blocks)
        if start > 0:
            self._stub_embedding()
            blocks[min(start, len(blocks)) - 1].register_forward_pre_hook(self._inject, with_kwargs=True)
        if stop == 1:
            blocks[0].register_forward_pre_hook(_leave_before, with_kwargs=True)
        elif stop < chain.num_items:
            blocks[stop - 2].register_forward_hook(_leave_behind)
        held = [f"{chain.blocks}.{item - 1}" for item in range(max(start, 1), min(stop, chain.num_items - 1))]
        compute_buffers(model, [*stations(model, chain.blocks), *held], device)

    def run(self, received: torch.Tensor | None, num_tokens: int, cache: StepCache, arguments: dict[str, Any]) -> torch.Tensor:
        """One forward pass; `received` is [T, D] or None. Returns hidden states [T, D], or logits [n, V] on the last stage."""
        self._received = None if received is None else received.unsqueeze(0)
        self._cache = cache
        self._num_tokens = num_tokens
        try:
            return self.model(**arguments).logits[0]
        except _Left as left:
            return left.hidden[0]
        finally:
            self._received = self._cache = None

    def _hollow_blocks(self, blocks: Any) -> None:
        emit = FORMS[self._chain.form]
        for index, block in enumerate(blocks):
            if not self.start <= index + 1 < self.stop:
                _hollow(block, lambda *args, **kwargs: emit(args[0] if args else kwargs["hidden_states"]))

    def _stub_embedding(self) -> None:
        keeps_head = self.stop == self._chain.num_items
        for path, size in self._chain.embed:
            if not (keeps_head and path in self._chain.head):
                _hollow(self.model.get_submodule(path), self._stub(size))

    def _stub(self, size: int) -> Callable[..., torch.Tensor]:
        """Only the shape matters: the value is replaced before it reaches a block."""

        def forward(*args: Any, **kwargs: Any) -> torch.Tensor:
            first = args[0] if args else next(iter(kwargs.values()))
            if isinstance(first, torch.Tensor) and first.is_floating_point() and first.shape[-1] == size:
                return first
            return torch.zeros(1, self._num_tokens, size, dtype=self._dtype, device=self._device)

        return forward

    def _inject(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if self._cache is not None:
            self._cache.pass_earlier_blocks()
        if args:
            return (self._received, *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": self._received}


def _hollow(module: nn.Module, forward: Callable[..., Any]) -> None:
    """Give a module another forward. Its tensors stay on the meta device: no memory, but models may read their dtype or shape."""
    module.forward = forward


def _leave_before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    raise _Left(args[0] if args else kwargs["hidden_states"])


def _leave_behind(_: nn.Module, __: Any, output: Any) -> None:
    raise _Left(output if isinstance(output, torch.Tensor) else output[0])
