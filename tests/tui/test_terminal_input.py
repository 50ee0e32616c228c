"""What a terminal sends, cut anywhere: pastes stay text, Esc stays a key."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from noodle_tui.terminal.driver import CUT_S, END, ESC, ESC_S, MAX_PASTE_CHARS, PASTE_S, START, Splitter, Token

BYTES = st.text(st.sampled_from([ESC, "[", "2", "0", "1", "~", "R", "y", "\r", "\x1a", "\x03", "é", "O", "A"]), max_size=40)


def fed(splitter: Splitter, chunks: list[str]) -> list[Token]:
    return [token for chunk in chunks for token in splitter.feed(chunk)]


def cut(text: str, places: list[int]) -> list[str]:
    bounds = [0, *sorted({place for place in places if 0 < place < len(text)}), len(text)]
    return [text[a:b] for a, b in pairwise(bounds)]


@given(BYTES.filter(lambda text: END not in text), st.lists(st.integers(0, 60), max_size=8))
def test_a_paste_is_one_text_wherever_it_is_cut(text: str, places: list[int]) -> None:
    splitter = Splitter()
    tokens = fed(splitter, cut(f"{START}{text}{END}k", places))
    pasted = text.split(END)[0] if END in text + END[:-1] else text
    assert tokens == [("paste", pasted), ("keys", "k")] and splitter.patience_s is None


@given(st.text(st.sampled_from("Ry[2~x"), max_size=20), st.integers(1, len(START) - 1))
def test_a_mark_that_comes_after_its_esc_was_given_out_still_begins_a_paste(text: str, place: int) -> None:
    """A slow link: the Esc is a key by then, what follows is no command."""
    splitter = Splitter()
    assert splitter.feed(ESC) == [] and splitter.patience_s == ESC_S and splitter.flush() == [("escape", ESC)]
    tokens = fed(splitter, [START[1 : 1 + place], START[1 + place :] + text + END])
    assert tokens == [("paste", text)]


@given(BYTES, st.lists(st.integers(0, 60), max_size=8))
def test_nothing_is_lost_without_a_paste(text: str, places: list[int]) -> None:
    text = text.replace(START, "")
    if START in text:
        return
    splitter = Splitter()
    tokens = [*fed(splitter, cut(text, places)), *splitter.flush()]
    assert "".join(part for _, part in tokens) == text and not [kind for kind, _ in tokens if kind == "paste"]


def test_an_esc_is_a_key_whatever_follows_at_once() -> None:
    splitter = Splitter()
    assert splitter.feed(f"{ESC}5") == [("escape", ESC), ("keys", "5")]
    assert splitter.feed(f"{ESC}:") == [("escape", ESC), ("keys", ":")]
    assert splitter.feed(f"{ESC}{ESC}q") == [("escape", ESC), ("escape", ESC), ("keys", "q")]
    assert splitter.feed(f"{ESC}[A{ESC}OP") == [("keys", f"{ESC}[A"), ("keys", f"{ESC}OP")], "arrows and F1 are one key each"


def test_what_comes_before_an_esc_or_a_paste_in_the_same_piece_is_keys_alone() -> None:
    assert Splitter().feed(f"ab{START}Ry{END}k") == [("keys", "ab"), ("paste", "Ry"), ("keys", "k")]
    assert Splitter().feed(f"a{ESC}5") == [("keys", "a"), ("escape", ESC), ("keys", "5")]


def test_what_waits_is_waited_for_as_long_as_it_deserves() -> None:
    splitter = Splitter()
    assert splitter.feed(ESC) == [] and splitter.patience_s == ESC_S
    assert splitter.feed("[20") == [] and splitter.patience_s == CUT_S
    assert splitter.flush() == [("keys", f"{ESC}[20")]
    assert splitter.feed(START + "half") == [] and splitter.patience_s == PASTE_S
    assert splitter.flush() == [("paste", "half")] and splitter.feed("q") == [("keys", "q")], "a paste that lost its end"


def test_a_huge_paste_is_bounded_and_its_end_is_found() -> None:
    splitter = Splitter()
    tokens = fed(splitter, [START, *["x" * 100_000] * 20, "Ry" + END[:3], END[3:] + "k"])
    assert [kind for kind, _ in tokens] == ["paste", "keys"] and len(tokens[0][1]) == MAX_PASTE_CHARS and tokens[1][1] == "k"


def test_alt_with_enter_is_one_key_however_it_is_cut() -> None:
    assert Splitter().feed(f"a{ESC}\rb") == [("keys", "a"), ("alt+enter", f"{ESC}\r"), ("keys", "b")]
    assert fed(Splitter(), [ESC, "\n"]) == [("alt+enter", f"{ESC}\n")]
    assert Splitter().feed(f"{ESC}{ESC}\r") == [("escape", ESC), ("alt+enter", f"{ESC}\r")]
    splitter = Splitter()
    assert [*splitter.feed(ESC), *splitter.flush(), *splitter.feed("\r")] == [("escape", ESC), ("keys", "\r")], "that were two keys"
