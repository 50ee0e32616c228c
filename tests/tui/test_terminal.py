"""The real process on a pseudo-terminal: bytes, not widgets."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from engine.data.generation import FinishReason
from engine.data.status import SessionStatus
from tests.tui import frames
from tests.tui.fake_coordinator import FakeCoordinator, lively
from tests.tui.pty_console import PtyConsole
from tests.tui.scenes import EVENTS, SERVED, serving_profiled

ESCAPES = re.compile(rb"\x1b(\[[0-9;?<>=$]*[A-Za-z@-~]|\][^\x07\x1b]*(\x07|\x1b\\)|P[^\x1b]*\x1b\\)")
EVIL = "[/b]\x1b[31m\x1b]0;owned\x07\x9b5m\u202eevil\u2066 \u6f22\u5b57 \U0001f469\u200d\U0001f680"


@pytest.fixture()
def fake() -> Iterator[FakeCoordinator]:
    with FakeCoordinator() as coordinator:
        coordinator.control.chunks = (
            *(frames.chunk(i, f" word{i}") for i in range(8)),
            frames.chunk(-1, "", finish_reason=FinishReason.LENGTH),
        )
        coordinator.publish(frames.frame(frames.status(**SERVED), *EVENTS))
        yield coordinator


PROFILE = str(Path(__file__).parent / "profile.json")
MARKS = {
    "2": "address",
    "3": "OWNER",
    "4": "memory_aware",
    "5": "KIND",
    "6": "SESSION ",
    "7": "hooks cost",
    "9": "following",
    "1": "THROUGHPUT",
}
DETAILS = {  # keys on a screen and what they lead to
    "2": (("\r", "address"),),
    "3": (("v", "LAYERS /"), ("v", "/ MEMORY"), ("c", "compare")),
    "4": (
        *(("jj\r", "DIFF now"), ("m", "/ MEMORY /"), ("m", "/ ITEMS"), ("m", ": TIME")),
        *(("cj", "DIFF auto > balanced"), ("kc", "DIFF now")),
    ),
    "5": (("\r", "WHY"), ("f", "f = next kind"), ("g", "KIND"), ("z", "KIND")),
    "6": (("jjj\r", "number 1 in the queue"), ("j", "checksum"), ("j", "done (length)"), ("o", "SESSION"), ("w", "failed"), ("w", "done")),
    "7": (("b", "PREFILL"), ("\r", "ITEM"), ("m", "MEMORY, 0.."), ("m", "BYTES, 0.."), ("z", "ITEM")),
    "9": (("\r", "in full, esc closes"), ("\x1b", "following"), ("z", "following"), ("n", "coord"), ("f", "following")),
}


def press(console: PtyConsole, keys: str, mark: str) -> None:
    """Keys, until they have led to something."""
    console.send(keys)
    console.wait_for(mark)


def leave(console: PtyConsole, keys: str, mark: str) -> None:
    """Keys, until something is gone and the key line is there again."""
    console.send(keys)
    console.wait_for(lambda: mark not in "\n".join(console.screen.display) and "q quit" in console.screen.display[-1])


def visit_everything(console: PtyConsole) -> None:
    """Every screen with its details and views, filter, palette, help, themes, dialogs, a failed action, an answer, hold."""
    console.wait_for("LIVE")
    for key, mark in MARKS.items():
        press(console, key, mark)
        for keys, then in DETAILS.get(key, ()):
            press(console, keys, then)
    press(console, "/", "filter /")
    press(console, "gpu\r", "hidden by")
    leave(console, "\x1b", "hidden by")
    press(console, ":", "connect to another coordinator")
    press(console, "th", "theme ansi")
    press(console, "\x1b[B\t", ": theme")
    leave(console, "\x1b", "theme ansi")
    press(console, "x", ": export json")
    leave(console, "\x1b", ": export json")
    press(console, "?", "HELP")
    press(console, "Roll back", "filter: Roll back")
    press(console, "\x1b", "esc close")
    leave(console, "?", "HELP")
    visit_dialogs(console)
    press(console, " ", "HOLD")
    console.send(" ")
    press(console, "p", "esc then 1-9 screens")
    press(console, "hello\r", "finished: length")
    console.send("\x1b")
    console.wait_for("q quit")


def visit_profiles(console: PtyConsole, fake: FakeCoordinator, folder: Path) -> None:
    """Two profiles beside each other, and the stages that serve the model they are of."""
    serving = serving_profiled().latest
    assert serving is not None
    fake.publish(frames.frame(replace(serving.status, plan_version=20)))
    console.wait_for("#20")
    press(console, "7", "waits")
    (folder / "other.json").write_text(json.dumps(json.loads(Path(PROFILE).read_text()) | {"model": "gpt2:other"}))
    press(console, f":profile {folder / 'other.json'}\r", "gpt2:other")
    press(console, "c", "before: tui/profile.json")
    press(console, "c", "hooks cost")


def visit_dialogs(console: PtyConsole) -> None:
    """The preview of every capital letter, the notice of one that fails, every theme."""
    for capital in "RDXPHM":
        press(console, capital, " on lab-a?")
        leave(console, "n", " on lab-a?")
    press(console, "4", "STRATEGY")
    press(console, "A", "APPLY auto on lab-a?")
    leave(console, "n", " on lab-a?")
    press(console, "P", " on lab-a?")
    console.agree("ERROR PROFILE")
    press(console, "e", "esc or enter closes")
    leave(console, "\x1b", "esc or enter closes")
    press(console, "1", "THROUGHPUT")
    press(console, "t", "enter keeps it")
    press(console, "j" * 10, f">{' '}noodle-light")
    leave(console, "\r", "enter keeps it")


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
def test_ascii_mode_writes_only_ascii(fake: FakeCoordinator, size: tuple[int, int], tmp_path: Path) -> None:
    with PtyConsole(
        ["--connect", fake.address, "--ascii", "--graphs", "braille", "--profile", PROFILE], width=size[0], height=size[1]
    ) as console:
        visit_everything(console)
        visit_profiles(console, fake, tmp_path)
        fake.control.silent = True
        console.wait_for("STALE")
        fake.stop()
        console.wait_for("retry in")
        console.send("q")
        assert console.exit_code() == 0
        assert console.raw.isascii()


def test_unicode_mode_does_not(fake: FakeCoordinator) -> None:
    with PtyConsole(["--connect", fake.address, "--profile", PROFILE]) as console:
        visit_everything(console)
        assert not console.raw.isascii(), "or the test above could not fail"


def test_braille_graphs_are_written_where_they_were_asked_for(fake: FakeCoordinator) -> None:
    with PtyConsole(["--connect", fake.address, "--graphs", "stage=braille"]) as console:
        console.wait_for("LIVE")
        console.wait_for(lambda: re.search("[\u2801-\u28ff]", console.raw.decode(errors="ignore")) is not None)


@pytest.mark.parametrize("env", [{"TERM": "linux"}, {"TERM": "dumb"}, {"NOODLE_ASCII": "1"}, {"PYTHONIOENCODING": "cp1252"}])
def test_ascii_mode_is_chosen_for_terminals_that_need_it(fake: FakeCoordinator, env: dict[str, str]) -> None:
    with PtyConsole(["--connect", fake.address], env=env) as console:
        console.wait_for("LIVE")
        assert console.raw.isascii()


def test_a_strict_cp1252_stream_cannot_freeze_the_console(fake: FakeCoordinator, tmp_path: Path) -> None:
    fake.publish(frames.frame(frames.status(**SERVED, name="\u6f22\u5b57 \u2588"), *EVENTS))
    code = (
        "import io, sys; sys.__stderr__ = io.TextIOWrapper(sys.stderr.buffer, encoding='cp1252', errors='strict');"
        "import noodle_tui.terminal.streams as t; t.wants_ascii = lambda *a: False;"  # the second net alone: without ASCII mode
        "from noodle_tui.app import main; sys.exit(main())"
    )
    with PtyConsole(["--connect", fake.address, "--profile", PROFILE], command=[sys.executable, "-c", code]) as console:
        console.wait_for("plan #14")
        visit_everything(console)
        visit_profiles(console, fake, tmp_path)
        console.send("q")
        assert console.exit_code() == 0


def test_a_burst_of_keys_takes_effect_in_order(fake: FakeCoordinator) -> None:
    with PtyConsole(["--connect", fake.address, "--ascii"]) as console:
        console.wait_for("LIVE")
        console.send("2/gpu\r:export DRy")
        console.wait_for(": export DRy")
        assert "2.NODES" in console.text and "gpu-c" in console.text and "cpu-b" not in console.text
        leave(console, "\x1b", ": export DRy")
        press(console, "Dnt", "enter keeps it")  # `n` ends the preview before `t` is looked at


@pytest.mark.parametrize("flags", [["--ascii"], []])
def test_hostile_strings_leave_no_control_bytes(fake: FakeCoordinator, flags: list[str], tmp_path: Path) -> None:
    profile = json.loads(Path(PROFILE).read_text())
    for named in (profile["environment"], *profile["items"], *profile["layers"]):
        named |= {"name": EVIL, "host": EVIL, "device": EVIL}
    (tmp_path / "profile.json").write_text(json.dumps(profile | {"model": EVIL}))
    flags = [*flags, "--profile", str(tmp_path / "profile.json")]
    node = frames.node(EVIL, detail=EVIL, host=EVIL, address=EVIL)
    ended = SessionStatus(EVIL, EVIL, 1, 1, 9, 0.1, 1.0, 2.0, finish_reason=EVIL, why=EVIL * 100)
    sessions = (replace(ended, state="queued", finish_reason="", queue_place=1),)
    names = {"name": EVIL * 50, "cluster_id": EVIL, "strategy": EVIL, "mode": EVIL, "suggestion_id": 3}
    status = frames.status(1, **names, nodes=(node,), stages=(frames.stage(EVIL),), sessions=sessions, latest=(ended,))
    fake.publish(frames.frame(status, *(frames.event(i, EVIL * 100, subject=EVIL) for i in range(1, 9))))
    fake.control.chunks = (frames.chunk(0, EVIL), frames.chunk(-1, "", finish_reason=FinishReason.STOP))
    with PtyConsole(["--connect", fake.address, *flags], width=120, height=40) as console:
        console.wait_for("LIVE")
        paste = b"\x1b[200~" + EVIL.replace("\x1b", "").encode() * 10 + b"\x1b[201~"  # Textual takes an ESC in a paste for a key
        for number in "2345679":
            console.send(number)
            console.wait_for_silence(0.2)
            console.send("\r")  # details
            console.send("/")
            console.wait_for("filter /")
            console.send(paste + b"\r")
            console.wait_for("passes, esc clears")
            console.send("\x1b")
            console.wait_for(lambda: "passes, esc clears" not in "\n".join(console.screen.display))
        console.send("D")
        console.wait_for("DRAIN")
        console.send("n")
        console.wait_for(lambda: "DRAIN" not in "\n".join(console.screen.display))
        console.send(b":" + paste)
        console.wait_for("no command fits")
        console.send("\r")
        console.wait_for("there is no command")
        console.send("p")
        console.wait_for("leaves the field")
        console.send(b"\x1b[200~" + EVIL.encode() * 10 + b"\x1b[201~\r")
        console.wait_for("finished: stop")
        console.send("\x03")
        assert console.exit_code() == 130
        assert "--ascii" not in flags or console.raw.isascii()
        left = ESCAPES.sub(b"", bytes(console.raw))
        assert b"owned\x07" not in console.raw and b"\x1b[31m" not in console.raw
        assert not re.search(rb"[\x00-\x07\x0b-\x1f\x7f]", left.replace(b"\r", b"").replace(b"\n", b"")), left
        assert "\u202e" not in left.decode() and "\x9b" not in left.decode()


def test_a_100_kilobyte_prompt_arrives_whole_and_keys_still_work(fake: FakeCoordinator) -> None:
    with PtyConsole(["--connect", fake.address]) as console:
        console.wait_for("LIVE")
        console.send("p")
        console.wait_for("leaves the field")
        text = b"x" * 99_000
        console.send(b"\x1b[200~")
        for start in range(0, len(text), 1000):
            console.send(text[start : start + 1000])
        console.send(b"\x1b[201~\r")
        console.wait_for("finished: length")
        assert fake.control.requests[0].prompt == text.decode()


def test_the_screen_is_there_before_the_engine_and_grpc_are_imported(fake: FakeCoordinator) -> None:
    code = (
        "import sys; from noodle_tui.cluster.link import Link; import noodle_tui.app as app\n"
        "async def run(self):\n"
        "    heavy = [m for m in sys.modules if m.split('.')[0] in ('grpc', 'torch', 'transformers', 'protos')]\n"
        "    from noodle_tui.core.messages import BootProgress; self._post(BootProgress(f'IMPORTED {heavy}'))\n"
        "Link.run = run; sys.exit(app.main())"
    )
    with PtyConsole(["--connect", fake.address], command=[sys.executable, "-c", code]) as console:
        console.wait_for("IMPORTED []")


def test_an_unchanged_cluster_writes_nothing(fake: FakeCoordinator) -> None:
    with PtyConsole(["--connect", fake.address]) as console:
        console.wait_for("EVENTS")
        console.wait_for_silence(1.2)
        size = len(console.raw)
        while fake.control.frames_sent.acquire(blocking=False):
            pass
        for _ in range(6):  # three seconds of frames that say the same
            assert fake.control.frames_sent.acquire(timeout=120)
        assert len(console.raw) == size


def test_a_lively_cluster_stays_within_the_bytes_budget(fake: FakeCoordinator) -> None:
    with PtyConsole(["--connect", fake.address], width=120, height=40) as console:
        fake.publish(lively(0))
        console.wait_for("EVENTS")
        console.wait_for_silence(1.2)
        size, num_frames = len(console.raw), 5
        for tick in range(1, num_frames + 1):
            fake.publish(lively(tick))
            before = len(console.raw)
            console.wait_for(lambda before=before: len(console.raw) > before)  # type: ignore[misc]
            console.wait_for_silence(0.2)
        assert (len(console.raw) - size) / num_frames < 9_000


def test_stale_offline_and_back(fake: FakeCoordinator) -> None:
    with PtyConsole(["--connect", fake.address]) as console:
        console.wait_for("LIVE")
        fake.control.silent = True
        console.wait_for("STALE")
        fake.control.silent = False
        console.wait_for("LIVE")
        fake.stop()
        console.wait_for("OFFLINE")
        console.wait_for("retry in")
        assert "gpu-c" in console.text and "[stale]" in console.text
        fake.start()
        console.send("r")
        console.wait_for("LIVE")
        console.send("q")
        assert console.exit_code() == 0


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_signals_restore_the_terminal(fake: FakeCoordinator, number: int, code: int) -> None:
    with PtyConsole(["--connect", fake.address]) as console:
        console.wait_for("LIVE")
        os.kill(console.pid, number)
        assert console.exit_code() == code
        console.wait_for(lambda: b"\x1b[?1049l" in console.raw and b"\x1b[?25h" in console.raw)


def test_a_terminal_that_goes_away_ends_the_console(fake: FakeCoordinator) -> None:
    with PtyConsole(["--connect", fake.address]) as console:
        console.wait_for("LIVE")
        console.hang_up()
        assert console.exit_code() != 0


def test_no_color_means_no_colour_codes(fake: FakeCoordinator) -> None:
    with PtyConsole(["--connect", fake.address], env={"NO_COLOR": "1"}) as console:
        console.wait_for("LIVE")
        codes = {code for match in re.findall(rb"\x1b\[([0-9;]*)m", bytes(console.raw)) for code in match.split(b";")}
        assert codes <= {b"", b"0", b"1", b"3", b"7", b"39", b"49", b"27", b"22", b"2"}, codes


def test_a_crash_restores_the_terminal_and_says_what_happened(fake: FakeCoordinator) -> None:
    code = (
        "import sys, noodle_tui.screens.main as o; from noodle_tui.app import main\n"
        "def broken(*a): raise RuntimeError('defect in a view')\n"
        "o.body_lines = broken; sys.exit(main())"
    )
    with PtyConsole(["--connect", fake.address], command=[sys.executable, "-c", code]) as console:
        assert console.exit_code() == 1
        console.wait_for(lambda: b"\x1b[?1049l" in console.raw and b"defect in a view" in console.raw)
