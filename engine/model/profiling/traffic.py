"""What a step does, layer by layer, counted instead of timed: FLOPs, bytes moved, allocations, shapes.

One untimed step runs under two dispatch modes: torch's FLOP counter, and one here that adds up the bytes that each
kernel reads and writes and follows the storages that are alive. Bytes are those of tensors, so scratch space inside a
kernel is not seen, and a tensor that a cache still holds counts as read again.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from engine.model.profiling.collector import hooks
from engine.model.profiling.roles import HookedLayer
from engine.profile.profile import TensorInfo

_LOOKUPS = ("embedding", "index", "index_select", "gather", "slice_scatter")  # they read the rows they return, not the table
_MAX_TENSORS = 8  # shapes listed per layer and side


@dataclass(frozen=True, slots=True)
class LayerCounts:
    """One layer in one step, with everything inside it."""

    flops: int
    moved_bytes: int
    activation_bytes: int
    peak_memory_change_bytes: int
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]


@dataclass(slots=True)
class _Frame:
    flops: int
    moved_bytes: int
    live_bytes: int
    peak_bytes: int
    inputs: tuple[TensorInfo, ...]


def count_step(step: Callable[[], Any], layers: Sequence[HookedLayer]) -> dict[int, LayerCounts]:
    """Run `step` once and count; the result is by index into `layers` and lacks the layers that were not called."""
    traffic = _Traffic()
    flops = FlopCounterMode(display=False, custom_mapping=_ATTENTION_FLOPS)
    counter = _Counter(traffic, flops)
    wanted = ((layer.module, counter.enter, counter.leave(code)) for code, layer in enumerate(layers))
    with hooks(wanted, with_kwargs=True), traffic, flops:
        step()
    return counter.counts


class _Counter:
    """Takes the counters' differences over each call."""

    def __init__(self, traffic: _Traffic, flops: FlopCounterMode) -> None:
        self._traffic, self._flops = traffic, flops
        self._frames: list[_Frame] = []
        self.counts: dict[int, LayerCounts] = {}

    def enter(self, _: torch.nn.Module, args: Any, kwargs: Any) -> None:
        traffic = self._traffic
        self._merge_peak()
        traffic.peak_bytes = traffic.live_bytes
        total = self._flops.get_total_flops()
        self._frames.append(_Frame(total, traffic.moved_bytes, traffic.live_bytes, traffic.live_bytes, _describe((args, kwargs))))

    def leave(self, code: int) -> Callable[..., None]:
        def pop(_: torch.nn.Module, __: Any, output: Any) -> None:
            self._merge_peak()
            frame = self._frames.pop()
            if self._frames:
                self._frames[-1].peak_bytes = max(self._frames[-1].peak_bytes, frame.peak_bytes)
            flops = self._flops.get_total_flops() - frame.flops
            moved_bytes = self._traffic.moved_bytes - frame.moved_bytes
            change_bytes = frame.peak_bytes - frame.live_bytes
            earlier = self.counts.get(code)
            if earlier is not None:  # called again within the step
                flops, moved_bytes = flops + earlier.flops, moved_bytes + earlier.moved_bytes
                change_bytes = max(change_bytes, earlier.peak_memory_change_bytes)
            output_bytes = sum(tensor.nbytes for tensor in _tensors(output))
            self.counts[code] = LayerCounts(flops, moved_bytes, output_bytes, change_bytes, frame.inputs, _describe(output))

        return pop

    def _merge_peak(self) -> None:
        if self._frames:
            self._frames[-1].peak_bytes = max(self._frames[-1].peak_bytes, self._traffic.peak_bytes)


class _Traffic(TorchDispatchMode):
    """Bytes read and written by kernels, and bytes of the storages that were made under this mode and are alive."""

    def __init__(self) -> None:
        super().__init__()
        self.moved_bytes = self.live_bytes = self.peak_bytes = 0
        self._live: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        inputs = list(_tensors((args, kwargs or {})))
        outputs = list(_tensors(output))
        self._follow(inputs, outputs)
        self.moved_bytes += _moved_bytes(func, inputs, outputs)
        return output

    def _follow(self, inputs: list[torch.Tensor], outputs: list[torch.Tensor]) -> None:
        known = {tensor.untyped_storage()._cdata for tensor in inputs}
        for tensor in outputs:
            storage = tensor.untyped_storage()
            key, size_bytes = storage._cdata, storage.nbytes()
            if key in known or key in self._live:
                continue
            self._live[key] = weakref.ref(storage, partial(self._release, key, size_bytes))
            self.live_bytes += size_bytes
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)

    def _release(self, key: int, size_bytes: int, _: Any) -> None:
        del self._live[key]
        self.live_bytes -= size_bytes


def _moved_bytes(func: Any, inputs: list[torch.Tensor], outputs: list[torch.Tensor]) -> int:
    name = func._schema.name.partition("::")[2]
    if name.startswith(("empty", "detach", "lift_fresh")):
        return 0
    if not func._schema.is_mutable:
        sources = {tensor.untyped_storage()._cdata for tensor in inputs}
        if outputs and all(tensor.untyped_storage()._cdata in sources for tensor in outputs):
            return 0  # a view
    if name in _LOOKUPS:
        return 2 * sum(_bytes(tensor) for tensor in outputs)
    return sum(_bytes(tensor) for tensor in {id(tensor): tensor for tensor in (*inputs, *outputs)}.values())


def _bytes(tensor: torch.Tensor) -> int:
    return min(tensor.numel() * tensor.itemsize, tensor.untyped_storage().nbytes())  # an expanded tensor is read once


def _tensors(value: Any) -> Iterable[torch.Tensor]:
    """Tensors inside nested tuples, lists, dicts and transformers' outputs."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        for entry in value.values():
            yield from _tensors(entry)
    elif isinstance(value, tuple | list):
        for entry in value:
            yield from _tensors(entry)


def _describe(value: Any) -> tuple[TensorInfo, ...]:
    found = list(_tensors(value))[:_MAX_TENSORS]
    return tuple(TensorInfo(tuple(tensor.shape), str(tensor.dtype).removeprefix("torch.")) for tensor in found)


def _attention_flops(query: Any, key: Any, value: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    """Scores and their product with the values, of shapes [B, H, n, K] and [B, G, L, V]; causal halves are not taken off."""
    batch, heads, num_new, key_size = query
    return 2 * batch * heads * num_new * key[-2] * (key_size + value[-1])


_KERNELS = ("flash_attention", "flash_attention_for_cpu", "efficient_attention", "cudnn_attention")
# The CPU kernel is missing from torch's own table, and the others' formula there refuses grouped heads.
_ATTENTION_FLOPS = {
    getattr(torch.ops.aten, f"_scaled_dot_product_{kernel}"): _attention_flops
    for kernel in _KERNELS
    if hasattr(torch.ops.aten, f"_scaled_dot_product_{kernel}")
}
