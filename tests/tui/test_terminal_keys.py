"""The real process on a pseudo-terminal: what is typed, pasted and sent by terminals, byte by byte, and Ctrl-Z."""

from __future__ import annotations

import os
import signal
import struct
import sys
import termios
import time
from collections.abc import Iterator
from fcntl import ioctl

import pytest

from noodle_tui.terminal.driver import END, ESC_S, START
from tests.tui import frames
from tests.tui.fake_coordinator import FakeCoordinator
from tests.tui.pty_console import DEADLINE_S, PtyConsole

ALT_SCREEN_ON, ALT_SCREEN_OFF = b"\x1b[?1049h", b"\x1b[?1049l"


@pytest.fixture()
def fake() -> Iterator[FakeCoordinator]:
    with FakeCoordinator() as coordinator:
        coordinator.publish(frames.frame(frames.status()))
        yield coordinator


def stopped(console: PtyConsole) -> None:
    """Until the process stands still: nothing it writes tells, so the kernel is asked."""
    until_s = time.monotonic() + DEADLINE_S
    while console.state() != "T":
        assert time.monotonic() < until_s, f"not stopped: {console.state()}\n{console.text}"
        console.wait_for_silence(0.05)


def echoes(console: PtyConsole) -> bool:
    return bool(termios.tcgetattr(console.fd)[3] & termios.ECHO)


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="the state of a process is read from /proc")
def test_ctrl_z_gives_the_terminal_back_and_a_continue_paints_all_of_it_again(fake: FakeCoordinator) -> None:
    with PtyConsole(["--connect", fake.address]) as console:
        console.wait_for("LIVE")
        assert not echoes(console)
        console.send("\x1a")
        stopped(console)
        assert echoes(console) and console.raw.count(ALT_SCREEN_OFF) == 1, "as it was before the console"
        with console._changed:
            console.screen.reset()
        os.kill(console.pid, signal.SIGCONT)
        console.wait_for("THROUGHPUT")
        console.wait_for("q quit")
        assert "LIVE" in console.text.split("\n")[0] and not echoes(console)
        console.send("2")
        console.wait_for("2.NODES")
        console.send("q")
        assert console.exit_code() == 0


def test_a_stop_from_outside_is_survived_too(fake: FakeCoordinator) -> None:
    with PtyConsole(["--connect", fake.address]) as console:
        console.wait_for("LIVE")
        os.kill(console.pid, signal.SIGSTOP)
        stopped(console)
        with console._changed:
            console.screen.reset()
        os.kill(console.pid, signal.SIGCONT)
        console.wait_for("THROUGHPUT")
        for key, mark in (("2", "2.NODES"), ("5", "5.EVENTS"), ("1", "1.OVER")):
            console.send(key)
            console.wait_for(mark)


def test_fg_in_a_shell_brings_it_back(fake: FakeCoordinator) -> None:
    shell = ("bash", "--norc", "--noprofile", "-i")
    with PtyConsole([], command=shell, env={"PS1": "shell> ", "FAKE": fake.address, "PY": sys.executable}) as console:
        console.wait_for("shell>")
        console.send("$PY -m noodle_tui --connect $FAKE\r")
        console.wait_for("LIVE")
        console.send("8hello\x1a")
        console.wait_for("Stopped")
        console.send("clear; fg\r")
        console.wait_for("hello")
        console.wait_for(lambda: "LIVE" in console.screen.display[0] and "esc then 1-9" in console.screen.display[-1])
        console.send("\x1b")
        console.wait_for("q quit")
        console.send("q")
        console.wait_for(lambda: console.screen.display[0].startswith("shell>") or "shell>" in "\n".join(console.screen.display))
        console.send("exit\r")
        console.exit_code()


def test_a_terminal_that_tells_no_size_is_painted_once_and_not_for_ever() -> None:
    with PtyConsole(["--connect", "127.0.0.1:9"], width=0, height=0) as console:
        console.wait_for(lambda: b"q quit" in console.raw)
        console.send("\x03")
        assert console.exit_code() == 130
        assert struct.unpack("HHHH", ioctl(console.fd, termios.TIOCGWINSZ, bytes(8)))[:2] == (24, 80)
        assert len(console.raw) < 100_000


# --- what is typed ----------------------------------------------------------------------------------------------------------
def test_esc_and_a_key_at_once_are_both_taken(fake: FakeCoordinator) -> None:
    with PtyConsole(["--connect", fake.address]) as console:
        console.wait_for("LIVE")
        for keys, mark in (("8abc\x1b5", "5.EVENTS"), ("?\x1b6", "6.SESS"), ("/x\x1b:", "connect to another"), ("\x1b\x1b3", "3.PLAN")):
            console.send(keys)
            console.wait_for(mark)


def test_bytes_that_are_not_utf8_are_text_like_any_other(fake: FakeCoordinator) -> None:
    with PtyConsole(["--connect", fake.address]) as console:
        console.wait_for("LIVE")
        console.send(b"\xff\xfe8\xc3a \x80b\xe6\xbc")
        console.wait_for("8.PROMPT")
        console.wait_for(lambda: "b" in "\n".join(console.screen.display[-4:]))
        console.send(b"\xa2!")
        console.wait_for("\u6f22")
        console.send("\x1b\x1b1q")
        assert console.exit_code() == 0


@pytest.mark.parametrize("page", ["1", "4"])
@pytest.mark.parametrize("cut", [1, 2, 4, 6])
def test_a_paste_cut_by_the_link_is_no_command(fake: FakeCoordinator, page: str, cut: int) -> None:
    """Ctrl-C and Ctrl-Z are in it, `q`, `R` with its `y`, and an Esc with a key's beginning."""
    with PtyConsole(["--connect", fake.address]) as console:
        console.wait_for("LIVE")
        console.send(page)
        console.wait_for(f"{page}.{'OVER' if page == '1' else 'WHAT'}")
        whole = f"{START}R\ry:drain gpu-a\ry\x1b[A\x1bOq\x03\x1a{'x' * 64}{END}".encode()
        console.send(whole[:cut])
        console.wait_for_silence(2 * ESC_S)
        console.send(whole[cut:])
        console.send("8done")
        console.wait_for("prompt > done")
        assert "on lab-a?" not in console.text
        console.send("\x1b2")
        console.wait_for("2.NODES")


def test_a_paste_into_the_prompt_arrives_whole(fake: FakeCoordinator) -> None:
    with PtyConsole(["--connect", fake.address]) as console:
        console.wait_for("LIVE")
        console.send(f"8{START}two\rlines \x1b[31m R y{END}!")
        console.wait_for("lines ?[31m R y!")
        assert console.screen.display[-4].startswith(" prompt > two ") and console.screen.display[-3].startswith("          lines ")


@pytest.mark.parametrize("new_line", ["\x1b\r", "\n", "\x1b[13;3u", "\x1b[13;2u"])
def test_what_terminals_send_for_a_new_line_is_one(fake: FakeCoordinator, new_line: str) -> None:
    with PtyConsole(["--connect", fake.address]) as console:
        console.wait_for("LIVE")
        console.send(f"8first{new_line}second")
        console.wait_for(lambda: console.screen.display[-3].startswith("          second"))
        assert console.screen.display[-4].startswith(" prompt > first")
        console.send("\r")
        console.wait_for("ended the stream early")
        assert [request.prompt for request in fake.control.requests] == ["first\nsecond"]
        console.send("\x1b\x1b2")
        console.wait_for("2.NODES")
