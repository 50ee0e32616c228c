"""Text streams: pieces that together are the decoding of all tokens, stop strings across tokens, and the byte-level stand-in."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

from engine.data.errors import Corrupt
from engine.service.coordinator.text.codec import TextCodec, TextStream

CODEC = TextCodec(Path("/no/such/folder"))
BYTES = tuple(f"<0x{b:02X}>" for b in range(256))
WORDS = ("\u2581", "a", "b", "\u2581a", "\u2581the", "世", "é", "<0xzz>", "\ufffd", "\u2581\u2581")


def _byte_fallback(folder: Path, *, strips: bool) -> TextCodec:
    """As of Llama-2, Mistral (which strip the first space) and Gemma."""
    vocabulary = {token: i for i, token in enumerate(("<unk>", "<s>", "</s>", *BYTES, *WORDS))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Replace(" ", "\u2581")
    steps = [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)] if strips else steps)
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in ("<unk>", "<s>", "</s>")])
    return _saved(tokenizer, folder)


def _byte_level(folder: Path) -> TextCodec:
    """As of GPT-2."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = ("Ġthe", "ĠðŁ", "ĺĢ", "Ã©", "<|end|>")
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate((*alphabet, *words))}, merges=[]))
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken("<|end|>", special=True)])
    return _saved(tokenizer, folder)


def _word_piece(folder: Path) -> TextCodec:
    vocabulary = {token: i for i, token in enumerate(("[UNK]", "the", "##re", ".", "'", "s", "n't", "##é"))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.decoder = decoders.WordPiece()
    return _saved(tokenizer, folder)


def _unigram(folder: Path) -> TextCodec:
    scored = [("<unk>", 0.0), *((word, -float(i)) for i, word in enumerate(WORDS))]
    tokenizer = Tokenizer(models.Unigram(scored, unk_id=0))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    return _saved(tokenizer, folder)


def _saved(tokenizer: Tokenizer, folder: Path) -> TextCodec:
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    return TextCodec(folder)


@pytest.fixture(scope="module")
def codecs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, TextCodec]:
    folder = tmp_path_factory.mktemp("tokenizers")
    return {
        "llama": _byte_fallback(folder / "llama", strips=True),
        "gemma": _byte_fallback(folder / "gemma", strips=False),
        "gpt2": _byte_level(folder / "gpt2"),
        "bert": _word_piece(folder / "bert"),
        "unigram": _unigram(folder / "unigram"),
        "bytes": CODEC,
    }


def streamed(stream: TextStream, token_ids: list[int]) -> str:
    """All that a client gets of an answer that ends after these tokens, or at a stop string before."""
    shown = ""
    for token_id in token_ids:
        if stream.stopped:
            break
        will_stop = stream.would_stop([token_id])
        shown += stream.push(token_id)
        assert stream.stopped == will_stop
    return shown + stream.flush()


NAMES = ("llama", "gemma", "gpt2", "bert", "unigram", "bytes")
UTF8_BYTES = st.text("é世😀a", min_size=1, max_size=3).map(
    lambda text: [3 + b for b in text.encode()]
)  # ids in the byte-fallback vocabulary
TOKENS = st.lists(st.lists(st.integers(0, 280), max_size=3) | UTF8_BYTES, max_size=12).map(
    lambda parts: [i for part in parts for i in part]
)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=200, deadline=None)
@given(token_ids=TOKENS)
def test_what_a_client_gets_is_the_decoding_of_all_tokens(codecs: dict[str, TextCodec], name: str, token_ids: list[int]) -> None:
    codec = codecs[name]
    assert streamed(TextStream(codec, ()), token_ids) == codec.decode(token_ids)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=150, deadline=None)
@given(token_ids=TOKENS, stops=st.lists(st.text("abé世😀 e", min_size=1, max_size=3), min_size=1, max_size=3))
def test_a_stop_string_cuts_the_decoding(codecs: dict[str, TextCodec], name: str, token_ids: list[int], stops: list[str]) -> None:
    """Of the tokens until then: the first after which the text holds a stop string is the last."""
    codec = codecs[name]
    stream, used = TextStream(codec, tuple(stops)), list[int]()
    shown = ""
    for token_id in token_ids:
        used.append(token_id)
        shown += stream.push(token_id)
        if stream.stopped:
            break
    shown += stream.flush()
    whole = codec.decode(used)
    found = [i for i in (whole.find(s) for s in stops) if i >= 0]
    assert shown == (whole[: min(found)] if found else whole)
    assert stream.stopped == bool(found)


def test_a_prefix_that_the_library_calls_invalid_is_text_all_the_same(codecs: dict[str, TextCodec]) -> None:
    """Bytes that are UTF-8, then one that is not: the library's DecodeStream raises here, and its decode has four U+FFFD."""
    token_ids = [259, 3 + 0xC3, 3 + 0xA9, 3 + 0xC3, 3 + 0xFF, 260]
    assert streamed(TextStream(codecs["llama"], ()), token_ids) == "\ufffd\ufffd\ufffd\ufffda"


def test_an_answer_that_ends_inside_a_character_shows_it(codecs: dict[str, TextCodec]) -> None:
    assert streamed(TextStream(CODEC, ()), list("go 😀".encode()[:-2])) == "go \ufffd"
    assert streamed(TextStream(codecs["llama"], ()), [260, *(3 + b for b in "😀".encode()[:-2])]) == "a\ufffd\ufffd"


def test_a_run_of_bytes_waits_only_until_it_is_over(codecs: dict[str, TextCodec]) -> None:
    stream = TextStream(codecs["gemma"], ())
    assert [stream.push(i) for i in (260, 3 + 0xC3, 3 + 0xA9, 261)] == ["a", "", "", "éb"]


def test_a_stop_string_in_bytes_needs_no_token_behind_it(codecs: dict[str, TextCodec]) -> None:
    stream = TextStream(codecs["llama"], ("é",))
    assert [stream.push(i) for i in (260, 3 + 0xC3, 3 + 0xA9)] == ["a", "", ""] and stream.stopped and stream.flush() == ""


@settings(max_examples=300)
@given(st.text())
def test_the_stand_in_maps_bytes_to_ids_and_back(text: str) -> None:
    ids = CODEC.encode(text)
    assert bytes(ids) == text.encode()
    assert streamed(TextStream(CODEC, ()), list(ids)) == text


@settings(max_examples=500)
@given(st.text(alphabet="ab<e", max_size=30), st.lists(st.text(alphabet="ab<e", min_size=1, max_size=4), max_size=3))
def test_text_ends_before_the_first_stop_string_whatever_the_tokens_were(text: str, stops: list[str]) -> None:
    stream = TextStream(CODEC, tuple(stops))
    shown = streamed(stream, list(CODEC.encode(text)))
    # A stop string counts when it is complete: the one that ends first wins, and among those the one that begins first.
    ends = [(text.find(s) + len(s), text.find(s)) for s in stops if s in text]
    assert stream.stopped == bool(ends)
    assert shown == (text[: min(ends)[1]] if ends else text)


@settings(max_examples=300)
@given(st.text(alphabet="ab<e", max_size=20), st.lists(st.text(alphabet="ab<e", min_size=1, max_size=3), max_size=2), st.integers(0, 22))
def test_stop_strings_count_only_in_what_follows_the_least_number_of_tokens(text: str, stops: list[str], min_tokens: int) -> None:
    stream = TextStream(CODEC, tuple(stops), min_tokens)
    before, behind = text[:min_tokens], TextStream(CODEC, tuple(stops))
    assert streamed(stream, list(CODEC.encode(text))) == before + streamed(behind, list(CODEC.encode(text[min_tokens:])))
    assert stream.stopped == behind.stopped


@given(st.text(alphabet="tesh é世😀\n"))
def test_what_tokens_stand_for_is_the_text_byte_by_byte(text: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        codec = _byte_level(Path(folder) / "bytes")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    written = "".join(part for part, _ in pre_tokenizers.ByteLevel(add_prefix_space=False).pre_tokenize_str(text))
    assert b"".join(codec.spelling(alphabet.index(character)) for character in written) == text.encode()


def test_tokens_are_spelled_with_their_spaces_their_bytes_and_their_marks(codecs: dict[str, TextCodec]) -> None:
    assert [codecs["llama"].spelling(i) for i in (1, 3 + 0xE9, 263, 259, 265)] == [b"<s>", b"\xe9", b" the", b" ", "é".encode()]
    assert (codecs["gpt2"].spelling(256), codecs["gpt2"].spelling(260), codecs["gpt2"].spelling(99_999)) == (b" the", b"<|end|>", b"")
    assert (CODEC.spelling(195), CODEC.spelling(300)) == (b"\xc3", b"<300>")


def test_ids_beyond_the_bytes_show_as_numbers() -> None:
    stream = TextStream(CODEC, ())
    assert [stream.push(i) for i in (104, 300, 195, 169, 195, 301)] == ["h", "<300>", "", "é", "", "\ufffd<301>"]


@pytest.mark.parametrize(
    ("content", "said"),
    [("version https://git-lfs.github.com/spec/v1\nsize 9\n", "git lfs pull"), ("<!DOCTYPE html><html>", "is a web page")],
)
@pytest.mark.parametrize("names", [("tokenizer.json",), ("vocab.json", "merges.txt"), ("merges.txt", "vocab.json"), ("tokenizer.model",)])
def test_a_tokenizer_that_is_something_else_is_called_that(names: tuple[str, ...], content: str, said: str, tmp_path: Path) -> None:
    for name in names:
        (tmp_path / name).write_text(content if name == names[0] else '{"a": 0}')
    with pytest.raises(Corrupt, match=f"{names[0]} .*{said}"):
        TextCodec(tmp_path)


def test_a_damaged_tokenizer_is_named(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(Corrupt, match=r"tokenizer\.json cannot be read"):
        TextCodec(tmp_path)
