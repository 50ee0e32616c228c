"""`--alert`: once for each thing that begins to be wrong, and never for what stood when the console came."""

from __future__ import annotations

from dataclasses import replace

import pytest

from engine.data.errors import InvalidInput
from engine.data.status import Alarms, Trouble
from engine.data.watch_frame import WatchFrame
from noodle_tui.changes.reducer import reduce
from noodle_tui.config import parse_config
from noodle_tui.core import messages as m
from noodle_tui.options import Options, parse
from noodle_tui.state import ConsoleState
from noodle_tui.terminal.alarm import Alarm, signal_of
from tests.diagnosis.clusters import stage, status

WELL = status()
SLOW = replace(status((stage("w1"), stage("w2", 0.08), stage("w3"))), alarms=Alarms(troubles=(Trouble("slow-node", "w2"),)))


def rung(mode: str, *looks: object) -> list[str]:
    written: list[str] = []
    alarm, state = Alarm(mode, written.append), ConsoleState()
    for now_s, seen in enumerate(looks):
        before, state = state, reduce(state, m.FrameArrived(WatchFrame(seen, ()), 1e9 + now_s), float(now_s))  # type: ignore[arg-type]
        alarm.heard(before, state, float(now_s))
    return written


def test_it_rings_once_when_something_begins() -> None:
    assert rung("bell", WELL, WELL) == []
    assert rung("bell", WELL, SLOW, SLOW, SLOW) == ["\a"]
    assert rung("bell", SLOW, SLOW) == [], "what stood when the console came is no news"


def test_what_the_desktop_is_told_cannot_leave_its_sequence() -> None:
    (told,) = rung("notify", WELL, SLOW)
    assert "slow node w2" in told and told.startswith("\x1b]9;") and told.endswith("\a")
    odd = signal_of("notify", "noodle: a;b\x1b]0;x\a, c\n")
    assert odd.count("\x1b") == 2 and odd.count("\a") == 2


def test_the_option_and_the_file_name_the_choices() -> None:
    assert parse(["--alert", "bell", "--demo"]).alert == "bell" and parse(["--demo"]).alert == "off"
    assert parse(["--demo"], parse_config("console.toml", 'alert = "notify"')).alert == "notify"
    with pytest.raises(InvalidInput, match="off, bell, notify"):
        Options(alert="siren")
