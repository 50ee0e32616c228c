"""Which modules get hooks, and what each one is for: the model's semantics read from its structure and its names.

Blocks come from the chain, embeddings and norms from their classes, the head from the model's own answer; attention
and MLP have no common class, so the words that transformers' families use for them decide.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from torch import nn

from engine.data.errors import InvalidInput
from engine.model.running.chain import stations
from engine.profile.profile import Role

DEPTHS = ("item", "layer", "leaf")

_ATTENTION = re.compile(r"attn|attention|mixer|ssm", re.IGNORECASE)
_MLP = re.compile(
    r"mlp|ffn?$|ffn_|feed_?forward|experts?|moe|router|^fc\d?$|^c_fc|dense_4h|dense_h_to|intermediate|^output$|^lin\d$", re.IGNORECASE
)
_NORM = re.compile(r"norm|^ln_|^ln\d", re.IGNORECASE)
_EMBEDDING = re.compile(r"embed|^wte$|^wpe$|rotary|position", re.IGNORECASE)
_HEAD = re.compile(r"head|pooler|classifier|^cls$|score", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class HookedLayer:
    """One module to hook."""

    path: str
    role: Role
    module: nn.Module
    depth: int  # number of hooked modules around it
    parent: str | None  # path of the nearest of them
    block: int | None  # index of the block it is or lies in
    item: int | None = None  # index of its item, where items are not told by blocks


def select_layers(model: nn.Module, blocks: str, depth: str) -> tuple[HookedLayer, ...]:
    """The modules of a depth, parents before children; `blocks` is the path of the block list.

    `item`: blocks and what stands beside them; `layer`: the attention and MLP of every block too; `leaf`: every module.
    Raises InvalidInput for another depth.
    """
    if depth not in DEPTHS:
        raise InvalidInput(f"depth {depth!r} is not known: use {', '.join(DEPTHS)}")
    beside = {path for path, module in stations(model, blocks).items() if _has_tensors(module)}
    chosen: dict[str, HookedLayer] = {}
    for path, module in model.named_modules():
        block = _block(path, blocks)
        role = _role(model, path, module, blocks, chosen)
        wanted = path in beside or path == f"{blocks}.{block}" or (depth == "layer" and _is_part(path, blocks, block, role))
        if wanted or (depth == "leaf" and path != "" and not blocks.startswith(path) and not isinstance(module, nn.ModuleList)):
            parent = _parent(path, chosen)
            chosen[path] = HookedLayer(path, role, module, 0 if parent is None else chosen[parent].depth + 1, parent, block)
    return tuple(chosen.values())


def _has_tensors(module: nn.Module) -> bool:
    return any(True for _ in module.parameters()) or any(True for _ in module.buffers())


def _block(path: str, blocks: str) -> int | None:
    if not path.startswith(f"{blocks}."):
        return None
    return int(path[len(blocks) + 1 :].partition(".")[0])


def _is_part(path: str, blocks: str, block: int | None, role: Role) -> bool:
    """A direct child of a block that attends or is the MLP."""
    return block is not None and path.count(".") == blocks.count(".") + 2 and role in (Role.ATTENTION, Role.MLP)


def _parent(path: str, chosen: dict[str, HookedLayer]) -> str | None:
    while "." in path:
        path = path.rpartition(".")[0]
        if path in chosen:
            return path
    return None


def _role(model: Any, path: str, module: nn.Module, blocks: str, chosen: dict[str, HookedLayer]) -> Role:
    name, class_name = path.rpartition(".")[2], type(module).__name__
    block = _block(path, blocks)
    if block is not None and path == f"{blocks}.{block}":
        return Role.BLOCK
    if module is _output_embedding(model):
        return Role.HEAD
    if _NORM.search(class_name) or _NORM.search(name):
        return Role.NORM
    if isinstance(module, nn.Embedding) or (block is None and (_EMBEDDING.search(name) or _EMBEDDING.search(class_name))):
        return Role.EMBEDDING
    if block is None:
        return Role.HEAD if _HEAD.search(name) else Role.OTHER
    return _role_in_block(name, class_name, chosen.get(path.rpartition(".")[0]))


def _role_in_block(name: str, class_name: str, parent: HookedLayer | None) -> Role:
    """By the words of the name, then of the class; parts of attention and MLP belong to them."""
    if parent is not None and parent.role in (Role.ATTENTION, Role.MLP):
        return parent.role
    for word in (name, class_name):
        if _ATTENTION.search(word):
            return Role.ATTENTION
        if _MLP.search(word):
            return Role.MLP
    return Role.OTHER


def _output_embedding(model: Any) -> object:
    try:
        return model.get_output_embeddings()
    except (AttributeError, NotImplementedError):
        return None
