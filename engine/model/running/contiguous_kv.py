"""The layout for CPUs: a buffer per session and layer that grows geometrically.

Memory is allocated as tokens arrive. Appending writes into spare capacity; nothing is concatenated per step, and what
attention reads are views.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

from engine.data.errors import InvalidInput
from engine.data.generation import Taken
from engine.model.row_kernels.kernels import row_kernels
from engine.model.running.kv import KVSession, KVStore, LayerShape

FIRST_CAPACITY_TOKENS = 64


@dataclass(slots=True)
class Buffer:
    keys: torch.Tensor  # [H, capacity, K]
    values: torch.Tensor  # [H, capacity, V]
    num_tokens: int = 0
    _first: tuple[torch.Tensor, torch.Tensor] | None = None

    def first(self, num_tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Views of the keys and values of the first tokens; a step asks for those of the step before."""
        if self._first is None or self._first[0].shape[1] != num_tokens:
            self._first = self.keys[:, :num_tokens], self.values[:, :num_tokens]
        return self._first

    @property
    def num_bytes(self) -> int:
        return self.keys.nbytes + self.values.nbytes


@dataclass(slots=True)
class ContiguousSession(KVSession):
    buffers: dict[int, Buffer] = field(default_factory=dict)


class ContiguousKV(KVStore[ContiguousSession]):
    """See `KVStore`; `used_bytes` are those of the buffers. Sessions take whole blocks of `block_tokens`."""

    def __init__(
        self,
        layers: Mapping[int, LayerShape],
        budget_bytes: int,
        *,
        dtype: torch.dtype,
        device: str = "cpu",
        kept_dtype: torch.dtype | None = None,
        block_tokens: int = 1,
    ) -> None:
        super().__init__(layers, budget_bytes, dtype=dtype, device=device, kept_dtype=kept_dtype)
        self._block_tokens = block_tokens

    def padded(self, session_id: str, layer: int, num_tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys [H, n, K] and values of one layer for computing, n whole blocks with finite numbers behind the tokens."""
        keys, values = self._session(session_id).buffers[layer].first(self._whole_blocks(num_tokens))
        return (keys, values) if self.format.is_plain else (self.format.to_computed(keys), self.format.to_computed(values))

    def append(self, rows: Sequence[tuple[str, int]], layer: int, keys: torch.Tensor, values: torch.Tensor) -> None:
        """As `write` for packed rows, (session id, number of its tokens), for those who read `padded`."""
        self._check_layer(layer)
        keys, values = self.format.to_kept(keys), self.format.to_kept(values)
        put_token, at = row_kernels().put_token, 0
        for session_id, num_new in rows:
            session = self._session(session_id)
            start, stop = session.length, session.length + num_new
            self.check_room(session_id, stop)
            if num_new == 1 and self.format.is_plain:
                buffer = self._with_room(session, layer, stop)
                put_token(keys, at, buffer.keys, start)
                put_token(values, at, buffer.values, start)
                buffer.num_tokens = stop
            else:
                self._put(session, layer, start, keys[:, at : at + num_new], values[:, at : at + num_new], stop)
            at += num_new

    def carry(self, session_id: str, num_tokens: int, max_tokens: int, old: KVStore[ContiguousSession] | None) -> bool:
        """As `KVStore.carry`; shared layers are taken over without a copy."""
        kept = old._sessions.get(session_id) if old is not None else None
        imported = self._sessions.get(session_id)
        buffers = {
            layer: kept.buffers[layer] if kept is not None and layer in kept.buffers else imported.buffers.get(layer) if imported else None
            for layer in self.layers
        }
        self.close(session_id)
        if num_tokens > max_tokens or any(b is None or b.num_tokens < num_tokens for b in buffers.values()):
            return False
        if not self._has_room(max_tokens):
            return False
        session = ContiguousSession(max_tokens, num_tokens, {layer: b for layer, b in buffers.items() if b is not None})
        self._sessions[session_id] = session
        self.reserved_bytes += self._reservation_bytes(max_tokens)
        self.used_bytes += self._used_bytes(session)
        self.truncate(session_id, num_tokens)
        return True

    def _has_room(self, max_tokens: int, taken: Taken | None = None, kept: ContiguousSession | None = None) -> bool:
        moved_bytes = self._size(kept) if taken is not None and taken.moves and kept is not None else 0
        return self._reservation_bytes(max_tokens) <= self.free_bytes + moved_bytes

    def _retained(self, session: ContiguousSession, num_tokens: int) -> ContiguousSession:
        """Buffers without spare capacity, each copied before the next: what is kept takes what its tokens take."""
        kept = ContiguousSession(num_tokens, num_tokens)
        for layer in list(session.buffers):
            old = session.buffers[layer]
            kept.buffers[layer] = old if old.keys.shape[1] == num_tokens else self._copied(layer, old, num_tokens, num_tokens)
            kept.buffers[layer].num_tokens = num_tokens
        return kept

    def _count_kept(self, kept: ContiguousSession) -> None:
        self.kept_bytes += self._size(kept)

    def _free_kept(self, kept: ContiguousSession) -> None:
        self.kept_bytes -= self._size(kept)
        kept.buffers.clear()

    def _kept_bytes_now(self) -> int:
        return sum(self._used_bytes(kept) for kept in self._kept.values())

    def _size(self, kept: ContiguousSession) -> int:
        return kept.length * self.bytes_per_token

    def _reserve_behind(self, max_tokens: int, kept: ContiguousSession, num_tokens: int, moves: bool) -> ContiguousSession:
        """A copy into buffers that have room for what follows; what moves is given back layer by layer."""
        session = ContiguousSession(max_tokens)
        if moves:
            self.kept_bytes -= self._size(kept)
        for layer in self.layers:
            capacity = min(self._whole_blocks(max_tokens), max(FIRST_CAPACITY_TOKENS, self._whole_blocks(2 * num_tokens)))
            session.buffers[layer] = self._copied(layer, kept.buffers[layer], num_tokens, capacity)
            if moves:
                del kept.buffers[layer]
        return session

    def _copied(self, layer: int, old: Buffer, num_tokens: int, capacity: int) -> Buffer:
        """A buffer of that capacity with the first tokens of another one."""
        new = self._new_buffer(layer, capacity)
        new.num_tokens = num_tokens
        new.keys[:, :num_tokens].copy_(old.keys[:, :num_tokens])
        new.values[:, :num_tokens].copy_(old.values[:, :num_tokens])
        return new

    def _reservation_bytes(self, max_tokens: int) -> int:
        return self._whole_blocks(max_tokens) * self.bytes_per_token

    def _whole_blocks(self, num_tokens: int) -> int:
        return -(-num_tokens // self._block_tokens) * self._block_tokens

    def _used_bytes(self, session: ContiguousSession) -> int:
        return sum(buffer.num_bytes for buffer in session.buffers.values())

    def _reserve(self, max_tokens: int) -> ContiguousSession:
        return ContiguousSession(max_tokens)

    def _free(self, session: ContiguousSession) -> None:
        session.buffers.clear()

    def _layer_tokens(self, session: ContiguousSession, layer: int) -> int:
        buffer = session.buffers.get(layer)
        return 0 if buffer is None else buffer.num_tokens

    def _cut(self, session: ContiguousSession, length: int) -> None:
        for buffer in session.buffers.values():
            buffer.num_tokens = min(buffer.num_tokens, length)

    def _put(self, session: ContiguousSession, layer: int, start: int, keys: torch.Tensor, values: torch.Tensor, num_tokens: int) -> None:
        stop = start + keys.shape[1]
        buffer = self._with_room(session, layer, stop)
        buffer.keys[:, start:stop].copy_(keys)
        buffer.values[:, start:stop].copy_(values)
        buffer.num_tokens = num_tokens

    def _read(self, session: ContiguousSession, layer: int, start: int, stop: int) -> tuple[torch.Tensor, torch.Tensor]:
        buffer = session.buffers[layer]
        return buffer.keys[:, start:stop], buffer.values[:, start:stop]

    def _with_room(self, session: ContiguousSession, layer: int, num_tokens: int) -> Buffer:
        buffer = session.buffers.get(layer)
        return self._grow(session, layer, num_tokens) if buffer is None or buffer.keys.shape[1] < num_tokens else buffer

    def _grow(self, session: ContiguousSession, layer: int, num_tokens: int) -> Buffer:
        """A buffer of at least `num_tokens`, at least doubled, so that n appended tokens cost O(n) copies in all."""
        old = session.buffers.get(layer)
        doubled = FIRST_CAPACITY_TOKENS if old is None else 2 * old.keys.shape[1]
        capacity = min(self._whole_blocks(session.max_tokens), max(self._whole_blocks(num_tokens), doubled))
        if old is None:
            new = self._new_buffer(layer, capacity)
        else:
            new = self._copied(layer, old, old.num_tokens, capacity)
            self.used_bytes -= old.num_bytes
        session.buffers[layer] = new
        self.used_bytes += new.num_bytes
        return new

    def _new_buffer(self, layer: int, capacity: int) -> Buffer:
        shape, size = self.layers[layer], self.format.kept_size
        keys = self._empty(shape.num_key_heads, capacity, size(shape.key_size))
        return Buffer(keys, self._empty(shape.num_value_heads, capacity, size(shape.value_size)))

    def _empty(self, *shape: int) -> torch.Tensor:
        if math.prod(shape) == 0:
            raise InvalidInput(f"KV buffers of shape {shape} hold nothing")
        with torch.inference_mode(False):  # an inference tensor could not be written to by an import outside a step
            return torch.zeros(shape, dtype=self.format.kept, device=self._device)
