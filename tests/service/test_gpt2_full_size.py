"""GPT-2 124M at full size on 1, 2, 3 and 5 real workers; and what a worker holds is its slice, not the model."""

from __future__ import annotations

import pytest

from engine.data.model import ModelRef
from engine.folders import cache_folder
from engine.model.sources.card import prepare
from tests.service.reference import reference
from tests.service.running import running

MODEL = "gpt2"
PROMPTS = ((464, 3280, 318), tuple(range(1000, 1040)))


@pytest.mark.parametrize("num_workers", [1, 2, 3, 5])
def test_tokens_equal_generate_and_no_worker_holds_more_than_its_slice(num_workers: int) -> None:
    expected = [reference(MODEL, p, 16) for p in PROMPTS]
    with running(MODEL, num_workers) as cluster:
        transcripts = cluster.generate_all([cluster.request(p, 16, ignore_eos=True) for p in PROMPTS])
        assert [[c.token_id for c in t.chunks if c.index >= 0] for t in transcripts] == expected
        status = cluster.status()
        assert len(status.stages) == num_workers
        card = prepare(ModelRef(MODEL, 0), cache_folder())
        whole = sum(i.weight_bytes for i in card.items)
        least = min(n.gauges.resident_bytes - _slice_bytes(card, n.start, n.stop) for n in status.nodes)
        for node in status.nodes:
            beyond = node.gauges.resident_bytes - _slice_bytes(card, node.start, node.stop)
            assert beyond - least < 0.15 * whole, (
                f"{node.worker_id} holds {beyond / 1e6:.0f} MB beside its slice, another {least / 1e6:.0f}"
            )


def _slice_bytes(card: object, start: int, stop: int) -> int:
    return sum(i.weight_bytes for i in card.items[start:stop])  # type: ignore[attr-defined]
