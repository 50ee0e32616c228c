"""Tokenizers from the files that makers ship without a tokenizer.json: the ids are those of transformers, and of sentencepiece."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import AutoTokenizer

from engine.data.errors import Corrupt
from engine.service.coordinator.text.codec import TextCodec

CORPUS = [line for path in sorted(Path(__file__).parent.glob("test_*.py")) for line in path.read_text().splitlines() if line.strip()]
ALPHABET = [*"abcdefgh éß漢字😀 \n\t.,'\"0123", "  ", "I'm", "<|im_start|>", "می\u200cخواهم", "\u00a0!", "全\u3000角", "👩\u200d👧"]
BYTES = [f"<0x{b:02X}>" for b in range(256)]


def texts() -> Iterator[str]:
    choose = random.Random(7)
    yield from ("", " ", "hi", " hi", "two  spaces ", "\n\n")
    for _ in range(200):
        yield "".join(choose.choice(ALPHABET) for _ in range(choose.randrange(25)))
        yield choose.choice(CORPUS)[: choose.randrange(60)]


def configure(folder: Path, model_type: str, **options: Any) -> Path:
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    (folder / "tokenizer_config.json").write_text(json.dumps(options))
    return folder


def train_pieces(folder: Path, **options: Any) -> sentencepiece.SentencePieceProcessor:
    """As Llama's and Gemma's makers trained theirs, unless the options say otherwise."""
    llama = {"normalization_rule_name": "identity", "remove_extra_whitespaces": False, "split_digits": True, "byte_fallback": True}
    llama |= {"model_type": "bpe", "allow_whitespace_only_pieces": True, "vocab_size": 700, "minloglevel": 2}
    prefix = str(folder / "tokenizer")
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(CORPUS), model_prefix=prefix, **(llama | options))
    return sentencepiece.SentencePieceProcessor(model_file=f"{prefix}.model")


def byte_level(folder: Path, special: list[str]) -> None:
    """`vocab.json` and `merges.txt` of 600 tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=special, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.model.save(str(folder))


def assert_like_transformers(folder: Path) -> None:
    codec, theirs = TextCodec(folder), AutoTokenizer.from_pretrained(folder)
    assert not codec.stand_in
    for text in texts():
        token_ids = theirs.encode(text)
        assert list(codec.encode(text)) == token_ids, text
        assert codec.decode(token_ids) == theirs.decode(token_ids, skip_special_tokens=True)


OPT = {"add_bos_token": True, "bos_token": "</s>", "eos_token": "</s>", "unk_token": "</s>"}
QWEN = {"eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
QWEN |= {"added_tokens_decoder": {str(600 + i): {"content": f"<|{n}|>", "special": True} for i, n in enumerate(("endoftext", "im_start"))}}


@pytest.mark.parametrize(
    ("model_type", "options", "special"),
    [
        ("gpt2", {"tokenizer_class": "GPT2Tokenizer"}, ["<|endoftext|>"]),
        ("gpt2", {}, ["<|endoftext|>"]),
        ("gpt2", {"tokenizer_class": "GPT2TokenizerFast", "add_prefix_space": True}, ["<|endoftext|>"]),
        ("opt", {"tokenizer_class": "GPT2Tokenizer", **OPT}, ["<s>", "<pad>", "</s>"]),
        ("qwen2", {"tokenizer_class": "Qwen2Tokenizer", **QWEN}, []),
    ],
)
def test_vocab_and_merges_give_the_ids_of_transformers(
    tmp_path: Path, model_type: str, options: dict[str, Any], special: list[str]
) -> None:
    byte_level(tmp_path, special)
    assert_like_transformers(configure(tmp_path, model_type, **options))
    assert TextCodec(tmp_path).source == "vocab.json and merges.txt"


GEMMA = {"add_dummy_prefix": False, "pad_id": 0, "eos_id": 1, "bos_id": 2, "unk_id": 3, "pad_piece": "<pad>", "bos_piece": "<bos>"}
GEMMA |= {"eos_piece": "<eos>", "user_defined_symbols": ["<mask>", "\n\n", "\u2581\u2581", "\u2581\u2581\u2581", "<start_of_turn>"]}
ADDED = {"700": {"content": "<|im_start|>", "special": True, "normalized": False}}


@pytest.mark.parametrize(
    "options",
    [
        {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True},
        {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True, "add_eos_token": True, "legacy": False},
        {"tokenizer_class": "LlamaTokenizerFast", "add_bos_token": False, "added_tokens_decoder": ADDED},
        {"add_bos_token": False},
    ],
)
def test_pieces_give_the_ids_of_transformers(tmp_path: Path, options: dict[str, Any]) -> None:
    train_pieces(tmp_path)
    assert_like_transformers(configure(tmp_path, "llama", **options))
    assert TextCodec(tmp_path).source == "tokenizer.model"


def test_pieces_that_users_defined_stay_whole_as_in_sentencepiece(tmp_path: Path) -> None:
    """Not as in transformers, which cuts four spaces into two and two where a piece of three is defined."""
    theirs = train_pieces(tmp_path, **GEMMA)
    codec = TextCodec(configure(tmp_path, "gemma", tokenizer_class="GemmaTokenizer"))
    assert len([i for i in codec.encode("    a\n\nb<start_of_turn>c") if 4 <= i < 9]) == 3
    for text in texts():
        assert list(codec.encode(text)) == [2, *theirs.encode(text)], text


RULES = [{}, {"normalization_rule_name": "nmt_nfkc", "remove_extra_whitespaces": True}, {"add_dummy_prefix": False}]


@pytest.mark.parametrize("byte_fallback", [True, False])
@pytest.mark.parametrize("kind", ["bpe", "unigram"])
@pytest.mark.parametrize("more", RULES)
def test_pieces_give_the_ids_of_sentencepiece(tmp_path: Path, kind: str, byte_fallback: bool, more: dict[str, Any]) -> None:
    theirs = train_pieces(tmp_path, model_type=kind, byte_fallback=byte_fallback, **more)
    codec = TextCodec(configure(tmp_path, "llama", add_bos_token=False, legacy=True))
    assert not codec.stand_in
    for text in texts():
        found, wanted = list(codec.encode(text)), theirs.encode(text)
        assert found == wanted or (kind == "unigram" and same_score(theirs, found, wanted)), text


def same_score(pieces: sentencepiece.SentencePieceProcessor, found: list[int], wanted: list[int]) -> bool:
    """Of two ways to cut a run of equal characters that are worth the same, either may be taken."""
    return sorted(found) == sorted(wanted) and pieces.decode(found) == pieces.decode(wanted)


def test_a_prompt_begins_with_bos_unless_the_folder_says_otherwise(tmp_path: Path) -> None:
    train_pieces(tmp_path)
    assert TextCodec(configure(tmp_path, "llama", tokenizer_class="LlamaTokenizer")).encode("a")[0] == 1
    assert TextCodec(configure(tmp_path, "llama", tokenizer_class="LlamaTokenizer", add_bos_token=False)).encode("a")[0] != 1


@pytest.mark.parametrize(
    ("model_type", "options", "why"),
    [
        ("xglm", {}, "tokenizer.model of model type 'xglm' cannot be read"),
        ("llama", {"tokenizer_class": "XGLMTokenizer"}, "tokenizer.model of the tokenizer class XGLMTokenizer cannot be read"),
        ("llama", {"added_tokens_decoder": {"900": {"content": "<far>"}}}, "'<far>' has id 900, but its vocabulary leads to 700"),
    ],
)
def test_what_would_give_other_ids_is_not_guessed(tmp_path: Path, model_type: str, options: dict[str, Any], why: str) -> None:
    train_pieces(tmp_path)
    codec = TextCodec(configure(tmp_path, model_type, **options))
    assert why in codec.stand_in and codec.encode("hi") == (104, 105)


def test_a_vocabulary_of_an_unknown_class_is_not_guessed(tmp_path: Path) -> None:
    byte_level(tmp_path, [])
    assert "class CTRLTokenizer cannot be read" in TextCodec(configure(tmp_path, "ctrl", tokenizer_class="CTRLTokenizer")).stand_in


def test_settings_of_sentencepiece_that_are_not_followed_are_said(tmp_path: Path) -> None:
    train_pieces(tmp_path, normalization_rule_name="nmt_nfkc", user_defined_symbols=["\n\n"])
    assert "normalizes its own piece '\\n\\n'" in TextCodec(configure(tmp_path, "llama")).stand_in


def test_a_folder_without_a_tokenizer_says_what_it_looked_for(tmp_path: Path) -> None:
    (tmp_path / "tekken.json").write_text("{}")
    found = TextCodec(tmp_path).stand_in
    assert "no tokenizer.json, no vocab.json with merges.txt and no tokenizer.model; tekken.json cannot be read here" in found


@pytest.mark.parametrize(
    ("files", "named"),
    [
        ({"vocab.json": "{", "merges.txt": ""}, "merges.txt"),
        ({"vocab.json": "{}", "merges.txt": "#version: 0.2\na b\n"}, "merges.txt"),
        ({"vocab.json": "{}", "merges.txt": "", "tokenizer_config.json": "["}, "tokenizer_config.json"),
        ({"vocab.json": "{}", "merges.txt": "", "added_tokens.json": '{"a": "x"}'}, "invalid literal"),
        ({"tokenizer.model": "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"}, "tokenizer.model"),
        ({"tokenizer.model": ""}, "tokenizer.model"),
    ],
)
def test_damaged_files_are_named(tmp_path: Path, files: dict[str, str], named: str) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(Corrupt, match=named):
        TextCodec(tmp_path)
