"""The layout for accelerators: pages of one pool per layer, allocated from the budget when the stage loads.

A session gets its pages when it opens, one list for all layers, and a row of the page table on the device; so a step uploads
no table, and every layer reads the same one. Page 0 belongs to nobody: rows that fill a step up to a captured size write there.
Used bytes are those of pages that hold tokens.

Shapes: P pages of `page_tokens` tokens, H heads, K and V sizes. A layer's pools are [P, page_tokens, H, K] and [.., V];
the table is [rows, pages of the longest session] int32.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from engine.data.errors import Exhausted
from engine.model.running.kv import KVSession, KVStore, LayerShape

PAGE_TOKENS = 64
MAX_SESSIONS = 1024  # rows of the table
SCRATCH_PAGE = SCRATCH_ROW = 0


@dataclass(slots=True)
class PagedSession(KVSession):
    row: int = 0  # of the page table
    pages: list[int] = field(default_factory=list)
    num_complete: int = 0  # tokens that all layers hold
    ahead: dict[int, int] = field(default_factory=dict)  # layers that hold another number: written, not yet committed, or imported
    counted_bytes: int = 0  # its share of the store's `used_bytes`


class PagedKV(KVStore[PagedSession]):
    """See `KVStore`; the reservation is whole pages. `longest_tokens` bounds a session, and so the width of the table."""

    def __init__(
        self,
        layers: Mapping[int, LayerShape],
        budget_bytes: int,
        *,
        dtype: torch.dtype,
        device: str = "cpu",
        page_tokens: int = PAGE_TOKENS,
        longest_tokens: int,
    ) -> None:
        super().__init__(layers, budget_bytes, dtype=dtype, device=device)
        self.page_tokens = page_tokens
        self.page_bytes = page_tokens * self.bytes_per_token
        num_pages = budget_bytes // self.page_bytes if self.page_bytes else 0
        self._free_pages = list(range(num_pages - 1, SCRATCH_PAGE, -1))
        self._free_rows = list(range(MAX_SESSIONS, SCRATCH_ROW, -1))
        width = max(1, min(max(1, num_pages), -(-longest_tokens // page_tokens)))
        with torch.inference_mode(False):  # inference tensors could not be written to by an import outside a step
            self.table = torch.full((MAX_SESSIONS + 1, width), SCRATCH_PAGE, dtype=torch.int32, device=device)
            self.pools = {layer: self._pools(shape, num_pages) for layer, shape in self.layers.items()}

    def _pools(self, shape: LayerShape, num_pages: int) -> tuple[torch.Tensor, torch.Tensor]:
        sizes = ((shape.num_key_heads, shape.key_size), (shape.num_value_heads, shape.value_size))
        try:
            keys, values = (torch.zeros((num_pages, self.page_tokens, *size), dtype=self._dtype, device=self._device) for size in sizes)
        except torch.OutOfMemoryError as error:
            raise Exhausted(
                f"{self._device} has no room for {self.budget_bytes} bytes of keys and values beside the weights: "
                f"give a smaller --kv-memory, or fewer layers"
            ) from error
        return keys, values

    @property
    def free_bytes(self) -> int:
        return len(self._free_pages) * self.page_bytes if self.layers else 0

    def row(self, session_id: str) -> int:
        """The session's row in the table. Raises NotFound."""
        return self._session(session_id).row

    def appended(self, session_id: str, length: int) -> None:
        """A step has written every layer up to `length`; commits it. There was room for it."""
        session = self._session(session_id)
        session.length = session.num_complete = length
        session.ahead.clear()
        self._count(session)

    def carry(self, session_id: str, num_tokens: int, max_tokens: int, old: KVStore[PagedSession] | None) -> bool:
        """As `KVStore.carry`; shared layers are copied from the old pool to this one, which is a copy within the device."""
        kept = old._sessions.get(session_id) if old is not None else None
        imported = self._sessions.get(session_id)
        shared = {}
        if old is not None and kept is not None:
            shared = {layer: old._layer_tokens(kept, layer) for layer in self.layers if layer in old.layers}
        own = {layer: 0 if imported is None else self._layer_tokens(imported, layer) for layer in self.layers if layer not in shared}
        held = [*shared.values(), *own.values()]
        if num_tokens > max_tokens or any(tokens < num_tokens for tokens in held) or not self._resize(session_id, max_tokens):
            self.close(session_id)
            return False
        session = self._sessions[session_id]
        if old is not None and kept is not None and num_tokens:
            for layer in shared:
                keys, values = old._read(kept, layer, 0, num_tokens)
                self._put(session, layer, 0, keys, values, num_tokens)
        self.appended(session_id, num_tokens)
        return True

    def _resize(self, session_id: str, max_tokens: int) -> bool:
        """Have the session open for `max_tokens`, with what it holds; False if there is no room for them."""
        session = self._sessions.get(session_id)
        if session is None:
            if not self._has_room(max_tokens):
                return False
            self.open(session_id, max_tokens)
            return True
        missing = self._num_pages(max_tokens) - len(session.pages)
        if missing > len(self._free_pages):
            return False
        self.reserved_bytes += self._reservation_bytes(max_tokens) - self._reservation_bytes(session.max_tokens)
        session.max_tokens = max_tokens
        if missing > 0:
            session.pages += [self._free_pages.pop() for _ in range(missing)]
        else:
            self._free_pages += [session.pages.pop() for _ in range(-missing)]
        self._publish(session)
        return True

    def _num_pages(self, max_tokens: int) -> int:
        return -(-max_tokens // self.page_tokens) if self.layers else 0

    def _reservation_bytes(self, max_tokens: int) -> int:
        return self._num_pages(max_tokens) * self.page_bytes

    def _has_room(self, max_tokens: int) -> bool:
        num_pages = self._num_pages(max_tokens)
        if num_pages > self.table.shape[1]:
            return False
        return num_pages <= len(self._free_pages) and bool(self._free_rows)

    def _used_bytes(self, session: PagedSession) -> int:
        held = max((self._layer_tokens(session, layer) for layer in session.ahead), default=0)
        return self._reservation_bytes(max(held, session.num_complete))

    def _count(self, session: PagedSession) -> None:
        """Bring the counter in line after a session's tokens changed."""
        self.used_bytes += self._used_bytes(session) - session.counted_bytes
        session.counted_bytes = self._used_bytes(session)

    def _reserve(self, max_tokens: int) -> PagedSession:
        pages = [self._free_pages.pop() for _ in range(self._num_pages(max_tokens))]
        session = PagedSession(max_tokens, row=self._free_rows.pop(), pages=pages)
        self._publish(session)
        return session

    def _publish(self, session: PagedSession) -> None:
        """Write the session's row of the table."""
        row = torch.full((self.table.shape[1],), SCRATCH_PAGE, dtype=torch.int32)
        row[: len(session.pages)] = torch.tensor(session.pages, dtype=torch.int32)
        self.table[session.row].copy_(row)

    def _free(self, session: PagedSession) -> None:
        self._free_pages += reversed(session.pages)
        self._free_rows.append(session.row)

    def _layer_tokens(self, session: PagedSession, layer: int) -> int:
        return session.ahead.get(layer, session.num_complete)

    def _cut(self, session: PagedSession, length: int) -> None:
        session.num_complete = min(session.num_complete, length)
        session.ahead = {layer: min(tokens, length) for layer, tokens in session.ahead.items()}
        self._count(session)

    def _put(self, session: PagedSession, layer: int, start: int, keys: torch.Tensor, values: torch.Tensor, num_tokens: int) -> None:
        slots = self._slots(session, start, start + keys.shape[1])
        for pool, new in zip(self.pools[layer], (keys, values), strict=True):
            pool.view(-1, *pool.shape[2:]).index_copy_(0, slots, new.transpose(0, 1).to(pool.device))
        session.ahead[layer] = num_tokens
        self._count(session)

    def _read(self, session: PagedSession, layer: int, start: int, stop: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Gathered from the pages: [H, n, K] and [H, n, V], as transposed views of copies."""
        slots = self._slots(session, start, stop)
        keys, values = (pool.view(-1, *pool.shape[2:]).index_select(0, slots).transpose(0, 1) for pool in self.pools[layer])
        return keys, values

    def _slots(self, session: PagedSession, start: int, stop: int) -> torch.Tensor:
        """Where tokens [start, stop) lie in a pool seen as [P * page_tokens, H, K]."""
        tokens = torch.arange(start, stop, device=self.table.device)
        pages = self.table[session.row].index_select(0, tokens // self.page_tokens)
        return pages.long() * self.page_tokens + tokens % self.page_tokens
