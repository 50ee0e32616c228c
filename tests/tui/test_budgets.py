"""Bytes on the wire to the terminal, which are the same on every machine: 120x40, truecolor, frames from a recording."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tui import recordings
from tests.tui.pty_console import PtyConsole

NUM_FRAMES = 8


def bytes_per_frame(console: PtyConsole) -> float:
    """Step through the recording and count; a stepped replay paints each frame once, and waits for the next key."""
    console.wait_for("[REPLAY")
    console.send(" ")
    console.wait_for("PAUSED")
    console.send(".")
    console.wait_for_silence(0.4)
    before = len(console.raw)
    for _ in range(NUM_FRAMES):
        size = len(console.raw)
        console.send(".")
        console.wait_for(lambda size=size: len(console.raw) > size)  # type: ignore[misc]
        console.wait_for_silence(0.25)
    return (len(console.raw) - before) / NUM_FRAMES


@pytest.mark.parametrize(
    ("num_nodes", "flags", "budget"),
    [(20, [], 2_300), (200, [], 2_300), (20, ["--low-bandwidth"], 1_500)],  # a quarter above what was measured
)
def test_a_lively_cluster_stays_within_its_budget(tmp_path: Path, num_nodes: int, flags: list[str], budget: int) -> None:
    path = recordings.write(tmp_path / "r.jsonl", num_nodes, 40)
    with PtyConsole(["--replay", str(path), "--speed", "0.25", *flags], width=120, height=40) as console:
        assert bytes_per_frame(console) <= budget


def test_a_dialog_a_screen_and_a_cursor_key_stay_within_their_budgets(tmp_path: Path) -> None:
    path = recordings.write(tmp_path / "r.jsonl", 20, 40)
    with PtyConsole(["--replay", str(path), "--speed", "0.25"], width=120, height=40) as console:
        console.wait_for("[REPLAY")
        console.send(" ")
        console.wait_for("PAUSED")
        console.wait_for_silence(0.4)
        for keys, mark, budget in (
            ("R", "REBALANCE", 4_000),
            ("\x1b", "REBALANCE", 4_000),
            (":", "connect to another", 4_000),
            ("\x1b", "q quit", 4_000),
            ("?", "HELP", 11_500),
            ("?", "q quit", 11_500),
            ("\x1b[B", ">node-001", 500),
            *((str(number), f"{number}.", 2_000 if number == 8 else 14_000) for number in range(2, 10)),  # 8 only adds its fields
        ):
            before = len(console.raw)
            console.send(keys)
            gone = keys == "\x1b" and mark == "REBALANCE"
            console.wait_for(lambda mark=mark, gone=gone: (mark in "\n".join(console.screen.display)) is not gone)  # type: ignore[misc]
            console.wait_for_silence(0.3)
            assert len(console.raw) - before <= budget, keys


def test_writing_a_prompt_costs_what_changes(tmp_path: Path) -> None:
    """A character, and a new row of the field, which is painted whole and nothing else with it."""
    path = recordings.write(tmp_path / "r.jsonl", 20, 40)
    with PtyConsole(["--replay", str(path), "--speed", "0.25"], width=120, height=40) as console:
        console.wait_for("[REPLAY")
        console.send(" ")
        console.wait_for("PAUSED")
        console.send("8")
        console.wait_for("write, then enter sends")
        console.wait_for_silence(0.3)
        for keys, budget in (("a", 300), ("b", 120), ("\n", 1_200), ("c", 120), ("\n", 1_500), ("\n", 1_800), ("\n", 2_000), ("\n", 300)):
            before = len(console.raw)
            console.send(keys)
            console.wait_for(lambda before=before: len(console.raw) > before)  # type: ignore[misc]
            console.wait_for_silence(0.3)
            assert len(console.raw) - before <= budget, repr(keys)


def test_an_unchanged_screen_costs_nothing(tmp_path: Path) -> None:
    path = recordings.write(tmp_path / "r.jsonl", 20, 400, still=True)
    with PtyConsole(["--replay", str(path), "--speed", "0.25"], width=120, height=40) as console:
        console.wait_for("[REPLAY")
        console.send(" ")
        console.wait_for("PAUSED")
        console.wait_for_silence(0.5)
        before = len(console.raw)
        console.wait_for_silence(2.5)  # two and a half ticks of the painter
        assert len(console.raw) == before


def test_the_first_paint_waits_for_nothing_that_it_does_not_show() -> None:
    """Its time is CPU time of imports; these made a sixth of it."""
    late = ("listings", "changes.actions", "changes.reducer", "input.key_effects", "input.keyboard", "cluster.cluster_calls")
    late += ("cluster.recording", "screens.overview", "screens.dialogs")
    names = [f"noodle_tui.{name}" for name in late]
    assert all(importlib.util.find_spec(name) for name in names), "a name that is no module is never loaded"
    code = f"import sys, noodle_tui.app; print([name for name in {names} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
