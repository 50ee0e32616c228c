"""Write a folder of seeded random weights for an architecture, so that every worker reads slices of the same files.

Tensors are made and written block by block: the peak is one shard, not the model. Each block has its own seed, made
from the caller's seed and the block's name, so its weights do not depend on the order or on the blocks around it.
They depend on torch's normal_(), whose last bits may differ between kinds of CPU: copy the folder, do not rebuild it,
where two machines must agree to the bit.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.core_model_loading import revert_weight_conversion

from engine.data.errors import Exhausted, NotSupported
from engine.data.json_text import json_text
from engine.files import failure
from engine.model.configuration import check_supported
from engine.model.hardware.limits import cpu_memory_bytes
from engine.model.progress import Progress
from engine.model.sources.architectures import TINY
from engine.model.sources.random_config import empty_model, random_config

_SHARD_BYTES = 256 * 2**20
# Weights of the usual 0.02 leave the residual stream to the token's own embedding, or to one direction that all tokens
# share, and greedy output is one token for ever. With matrices of 3/sqrt(hidden) beside embeddings of 0.02 the blocks
# decide: 13 to 24 different tokens of 24 in gpt2, llama, qwen3, opt, gemma2, phi3, mixtral, olmo2 and gptj.
_MATRIX_GAIN = 3.0
_EMBEDDING_STD = 0.02
_MAX_TINY_PARAMETERS = 20_000_000


def build(folder: Path, model_type: str, *, tiny: bool, seed: int, dtype: str, on_progress: Progress | None = None) -> None:
    """Write `folder` once, whatever the number of processes that ask for it at the same time.

    Raises InvalidInput or NotSupported for the architecture, and Exhausted when disk or memory cannot hold the model.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _only_builder(folder, on_progress):
        if folder.is_dir():
            return
        config = random_config(model_type, tiny=tiny)
        check_supported(config)
        model = empty_model(config)
        if tiny and sum(p.numel() for p in model.parameters()) > _MAX_TINY_PARAMETERS:
            raise NotSupported(f"{model_type!r} has parts beside its text model that no tiny config shrinks: use `llama{TINY}` or the like")
        _refuse_if_too_large(model, model_type, dtype, folder.parent)
        partial = folder.with_name(folder.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)  # left by a builder that died: the lock says that none is alive
        partial.mkdir()
        try:
            _write(partial, model, seed, getattr(torch, dtype), on_progress)
        except (OSError, SafetensorError) as error:
            raise Exhausted(f"writing random weights to {partial} failed ({error}): free disk space or set NOODLE_CACHE") from error
        os.replace(partial, folder)


@contextlib.contextmanager
def _only_builder(folder: Path, on_progress: Progress | None) -> Iterator[None]:
    lock = FileLock(f"{folder}.lock")
    try:
        _acquire(lock, on_progress)
    except (OSError, NotImplementedError) as e:  # the latter: a disk without locks
        error = e if isinstance(e, OSError) else OSError(str(e))
        raise failure(error, error.filename or lock.lock_file) from e
    try:
        yield
    finally:
        lock.release()


def _acquire(lock: FileLock, on_progress: Progress | None) -> None:
    try:
        lock.acquire(timeout=0)
    except Timeout:
        if on_progress is not None:
            on_progress(-1.0, "waiting for another process that is writing the same weights")
        lock.acquire()


def _refuse_if_too_large(model: PreTrainedModel, model_type: str, dtype: str, where: Path) -> None:
    needed_bytes = sum(tensor.numel() for tensor in model.state_dict().values()) * getattr(torch, dtype).itemsize
    free = {"disk space in " + str(where): shutil.disk_usage(where).free, "available memory": cpu_memory_bytes()[1]}
    for what, free_bytes in free.items():
        if needed_bytes > free_bytes:
            raise Exhausted(
                f"{model_type!r} with its default config has {needed_bytes:,} bytes of {dtype} weights, more than the"
                f" {free_bytes:,} bytes of {what}: use `{model_type}{TINY}` for a small model of the same structure"
            )


def _write(folder: Path, model: PreTrainedModel, seed: int, dtype: torch.dtype, progress: Progress | None) -> None:
    config = model.config
    width = _spread(config)
    tied = set(model.all_tied_weights_keys)  # the names that from_pretrained fills from another tensor
    shards = _Shards(folder)
    units = list(_units(model, model, ""))
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        for count, unit in enumerate(units):
            torch.manual_seed(_unit_seed(seed, unit.name))
            tensors = {name: tensor for name, tensor in _initialised(unit, width).items() if name not in tied}
            shards.add({name: t.to(dtype) if t.is_floating_point() else t for name, t in revert_weight_conversion(model, tensors).items()})
            if progress is not None:
                progress((count + 1) / len(units), f"writing random weights of {config.model_type}")
    shards.finish()
    config.architectures = [type(model).__name__]
    config.dtype = dtype
    config.save_pretrained(folder)


@dataclass(frozen=True)
class _Unit:
    """What is initialised in one go: an element of a list of blocks, a leaf module, or a module's own parameters."""

    name: str
    module: nn.Module
    owner: PreTrainedModel  # the (sub-)model whose _init_weights knows this module
    whole: bool  # False: only the tensors that belong to the module itself


def _units(module: nn.Module, owner: PreTrainedModel, name: str) -> Iterator[_Unit]:
    owner = module if isinstance(module, PreTrainedModel) else owner
    for child_name, child in module.named_children():
        full_name = f"{name}.{child_name}" if name else child_name
        if isinstance(module, nn.ModuleList) or not any(True for _ in child.children()):
            yield _Unit(full_name, child, owner, whole=True)
        else:
            yield from _units(child, owner, full_name)
    if any(True for _ in _own_tensors(module)):
        yield _Unit(name, module, owner, whole=False)


def _initialised(unit: _Unit, width: float) -> dict[str, torch.Tensor]:
    """The unit's tensors by their names in the model's state dict, filled by the family's own initialiser."""
    modules = list(unit.module.named_modules()) if unit.whole else [("", unit.module)]
    meta = [(module, dict(module._parameters), dict(module._buffers)) for _, module in modules]
    for _, module in modules:
        _materialise(module)
    for _, module in reversed(modules):  # children first, as initialize_weights() does: parents may refine them
        unit.owner._init_weights(module)
        if isinstance(module, nn.Embedding):
            module.weight.mul_(_EMBEDDING_STD / width)
    prefix = [f"{unit.name}.{name}" if name and unit.name else unit.name + name for name, _ in modules]
    found = {
        f"{place}.{name}" if place else name: tensor.detach()
        for place, (_, module) in zip(prefix, modules, strict=True)
        for name, tensor in _own_tensors(module)
    }
    for module, parameters, buffers in meta:  # back to the meta device, which frees the memory once it is written
        module._parameters.update(parameters)
        module._buffers.update(buffers)
    return found


def _materialise(module: nn.Module) -> None:
    # Zeros, not empty memory: what a family's initialiser leaves alone must still be the same for the same seed.
    for name, parameter in module._parameters.items():
        if parameter is not None:
            module._parameters[name] = nn.Parameter(torch.zeros_like(parameter, device="cpu"), requires_grad=False)
    for name, buffer in module._buffers.items():
        if buffer is not None:
            module._buffers[name] = torch.zeros_like(buffer, device="cpu")


def _own_tensors(module: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors of a state dict that belong to the module itself."""
    yield from ((name, p) for name, p in module._parameters.items() if p is not None)
    hidden = module._non_persistent_buffers_set
    yield from ((name, b) for name, b in module._buffers.items() if b is not None and name not in hidden)


def _spread(config: PreTrainedConfig) -> float:
    """Tell the family's initialiser the standard deviation to use, and return it."""
    text = config.get_text_config()
    width = _MATRIX_GAIN / math.sqrt(text.hidden_size)
    for part in {id(c): c for c in (config, text)}.values():
        for name in ("initializer_range", "init_std"):
            if isinstance(getattr(part, name, None), float):
                setattr(part, name, width)
    return width


def _unit_seed(seed: int, name: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:8], "little") >> 1


@dataclass
class _Shards:
    """Collects tensors and writes a safetensors file whenever enough of them have come together."""

    folder: Path
    pending: dict[str, torch.Tensor] = field(default_factory=dict)
    names: list[list[str]] = field(default_factory=list)  # tensor names of every file written
    num_bytes: int = 0

    def add(self, tensors: dict[str, torch.Tensor]) -> None:
        self.pending.update({name: tensor.contiguous() for name, tensor in tensors.items()})
        if sum(t.nbytes for t in self.pending.values()) >= _SHARD_BYTES:
            self._flush()

    def finish(self) -> None:
        if self.pending:
            self._flush()
        total = len(self.names)
        if total == 1:
            os.replace(self._path(0), self.folder / "model.safetensors")
            return
        weight_map = {}
        for number, names in enumerate(self.names):
            path = self.folder / f"model-{number + 1:05}-of-{total:05}.safetensors"
            os.replace(self._path(number), path)
            weight_map.update(dict.fromkeys(names, path.name))
        index = {"metadata": {"total_size": self.num_bytes}, "weight_map": dict(sorted(weight_map.items()))}
        (self.folder / "model.safetensors.index.json").write_text(json_text(index, indent=1), encoding="utf-8")

    def _flush(self) -> None:
        save_file(self.pending, self._path(len(self.names)), metadata={"format": "pt"})
        self.num_bytes += sum(t.nbytes for t in self.pending.values())
        self.names.append(sorted(self.pending))
        self.pending.clear()

    def _path(self, number: int) -> Path:
        return self.folder / f"part-{number}.safetensors"
