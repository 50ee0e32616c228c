"""The layout for accelerators: pages of one pool per layer, allocated from the budget when the stage loads.

A session gets its pages when it opens, one list for all layers, and a row of the page table on the device; so a step uploads
no table, and every layer reads the same one. Page 0 belongs to nobody: rows that fill a step up to a captured size write there.
Used bytes are those of pages that hold tokens. A page may belong to several: sessions that begin with the same kept tokens share the
pages that are full of them, and have a copy of the one that is not. Nobody writes into a shared page. A page is free when it has neither
a session nor anything kept.

Shapes: P pages of `page_tokens` tokens, H heads, K and V sizes. A layer's pools are [P, page_tokens, H, K] and [.., V];
the table is [rows, pages of the longest session] int32.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch

from engine.data.errors import Corrupt, Exhausted, InvalidInput
from engine.data.generation import Taken
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
    used_pages: int = 0  # that hold tokens
    num_shared: int = 0  # of its pages, the first ones: others may read them too


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
        self._num_sessions = [0] * num_pages  # per page, that have it
        self._num_kept = [0] * num_pages  # per page, kept tokens that lie in it
        self._shared_bytes = 0  # counted by more than one session
        width = max(1, min(max(1, num_pages), -(-longest_tokens // page_tokens)))
        with torch.inference_mode(False):  # inference tensors could not be written to by an import outside a step
            self.table = torch.full((MAX_SESSIONS + 1, width), SCRATCH_PAGE, dtype=torch.int32, device=device)
            self.pools = {layer: self._pools(shape, num_pages) for layer, shape in self.layers.items()}

    def _pools(self, shape: LayerShape, num_pages: int) -> tuple[torch.Tensor, torch.Tensor]:
        sizes = ((shape.num_key_heads, shape.key_size), (shape.num_value_heads, shape.value_size))
        try:
            keys, values = (
                torch.zeros((num_pages, self.page_tokens, *size), dtype=self.format.kept, device=self._device) for size in sizes
            )
        except torch.OutOfMemoryError as error:
            raise Exhausted(
                f"{self._device} has no room for {self.budget_bytes} bytes of keys and values beside the weights: "
                f"give a smaller --kv-memory, or fewer layers"
            ) from error
        return keys, values

    @property
    def free_bytes(self) -> int:
        return len(self._free_pages) * self.page_bytes if self.layers else 0

    @property
    def allotted_bytes(self) -> int:
        return super().allotted_bytes - self._shared_bytes

    @property
    def held_bytes(self) -> int:
        return super().held_bytes - self._shared_bytes

    def check(self) -> None:
        super().check()
        counts = [0] * len(self._num_sessions), [0] * len(self._num_kept)
        for holders, count in zip((self._sessions.values(), self._kept.values()), counts, strict=True):
            for page in (page for one in holders for page in one.pages):
                count[page] += 1
        free = {page for page in range(1, len(self._num_sessions)) if not counts[0][page] and not counts[1][page]}
        if counts != (self._num_sessions, self._num_kept) or free != {*self._free_pages} or len(free) != len(self._free_pages):
            raise Corrupt("KV accounting is wrong: pages are free that somebody has, or have nobody and are not free; this is a bug")

    def rows(self, session_ids: Iterable[str]) -> list[int]:
        """The sessions' rows in the table. They are open."""
        return [self._sessions[session_id].row for session_id in session_ids]

    def appended(self, session_id: str, length: int) -> None:
        """A step has written every layer up to `length`; commits it. There was room for it."""
        session = self._session(session_id)
        session.length = session.num_complete = length
        if session.ahead:
            session.ahead.clear()
        self._count(session, length)

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
            session.pages += self._new_pages(missing)
        else:
            for _ in range(-missing):
                self._change(session.pages.pop(), num_sessions=-1)
        self._publish(session)
        return True

    def _num_pages(self, max_tokens: int) -> int:
        return -(-max_tokens // self.page_tokens) if self.layers else 0

    def _reservation_bytes(self, max_tokens: int) -> int:
        return self._num_pages(max_tokens) * self.page_bytes

    def _has_room(self, max_tokens: int, taken: Taken | None = None, kept: PagedSession | None = None) -> bool:
        num_pages = self._num_pages(max_tokens)
        if num_pages > self.table.shape[1]:
            return False
        num_shared = taken.num_tokens // self.page_tokens if taken is not None and self.layers else 0
        return num_pages - num_shared <= len(self._free_pages) and bool(self._free_rows)

    def _used_bytes(self, session: PagedSession) -> int:
        return session.used_pages * self.page_bytes

    def _count(self, session: PagedSession, num_tokens: int) -> None:
        """Bring the counters in line: the longest of the session's layers holds so many tokens now."""
        used_pages = -(-num_tokens // self.page_tokens) if self.layers else 0
        if used_pages != session.used_pages:
            self.used_bytes += (used_pages - session.used_pages) * self.page_bytes
            session.used_pages = used_pages

    def _reserve(self, max_tokens: int) -> PagedSession:
        session = PagedSession(max_tokens, row=self._free_rows.pop(), pages=self._new_pages(self._num_pages(max_tokens)))
        self._publish(session)
        return session

    def _reserve_behind(self, max_tokens: int, kept: PagedSession, num_tokens: int, moves: bool) -> PagedSession:
        """Full pages are shared; the tokens behind them are copied, layer by layer."""
        num_shared, num_behind = divmod(num_tokens, self.page_tokens) if self.layers else (0, 0)
        kept.num_shared = max(kept.num_shared, num_shared)
        shared = kept.pages[:num_shared]
        for page in shared:
            self._change(page, num_sessions=1)
        pages = shared + self._new_pages(self._num_pages(max_tokens) - num_shared)
        session = PagedSession(max_tokens, row=self._free_rows.pop(), pages=pages, num_complete=num_tokens, num_shared=num_shared)
        session.used_pages = self._num_pages(num_tokens)
        self._publish(session)
        if num_behind:
            for pool in (pool for pools in self.pools.values() for pool in pools):
                pool[pages[num_shared], :num_behind].copy_(pool[kept.pages[num_shared], :num_behind])
        if moves:
            self._free_kept(kept)
        return session

    def _retained(self, session: PagedSession, num_tokens: int) -> PagedSession:
        kept = PagedSession(num_tokens, num_tokens, pages=session.pages[: self._num_pages(num_tokens)])
        for page in kept.pages:
            self._change(page, num_kept=1)
        return kept

    def _count_kept(self, kept: PagedSession) -> None:
        """Pages are counted as they change hands."""

    def _free_kept(self, kept: PagedSession) -> None:
        for page in reversed(kept.pages):
            self._change(page, num_kept=-1)

    def _kept_bytes_now(self) -> int:
        return len({p for kept in self._kept.values() for p in kept.pages if not self._num_sessions[p]}) * self.page_bytes

    def _new_pages(self, count: int) -> list[int]:
        pages = [self._free_pages.pop() for _ in range(count)]
        for page in pages:
            self._num_sessions[page] = 1
        return pages

    def _change(self, page: int, num_sessions: int = 0, num_kept: int = 0) -> None:
        """More or fewer have this page; it is free when nobody has it."""
        self._count_page(page, -1)
        self._num_sessions[page] += num_sessions
        self._num_kept[page] += num_kept
        self._count_page(page, 1)
        if not self._num_sessions[page] and not self._num_kept[page]:
            self._free_pages.append(page)

    def _count_page(self, page: int, times: int) -> None:
        num_sessions = self._num_sessions[page]
        self._shared_bytes += times * max(0, num_sessions - 1) * self.page_bytes
        self.kept_bytes += times * (not num_sessions and bool(self._num_kept[page])) * self.page_bytes

    def _publish(self, session: PagedSession) -> None:
        """Write the session's row of the table."""
        row = torch.full((self.table.shape[1],), SCRATCH_PAGE, dtype=torch.int32)
        row[: len(session.pages)] = torch.tensor(session.pages, dtype=torch.int32)
        self.table[session.row].copy_(row)

    def _free(self, session: PagedSession) -> None:
        for page in reversed(session.pages):
            self._change(page, num_sessions=-1)
        self._free_rows.append(session.row)

    def _layer_tokens(self, session: PagedSession, layer: int) -> int:
        return session.ahead.get(layer, session.num_complete)

    def _cut(self, session: PagedSession, length: int) -> None:
        self._check_own(session, length)
        session.num_complete = min(session.num_complete, length)
        session.ahead = {layer: min(tokens, length) for layer, tokens in session.ahead.items()}
        self._count(session, max((session.num_complete, *session.ahead.values())))

    def _put(self, session: PagedSession, layer: int, start: int, keys: torch.Tensor, values: torch.Tensor, num_tokens: int) -> None:
        self._check_own(session, start)
        slots = self._slots(session, start, start + keys.shape[1])
        for pool, new in zip(self.pools[layer], (keys, values), strict=True):
            pool.view(-1, *pool.shape[2:]).index_copy_(0, slots, new.transpose(0, 1).to(pool.device))
        session.ahead[layer] = num_tokens
        self._count(session, max((session.num_complete, *session.ahead.values())))

    def _check_own(self, session: PagedSession, token: int) -> None:
        if token < session.num_shared * self.page_tokens:
            raise InvalidInput(f"token {token} lies in a page that other sessions read: only what follows that page can change")

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
