"""Finds a model's chain: its list of decoder blocks, what runs before them and what runs after.

Nothing here knows a model family. A model built on the meta device is run once with its blocks replaced by probes and
its weighted modules by stubs that answer NaN in the right shape, and the order of calls says what belongs to the embedding and what to
the head; each block runs until it hands its keys and values to the cache, which gives their shapes, or with packed
sessions until they arrive in the attention function, which shows that nothing in between asked for one text length.

A *station* is a module beside the block list (a child of the list's ancestors): embedding, norm, rotary table, head.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from engine.data.errors import InvalidInput, NotSupported
from engine.model.running.attention import ProbeArrived
from engine.model.running.cache import ProbeCache
from engine.model.running.feeding import Feeder, Feeding
from engine.model.running.kv import LayerShape

PACKED_PROBE = (("a", (1, 1)), ("b", (1,)))
LONE_PROBE = (("a", (1, 1)),)
FORMS: dict[str, Callable[[torch.Tensor], Any]] = {
    "tensor": lambda hidden: hidden,
    "tuple": lambda hidden: (hidden,),
    "pair": lambda hidden: (hidden, None),
}


@dataclass(frozen=True, slots=True)
class Chain:
    """Where a model can be cut. Item 0 is `embed`, items 1..L the blocks, item L+1 `head`."""

    blocks: str  # path of the block list
    num_blocks: int
    form: str  # how a block returns its hidden states, a key of FORMS
    hidden_size: int
    embed: tuple[tuple[str, int], ...]  # stations with tensors that run before the blocks, with their output's last size
    head: tuple[str, ...]  # stations with tensors that run after them
    kv: tuple[tuple[int, LayerShape], ...]  # per block: the cache layer it writes and the shapes it writes there
    feeding: Feeding

    @property
    def num_items(self) -> int:
        return self.num_blocks + 2

    def check_slice(self, start: int, stop: int) -> None:
        """Raise InvalidInput if [start, stop) are not items of this model."""
        if not 0 <= start < stop <= self.num_items:
            raise InvalidInput(f"stage [{start}, {stop}) is not a slice: the model has items [0, {self.num_items})")

    def prefixes(self, item: int) -> tuple[str, ...]:
        """Module paths whose tensors make up the item."""
        if item == 0:
            return tuple(path for path, _ in self.embed)
        if item == self.num_items - 1:
            return self.head
        return (f"{self.blocks}.{item - 1}",)


def find_blocks(model: nn.Module, num_layers: int) -> str:
    """The path of the one ModuleList of `num_layers` blocks that lies nearest to the top. Raises NotSupported.

    Lists inside what transformers calls the decoder come first: an image or audio tower may have as many blocks.
    """
    decoder: Any = model.get_decoder()  # type: ignore[operator]
    prefix = next((path for path, module in model.named_modules() if module is decoder), "")
    lists = _lists(decoder, prefix, num_layers) or _lists(model, "", num_layers)
    top = min((path.count(".") for path in lists), default=0)
    found = [path for path in lists if path.count(".") == top]
    if len(found) != 1:
        raise NotSupported(
            f"{type(model).__name__} has {len(found)} lists of {num_layers} blocks ({', '.join(found) or 'none'}), so it cannot be cut "
            f"into a chain: use a decoder-only model with one list"
        )
    return found[0]


def _lists(module: nn.Module, prefix: str, length: int) -> list[str]:
    return [path for path, m in module.named_modules(prefix=prefix) if isinstance(m, nn.ModuleList) and len(m) == length]


def stations(model: nn.Module, blocks: str) -> dict[str, nn.Module]:
    """Modules beside the block list and its ancestors, by path; containers that are never called are opened."""
    found: dict[str, nn.Module] = {}

    def add(path: str, module: nn.Module) -> None:
        if path == blocks:
            return
        if blocks.startswith(f"{path}.") or path == "" or isinstance(module, nn.ModuleList | nn.ModuleDict):
            for name, child in module.named_children():
                add(f"{path}.{name}" if path else name, child)
        else:
            found[path] = module

    add("", model)
    return found


def trace(model: nn.Module, blocks: str, feeding: Feeding) -> Chain:
    """Run the probe. `model` has its parameters on the meta device and its stations' buffers on the CPU. Raises NotSupported."""
    failures = []
    for form in FORMS:
        probe = _Probe(model, blocks, form, feeding)
        try:
            return probe.run()
        except NotSupported:
            raise
        except Exception as error:
            failures.append(f"{form}: {type(error).__name__}: {error}")
    raise NotSupported(f"{type(model).__name__} cannot be traced ({'; '.join(failures)[:600]}): use another model")


class _Probe:
    """One run of a model with all blocks and weighted stations replaced; see the module's docstring."""

    def __init__(self, model: nn.Module, blocks: str, form: str, feeding: Feeding) -> None:
        self.model, self.blocks, self.form, self.feeding = model, blocks, form, feeding
        self.list: Any = model.get_submodule(blocks)
        self.rows = PACKED_PROBE if feeding.is_packed else LONE_PROBE
        self.cache = ProbeCache([(session_id, len(token_ids)) for session_id, token_ids in self.rows])
        self.before: dict[str, int] = {}
        self.after: dict[str, int] = {}
        self.kv: dict[int, tuple[int, LayerShape]] = {}
        self.shapes: list[tuple[int, ...]] = []

    def run(self) -> Chain:
        weighted = {path: module for path, module in stations(self.model, self.blocks).items() if _has_state(module)}
        replaced = {module: self._station(path, module) for path, module in weighted.items()}
        replaced |= {block: self._block(index, block) for index, block in enumerate(self.list)}
        feeder = Feeder(self.model, self.blocks, self.feeding)
        arguments = feeder.arguments(self.rows, [0] * len(self.rows), self.cache, "cpu")
        with _forwards(replaced), torch.no_grad():
            output = self.model(**arguments)
        if len(self.shapes) != len(self.list) or any(shape != self.shapes[0] or len(shape) != 3 for shape in self.shapes):
            raise ValueError(f"blocks do not pass one [1, T, D] tensor: {self.shapes[:3]}")
        if output.logits.shape[:2] != arguments["input_ids"].shape:
            raise ValueError(f"logits have shape {tuple(output.logits.shape)}")
        kv = tuple(self.kv[index] for index in range(len(self.list)))
        ends = tuple(self.before.items()), tuple(self.after)
        return Chain(self.blocks, len(self.list), self.form, self.shapes[0][2], *ends, kv, self.feeding)

    def _station(self, path: str, module: nn.Module) -> Callable[..., Any]:
        original = module.forward

        def forward(*args: Any, **kwargs: Any) -> Any:
            output = original(*_map(args, _to_meta), **_map(kwargs, _to_meta))
            (self.after if self.shapes else self.before)[path] = output.shape[-1]
            return torch.full_like(output, torch.nan, device="cpu")

        return forward

    def _block(self, index: int, block: nn.Module) -> Callable[..., Any]:
        original = block.forward

        def forward(*args: Any, **kwargs: Any) -> Any:
            hidden = args[0] if args else kwargs["hidden_states"]
            self.shapes.append(tuple(hidden.shape))
            self._check_side_doors(index, args, kwargs, hidden)
            self.cache.seen.clear()
            with suppress(ProbeArrived):
                original(*_map(args, _to_meta), **_map(kwargs, _to_meta))
                self._check_arrival(index)
            if not self.cache.seen:
                raise NotSupported(f"block {index} of {type(self.model).__name__} keeps no keys and values, so it cannot continue a text")
            self.kv[index] = next(iter(self.cache.seen.items()))
            return FORMS[self.form](hidden)

        return forward

    def _check_arrival(self, index: int) -> None:
        if self.cache.seen and self.feeding.is_packed:
            raise NotSupported(f"block {index} of {type(self.model).__name__} computes its attention itself: run its rows one by one")

    def _check_side_doors(self, index: int, args: tuple[Any, ...], kwargs: dict[str, Any], hidden: torch.Tensor) -> None:
        """Stubs answer NaN, so NaN in anything but the hidden states is a weighted value that a later stage would lack."""

        def look(tensor: torch.Tensor) -> torch.Tensor:
            if tensor is not hidden and tensor.is_floating_point() and not tensor.is_meta and bool(tensor.isnan().any()):
                raise NotSupported(f"block {index} of {type(self.model).__name__} needs more of the embedding than its hidden states")
            return tensor

        _map((args, kwargs), look)


def _has_state(module: nn.Module) -> bool:
    return any(True for _ in module.parameters()) or any(name for name in module.state_dict())


def _to_meta(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to("meta")


def _map(value: Any, function: Callable[..., torch.Tensor], **options: Any) -> Any:
    """Apply `function` to every tensor inside nested tuples, lists and dicts."""
    if isinstance(value, torch.Tensor):
        return function(value, **options)
    if isinstance(value, dict):
        return {key: _map(item, function, **options) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return type(value)(_map(item, function, **options) for item in value)
    return value


@contextmanager
def _forwards(replaced: dict[nn.Module, Callable[..., Any]]) -> Iterator[None]:
    """Shadow the modules' forward methods for the duration of the block."""
    for module, forward in replaced.items():
        module.forward = forward
    try:
        yield
    finally:
        for module in replaced:
            del module.forward
