"""Attention over pages, as Triton kernels: one call for all decode rows of a step, one for all its prompt chunks.

Decode (after T. Dao et al., "Flash-Decoding", 2023): a key head's queries are the rows of one small product, so keys are read
once; a long text is split over several programs, whose parts are joined by a second kernel. Chunks (T. Dao, "FlashAttention-2",
2023): tiles of queries over the earlier tokens, without a matrix of scores in memory. Windows, capped scores and sinks are
terms in the same loops. Numbers are summed in float32; float32 inputs are multiplied as float32, never as TF32.

Shapes: T packed tokens, R = rows of the table, H key heads, G query heads of each, K and V sizes, P pages. `rows` [T] and
`positions` [T] say for each token whose it is and where in its text it stands.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

_LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def _store_kernel(  # type: ignore[no-untyped-def]
    keys, values, key_pool, value_pool, table, rows, positions,
    key_head, key_token, value_head, value_token, table_row,
    KEY: tl.constexpr, KEYS: tl.constexpr, VALUE: tl.constexpr, VALUES: tl.constexpr, PAGE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0).to(tl.int64)
    position = tl.load(positions + token)
    page = tl.load(table + tl.load(rows + token) * table_row + position // PAGE).to(tl.int64)
    slot = page * PAGE + position % PAGE
    cell = tl.arange(0, BLOCK)
    key = tl.load(keys + cell // KEY * key_head + token * key_token + cell % KEY, mask=cell < KEYS)
    tl.store(key_pool + slot * KEYS + cell, key, mask=cell < KEYS)
    value = tl.load(values + cell // VALUE * value_head + token * value_token + cell % VALUE, mask=cell < VALUES)
    tl.store(value_pool + slot * VALUES + cell, value, mask=cell < VALUES)


def store(
    keys: torch.Tensor, values: torch.Tensor, pools: tuple[torch.Tensor, torch.Tensor],
    table: torch.Tensor, rows: torch.Tensor, positions: torch.Tensor,
) -> None:  # fmt: skip
    """Write new keys [1, H, T, K] and values [1, H, T, V] to their pages. The last dimension must be contiguous."""
    key_pool, value_pool = pools
    sizes = key_pool[0, 0].numel(), value_pool[0, 0].numel()
    _store_kernel[(keys.shape[2],)](
        keys, values, key_pool, value_pool, table, rows, positions,
        keys.stride(1), keys.stride(2), values.stride(1), values.stride(2), table.stride(0),
        KEY=keys.shape[3], KEYS=sizes[0], VALUE=values.shape[3], VALUES=sizes[1],
        PAGE=key_pool.shape[1], BLOCK=triton.next_power_of_2(max(sizes)),
    )  # fmt: skip


@triton.jit
def _capped(scores, softcap):  # type: ignore[no-untyped-def]
    """softcap * tanh(scores / softcap)."""
    return softcap * (1.0 - 2.0 / (tl.exp(2.0 * scores / softcap) + 1.0))


@triton.jit
def _decode_kernel(  # type: ignore[no-untyped-def]
    query, out, parts, stats, key_pool, value_pool, table, rows, positions, tokens, sinks,
    query_head, query_token, table_row, scale, softcap, num_groups,
    HEADS: tl.constexpr, VALUE_HEADS: tl.constexpr, KEY: tl.constexpr, VALUE: tl.constexpr, PAGE: tl.constexpr,
    GROUPS: tl.constexpr, BLOCK: tl.constexpr, BLOCK_KEY: tl.constexpr, BLOCK_VALUE: tl.constexpr, WINDOW: tl.constexpr,
    IS_CAPPED: tl.constexpr, HAS_SINKS: tl.constexpr, HAS_TOKENS: tl.constexpr, SPLITS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    entry, head, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    token = tl.load(tokens + entry) if HAS_TOKENS else entry
    position = tl.load(positions + token)
    pages = table + tl.load(rows + token) * table_row
    first = tl.maximum(position + 1 - WINDOW, 0) // BLOCK if WINDOW > 0 else 0
    last = position // BLOCK + 1
    share = tl.cdiv(last - first, SPLITS)
    begin = first + split * share
    end = tl.minimum(begin + share, last)
    group, in_key, in_value = tl.arange(0, GROUPS), tl.arange(0, BLOCK_KEY), tl.arange(0, BLOCK_VALUE)
    query_heads = head * num_groups + group
    q = tl.load(
        query + token.to(tl.int64) * query_token + query_heads[:, None] * query_head + in_key[None, :],
        mask=(group[:, None] < num_groups) & (in_key[None, :] < KEY), other=0.0,
    )  # fmt: skip
    largest = tl.full([GROUPS], float("-inf"), tl.float32)
    total = tl.zeros([GROUPS], tl.float32)
    sums = tl.zeros([GROUPS, BLOCK_VALUE], tl.float32)
    within = tl.arange(0, BLOCK)
    for block in range(begin, end):
        page = tl.load(pages + block * BLOCK // PAGE).to(tl.int64)
        slots = page * PAGE + block * BLOCK % PAGE + within
        at = block * BLOCK + within
        seen = at <= position
        if WINDOW > 0:
            seen = seen & (at > position - WINDOW)
        k = tl.load(key_pool + (slots[None, :] * HEADS + head) * KEY + in_key[:, None], mask=in_key[:, None] < KEY, other=0.0)
        scores = tl.dot(q, k, input_precision=PRECISION) * scale
        if IS_CAPPED:
            scores = _capped(scores, softcap)
        scores = tl.where(seen[None, :], scores * _LOG2E, float("-inf"))
        new_largest = tl.maximum(largest, tl.max(scores, 1))
        shift = tl.where(new_largest == float("-inf"), 0.0, new_largest)
        weights = tl.exp2(scores - shift[:, None])
        factor = tl.exp2(largest - shift)
        v = tl.load(
            value_pool + (slots[:, None] * VALUE_HEADS + head) * VALUE + in_value[None, :],
            mask=seen[:, None] & (in_value[None, :] < VALUE), other=0.0,
        )  # fmt: skip
        total = total * factor + tl.sum(weights, 1)
        sums = sums * factor[:, None] + tl.dot(weights.to(v.dtype), v, input_precision=PRECISION)
        largest = new_largest
    is_head, is_cell = group < num_groups, in_value < VALUE
    num_heads = HEADS * num_groups
    if SPLITS == 1:
        if HAS_SINKS:
            sink = tl.load(sinks + query_heads, mask=is_head, other=0.0).to(tl.float32) * _LOG2E
            total += tl.exp2(sink - largest)
        place = (token.to(tl.int64) * num_heads + query_heads[:, None]) * VALUE + in_value[None, :]
        tl.store(out + place, (sums / total[:, None]).to(out.dtype.element_ty), mask=is_head[:, None] & is_cell[None, :])
    else:
        part = (entry.to(tl.int64) * num_heads + query_heads) * SPLITS + split
        tl.store(parts + part[:, None] * VALUE + in_value[None, :], sums, mask=is_head[:, None] & is_cell[None, :])
        tl.store(stats + part * 2, largest, mask=is_head)
        tl.store(stats + part * 2 + 1, total, mask=is_head)


@triton.jit
def _join_kernel(  # type: ignore[no-untyped-def]
    out, parts, stats, tokens, sinks, num_heads,
    VALUE: tl.constexpr, BLOCK_VALUE: tl.constexpr, HAS_SINKS: tl.constexpr, HAS_TOKENS: tl.constexpr, SPLITS: tl.constexpr,
):  # fmt: skip
    entry, head = tl.program_id(0), tl.program_id(1)
    token = tl.load(tokens + entry) if HAS_TOKENS else entry
    split, in_value = tl.arange(0, SPLITS), tl.arange(0, BLOCK_VALUE)
    part = (entry.to(tl.int64) * num_heads + head) * SPLITS + split
    largest, total = tl.load(stats + part * 2), tl.load(stats + part * 2 + 1)
    top = tl.max(largest, 0)
    factor = tl.exp2(largest - top)
    whole = tl.sum(total * factor, 0)
    if HAS_SINKS:
        whole += tl.exp2(tl.load(sinks + head).to(tl.float32) * _LOG2E - top)
    cells = tl.load(parts + part[:, None] * VALUE + in_value[None, :], mask=in_value[None, :] < VALUE, other=0.0)
    joined = tl.sum(cells * factor[:, None], 0) / whole
    place = (token.to(tl.int64) * num_heads + head) * VALUE + in_value
    tl.store(out + place, joined.to(out.dtype.element_ty), mask=in_value < VALUE)


def decode(
    query: torch.Tensor, out: torch.Tensor, pools: tuple[torch.Tensor, torch.Tensor], table: torch.Tensor,
    rows: torch.Tensor, positions: torch.Tensor, tokens: torch.Tensor | None, *, num_splits: int,
    scale: float, window: int, softcap: float | None, sinks: torch.Tensor | None,
) -> None:  # fmt: skip
    """Attend from one token of each row: `tokens` [B] says which of the packed ones (None: all); `out` [T, H * G, V] is filled there.

    `query` is [1, H * G, T, K]; `window` 0 sees every earlier token; `num_splits` is a power of two.
    """
    key_pool, value_pool = pools
    num_entries = query.shape[2] if tokens is None else tokens.shape[0]
    num_heads, heads, key, value = query.shape[1], key_pool.shape[2], key_pool.shape[3], value_pool.shape[3]
    groups = num_heads // heads
    if num_splits == 1:
        parts = stats = out
    else:
        parts = torch.empty(num_entries * num_heads * num_splits * value, dtype=torch.float32, device=query.device)
        stats = torch.empty(num_entries * num_heads * num_splits * 2, dtype=torch.float32, device=query.device)
    block, stages = _block(key_pool, value_pool)
    shared = {"HAS_SINKS": sinks is not None, "HAS_TOKENS": tokens is not None, "SPLITS": num_splits, "VALUE": value}
    shared["BLOCK_VALUE"] = max(16, triton.next_power_of_2(value))
    _decode_kernel[(num_entries, heads, num_splits)](
        query, out, parts, stats, key_pool, value_pool, table, rows, positions, rows if tokens is None else tokens,
        query if sinks is None else sinks, query.stride(1), query.stride(2), table.stride(0), scale, softcap or 1.0, groups,
        HEADS=heads, VALUE_HEADS=value_pool.shape[2], KEY=key, PAGE=key_pool.shape[1],
        GROUPS=max(16, triton.next_power_of_2(groups)), BLOCK=block, BLOCK_KEY=max(16, triton.next_power_of_2(key)), WINDOW=window,
        IS_CAPPED=softcap is not None, PRECISION=_precision(query), num_warps=4, num_stages=stages, **shared,
    )  # fmt: skip
    if num_splits > 1:
        _join_kernel[(num_entries, num_heads)](
            out, parts, stats, rows if tokens is None else tokens, query if sinks is None else sinks, num_heads, num_warps=2, **shared
        )


@triton.jit
def _chunk_kernel(  # type: ignore[no-untyped-def]
    query, out, key_pool, value_pool, table, rows, positions, tiles, sinks,
    query_head, query_token, table_row, scale, softcap, num_groups,
    HEADS: tl.constexpr, VALUE_HEADS: tl.constexpr, KEY: tl.constexpr, VALUE: tl.constexpr, PAGE: tl.constexpr,
    TILE: tl.constexpr, BLOCK: tl.constexpr, BLOCK_KEY: tl.constexpr, BLOCK_VALUE: tl.constexpr, WINDOW: tl.constexpr,
    IS_CAPPED: tl.constexpr, HAS_SINKS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    tile, query_head_index = tl.program_id(0), tl.program_id(1)
    token, size = tl.load(tiles + 2 * tile).to(tl.int64), tl.load(tiles + 2 * tile + 1)
    start = tl.load(positions + token)
    pages = table + tl.load(rows + token) * table_row
    head = query_head_index // num_groups
    num_heads = HEADS * num_groups
    in_tile, in_key, in_value = tl.arange(0, TILE), tl.arange(0, BLOCK_KEY), tl.arange(0, BLOCK_VALUE)
    within = tl.arange(0, BLOCK)
    q = tl.load(
        query + (token + in_tile[:, None]) * query_token + query_head_index * query_head + in_key[None, :],
        mask=(in_tile[:, None] < size) & (in_key[None, :] < KEY), other=0.0,
    )  # fmt: skip
    position = start + in_tile
    largest = tl.full([TILE], float("-inf"), tl.float32)
    total = tl.zeros([TILE], tl.float32)
    sums = tl.zeros([TILE, BLOCK_VALUE], tl.float32)
    first = tl.maximum(start + 1 - WINDOW, 0) // BLOCK if WINDOW > 0 else 0
    last = (start + size - 1) // BLOCK + 1
    for block in range(first, last):
        page = tl.load(pages + block * BLOCK // PAGE).to(tl.int64)
        slots = page * PAGE + block * BLOCK % PAGE + within
        at = block * BLOCK + within
        k = tl.load(key_pool + (slots[None, :] * HEADS + head) * KEY + in_key[:, None], mask=in_key[:, None] < KEY, other=0.0)
        scores = tl.dot(q, k, input_precision=PRECISION) * scale
        if IS_CAPPED:
            scores = _capped(scores, softcap)
        seen = at[None, :] <= position[:, None]
        if WINDOW > 0:
            seen = seen & (at[None, :] > position[:, None] - WINDOW)
        scores = tl.where(seen, scores * _LOG2E, float("-inf"))
        new_largest = tl.maximum(largest, tl.max(scores, 1))
        shift = tl.where(new_largest == float("-inf"), 0.0, new_largest)
        weights = tl.exp2(scores - shift[:, None])
        factor = tl.exp2(largest - shift)
        v = tl.load(
            value_pool + (slots[:, None] * VALUE_HEADS + head) * VALUE + in_value[None, :],
            mask=(at[:, None] < start + size) & (in_value[None, :] < VALUE), other=0.0,
        )  # fmt: skip
        total = total * factor + tl.sum(weights, 1)
        sums = sums * factor[:, None] + tl.dot(weights.to(v.dtype), v, input_precision=PRECISION)
        largest = new_largest
    if HAS_SINKS:
        sink = tl.load(sinks + query_head_index).to(tl.float32) * _LOG2E
        total += tl.exp2(sink - largest)
    place = ((token + in_tile[:, None]) * num_heads + query_head_index) * VALUE + in_value[None, :]
    tl.store(out + place, (sums / total[:, None]).to(out.dtype.element_ty), mask=(in_tile[:, None] < size) & (in_value[None, :] < VALUE))


def chunks(
    query: torch.Tensor, out: torch.Tensor, pools: tuple[torch.Tensor, torch.Tensor], table: torch.Tensor,
    rows: torch.Tensor, positions: torch.Tensor, tiles: torch.Tensor, *, tile_tokens: int,
    scale: float, window: int, softcap: float | None, sinks: torch.Tensor | None,
) -> None:  # fmt: skip
    """Attend from several tokens of each row: `tiles` [N, 2] are (first packed token, number of tokens, at most `tile_tokens`)."""
    key_pool, value_pool = pools
    block, stages = _block(key_pool, value_pool)
    _chunk_kernel[(tiles.shape[0], query.shape[1])](
        query, out, key_pool, value_pool, table, rows, positions, tiles, query if sinks is None else sinks,
        query.stride(1), query.stride(2), table.stride(0), scale, softcap or 1.0, query.shape[1] // key_pool.shape[2],
        HEADS=key_pool.shape[2], VALUE_HEADS=value_pool.shape[2], KEY=key_pool.shape[3], VALUE=value_pool.shape[3],
        PAGE=key_pool.shape[1], TILE=tile_tokens, BLOCK=block, BLOCK_KEY=max(16, triton.next_power_of_2(key_pool.shape[3])),
        BLOCK_VALUE=max(16, triton.next_power_of_2(value_pool.shape[3])), WINDOW=window, IS_CAPPED=softcap is not None,
        HAS_SINKS=sinks is not None, PRECISION=_precision(query), num_warps=8 if tile_tokens >= 128 else 4, num_stages=stages,
    )  # fmt: skip


_SHARED_BYTES = 96 * 1024  # of keys and values in flight: two programs fit on one multiprocessor of most cards


def _block(key_pool: torch.Tensor, value_pool: torch.Tensor) -> tuple[int, int]:
    """(tokens of one round, rounds in flight): a power of two that divides a page, and what fits the shared memory."""
    page = key_pool.shape[1]
    token_bytes = (triton.next_power_of_2(key_pool.shape[3]) + triton.next_power_of_2(value_pool.shape[3])) * key_pool.element_size()
    block = min(64, page & -page)
    while block > 16 and 2 * block * token_bytes > _SHARED_BYTES:
        block //= 2
    return block, max(1, min(3, _SHARED_BYTES // (block * token_bytes)))


def _precision(query: torch.Tensor) -> str:
    return "ieee" if query.dtype == torch.float32 else "tf32"
