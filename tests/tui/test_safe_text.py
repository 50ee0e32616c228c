"""The gate for text from outside: nothing that leaves it can steer a terminal."""

from __future__ import annotations

import os
import signal
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from noodle_tui.changes.reducer import reduce
from noodle_tui.cluster import headless
from noodle_tui.core.logs import LogLine
from noodle_tui.core.messages import LinkLost, LogsArrived
from noodle_tui.options import Options
from noodle_tui.state import ConsoleState, Link
from noodle_tui.text.lines import Span, line, width_of
from noodle_tui.text.safe_text import MAX_FIELD_CHARS, clean, safe_text
from tests.tui import frames

FORBIDDEN = {"Cc", "Cf", "Cs"}
JOINING = "\u200c\u200d" + "".join(map(chr, range(0xE0020, 0xE0080)))  # invisible, but text
HOSTILE = "a\x1b[31m\x9b\u202e\u200d\ud800\n\r\té漢👍🏽🇩🇪\u0301\x7f"
any_text = st.text(st.characters(), max_size=200) | st.text(st.sampled_from(HOSTILE), max_size=200)


@given(any_text, st.booleans())
def test_no_control_or_format_character_survives(text: str, multiline: bool) -> None:
    result = safe_text(text, multiline=multiline)
    allowed = "\n" if multiline else ""
    assert not [char for char in result if char not in allowed + JOINING and unicodedata.category(char) in FORBIDDEN]


@given(any_text)
def test_one_line_stays_one_line_and_can_be_encoded(text: str) -> None:
    result = safe_text(text)
    assert len(result.splitlines()) <= 1
    assert result.encode("utf-8")[:0] == b""


@given(any_text, st.integers(0, 50))
def test_length_and_width_are_bounded(text: str, limit: int) -> None:
    result = safe_text(text, limit)
    assert len(result) <= limit
    assert cell_len(result) <= 2 * limit


@given(any_text)
def test_cleaning_twice_changes_nothing(text: str) -> None:
    assert safe_text(safe_text(text)) == safe_text(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain gpt2", "plain gpt2"),
        ("tab\tnew\nline", "tab new line"),
        ("\x1b[31mred\x1b[0m", "?[31mred?[0m"),
        ("c1\x9b31m", "c1?31m"),
        ("bidi\u202etxet\u2066", "biditxet"),
        ("zero\u200bwidth\ufeff", "zerowidth"),
        ("lone\ud800", "lone?"),
        ("[red]markup[/red]", "[red]markup[/red]"),
        ("漢字 é", "漢字 é"),
        ("z" + "\u0301" * 9, "z" + "\u0301" * 6),
        ("\u0f62\u0f92\u0fb1\u0f74\u0f0b", "\u0f62\u0f92\u0fb1\u0f74\u0f0b"),  # a Tibetan stack
        *((text, text) for text in ("👩\u200d👩\u200d👧", "日本語\u3000全角", "Bonjour\u00a0!\u202f»", "می\u200cخواهم", "👍🏽 ❤️ 🇩🇪", "🫨")),
        ("line\u2028para\u2029", "line para "),
    ],
)
def test_examples(text: str, expected: str) -> None:
    assert safe_text(text) == expected


def test_lines_survive_only_where_they_are_asked_for() -> None:
    assert safe_text("a\r\nb\x1bc\n", multiline=True) == "a\nb?c\n"


def test_a_row_of_joined_letters_is_as_wide_as_it_is_drawn() -> None:
    """Rich counts nothing for what follows a joiner; only emoji are drawn so."""
    assert Span("👩\u200d👩\u200d👧 a").text == "👩\u200d👩\u200d👧 a" and width_of(line("👩\u200d👩\u200d👧 a")) == 4
    sinhala = "\u0dc1\u0dca\u200d\u0dbb"
    assert width_of(line(sinhala)) == sum(cell_len(char) for char in sinhala)


def test_a_huge_name_costs_little() -> None:
    assert len(safe_text("n" * 100_000)) == MAX_FIELD_CHARS


def test_clean_reaches_every_string_of_a_frame() -> None:
    evil = "x\x1b\u202e"
    frame = frames.frame(frames.status(name=evil, nodes=(frames.node(evil, detail=evil),)), frames.event(1, evil))
    assert "\x1b" not in repr(clean(frame)) and "\\x1b" not in repr(clean(frame)) and "\\u202e" not in repr(clean(frame))


STEERING = "x\x1b]0;owned\x07\x9b2J\u202e\u2028\n12:00:00 OK all is well\r"


def steers(text: str) -> list[str]:
    return [char for char in text if char != "\n" and (unicodedata.category(char) in {"Cc", "Cs", "Zl", "Zp"} or char == "\u202e")]


def test_a_log_on_the_console_is_safe_to_draw() -> None:
    lines = (LogLine(0, 1.0, "info", STEERING, STEERING),)
    state = reduce(ConsoleState(link=Link(since_s=0.0)), LogsArrived(lines), 1.0)
    assert not steers(repr(state.logs.lines)) and "\\x" not in repr(state.logs.lines) and "all is well" in repr(state.logs.lines)


def test_a_headless_console_says_an_error_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    class Losing:
        def __init__(self, options: object, post: Any) -> None:
            self.post = post

        async def run(self) -> None:
            self.post(LinkLost(STEERING, 0.0))
            os.kill(os.getpid(), signal.SIGTERM)

        async def stop(self) -> None:
            return

    monkeypatch.setattr(headless, "Link", Losing)
    assert headless.record(Options(connect="127.0.0.1:9", headless=True, record=str(tmp_path / "r.jsonl"))) == 0
    told = capsys.readouterr().err
    assert not steers(told) and told.count("\n") == 1 and "trying again" in told
