"""Model cards: what they say, that they survive JSON, and that reading one costs no torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.data.errors import Corrupt, InvalidInput
from engine.data.model import Item, ModelCard, ModelRef
from engine.data.precision import DTYPE_BYTES, MemoryChoice, Precision
from engine.model.sources import card as card_file
from engine.model.sources.card import (
    cached_card,
    describe,
    from_json,
    prepare,
    prepare_choices,
    ready_card,
    ready_cards,
    store_card,
    to_json,
)

TINY = ModelRef("gpt2:tiny", random_weights=0)
sizes = st.integers(0, 2**40)
items = st.builds(Item, st.text(), sizes, sizes, sizes, st.none() | st.integers(0, 100), sizes)
cards = st.builds(
    ModelCard,
    ref=st.builds(ModelRef, st.text(), st.none() | sizes, st.sampled_from(["float32", "bfloat16"])),
    folder=st.text(),
    fingerprint=st.text(),
    architecture=st.text(),
    items=st.lists(items, max_size=5).map(tuple),
    hidden_size=sizes,
    vocab_size=sizes,
    context_tokens=sizes,
    eos_token_ids=st.lists(sizes, max_size=3).map(tuple),
    bos_token_id=st.none() | sizes,
    num_parameters=sizes,
    stored_dtype=st.sampled_from(["", "float32", "bfloat16"]),
    choices=st.lists(st.builds(MemoryChoice, st.text(), sizes, sizes), max_size=4).map(tuple),
)


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that holds the tiny GPT-2 and its card."""
    folder = tmp_path_factory.mktemp("cache")
    prepare(TINY, folder)
    return folder


@given(cards)
def test_json_gives_the_same_card_back(card: ModelCard) -> None:
    assert from_json(to_json(card)) == card


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", '{"ref": 3}', '{"ref": {"model": "a"}, "items": [{"nme": 1}]}'])
def test_what_is_not_a_card_is_corrupt(text: str) -> None:
    with pytest.raises(Corrupt, match="not a model card"):
        from_json(text)


def test_the_card_says_what_the_model_is(cache_dir: Path) -> None:
    card = prepare(TINY, cache_dir)
    assert (card.ref, card.architecture, card.num_items) == (TINY, "GPT2LMHeadModel", 6)
    assert (card.hidden_size, card.vocab_size, card.context_tokens) == (64, 512, 1024)
    assert (card.eos_token_ids, card.stand_in_tokenizer) == ((), "")
    embed, block, head = card.items[0], card.items[1], card.items[-1]
    tied_bytes = 512 * 64 * 4
    assert embed.tied_to == 5 and head.tied_to == 0 and embed.tied_bytes == head.tied_bytes == tied_bytes
    assert block.kv_bytes_per_token == 2 * 64 * 4
    assert sum(item.weight_bytes for item in card.items) - tied_bytes == 4 * card.num_parameters
    kv_bytes = 4 * block.kv_bytes_per_token
    assert card.precision == Precision("float32", "float32", 4 * card.num_parameters, "float32", kv_bytes, card.choices)


@pytest.mark.parametrize("model", ["gpt2:tiny", "llama:tiny"])  # a tied head, and one of its own
def test_the_memory_of_each_dtype_is_what_a_card_in_that_dtype_says(model: str, cache_dir: Path) -> None:
    folder = Path(prepare(ModelRef(model, random_weights=0), cache_dir).folder)
    for computed in DTYPE_BYTES:
        card = describe(folder, ModelRef(model, dtype=computed))
        for choice in card.choices:
            other = describe(folder, ModelRef(model, dtype=choice.dtype, kv_dtype=choice.dtype))
            assert (choice.weight_bytes, choice.kv_bytes_per_token) == (other.precision.weight_bytes, other.precision.kv_bytes_per_token)
    assert [choice.dtype for choice in card.choices] == list(DTYPE_BYTES)


def test_auto_is_described_in_each_dtype_that_it_may_stand_for_from_one_folder(cache_dir: Path) -> None:
    ref = ModelRef("llama:tiny", random_weights=0, dtype="auto")
    cards = prepare_choices(ref, cache_dir)
    assert [card.ref.dtype for card in cards] == ["float32", "bfloat16"]
    assert len({(card.folder, card.fingerprint) for card in cards}) == 1
    assert cards[1].precision.weight_bytes * 2 == cards[0].precision.weight_bytes
    assert ready_cards(ref, cache_dir) == cards


def test_the_stored_dtype_is_that_of_most_bytes_whatever_is_computed(tmp_path: Path) -> None:
    stored = prepare(ModelRef("gpt2:tiny", random_weights=0, dtype="bfloat16"), tmp_path)
    card = describe(Path(stored.folder), ModelRef(stored.folder, dtype="float32"))
    assert (stored.stored_dtype, card.stored_dtype) == ("bfloat16", "bfloat16")
    assert card.precision.sentence.startswith("stored as bfloat16, computed as float32: `--dtype bfloat16` halves ")


def test_a_cached_card_is_not_described_again(cache_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = prepare(TINY, cache_dir)
    monkeypatch.setattr(card_file, "describe", lambda *_: pytest.fail("described a model whose card is cached"))
    assert prepare(TINY, cache_dir) == expected


def test_the_same_folder_under_another_name_keeps_its_card(cache_dir: Path) -> None:
    ref = ModelRef(prepare(TINY, cache_dir).folder)
    card = ready_card(ref, cache_dir)
    assert card == replace(prepare(TINY, cache_dir), ref=ref)


@pytest.mark.parametrize("change", ["touch", "weights", "library", "damage", "dtype", "kv_dtype"])
def test_a_card_no_longer_holds_when_something_changed(change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    card = ModelCard(ModelRef("m"), str(folder), "", "", (), 1, 1, 1, (), None, 0)
    store_card(card, tmp_path)
    assert cached_card(folder, card.ref, tmp_path) == card
    ref = card.ref
    if change == "touch":
        os.utime(folder / "config.json", ns=(1, 1))
    elif change == "weights":
        (folder / "model.safetensors").write_bytes(b"")
    elif change == "library":
        monkeypatch.setattr(card_file.metadata, "version", lambda name: f"9.{name}")
    elif change == "damage":
        next((tmp_path / "cards").iterdir()).write_text('{"key": ')
    else:
        ref = replace(ref, **{change: "bfloat16"})  # type: ignore[arg-type]
    assert cached_card(folder, ref, tmp_path) is None


def test_generation_settings_name_the_end_tokens(cache_dir: Path, tmp_path: Path) -> None:
    source = Path(prepare(TINY, cache_dir).folder)
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((source / name).read_bytes())
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [7, 9, 7]}))
    card = describe(tmp_path, ModelRef(str(tmp_path)))
    assert card.eos_token_ids == (7, 9)
    assert card.fingerprint == prepare(TINY, cache_dir).fingerprint


def test_ready_card_waits_for_nothing_but_refuses_nonsense(tmp_path: Path) -> None:
    assert ready_card(ModelRef("llama:tiny", random_weights=1), tmp_path) is None
    assert not (tmp_path / "random").exists()
    with pytest.raises(InvalidInput, match="--random-weights 0"):
        ready_card(ModelRef("llama:tiny"), tmp_path)


def test_preparing_a_known_model_imports_no_torch(cache_dir: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from engine.data.model import ModelRef; import engine.model.sources.card as c\n"
        "card = c.prepare(ModelRef('gpt2:tiny', 0), Path(sys.argv[1]))\n"
        "print(card.num_items, [m for m in ('torch', 'transformers', 'numpy', 'grpc', 'huggingface_hub') if m in sys.modules])"
    )
    output = subprocess.run([sys.executable, "-c", program, str(cache_dir)], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "6 []"
