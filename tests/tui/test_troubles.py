"""Troubles that were staged with real processes (`tests/tui/troubles/stage.py`), replayed: within ten seconds the first line of the
Overview names the cause and the key that helps."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.commands.cluster.why import COMMANDS
from engine.diagnosis.finding import Remedy
from noodle_tui.changes.reducer import reduce
from noodle_tui.cluster.recording import Recording
from noodle_tui.cluster.replay import lead_of
from noodle_tui.core import messages as m
from noodle_tui.core.keys import KEYS as ALL_KEYS
from noodle_tui.core.keys import named
from noodle_tui.glyphs import ASCII, UNICODE, Glyphs
from noodle_tui.listings.diagnosis import KEYS
from noodle_tui.options import DEMO, parse
from noodle_tui.screens.frame import NUM_TOP_ROWS, screen_lines
from noodle_tui.state import ConsoleState

RECORDINGS = Path(__file__).parent / "troubles" / "recordings"
FACTS = json.loads((RECORDINGS / "troubles.json").read_text())
WITHIN_S = 10.0
NAMED = {  # what the line must hold: the cause, and the key
    "slow-node": ("Slow node {subject}", "D = plan without it"),
    "busy-host": ("Busy host {subject}", "enter = its figures"),
    "slow-link": ("Slow link", "> {subject}", "4 = other plans"),
    "flapping-link": ("Unsteady link", "> {subject}", "4 = other plans"),
    "dead-node": ("Lost node {subject}", "D = forget it"),
    "memory-short": ("Memory short w", "4 = other plans"),
    "kv-full": ("KV cache full", "6 = sessions"),
    "huge-prompts": ("prompts being read hold up answers", "6 = sessions"),
    "old-plan": ("Plan out of date", "R = plan again"),
    "adaptation-rests": ("Plan set by hand", "R = plan again"),
    "coordinator-stalled": ("Coordinator", "9 = logs"),
}


def first_lines(path: Path, glyphs: Glyphs) -> Iterator[tuple[float, str]]:
    """(seconds since the recording began, the Overview's first row at 80x24), at every frame and every second without one."""
    yield from ((at_s, rows[NUM_TOP_ROWS]) for at_s, rows in overviews(path, glyphs))


def overviews(path: Path, glyphs: Glyphs) -> Iterator[tuple[float, list[str]]]:
    """The same with all rows of the screen."""
    recording, state, now_s = Recording(path), ConsoleState(), 0.0
    for index, entry in enumerate(recording.entries):
        while entry.at_s - now_s > 1.0:
            now_s += 1.0
            state = reduce(state, m.Tick(), now_s)
            yield now_s, _overview(state, glyphs, now_s)
        now_s, frame = entry.at_s, recording.frame(index)
        message = m.FrameArrived(frame, entry.wall_s) if frame is not None else m.LinkLost(entry.lost, now_s + 1.0)
        state = reduce(state, message, now_s)
        yield now_s, _overview(state, glyphs, now_s)
    recording.close()


def _overview(state: ConsoleState, glyphs: Glyphs, now_s: float) -> list[str]:
    return ["".join(span.text for span in row) for row in screen_lines(state, 80, 24, glyphs, now_s)]


def is_named(name: str, line: str) -> bool:
    return all(part.format(subject=FACTS[name]["subject"]) in line for part in NAMED[name])


@pytest.mark.parametrize("glyphs", [UNICODE, ASCII], ids=["unicode", "ascii"])
@pytest.mark.parametrize("name", FACTS)
def test_the_first_line_names_a_staged_trouble(name: str, glyphs: Glyphs) -> None:
    onset_s, lines = FACTS[name]["onset_s"], list(first_lines(RECORDINGS / f"{name}.jsonl.gz", glyphs))
    told = "\n".join(f"{at_s:5.1f}  {line}" for at_s, line in lines)
    named_s = [at_s for at_s, line in lines if is_named(name, line)]
    assert named_s and onset_s <= named_s[0] <= onset_s + WITHIN_S, told
    assert all(len(line) <= 80 for _, line in lines)
    assert glyphs is not ASCII or told.isascii()


@pytest.mark.parametrize("name", FACTS)
def test_no_row_is_calmer_than_the_first_line_and_that_always_names_a_key(name: str) -> None:
    for at_s, rows in overviews(RECORDINGS / f"{name}.jsonl.gz", ASCII):
        said, told = rows[NUM_TOP_ROWS].strip(), f"{at_s:.1f}\n" + "\n".join(rows)
        if said:
            assert "ok" not in rows[0].split(), told
            assert re.search(r"\S = \S", said), told


@pytest.mark.parametrize("name", FACTS)
def test_a_jump_in_a_replay_says_what_was_said_when_it_was_played(name: str) -> None:
    path = RECORDINGS / f"{name}.jsonl.gz"
    recording, state = Recording(path), ConsoleState()
    for index, entry in enumerate(recording.entries):
        if (frame := recording.frame(index)) is None:
            continue
        state = reduce(state, m.FrameArrived(frame, entry.wall_s), entry.at_s)
        if index % 4 == 3:
            jumped = m.FrameArrived(frame, entry.wall_s, anew=True, lead=lead_of(recording, index))
            there = reduce(ConsoleState(), jumped, entry.at_s)
            assert [f.key for f in there.standing.said] == [f.key for f in state.standing.said], f"{entry.at_s:.1f}"
    recording.close()


def test_a_hop_that_takes_most_of_a_step_is_the_bottleneck_everywhere() -> None:
    rows = [rows for _, rows in overviews(RECORDINGS / "slow-link.jsonl.gz", ASCII) if is_named("slow-link", rows[NUM_TOP_ROWS])][-1]
    (bottleneck,) = (row for row in rows if "BOTTLENECK" in row)
    assert re.search(r"BOTTLENECK w\d > w\d +8\d\.\dms = 9\d% of a step  planned 0\.1 x", bottleneck)
    at = next(i for i, row in enumerate(rows) if row.startswith(" PLAN #"))
    assert re.search(r"\|8\d\.\d !! +\|", rows[at + 2]) and "!!" not in rows[at + 1], "the hop has the mark, and no stage"


def test_the_demo_tells_of_a_slow_node_and_then_of_a_lost_one() -> None:
    told = [line for _, line in first_lines(DEMO, UNICODE)]
    slow, lost = ([k for k, line in enumerate(told) if line.startswith(f" {what}")] for what in ("Slow node", "Lost node"))
    assert slow and lost and slow[0] < lost[0], "\n".join(told)


def test_the_demo_needs_no_other_recording(capsys: pytest.CaptureFixture[str]) -> None:
    assert parse(["--demo"]).replay == str(DEMO)
    with pytest.raises(SystemExit):
        parse(["--demo", "--replay", "x"])
    assert "--demo shows a recording of its own" in capsys.readouterr().err


def test_everything_that_helps_has_a_key_and_a_command() -> None:
    assert set(KEYS) == set(COMMANDS) == set(Remedy)
    for text in KEYS.values():
        assert "{" not in named(text, ALL_KEYS)


def test_every_recording_is_told_of_and_every_story_recorded() -> None:
    assert {path.name.partition(".")[0] for path in RECORDINGS.glob("*.gz")} == set(FACTS)
    assert set(FACTS) <= set(NAMED)
