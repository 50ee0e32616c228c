"""Both layouts of the KV store against a list of tensors per session, over random histories, and against each other."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.data.errors import Exhausted, Gap, InvalidInput, NotFound
from engine.data.generation import Taken
from engine.model.running.contiguous_kv import FIRST_CAPACITY_TOKENS, ContiguousKV
from engine.model.running.kv import KVStore, LayerShape
from engine.model.running.paged_kv import MAX_SESSIONS, SCRATCH_PAGE, PagedKV

LAYERS = {3: LayerShape(2, 4, 2, 6), 5: LayerShape(1, 3, 1, 3)}
TOKEN_BYTES = 4 * (2 * 4 + 2 * 6 + 3 + 3)
SESSIONS = ("a", "b", "c")
MAX_TOKENS = 150

operations = st.lists(
    st.tuples(
        st.sampled_from(
            ("open", "append", "append", "append", "abandon", "truncate", "close", "move", "keep", "keep", "take", "take", "share", "drop")
        ),
        st.sampled_from(SESSIONS),
        st.integers(1, 90),
    ),
    max_size=40,
)


LAYOUTS = ("contiguous", "pages of 16", "pages of 7", "pages of 256")


def store(layout: str = "contiguous", sessions: int = 3, layers: dict[int, LayerShape] = LAYERS) -> KVStore[Any]:
    """Room for that many sessions, in whole pages where there are pages."""
    token_bytes = 4 * sum(shape.num_elements for shape in layers.values())
    if layout == "contiguous":
        return ContiguousKV(layers, sessions * MAX_TOKENS * token_bytes, dtype=torch.float32)
    page = int(layout.removeprefix("pages of "))
    budget_bytes = (1 + sessions * -(-MAX_TOKENS // page)) * page * token_bytes
    return PagedKV(layers, budget_bytes, dtype=torch.float32, page_tokens=page, longest_tokens=MAX_TOKENS)


def new_tokens(layer: int, count: int, serial: int) -> tuple[torch.Tensor, torch.Tensor]:
    shape = LAYERS[layer]
    generator = torch.Generator().manual_seed(1000 * layer + serial)
    keys = torch.randn(shape.num_key_heads, count, shape.key_size, generator=generator)
    return keys, torch.randn(shape.num_value_heads, count, shape.value_size, generator=generator)


def append(kv: KVStore[Any], session: str, count: int, serial: int) -> dict[int, tuple[torch.Tensor, torch.Tensor]]:
    written = {layer: new_tokens(layer, count, serial) for layer in LAYERS}
    for layer, (keys, values) in written.items():
        kv.write(session, layer, keys, values)
    return written


class Naive:
    """What the store must hold: per session and layer a list of single tokens."""

    def __init__(self) -> None:
        self.sessions: dict[str, dict[int, list[tuple[torch.Tensor, torch.Tensor]]]] = {}
        self.kept: dict[int, dict[int, list[tuple[torch.Tensor, torch.Tensor]]]] = {}
        self.shared: dict[str, int] = {}  # tokens that a session began with

    def take(self, session: str, kept_id: int, num_tokens: int, moves: bool) -> None:
        self.sessions[session] = {layer: tokens[:num_tokens] for layer, tokens in self.kept[kept_id].items()}
        self.shared[session] = num_tokens
        if moves:
            del self.kept[kept_id]

    def share(self, session: str, source: str, num_tokens: int) -> None:
        """Of an open session, which may not be cut below that any more."""
        self.sessions[session] = {layer: tokens[:num_tokens] for layer, tokens in self.sessions[source].items()}
        self.shared[session] = num_tokens
        self.shared[source] = max(self.shared.get(source, 0), num_tokens)

    def length(self, session: str) -> int:
        return len(self.sessions[session][3])

    def append(self, session: str, written: dict[int, tuple[torch.Tensor, torch.Tensor]]) -> None:
        for layer, (keys, values) in written.items():
            self.sessions[session][layer] += [(keys[:, i], values[:, i]) for i in range(keys.shape[1])]


def take(kv: KVStore[Any], naive: Naive, session: str, kept_id: int, count: int) -> None:
    """Begin with what is kept; it may be that there is no room beside it, and then it goes."""
    num_tokens, moves = min(count, len(naive.kept[kept_id][3])), count % 2 == 0
    try:
        kv.take_over(session, MAX_TOKENS, Taken(kept_id, num_tokens, b"", moves))
    except NotFound:
        assert session not in kv.session_ids and kept_id not in kv.kept_ids
        assert not moves or isinstance(kv, PagedKV), "what moves takes no more room than it had"
        return
    naive.take(session, kept_id, num_tokens, moves)


def share(kv: KVStore[Any], naive: Naive, session: str, source: str, count: int) -> None:
    """Begin with what an open session has, if there is room."""
    num_tokens = min(count, naive.length(source))
    try:
        kv.take_over(session, MAX_TOKENS, Taken(0, num_tokens, b"", session_id=source))
    except NotFound:
        assert session not in kv.session_ids and source in kv.session_ids
        return
    naive.share(session, source, num_tokens)


def check_equal(kv: KVStore[Any], naive: Naive) -> None:
    """What had to make room for a session is kept no longer, and a later `take` of it is refused."""
    kv.check()
    assert {*kv.kept_ids} <= {*naive.kept}
    for kept_id in {*naive.kept} - {*kv.kept_ids}:
        del naive.kept[kept_id]
    assert set(kv.session_ids) == set(naive.sessions)
    for session, layers in naive.sessions.items():
        assert kv.length(session) == naive.length(session)
        for layer, tokens in layers.items():
            if tokens:
                keys, values = kv.export_block(session, layer, 0, len(tokens))
                assert torch.equal(keys, torch.stack([k for k, _ in tokens], 1))
                assert torch.equal(values, torch.stack([v for _, v in tokens], 1))


def move(kv: KVStore[Any], block: int, layout: str) -> KVStore[Any]:
    """Take the sessions to a fresh store in blocks, as a migration does."""
    target = store(layout)
    for name in kv.session_ids:
        target.open(name, kv.max_tokens(name))
        for start in range(0, kv.length(name), block):
            for layer in LAYERS:
                target.import_block(name, layer, start, *kv.export_block(name, layer, start, min(start + block, kv.length(name))))
    return target


@settings(max_examples=200, deadline=None)
@given(operations, st.sampled_from(LAYOUTS), st.lists(st.sampled_from(LAYOUTS), min_size=1))
def test_any_history_equals_lists_of_tokens(history: list[tuple[str, str, int]], layout: str, others: list[str]) -> None:
    """A move goes to the next of `others`: to the other layout, or to another size of page."""
    kv, naive = store(layout), Naive()
    for serial, (what, session, count) in enumerate(history):
        if what == "open" and session not in naive.sessions:
            kv.open(session, MAX_TOKENS)
            naive.sessions[session] = {layer: [] for layer in LAYERS}
            naive.shared.pop(session, None)
        elif what == "close":
            kv.close(session)
            naive.sessions.pop(session, None)
        elif what == "move":
            kv = move(kv, count, others[serial % len(others)])
            naive.kept.clear()
            naive.shared.clear()
        elif what == "drop":
            kv.drop(count)
            naive.kept.pop(count, None)
        elif what == "share":
            if session not in naive.sessions and naive.sessions:
                share(kv, naive, session, [*naive.sessions][serial % len(naive.sessions)], count)
        elif what == "take":
            if session not in naive.sessions and naive.kept:
                take(kv, naive, session, [*naive.kept][serial % len(naive.kept)], count)
        elif session in naive.sessions:
            length = naive.length(session)
            if what == "keep":
                stays = min(count, length)
                kv.keep(session, serial, stays)
                tokens_of = naive.sessions.pop(session)
                if stays:
                    naive.kept[serial] = {layer: tokens[:stays] for layer, tokens in tokens_of.items()}
            elif what == "truncate":
                cut = max(min(count, length), naive.shared.get(session, 0))
                kv.truncate(session, cut)
                for tokens in naive.sessions[session].values():
                    del tokens[cut:]
            elif length + count <= MAX_TOKENS:
                written = append(kv, session, count, serial)
                if what == "append":
                    kv.commit(session, length + count)
                    naive.append(session, written)
        check_equal(kv, naive)


ONE, OTHER = {3: LAYERS[3]}, {5: LAYERS[5]}


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(LAYOUTS),
    st.sampled_from((ONE, OTHER, LAYERS)),
    st.integers(1, MAX_TOKENS),
    st.integers(1, MAX_TOKENS),
    st.integers(1, MAX_TOKENS),
    st.booleans(),
)
def test_a_session_goes_on_when_the_layers_of_a_stage_change(
    layout: str, before: dict[int, LayerShape], held: int, carried: int, room: int, imported: bool
) -> None:
    """The old store holds `before`; what it lacks was imported or was not, up to `held` tokens; `carried` of them are to go on."""
    if layout == "contiguous":
        room = MAX_TOKENS  # buffers that are taken over keep their size; nobody asks for less room than before
    old, new, whole = store(layout, layers=before), store(layout), store("contiguous")
    for kv in (old, new, whole):
        kv.open("a", MAX_TOKENS)
    written = append(whole, "a", held, 1)
    whole.commit("a", held)
    for layer, (keys, values) in written.items():
        if layer in before:
            old.import_block("a", layer, 0, keys, values)
        elif imported:
            new.import_block("a", layer, 0, keys, values)
    complete = imported or before == LAYERS
    goes_on = complete and carried <= min(held, room)
    assert new.carry("a", carried, room, old) is goes_on
    new.check()
    assert new.session_ids == (("a",) if goes_on else ())
    if goes_on:
        assert (new.length("a"), new.max_tokens("a")) == (carried, room)
        for layer in LAYERS:
            assert all(map(torch.equal, new.export_block("a", layer, 0, carried), whole.export_block("a", layer, 0, carried)))


def test_pages_belong_to_one_session_and_never_to_none() -> None:
    kv = store("pages of 16")
    assert isinstance(kv, PagedKV)
    for session in SESSIONS:
        kv.open(session, MAX_TOKENS)
    tables = {session: kv.table[kv.rows([session])[0]].tolist() for session in SESSIONS}
    owned = [page for row in tables.values() for page in row if page != SCRATCH_PAGE]
    assert len(owned) == len(set(owned)) == 3 * 10 and 0 not in {kv.rows([session])[0] for session in SESSIONS}
    with pytest.raises(Exhausted, match=r"session 'd' needs \d+ bytes of KV memory for 1 tokens, but 0 of"):
        kv.open("d", 1)
    kv.close("b")
    kv.open("d", 17)
    assert kv.reserved_bytes == 2 * 10 * kv.page_bytes + 2 * kv.page_bytes and len(kv._free_rows) == MAX_SESSIONS - 3


def test_pages_are_used_when_tokens_arrive() -> None:
    kv = store("pages of 16")
    assert isinstance(kv, PagedKV)
    kv.open("a", MAX_TOKENS)
    assert kv.used_bytes == 0
    append(kv, "a", 17, 0)
    assert kv.used_bytes == 2 * kv.page_bytes
    kv.commit("a", 17)
    kv.truncate("a", 16)
    assert kv.used_bytes == kv.page_bytes
    kv.appended("a", 33)
    assert (kv.length("a"), kv.used_bytes) == (33, 3 * kv.page_bytes)
    kv.check()


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


@pytest.mark.parametrize("layout", LAYOUTS)
def test_tokens_beyond_the_reservation_are_refused_and_change_nothing(layout: str) -> None:
    kv = store(layout)
    kv.open("a", 10)
    append(kv, "a", 10, 0)
    kv.commit("a", 10)
    with pytest.raises(Exhausted, match="opened for 10 tokens and cannot hold 11"):
        kv.write("a", 3, *new_tokens(3, 1, 1))
    assert kv.length("a") == 10
    kv.check()


@pytest.mark.parametrize("layout", LAYOUTS)
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
def test_wrong_calls_are_named(call: Any, error: type[Exception], layout: str) -> None:
    kv = store(layout)
    kv.open("a", 20)
    append(kv, "a", 4, 0)
    kv.commit("a", 4)
    with pytest.raises(error):
        call(kv)
    assert kv.length("a") == 4
    kv.check()


@pytest.mark.parametrize("kv", [ContiguousKV({}, 0, dtype=torch.float32), PagedKV({}, 0, dtype=torch.float32, longest_tokens=1000)])
def test_a_stage_without_layers_still_counts_tokens(kv: KVStore[Any]) -> None:
    kv.open("a", 1000)
    kv.commit("a", 7)
    assert (kv.length("a"), kv.reserved_bytes) == (7, 0)
    with pytest.raises(Exhausted):
        kv.commit("a", 1001)


def test_pages_that_are_full_are_shared_and_count_once() -> None:
    kv = store("pages of 16")
    assert isinstance(kv, PagedKV)
    kv.open("a", 64)
    append(kv, "a", 40, 1)
    kv.commit("a", 40)
    kv.keep("a", 1, 40)
    assert (kv.kept_bytes, kv.held_bytes, kv.reserved_bytes) == (3 * kv.page_bytes, 3 * kv.page_bytes, 0)
    for name in "ab":
        kv.take_over(name, 64, Taken(1, 40, b""))
    assert kv.held_bytes == (3 + 2) * kv.page_bytes, "two full pages for all, and one that is not full for each"
    with pytest.raises(InvalidInput, match="other sessions read"):
        kv.truncate("a", 20)
    kv.drop(1)
    kv.check()
    assert (kv.kept_bytes, kv.held_bytes) == (0, (2 + 2) * kv.page_bytes)
    kv.close("a")
    kv.close("b")
    kv.check()
    assert (kv.held_bytes, kv.allotted_bytes) == (0, 0)


def test_full_pages_of_an_open_session_are_shared_and_nobody_writes_there_any_more() -> None:
    kv = store("pages of 16")
    assert isinstance(kv, PagedKV)
    kv.open("a", 64)
    append(kv, "a", 40, 1)
    kv.commit("a", 40)
    kv.take_over("b", 64, Taken(0, 40, b"", session_id="a"))
    assert kv.held_bytes == (2 + 1 + 1) * kv.page_bytes
    for name in "ab":
        with pytest.raises(InvalidInput, match="other sessions read"):
            kv.truncate(name, 20)
        kv.truncate(name, 32)
    kv.close("a")
    kv.check()
    assert kv.held_bytes == 2 * kv.page_bytes and kv.length("b") == 32


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_is_kept_never_keeps_a_session_out(layout: str) -> None:
    kv = store(layout)
    for serial, name in enumerate("abc"):
        kv.open(name, MAX_TOKENS)
        append(kv, name, 100, serial)
        kv.commit(name, 100)
    for serial, name in enumerate("abc"):
        kv.keep(name, serial, 96)
    assert kv.kept_ids == (0, 1, 2)
    for name in "abc":
        kv.open(name, MAX_TOKENS)
        kv.check()
    assert kv.kept_bytes == 0
