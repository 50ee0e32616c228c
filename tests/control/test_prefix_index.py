"""The index of kept keys and values against lists: longest common beginning, what was used longest ago, the room."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.control.sessions.reuse.prefix_cache import PrefixCache, PrefixSettings
from engine.control.sessions.reuse.prefix_index import PrefixIndex
from engine.control.sessions.session import Reuse, Session
from engine.data.generation import GenerateRequest

MAX_ENTRIES = 4
chains = st.lists(st.sampled_from((b"a", b"b")), max_size=5)


def keys(chain: list[bytes]) -> tuple[bytes, ...]:
    """As real keys do, each stands for all blocks up to its own."""
    return tuple(b"".join(chain[: i + 1]) for i in range(len(chain)))


@dataclass
class Naive:
    """What the index must know: ids and chains, the least recently used first."""

    entries: list[tuple[int, list[bytes]]] = field(default_factory=list)

    def num_common(self, chain: list[bytes]) -> dict[int, int]:
        """Of each entry, with how many blocks it begins as `chain` does."""
        return {i: max(n for n in range(len(c) + 1) if c[:n] == chain[:n]) for i, c in self.entries}

    def touch(self, kept_id: int) -> None:
        self.entries.sort(key=lambda e: e[0] == kept_id)

    def add(self, kept_id: int, chain: list[bytes]) -> tuple[bool, set[int]]:
        covering = [i for i, c in self.entries if c[: len(chain)] == chain]
        if not chain or covering:
            if chain:
                self.touch(max(covering))
            return False, set()
        shorter = {i for i, c in self.entries if chain[: len(c)] == c}
        self.entries = [e for e in self.entries if e[0] not in shorter] + [(kept_id, chain)]
        return True, shorter

    def evict(self, most: int, spared: set[int]) -> list[int]:
        gone = []
        while sum(len(c) for _, c in self.entries) > most or len(self.entries) > MAX_ENTRIES:
            one = next((i for i, _ in self.entries if i not in spared), None)
            if one is None:
                break
            gone.append(one)
            self.entries = [e for e in self.entries if e[0] != one]
        return gone


steps = st.lists(
    st.tuples(st.sampled_from(("add", "add", "add", "longest", "evict", "remove")), chains, st.integers(0, 12), st.booleans()), max_size=40
)


@settings(max_examples=300, deadline=None)
@given(steps)
def test_any_history_equals_lists(history: list[tuple[str, list[bytes], int, bool]]) -> None:
    index, naive = PrefixIndex(MAX_ENTRIES), Naive()
    for number, (what, chain, amount, flag) in enumerate(history):
        if what == "add":
            added, shorter = index.add(number, keys(chain))
            assert (added, set(shorter)) == naive.add(number, chain)
        elif what == "remove":
            index.remove(amount)
            naive.entries = [e for e in naive.entries if e[0] != amount]
        elif what == "evict":
            spared = {naive.entries[0][0]} if flag and naive.entries else set()
            assert index.evict(amount, spared) == naive.evict(amount, spared)
        else:
            found, common = index.longest(keys(chain)), naive.num_common(chain)
            most = max(common.values(), default=0)
            if found is None:
                assert most == 0
            else:
                entry, num_blocks = found
                best = [len(c) for i, c in naive.entries if common[i] == most]
                assert (num_blocks, common[entry.kept_id], len(entry.keys)) == (most, most, min(best))
                if flag:
                    index.touch(entry.kept_id)
                    naive.touch(entry.kept_id)
        index.check()
        assert index.num_blocks == sum(len(c) for _, c in naive.entries)


def ended(cache: PrefixCache, name: str, caller: bytes, tokens: list[int]) -> bool:
    session = Session(name, tuple(tokens), GenerateRequest(prompt_ids=tuple(tokens)), 0.0, 8, reuse=Reuse(caller))
    session.num_sent = session.num_landed = len(tokens)
    return cache.ended(session, is_sound=True)


def begins_with(cache: PrefixCache, caller: bytes, tokens: list[int], room: int = 1000) -> int:
    session = Session("new", tuple(tokens), GenerateRequest(prompt_ids=tuple(tokens)), 0.0, 8, reuse=Reuse(caller))
    cache.admitted(session, room)
    cache.check()
    return session.reuse.pending.num_tokens if session.reuse.pending is not None else 0


def runs(cache: PrefixCache, session_id: str, caller: bytes, tokens: list[int], num_landed: int) -> None:
    session = Session(session_id, tuple(tokens), GenerateRequest(prompt_ids=tuple(tokens)), 0.0, 8, reuse=Reuse(caller))
    cache.admitted(session, 1000)
    session.reuse.take()
    session.num_sent = session.num_landed = min(num_landed, len(tokens))


callers = st.sampled_from((b"one", b"two", b""))
prompts = st.lists(st.integers(0, 1), min_size=1, max_size=9)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(callers, prompts), max_size=12),
    st.lists(st.tuples(callers, prompts, st.integers(0, 9)), max_size=4),
    callers,
    prompts,
    prompts,
)
def test_a_prompt_begins_with_the_most_that_its_caller_may_have(
    past: list[tuple[bytes, list[int]]], present: list[tuple[bytes, list[int], int]], caller: bytes, prompt: list[int], shared: list[int]
) -> None:
    """Whole blocks of the caller's own past and of prompts of its own that run, and of everybody's where they lie in what is declared
    shared; never the last token."""
    size, cache = 2, PrefixCache(PrefixSettings(is_on=True, block_tokens=2))
    cache.shared = (tuple(shared),)
    for number, (who, tokens) in enumerate(past):
        ended(cache, f"s{number}", who, tokens)
    for number, (who, tokens, num_landed) in enumerate(present):
        runs(cache, f"r{number}", who, tokens, num_landed)
    best = 0
    for who, tokens in [*past, *((who, tokens[:-1][:num_landed]) for who, tokens, num_landed in present)]:
        for stop in range(size, len(prompt), size):
            may = who == caller or prompt[:stop] == shared[:stop]
            if who and caller and may and tokens[:stop] == prompt[:stop]:
                best = max(best, stop)
    assert begins_with(cache, caller, prompt) == best


def test_nothing_is_kept_of_a_session_that_failed_or_while_it_is_off() -> None:
    tokens = list(range(8))
    cache = PrefixCache(PrefixSettings(is_on=False, block_tokens=2))
    assert not ended(cache, "s", b"one", tokens) and begins_with(cache, b"one", tokens) == 0
    cache = PrefixCache(PrefixSettings(is_on=True, block_tokens=2))
    session = Session("s", tuple(tokens), GenerateRequest(prompt_ids=tuple(tokens)), 0.0, 8, reuse=Reuse(b"one"))
    session.num_sent = session.num_landed = 8
    assert not cache.ended(session, is_sound=False) and len(cache) == 0


def test_a_conversation_that_goes_on_leaves_one_entry_and_room_is_taken_from_what_is_oldest() -> None:
    cache = PrefixCache(PrefixSettings(is_on=True, block_tokens=2))
    ended(cache, "turn 1", b"one", [1, 2, 3, 4])
    ended(cache, "other", b"one", [9, 9, 9, 9])
    ended(cache, "turn 2", b"one", [1, 2, 3, 4, 5, 6])
    assert len(cache) == 2 and cache.num_tokens == 10
    kept, dropped = cache.take_orders()
    assert [k.kept_id for k in kept] == [1, 2, 3] and dropped == (1,)
    cache.fit(6)
    assert cache.take_orders() == ((), (2,)) and cache.counts.evictions == 1
    assert begins_with(cache, b"one", [1, 2, 3, 4, 5, 6, 7], room=6) == 6
    assert cache.num_tokens == 6


def test_where_a_copy_has_no_room_the_session_takes_over_what_is_kept() -> None:
    cache = PrefixCache(PrefixSettings(is_on=True, block_tokens=2))
    ended(cache, "turn 1", b"one", [1, 2, 3, 4])
    ended(cache, "other", b"one", [9, 9, 9, 9])
    assert begins_with(cache, b"one", [1, 2, 3, 4, 5], room=5) == 4
    assert cache.num_tokens == 4, "the other one stays: nothing else had to go"
    assert cache.counts.evictions == 0
