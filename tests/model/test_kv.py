"""The KV store against a list of tensors per session, over random histories."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.data.errors import Exhausted, Gap, InvalidInput, NotFound
from engine.model.running.kv import FIRST_CAPACITY_TOKENS, KVStore, LayerShape

LAYERS = {3: LayerShape(2, 4, 2, 6), 5: LayerShape(1, 3, 1, 3)}
TOKEN_BYTES = 4 * (2 * 4 + 2 * 6 + 3 + 3)
SESSIONS = ("a", "b", "c")
MAX_TOKENS = 150

operations = st.lists(
    st.tuples(
        st.sampled_from(("open", "append", "append", "append", "abandon", "truncate", "close", "move")),
        st.sampled_from(SESSIONS),
        st.integers(1, 90),
    ),
    max_size=40,
)


def store(sessions: int = 3) -> KVStore:
    return KVStore(LAYERS, sessions * MAX_TOKENS * TOKEN_BYTES, dtype=torch.float32)


def new_tokens(layer: int, count: int, serial: int) -> tuple[torch.Tensor, torch.Tensor]:
    shape = LAYERS[layer]
    generator = torch.Generator().manual_seed(1000 * layer + serial)
    keys = torch.randn(shape.num_key_heads, count, shape.key_size, generator=generator)
    return keys, torch.randn(shape.num_value_heads, count, shape.value_size, generator=generator)


def append(kv: KVStore, session: str, count: int, serial: int) -> dict[int, tuple[torch.Tensor, torch.Tensor]]:
    written = {layer: new_tokens(layer, count, serial) for layer in LAYERS}
    for layer, (keys, values) in written.items():
        kv.write(session, layer, keys, values)
    return written


class Naive:
    """What the store must hold: per session and layer a list of single tokens."""

    def __init__(self) -> None:
        self.sessions: dict[str, dict[int, list[tuple[torch.Tensor, torch.Tensor]]]] = {}

    def length(self, session: str) -> int:
        return len(self.sessions[session][3])

    def append(self, session: str, written: dict[int, tuple[torch.Tensor, torch.Tensor]]) -> None:
        for layer, (keys, values) in written.items():
            self.sessions[session][layer] += [(keys[:, i], values[:, i]) for i in range(keys.shape[1])]


def check_equal(kv: KVStore, naive: Naive) -> None:
    kv.check()
    assert set(kv.session_ids) == set(naive.sessions)
    for session, layers in naive.sessions.items():
        assert kv.length(session) == naive.length(session)
        for layer, tokens in layers.items():
            if tokens:
                keys, values = kv.export_block(session, layer, 0, len(tokens))
                assert torch.equal(keys, torch.stack([k for k, _ in tokens], 1))
                assert torch.equal(values, torch.stack([v for _, v in tokens], 1))


def move(kv: KVStore, session: str, block: int) -> KVStore:
    """Carry one session to a fresh store in blocks, as a migration does, and the others too."""
    target = store()
    for name in kv.session_ids:
        target.open(name, kv.max_tokens(name))
        for start in range(0, kv.length(name), block):
            for layer in LAYERS:
                target.import_block(name, layer, start, *kv.export_block(name, layer, start, min(start + block, kv.length(name))))
    return target


@settings(max_examples=150, deadline=None)
@given(operations)
def test_any_history_equals_lists_of_tokens(history: list[tuple[str, str, int]]) -> None:
    kv, naive = store(), Naive()
    for serial, (what, session, count) in enumerate(history):
        if what == "open" and session not in naive.sessions:
            kv.open(session, MAX_TOKENS)
            naive.sessions[session] = {layer: [] for layer in LAYERS}
        elif what == "close":
            kv.close(session)
            naive.sessions.pop(session, None)
        elif what == "move":
            kv = move(kv, session, count)
        elif session in naive.sessions:
            length = naive.length(session)
            if what == "truncate":
                kv.truncate(session, min(count, length))
                for tokens in naive.sessions[session].values():
                    del tokens[min(count, length) :]
            elif length + count <= MAX_TOKENS:
                written = append(kv, session, count, serial)
                if what == "append":
                    kv.commit(session, length + count)
                    naive.append(session, written)
        check_equal(kv, naive)


def test_budget_is_reserved_at_opening_and_allocated_by_use() -> None:
    kv = store(sessions=2)
    kv.open("a", MAX_TOKENS)
    assert (kv.reserved_bytes, kv.used_bytes) == (MAX_TOKENS * TOKEN_BYTES, 0)
    append(kv, "a", 1, 0)
    assert kv.used_bytes == FIRST_CAPACITY_TOKENS * TOKEN_BYTES
    with pytest.raises(Exhausted, match=rf"{(MAX_TOKENS + 1) * TOKEN_BYTES} bytes .* {MAX_TOKENS * TOKEN_BYTES} of the {kv.budget_bytes}"):
        kv.open("b", MAX_TOKENS + 1)
    kv.open("b", MAX_TOKENS)
    kv.close("a")
    kv.close("a")
    assert (kv.reserved_bytes, kv.used_bytes) == (MAX_TOKENS * TOKEN_BYTES, 0)


def test_appending_a_token_at_a_time_copies_rarely() -> None:
    kv = store()
    kv.open("a", MAX_TOKENS)
    places = set()
    for serial in range(MAX_TOKENS):
        append(kv, "a", 1, serial)
        kv.commit("a", serial + 1)
        places.add(kv.write("a", 3, *new_tokens(3, 0, 0))[0].data_ptr())
    assert len(places) <= 3  # 64, 128, 150


def test_tokens_beyond_the_reservation_are_refused_and_change_nothing() -> None:
    kv = store()
    kv.open("a", 10)
    append(kv, "a", 10, 0)
    kv.commit("a", 10)
    with pytest.raises(Exhausted, match="opened for 10 tokens and cannot hold 11"):
        kv.write("a", 3, *new_tokens(3, 1, 1))
    assert kv.length("a") == 10
    kv.check()


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda kv: kv.open("a", 5), InvalidInput),
        (lambda kv: kv.open("b", 0), InvalidInput),
        (lambda kv: kv.length("nobody"), NotFound),
        (lambda kv: kv.truncate("a", 99), InvalidInput),
        (lambda kv: kv.export_block("a", 3, 0, 99), InvalidInput),
        (lambda kv: kv.export_block("a", 4, 0, 1), NotFound),
        (lambda kv: kv.commit("a", 9), Gap),
        (lambda kv: kv.import_block("a", 3, 9, *new_tokens(3, 1, 0)), Gap),
        (lambda kv: kv.import_block("a", 5, 0, *new_tokens(3, 1, 0)), InvalidInput),
        (lambda kv: kv.import_block("a", 3, 0, *(t.double() for t in new_tokens(3, 1, 0))), InvalidInput),
    ],
)
def test_wrong_calls_are_named(call: Any, error: type[Exception]) -> None:
    kv = store()
    kv.open("a", 20)
    append(kv, "a", 4, 0)
    kv.commit("a", 4)
    with pytest.raises(error):
        call(kv)
    assert kv.length("a") == 4
    kv.check()


def test_a_stage_without_layers_still_counts_tokens() -> None:
    kv = KVStore({}, 0, dtype=torch.float32)
    kv.open("a", 1000)
    kv.commit("a", 7)
    assert (kv.length("a"), kv.reserved_bytes) == (7, 0)
    with pytest.raises(Exhausted):
        kv.commit("a", 1001)
