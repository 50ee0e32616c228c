"""Keys and values of every session on one stage: what a store promises, whatever its layout.

A budget is *reserved* when a session opens, so a session that was admitted can always finish. Lengths count tokens that a
step has committed. What is *kept* of a session that was closed lies in room that nobody has reserved, and goes as soon as a session
needs that room. Two layouts: `contiguous_kv` (buffers per session, for CPUs) and `paged_kv` (pages of one pool per layer,
for accelerators); sessions move between them by `export_block` and `import_block`. This file knows tensors and sessions, not
models: a layer is an index with a shape. A store is not thread-safe; the stage's owner serialises calls.

Shapes: H key/value heads, K and V their sizes, n tokens. Keys are [H, n, K], values [H, n, V].
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch

from engine.data.errors import Corrupt, Exhausted, Gap, InvalidInput, NotFound
from engine.data.generation import Taken
from engine.model.kv_formats import KVFormat


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
class KVSession:
    """What every layout knows of a session."""

    max_tokens: int
    length: int = 0


S = TypeVar("S", bound=KVSession)


class KVStore(ABC, Generic[S]):
    """Sessions bounded by `budget_bytes`. A layout says how a session's tokens are kept, in the methods without a body."""

    def __init__(
        self,
        layers: Mapping[int, LayerShape],
        budget_bytes: int,
        *,
        dtype: torch.dtype,
        device: str = "cpu",
        kept_dtype: torch.dtype | None = None,
    ) -> None:
        """A stage computes in `dtype`; keys and values are kept in `kept_dtype`, or as they are computed."""
        if budget_bytes < 0:
            raise InvalidInput(f"kv_budget_bytes {budget_bytes} is not allowed: give 0 or more bytes")
        self.layers = dict(layers)
        self.budget_bytes = budget_bytes
        self.reserved_bytes = 0
        self.used_bytes = 0
        self.kept_bytes = 0  # that no session uses
        self.format = KVFormat(dtype, kept_dtype or dtype)
        self.bytes_per_token = sum(self._kept_numbers(shape) for shape in self.layers.values()) * self.format.kept.itemsize
        self._device = device
        self._sessions: dict[str, S] = {}
        self._kept: dict[int, S] = {}  # the oldest first

    @property
    def session_ids(self) -> tuple[str, ...]:
        return tuple(self._sessions)

    def open(self, session_id: str, max_tokens: int) -> None:
        """Reserve room for `max_tokens` tokens, from what is kept if it must be.

        Raises Exhausted if the budget lacks it, InvalidInput if it is open already.
        """
        self._check_new_session(session_id, max_tokens)
        self._give_way(max_tokens)
        if not self._has_room(max_tokens):
            raise Exhausted(
                f"session {session_id!r} needs {self._reservation_bytes(max_tokens)} bytes of KV memory for {max_tokens} tokens, but "
                f"{self.free_bytes} of the {self.budget_bytes} bytes are free: wait for a session to end, ask for fewer tokens, "
                f"or raise the KV budget"
            )
        self._sessions[session_id] = self._reserve(max_tokens)
        self.reserved_bytes += self._reservation_bytes(max_tokens)

    def close(self, session_id: str) -> None:
        """Free the session's memory and its reservation; an unknown id is fine."""
        session = self._sessions.pop(session_id, None)
        if session is not None:
            self.reserved_bytes -= self._reservation_bytes(session.max_tokens)
            self.used_bytes -= self._used_bytes(session)
            self._free(session)

    @property
    def free_bytes(self) -> int:
        """Bytes that no session has reserved and that hold nothing."""
        return self.budget_bytes - self.allotted_bytes

    @property
    def allotted_bytes(self) -> int:
        """Bytes that sessions have reserved, or where something is kept."""
        return self.reserved_bytes + self.kept_bytes

    @property
    def held_bytes(self) -> int:
        """Bytes of keys and values in memory."""
        return self.used_bytes + self.kept_bytes

    # ------------------------------------------------------------------------------------------ what stays of a session
    def keep(self, session_id: str, kept_id: int, num_tokens: int) -> None:
        """Close a session and keep its first tokens, if it has so many. Raises NotFound."""
        session = self._session(session_id)
        kept = self._retained(session, num_tokens) if 0 < num_tokens <= session.length and kept_id not in self._kept else None
        self.close(session_id)
        if kept is not None:
            self._kept[kept_id] = kept
            self._count_kept(kept)

    def drop(self, kept_id: int) -> None:
        """Keep it no longer; an unknown id is fine."""
        if (kept := self._kept.pop(kept_id, None)) is not None:
            self._free_kept(kept)

    @property
    def kept_ids(self) -> tuple[int, ...]:
        """The oldest first."""
        return tuple(self._kept)

    def drop_all(self) -> None:
        for kept_id in list(self._kept):
            self.drop(kept_id)

    def take_over(self, session_id: str, max_tokens: int, taken: Taken) -> None:
        """Open a session that begins with kept tokens, which stay for others unless they move, or with those of an open session.

        Raises NotFound if they are not here, or if there is no room for the session beside them; they are dropped then.
        """
        self._check_new_session(session_id, max_tokens)
        kept, num_tokens = self._sessions.get(taken.session_id) or self._kept.get(taken.kept_id), taken.num_tokens
        where = f"session {taken.session_id!r} has" if taken.session_id else f"was kept as {taken.kept_id}"
        if kept is None or not 0 < num_tokens <= min(kept.length, max_tokens):
            raise NotFound(f"session {session_id!r}: {num_tokens} tokens of what {where} are not here: send it from its start")
        self._give_way(max_tokens, taken, kept)
        if not self._has_room(max_tokens, taken, kept):
            self.drop(taken.kept_id)
            raise NotFound(f"session {session_id!r} has no room beside what {where}: send it from its start")
        if taken.moves:
            del self._kept[taken.kept_id]
        session = self._reserve_behind(max_tokens, kept, num_tokens, taken.moves)
        session.length = num_tokens
        self._sessions[session_id] = session
        self.reserved_bytes += self._reservation_bytes(max_tokens)
        self.used_bytes += self._used_bytes(session)

    def _give_way(self, max_tokens: int, taken: Taken | None = None, kept: S | None = None) -> None:
        """Drop what was kept first until there is room, but not what the session begins with."""
        for kept_id in list(self._kept):
            if self._has_room(max_tokens, taken, kept):
                return
            if taken is None or kept_id != taken.kept_id:
                self.drop(kept_id)

    def length(self, session_id: str) -> int:
        """Committed tokens of the session. Raises NotFound."""
        return self._session(session_id).length

    def max_tokens(self, session_id: str) -> int:
        """The number of tokens the session was opened for. Raises NotFound."""
        return self._session(session_id).max_tokens

    def write(self, session_id: str, layer: int, keys: torch.Tensor, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Put new tokens, keys [H, n, K] and values [H, n, V], behind the committed ones, without committing them.

        Returns tensors [H, length + n, K] and [H, length + n, V]. Writing again before `commit` overwrites.
        """
        session = self._session(session_id)
        stop = session.length + keys.shape[1]
        self.check_room(session_id, stop)
        self._check_layer(layer)
        form = self.format
        if form.is_plain:
            self._put(session, layer, session.length, keys, values, stop)
            return self._read(session, layer, 0, stop)
        self._put(session, layer, session.length, form.to_kept(keys), form.to_kept(values), stop)
        kept_keys, kept_values = self._read(session, layer, 0, stop)
        return form.to_computed(kept_keys), form.to_computed(kept_values)

    def commit(self, session_id: str, length: int) -> None:
        """Declare the first `length` tokens present. Raises Gap if a layer lacks some, Exhausted beyond the reservation."""
        session = self._session(session_id)
        self.check_room(session_id, length)
        for layer in self.layers:
            if length and (held := self._layer_tokens(session, layer)) < length:
                raise Gap(f"session {session_id!r}: layer {layer} holds {held} tokens, not {length}; import the missing ones first")
        session.length = length

    def appended(self, session_id: str, length: int) -> None:
        """A step has put tokens up to `length` into every layer, by `write` or past it; commits them."""
        self.commit(session_id, length)

    def truncate(self, session_id: str, length: int) -> None:
        """Forget the tokens from `length` on; memory stays allocated. Raises InvalidInput beyond the current length."""
        session = self._session(session_id)
        if not 0 <= length <= session.length:
            raise InvalidInput(f"session {session_id!r} cannot be cut to {length} tokens: it has {session.length}")
        self._cut(session, length)
        session.length = length

    def export_block(self, session_id: str, layer: int, start_token: int, stop_token: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Copies of the keys [H, n, K] and values [H, n, V] of tokens [start_token, stop_token) of one layer, as they are kept."""
        session = self._session(session_id)
        self._check_layer(layer)
        if not 0 <= start_token < stop_token <= session.length:
            raise InvalidInput(
                f"session {session_id!r}: tokens [{start_token}, {stop_token}) cannot be exported, it holds [0, {session.length})"
            )
        keys, values = self._read(session, layer, start_token, stop_token)
        return keys.clone(), values.clone()

    def import_block(self, session_id: str, layer: int, start_token: int, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Write an exported block at `start_token` of one layer; blocks of a layer must come without gaps.

        The session's length becomes the number of tokens that all layers hold, never less than before. A stage that
        holds no layer has nothing to import: `commit` sets its length.
        """
        session = self._session(session_id)
        self._check_import(session_id, layer, keys, values)
        num_tokens = self._layer_tokens(session, layer)
        if not 0 <= start_token <= num_tokens:
            raise Gap(f"session {session_id!r}: layer {layer} holds {num_tokens} tokens, so a block cannot start at {start_token}")
        stop_token = start_token + keys.shape[1]
        self.check_room(session_id, stop_token)
        self._put(session, layer, start_token, keys, values, max(num_tokens, stop_token))
        session.length = max(session.length, min(self._layer_tokens(session, held) for held in self.layers))

    @abstractmethod
    def carry(self, session_id: str, num_tokens: int, max_tokens: int, old: KVStore[S] | None) -> bool:
        """Go on with a session of `old`, the store before the stage changed: shared layers are taken over, the others must
        have been imported. False if a layer lacks tokens or there is no room; nothing of it is kept then.
        """

    def check_new(self, session_id: str, num_new: int) -> int:
        """The session's length, if it has room for that many tokens more; raises as `check_room`."""
        session = self._session(session_id)
        if session.length + num_new > session.max_tokens:
            self.check_room(session_id, session.length + num_new)
        return session.length

    def check_room(self, session_id: str, num_tokens: int) -> None:
        """Raise Exhausted if the session was not opened for that many tokens, NotFound if it is not open."""
        session = self._session(session_id)
        if num_tokens > session.max_tokens:
            raise Exhausted(
                f"session {session_id!r} was opened for {session.max_tokens} tokens and cannot hold {num_tokens}: "
                f"open it with a larger max_tokens"
            )

    def check(self) -> None:
        """Raise Corrupt if the counters disagree with what is kept; tests call it after every operation."""
        used = sum(self._used_bytes(session) for session in self._sessions.values())
        reserved = sum(self._reservation_bytes(session.max_tokens) for session in self._sessions.values())
        kept = self._kept_bytes_now()
        is_counted = (used, reserved, kept) == (self.used_bytes, self.reserved_bytes, self.kept_bytes)
        if not is_counted or used > reserved or self.allotted_bytes > self.budget_bytes:
            counted = f"used {self.used_bytes} ({used}), reserved {self.reserved_bytes} ({reserved}), kept {self.kept_bytes} ({kept})"
            raise Corrupt(f"KV accounting is wrong: {counted} of {self.budget_bytes} bytes; this is a bug")

    # ------------------------------------------------------------------------------------------ what a layout says
    @abstractmethod
    def _reservation_bytes(self, max_tokens: int) -> int: ...

    @abstractmethod
    def _used_bytes(self, session: S) -> int: ...

    @abstractmethod
    def _reserve(self, max_tokens: int) -> S:
        """A new session; there is room for it."""

    @abstractmethod
    def _free(self, session: S) -> None:
        """Give back what the session held."""

    @abstractmethod
    def _layer_tokens(self, session: S, layer: int) -> int:
        """Tokens that the layer holds, committed or not."""

    @abstractmethod
    def _cut(self, session: S, length: int) -> None:
        """No layer holds more than `length` tokens from now on."""

    @abstractmethod
    def _put(self, session: S, layer: int, start: int, keys: torch.Tensor, values: torch.Tensor, num_tokens: int) -> None:
        """Write tokens from `start` on; the layer holds `num_tokens` then. There is room for them."""

    @abstractmethod
    def _read(self, session: S, layer: int, start: int, stop: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys [H, n, K] and values [H, n, V] of tokens [start, stop), as views where the layout has them."""

    @abstractmethod
    def _retained(self, session: S, num_tokens: int) -> S:
        """What stays of a session that is closed next."""

    @abstractmethod
    def _count_kept(self, kept: S) -> None:
        """The session is closed: what stays of it counts."""

    @abstractmethod
    def _free_kept(self, kept: S) -> None:
        """Give back what was kept, and count it no longer."""

    @abstractmethod
    def _kept_bytes_now(self) -> int:
        """What `kept_bytes` must be."""

    @abstractmethod
    def _has_room(self, max_tokens: int, taken: Taken | None = None, kept: S | None = None) -> bool:
        """For a new session, or for one that begins with what is kept."""

    @abstractmethod
    def _reserve_behind(self, max_tokens: int, kept: S, num_tokens: int, moves: bool) -> S:
        """A new session that begins with kept tokens, which end with it if they move. There is room for it."""

    def _kept_numbers(self, shape: LayerShape) -> int:
        """Numbers of the kept dtype that one token takes in a layer."""
        keys, values = self.format.kept_size(shape.key_size), self.format.kept_size(shape.value_size)
        return shape.num_key_heads * keys + shape.num_value_heads * values

    def _check_new_session(self, session_id: str, max_tokens: int) -> None:
        if session_id in self._sessions:
            raise InvalidInput(f"session {session_id!r} is open already; close it first")
        if max_tokens < 1:
            raise InvalidInput(f"max_tokens {max_tokens} is not allowed: a session needs room for at least 1 token")

    def _session(self, session_id: str) -> S:
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
        form = self.format
        key_size, value_size = form.kept_size(shape.key_size), form.kept_size(shape.value_size)
        wanted = ((shape.num_key_heads, num_tokens, key_size), (shape.num_value_heads, num_tokens, value_size))
        if num_tokens == 0 or got != wanted or keys.dtype != form.kept or values.dtype != form.kept:
            raise InvalidInput(
                f"session {session_id!r}: layer {layer} takes keys and values of {wanted[0]} and {wanted[1]} in {form.kept} "
                f"with at least 1 token, but got {got[0]} and {got[1]} in {keys.dtype}"
            )
