"""Text streams: bytes in pieces, stop strings across tokens, and the byte-level stand-in."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.data.errors import Corrupt
from engine.service.coordinator.text import TextCodec, TextStream

CODEC = TextCodec(Path("/no/such/folder"))


@settings(max_examples=300)
@given(st.text())
def test_the_stand_in_maps_bytes_to_ids_and_back(text: str) -> None:
    ids = CODEC.encode(text)
    assert bytes(ids) == text.encode()
    stream = TextStream(CODEC, ())
    assert "".join(stream.push(i) for i in ids) + stream.flush() == text


@settings(max_examples=500)
@given(st.text(alphabet="ab<e", max_size=30), st.lists(st.text(alphabet="ab<e", min_size=1, max_size=4), max_size=3))
def test_text_ends_before_the_first_stop_string_whatever_the_tokens_were(text: str, stops: list[str]) -> None:
    stream, shown = TextStream(CODEC, tuple(stops)), ""
    for token_id in CODEC.encode(text):
        shown += stream.push(token_id)
        if stream.stopped:
            break
    shown += stream.flush()
    found = [text.find(s) for s in stops if s in text]
    # A stop string counts when it is complete: the one that ends first wins, and among those the one that begins first.
    ends = [(text.find(s) + len(s), text.find(s)) for s in stops if s in text]
    assert stream.stopped == bool(found)
    assert shown == (text[: min(ends)[1]] if ends else text)


def test_ids_beyond_the_bytes_show_as_numbers() -> None:
    stream = TextStream(CODEC, ())
    assert [stream.push(i) for i in (104, 300, 195, 169)] == ["h", "<300>", "", "é"]


def test_a_damaged_tokenizer_is_named(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(Corrupt, match=r"tokenizer\.json cannot be read"):
        TextCodec(tmp_path)
