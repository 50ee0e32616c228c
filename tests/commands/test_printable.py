"""Nothing that a node, a peer, a client or a file says steers the terminal of whoever reads it, or makes up a line of its own."""

from __future__ import annotations

import ast
import io
import logging
import unicodedata
from dataclasses import fields, is_dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar

import pytest

from engine.commands.cluster.inspect import _line, _text, link_table
from engine.data.errors import Unavailable
from engine.data.measured_link import MeasuredLink
from engine.data.precision import Precision
from engine.data.status import PrefixCacheStatus, SpeculationState, Work
from engine.printable import one_line, printable
from engine.program import run_program
from engine.service.process import PrintableLines
from tests.tui import frames

T = TypeVar("T")
HOSTILE = "x\x1b]0;owned\x07\x9b2J\u202e\u2028\n12:00:00 OK    all is well\r"
COMMANDS = Path(__file__).parents[2] / "engine" / "commands"
# What may be written past `say`, `note` and `print_json`: the text of an answer into a pipe, a bar drawn over itself, a child's JSON.
BARE = {"output.py": 3, "chat/chat.py": 2, "cluster/generate.py": 2, "progress.py": 2}


def hostile(value: T) -> T:
    """The same with every text in it replaced."""
    if isinstance(value, str):
        return value if isinstance(value, Enum) else HOSTILE  # type: ignore[return-value]
    if isinstance(value, tuple):
        return tuple(hostile(item) for item in value)  # type: ignore[return-value]
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{f.name: hostile(getattr(value, f.name)) for f in fields(value)})  # type: ignore[type-var,return-value]
    return value


def steers(text: str) -> list[str]:
    return [c for c in text if c != "\n" and (unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") or c == "\u202e")]


def test_a_status_full_of_hostile_text_has_its_usual_lines() -> None:
    said = {"failure": "why", "mode": "suggest", "suggestion_id": 3, "num_unacknowledged": 2, "precision": Precision("", "float32", 9)}
    work = Work(speculation=SpeculationState("auto", "one of a kind"), prefix_cache=PrefixCacheStatus(True, prompt_tokens=9))
    usual = frames.status(latest=frames.status().sessions, work=work, **said)
    link = MeasuredLink("a", "b", failure="no answer")
    shown, expected = (_text(s) + link_table([li]) for s, li in ((hostile(usual), hostile(link)), (usual, link)))
    assert not steers(shown) and shown.count("\n") == expected.count("\n") and "all is well" in shown


def test_an_event_stays_one_line() -> None:
    shown = _line(hostile(frames.event(1, "x")))
    assert not steers(shown) and "\n" not in shown and "all is well" in shown


def test_an_error_from_elsewhere_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def fails(_: Any) -> int:
        raise Unavailable(HOSTILE)

    assert run_program("noodle-engine", fails, []) == 1
    told = capsys.readouterr().err
    assert not steers(told) and told.count("\n") == 1 and told.startswith("noodle-engine: x?]0;owned")


def test_a_log_line_stays_one_line_and_an_incident_keeps_its_steps() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(PrintableLines("%(levelname)s %(message)s"))
    logger = logging.Logger("test")
    logger.addHandler(handler)
    logger.info("%s %s", "node", HOSTILE)
    assert stream.getvalue().count("\n") == 1 and not steers(stream.getvalue())
    try:
        raise ValueError(HOSTILE)
    except ValueError:
        logger.exception("incident")
    assert not steers(stream.getvalue()) and "Traceback" in stream.getvalue() and "in test_a_log_line" in stream.getvalue()


@pytest.mark.parametrize(
    "text",
    ["👩\u200d👩\u200d👧", "日本語\u3000全角", "Bonjour\u00a0!\u202f»", "می\u200cخواهم", "two\nlines\tand a tab", "[red]no markup[/red]"],
)
def test_text_of_all_scripts_stays_as_it_is(text: str) -> None:
    assert printable(text) == text and one_line(text) == text.replace("\n", " ")


@pytest.mark.parametrize(
    ("text", "shown"),
    [("a\r\nb", "a\nb"), ("\x1b[31m\x7f", "?[31m?"), ("\u202etxt\u2066", "?txt?"), ("lone\ud800", "lone?"), ("\x9b2J", "?2J")],
)
def test_what_steers_does_not(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_commands_print_through_what_makes_text_printable() -> None:
    found = {}
    for path in COMMANDS.rglob("*.py"):
        calls = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)]
        if count := sum(call.func.id == "print" for call in calls):  # type: ignore[attr-defined]
            found[path.relative_to(COMMANDS).as_posix()] = count
    assert found == BARE
