"""The kernels over pages against attention written out in float64; Triton's interpreter runs them, no GPU is needed."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("triton", reason="the kernels are written in Triton")

from engine.model.running.accelerator import attention_kernels as kernels
from engine.model.running.kv import LayerShape
from engine.model.running.paged_kv import PagedKV

DEVICE = "cuda:0" if torch.cuda.is_available() else "cpu"
LONGEST = 200


class Case(NamedTuple):
    """One step of a layer: texts that are there already, and new tokens of each."""

    past: list[int]
    new: list[int]
    heads: int
    groups: int
    key: int
    value: int
    page: int
    window: int
    softcap: float | None
    sinks: bool


cases = st.builds(
    Case,
    past=st.lists(st.integers(0, 150), min_size=4, max_size=4),
    new=st.lists(st.sampled_from((1, 1, 2, 17, 40)), min_size=1, max_size=4),
    heads=st.sampled_from((1, 2)),
    groups=st.sampled_from((1, 3, 4)),
    key=st.sampled_from((16, 20)),
    value=st.sampled_from((16, 24)),
    page=st.sampled_from((16, 64, 80)),
    window=st.sampled_from((0, 1, 9, 64, 1000)),
    softcap=st.sampled_from((None, 0.7)),
    sinks=st.booleans(),
)


def expected(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, sinks: torch.Tensor | None, scale: float, case: Case
) -> torch.Tensor:
    """[n, heads * groups, V] in float64 of the last n positions: query [heads * groups, n, K], keys and values [heads, L, *]."""
    num_new, length = query.shape[1], keys.shape[1]
    scores = query.double() @ keys.double().repeat_interleave(case.groups, 0).mT * scale
    if case.softcap is not None:
        scores = torch.tanh(scores / case.softcap) * case.softcap
    behind = torch.arange(length - num_new, length)[:, None] - torch.arange(length)[None, :]
    seen = (behind >= 0) & ((behind < case.window) | (case.window == 0))
    scores = scores.masked_fill(~seen, -torch.inf)
    if sinks is not None:
        scores = torch.cat((scores, sinks.double()[:, None, None].expand(-1, num_new, 1)), -1)
    weights = scores.softmax(-1)[..., :length]
    return (weights @ values.double().repeat_interleave(case.groups, 0)).transpose(0, 1)


@settings(max_examples=30, deadline=None)
@given(cases, st.sampled_from((1, 4)), st.integers(0, 2**20))
def test_kernels_equal_attention_written_out(case: Case, num_splits: int, seed: int) -> None:
    torch.manual_seed(seed)
    past = case.past[: len(case.new)]
    kv = PagedKV(
        {0: LayerShape(case.heads, case.key, case.heads, case.value)}, 10**7, dtype=torch.float32, device=DEVICE,
        page_tokens=case.page, longest_tokens=LONGEST,
    )  # fmt: skip
    total, num_heads = sum(case.new), case.heads * case.groups
    query = torch.randn(1, num_heads, total, case.key)
    keys, values = torch.randn(1, case.heads, total, case.key), torch.randn(1, case.heads, total, case.value)
    sinks = torch.randn(num_heads) if case.sinks else None
    rows, positions, wanted, start = [], [], [], 0
    for pool in kv.pools[0]:
        pool.fill_(torch.nan)  # what no session wrote must not be read
    for index, (length, new) in enumerate(zip(past, case.new, strict=True)):
        kv.open(str(index), LONGEST)
        old = torch.randn(case.heads, length, case.key), torch.randn(case.heads, length, case.value)
        if length:
            kv.import_block(str(index), 0, 0, *old)
        whole = [torch.cat((before, fresh[0, :, start : start + new]), 1) for before, fresh in zip(old, (keys, values), strict=True)]
        wanted.append(expected(query[0, :, start : start + new], *whole, sinks, 0.3, case))
        rows += [kv.rows([str(index)])[0]] * new
        positions += range(length, length + new)
        start += new
    numbers = [torch.tensor(numbers, device=DEVICE) for numbers in (rows, positions)]
    starts = [sum(case.new[:index]) for index in range(len(case.new))]
    lone = torch.tensor([at for at, new in zip(starts, case.new, strict=True) if new == 1], device=DEVICE)
    cut = [(at + a, min(16, new - a)) for at, new in zip(starts, case.new, strict=True) if new > 1 for a in range(0, new, 16)]
    out = torch.full((total, num_heads, case.value), torch.nan, device=DEVICE)
    query = query.transpose(1, 2).contiguous().transpose(1, 2).to(DEVICE)  # as models lay it out
    sinks = None if sinks is None else sinks.to(DEVICE)
    options = {"scale": 0.3, "window": case.window, "softcap": case.softcap, "sinks": sinks}
    kernels.store(keys.to(DEVICE), values.to(DEVICE), kv.pools[0], kv.table, *numbers)
    if len(lone):
        tokens = None if len(lone) == total else lone
        kernels.decode(query, out, kv.pools[0], kv.table, *numbers, tokens, num_splits=num_splits, **options)
    if cut:
        tiles = torch.tensor(cut, device=DEVICE)
        kernels.chunks(query, out, kv.pools[0], kv.table, *numbers, tiles, tile_tokens=16, **options)
    assert torch.allclose(out.cpu().double(), torch.cat(wanted), atol=2e-5, rtol=2e-5)
