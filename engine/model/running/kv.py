"""Keys and values of every session on one stage, in buffers that grow geometrically under a byte budget.

A budget is *reserved* when a session opens and *allocated* as its tokens arrive, so a session that was admitted can
always finish. Appending writes into spare capacity; nothing is concatenated per step. This file knows tensors and
sessions, not models: a layer is an index with a shape. It is not thread-safe; the stage's owner serialises calls.

Shapes: H key/value heads, K and V their sizes, n tokens. Keys are [H, n, K], values [H, n, V].
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from engine.data.errors import Corrupt, Exhausted, Gap, InvalidInput, NotFound

FIRST_CAPACITY_TOKENS = 64


@dataclass(frozen=True, slots=True)
class LayerShape:
    """The keys and values that one token leaves in one layer."""

    num_key_heads: int
    key_size: int
    num_value_heads: int
    value_size: int

    @property
    def num_elements(self) -> int:
        return self.num_key_heads * self.key_size + self.num_value_heads * self.value_size


@dataclass(slots=True)
class _Buffer:
    keys: torch.Tensor  # [H, capacity, K]
    values: torch.Tensor  # [H, capacity, V]
    num_tokens: int = 0

    @property
    def num_bytes(self) -> int:
        return self.keys.nbytes + self.values.nbytes


@dataclass(slots=True)
class _Session:
    max_tokens: int
    length: int = 0
    buffers: dict[int, _Buffer] = field(default_factory=dict)


class KVStore:
    """Per-session, per-layer buffers bounded by `budget_bytes`; lengths count tokens that a step has committed."""

    def __init__(self, layers: Mapping[int, LayerShape], budget_bytes: int, *, dtype: torch.dtype, device: str = "cpu") -> None:
        if budget_bytes < 0:
            raise InvalidInput(f"kv_budget_bytes {budget_bytes} is not allowed: give 0 or more bytes")
        self.layers = dict(layers)
        self.budget_bytes = budget_bytes
        self.reserved_bytes = 0
        self.used_bytes = 0
        self.bytes_per_token = sum(shape.num_elements for shape in self.layers.values()) * dtype.itemsize
        self._dtype = dtype
        self._device = device
        self._sessions: dict[str, _Session] = {}

    @property
    def session_ids(self) -> tuple[str, ...]:
        return tuple(self._sessions)

    def open(self, session_id: str, max_tokens: int) -> None:
        """Reserve room for `max_tokens` tokens. Raises Exhausted if the budget lacks it, InvalidInput if it is open already."""
        if session_id in self._sessions:
            raise InvalidInput(f"session {session_id!r} is open already; close it first")
        if max_tokens < 1:
            raise InvalidInput(f"max_tokens {max_tokens} is not allowed: a session needs room for at least 1 token")
        needed_bytes = max_tokens * self.bytes_per_token
        free_bytes = self.budget_bytes - self.reserved_bytes
        if needed_bytes > free_bytes:
            raise Exhausted(
                f"session {session_id!r} needs {needed_bytes} bytes of KV memory for {max_tokens} tokens, but {free_bytes} of the "
                f"{self.budget_bytes} bytes are free: wait for a session to end, ask for fewer tokens, or raise the KV budget"
            )
        self._sessions[session_id] = _Session(max_tokens)
        self.reserved_bytes += needed_bytes

    def close(self, session_id: str) -> None:
        """Free the session's buffers and its reservation; an unknown id is fine."""
        session = self._sessions.pop(session_id, None)
        if session is not None:
            self.reserved_bytes -= session.max_tokens * self.bytes_per_token
            self.used_bytes -= sum(buffer.num_bytes for buffer in session.buffers.values())

    def length(self, session_id: str) -> int:
        """Committed tokens of the session. Raises NotFound."""
        return self._session(session_id).length

    def max_tokens(self, session_id: str) -> int:
        """The number of tokens the session was opened for. Raises NotFound."""
        return self._session(session_id).max_tokens

    def write(self, session_id: str, layer: int, keys: torch.Tensor, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Put new tokens, keys [H, n, K] and values [H, n, V], behind the committed ones, without committing them.

        Returns views [H, length + n, K] and [H, length + n, V]. Writing again before `commit` overwrites.
        """
        session = self._session(session_id)
        start, stop = session.length, session.length + keys.shape[1]
        buffer = session.buffers.get(layer)
        if buffer is None or buffer.keys.shape[1] < stop:
            buffer = self._grow(session_id, session, layer, stop)
        buffer.keys[:, start:stop].copy_(keys)
        buffer.values[:, start:stop].copy_(values)
        buffer.num_tokens = stop
        return buffer.keys[:, :stop], buffer.values[:, :stop]

    def commit(self, session_id: str, length: int) -> None:
        """Declare the first `length` tokens present. Raises Gap if a layer lacks some, Exhausted beyond the reservation."""
        session = self._session(session_id)
        self._check_room(session_id, session, length)
        for layer in self.layers:
            buffer = session.buffers.get(layer)
            if length and (buffer is None or buffer.num_tokens < length):
                num_tokens = 0 if buffer is None else buffer.num_tokens
                raise Gap(f"session {session_id!r}: layer {layer} holds {num_tokens} tokens, not {length}; import the missing ones first")
        session.length = length

    def truncate(self, session_id: str, length: int) -> None:
        """Forget the tokens from `length` on; memory stays allocated. Raises InvalidInput beyond the current length."""
        session = self._session(session_id)
        if not 0 <= length <= session.length:
            raise InvalidInput(f"session {session_id!r} cannot be cut to {length} tokens: it has {session.length}")
        session.length = length
        for buffer in session.buffers.values():
            buffer.num_tokens = min(buffer.num_tokens, length)

    def export_block(self, session_id: str, layer: int, start_token: int, stop_token: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Copies of the keys [H, n, K] and values [H, n, V] of tokens [start_token, stop_token) of one layer."""
        session = self._session(session_id)
        self._check_layer(layer)
        if not 0 <= start_token < stop_token <= session.length:
            raise InvalidInput(
                f"session {session_id!r}: tokens [{start_token}, {stop_token}) cannot be exported, it holds [0, {session.length})"
            )
        buffer = session.buffers[layer]
        return buffer.keys[:, start_token:stop_token].clone(), buffer.values[:, start_token:stop_token].clone()

    def import_block(self, session_id: str, layer: int, start_token: int, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Write an exported block at `start_token` of one layer; blocks of a layer must come without gaps.

        The session's length becomes the number of tokens that all layers hold, never less than before. A stage that
        holds no layer has nothing to import: `commit` sets its length.
        """
        session = self._session(session_id)
        self._check_import(session_id, layer, keys, values)
        buffer = session.buffers.get(layer)
        num_tokens = 0 if buffer is None else buffer.num_tokens
        if not 0 <= start_token <= num_tokens:
            raise Gap(f"session {session_id!r}: layer {layer} holds {num_tokens} tokens, so a block cannot start at {start_token}")
        stop_token = start_token + keys.shape[1]
        self._check_room(session_id, session, stop_token)
        if buffer is None or buffer.keys.shape[1] < stop_token:
            buffer = self._grow(session_id, session, layer, stop_token)
        buffer.keys[:, start_token:stop_token].copy_(keys)
        buffer.values[:, start_token:stop_token].copy_(values)
        buffer.num_tokens = max(buffer.num_tokens, stop_token)
        if len(session.buffers) == len(self.layers):
            session.length = max(session.length, min(b.num_tokens for b in session.buffers.values()))

    def carry(self, session_id: str, num_tokens: int, max_tokens: int, old: KVStore | None) -> bool:
        """Go on with a session of `old`, the store before the stage changed: shared layers are taken over without a copy, the
        others must have been imported. False if a layer lacks tokens or there is no room; nothing of it is kept then.
        """
        kept = old._sessions.get(session_id) if old is not None else None
        imported = self._sessions.get(session_id)
        buffers = {
            layer: kept.buffers[layer] if kept is not None and layer in kept.buffers else imported.buffers.get(layer) if imported else None
            for layer in self.layers
        }
        self.close(session_id)
        if num_tokens > max_tokens or any(b is None or b.num_tokens < num_tokens for b in buffers.values()):
            return False
        if max_tokens * self.bytes_per_token > self.budget_bytes - self.reserved_bytes:
            return False
        session = _Session(max_tokens, num_tokens, {layer: b for layer, b in buffers.items() if b is not None})
        self._sessions[session_id] = session
        self.reserved_bytes += max_tokens * self.bytes_per_token
        self.used_bytes += sum(b.num_bytes for b in session.buffers.values())
        self.truncate(session_id, num_tokens)
        return True

    def check(self) -> None:
        """Raise Corrupt if the counters disagree with the buffers; tests call it after every operation."""
        used = sum(b.num_bytes for s in self._sessions.values() for b in s.buffers.values())
        reserved = sum(s.max_tokens for s in self._sessions.values()) * self.bytes_per_token
        if (used, reserved) != (self.used_bytes, self.reserved_bytes) or not used <= reserved <= self.budget_bytes:
            counted = f"used {self.used_bytes} ({used}), reserved {self.reserved_bytes} ({reserved})"
            raise Corrupt(f"KV accounting is wrong: {counted} of {self.budget_bytes} bytes; this is a bug")

    def _session(self, session_id: str) -> _Session:
        session = self._sessions.get(session_id)
        if session is None:
            raise NotFound(f"session {session_id!r} is not open on this stage; open it first")
        return session

    def _check_layer(self, layer: int) -> LayerShape:
        shape = self.layers.get(layer)
        if shape is None:
            raise NotFound(f"layer {layer} is not on this stage, which holds the layers {sorted(self.layers)}")
        return shape

    def _check_import(self, session_id: str, layer: int, keys: torch.Tensor, values: torch.Tensor) -> None:
        shape = self._check_layer(layer)
        got = (tuple(keys.shape), tuple(values.shape))
        num_tokens = keys.shape[1] if keys.dim() == 3 else 0
        wanted = ((shape.num_key_heads, num_tokens, shape.key_size), (shape.num_value_heads, num_tokens, shape.value_size))
        if num_tokens == 0 or got != wanted or keys.dtype != self._dtype or values.dtype != self._dtype:
            raise InvalidInput(
                f"session {session_id!r}: layer {layer} takes keys and values of {wanted[0]} and {wanted[1]} in {self._dtype} "
                f"with at least 1 token, but got {got[0]} and {got[1]} in {keys.dtype}"
            )

    def check_room(self, session_id: str, num_tokens: int) -> None:
        """Raise Exhausted if the session was not opened for that many tokens, NotFound if it is not open."""
        self._check_room(session_id, self._session(session_id), num_tokens)

    def _check_room(self, session_id: str, session: _Session, num_tokens: int) -> None:
        if num_tokens > session.max_tokens:
            raise Exhausted(
                f"session {session_id!r} was opened for {session.max_tokens} tokens and cannot hold {num_tokens}: "
                f"open it with a larger max_tokens"
            )

    def _grow(self, session_id: str, session: _Session, layer: int, num_tokens: int) -> _Buffer:
        """A buffer of at least `num_tokens`, at least doubled, so that n appended tokens cost O(n) copies in all."""
        self._check_room(session_id, session, num_tokens)
        shape = self._check_layer(layer)
        old = session.buffers.get(layer)
        doubled = FIRST_CAPACITY_TOKENS if old is None else 2 * old.keys.shape[1]
        capacity = min(session.max_tokens, max(num_tokens, doubled))
        keys = self._empty(shape.num_key_heads, capacity, shape.key_size)
        values = self._empty(shape.num_value_heads, capacity, shape.value_size)
        new = _Buffer(keys, values)
        if old is not None:
            new.num_tokens = old.num_tokens
            new.keys[:, : old.num_tokens].copy_(old.keys[:, : old.num_tokens])
            new.values[:, : old.num_tokens].copy_(old.values[:, : old.num_tokens])
            self.used_bytes -= old.num_bytes
        session.buffers[layer] = new
        self.used_bytes += new.num_bytes
        return new

    def _empty(self, *shape: int) -> torch.Tensor:
        if math.prod(shape) == 0:
            raise InvalidInput(f"KV buffers of shape {shape} hold nothing")
        with torch.inference_mode(False):  # an inference tensor could not be written to by an import outside a step
            return torch.empty(shape, dtype=self._dtype, device=self._device)
