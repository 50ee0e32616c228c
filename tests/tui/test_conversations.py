"""Commands of the Prompt screen: several conversations, the system's text, settings, the clipboard, an editor."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from textual.pilot import Pilot

from noodle_tui.app import ConsoleApp
from noodle_tui.core import messages as m
from noodle_tui.core.talk import MAX_CONVERSATIONS
from noodle_tui.input.talking import MAX_CLIPBOARD_BYTES
from tests.tui import frames
from tests.tui.fake_coordinator import FakeCoordinator
from tests.tui.harness import finished, link_of, live, run, shown
from tests.tui.pty_console import PtyConsole
from tests.tui.test_talk import after, turn


@pytest.fixture()
def fake() -> Iterator[FakeCoordinator]:
    with FakeCoordinator() as coordinator:
        coordinator.publish(frames.frame(frames.status()))
        yield coordinator


async def ask(app: ConsoleApp, pilot: Pilot[None], number: int, prompt: str, answer: str) -> None:
    """Type a prompt; the cluster answers."""
    app.main.write()
    await pilot.press(*prompt, "enter")
    for message in list(turn(number, prompt, answer))[1:]:
        app.dispatch(message)
    await finished(app, pilot)


def test_a_new_conversation_knows_nothing_of_the_one_before_and_that_one_can_be_gone_on_with() -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await live(app, pilot)
        await pilot.press("8")
        await ask(app, pilot, 1, "one", "eins")
        app.effects.run("new")
        await ask(app, pilot, 2, "two", "zwei")
        assert link_of(app).requests[1].prompt == "two"
        assert "conversation 2 of 2" in shown(app) and " > one" not in shown(app)
        await pilot.press("escape", "comma")
        await finished(app, pilot)
        assert " > one" in shown(app) and " > two" not in shown(app) and "conversation 1 of 2" in shown(app)
        await ask(app, pilot, 3, "more", "mehr")
        assert [said["content"] for said in json.loads(link_of(app).requests[2].messages)] == ["one", "eins", "more"]
        await pilot.press("escape", "full_stop", "full_stop")
        assert app.state.talk.index == 1
        app.effects.run("conversation 1")
        assert app.state.talk.index == 0 and app.main.field is not None
        app.effects.run("conversation 3")
        await finished(app, pilot)
        assert "conversation '3': there are 1 to 2; `new` begins another" in shown(app) and app.state.talk.index == 0

    run(test, (100, 24))


def test_an_answer_goes_on_while_another_conversation_is_shown() -> None:
    first = list(turn(1, "a", "b", "c"))
    state = after(*first[:2], m.ConversationBegun(), *first[2:])
    assert state.talk.index == 1 and state.talk.conversations[0].newest.text == "bc" and not state.generation.running


def test_new_twice_is_new_once_and_the_oldest_goes_when_there_are_too_many() -> None:
    state = after(*turn(1, "a", "b"), m.ConversationBegun(), m.ConversationBegun())
    assert len(state.talk.conversations) == 2
    for i in range(2, MAX_CONVERSATIONS + 5):
        state = after(*turn(i, f"p{i}", "b"), m.ConversationBegun(), state=state)
    known = state.talk.conversations
    assert len(known) == MAX_CONVERSATIONS and state.talk.current is known[-1] and known[0].newest.prompt == "p6"


def test_what_the_system_says_comes_first_and_stays_for_the_next_conversation() -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await live(app, pilot)
        await pilot.press("8")
        app.effects.run("system Be brief.")
        await finished(app, pilot)
        assert " system: Be brief." in shown(app)
        await ask(app, pilot, 1, "one", "eins")
        app.effects.run("new")
        await ask(app, pilot, 2, "two", "zwei")
        for request, prompt in zip(link_of(app).requests, ("one", "two"), strict=True):
            said = [(message["role"], message["content"]) for message in json.loads(request.messages)]
            assert said == [("system", "Be brief."), ("user", prompt)]
        app.effects.run("system -")
        app.effects.run("new")
        await ask(app, pilot, 3, "three", "drei")
        assert link_of(app).requests[2].prompt == "three"
        app.effects.run("system")
        await finished(app, pilot)
        assert "the system says nothing" in shown(app)

    run(test)


@pytest.mark.parametrize(("temperature", "top_p"), [("", ""), ("0.7", "0.9"), ("0", " ")])
def test_a_setting_that_is_left_empty_is_left_to_the_model(temperature: str, top_p: str) -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await live(app, pilot)
        await pilot.press("8", "tab", "tab", "end", "ctrl+u", *temperature, "tab", *top_p, "tab", "end", "9", "enter", "x", "enter")
        sampling = link_of(app).requests[0].sampling
        assert sampling.temperature == (float(temperature) if temperature else None) and sampling.seed == 9
        assert sampling.top_p == (float(top_p) if top_p.strip() else None)

    run(test)


def test_a_wrong_top_p_is_a_sentence() -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await live(app, pilot)
        await pilot.press("8", "tab", "tab", "tab", "7", "enter", "x", "enter")
        await finished(app, pilot)
        assert "top_p" in shown(app) and link_of(app).requests == [] and app.main.prompt.value == "x"

    run(test)


@pytest.mark.parametrize(("answer", "said"), [("a\tb", "3 characters offered"), ("é" * 60_000, "the first 37,497 of 60,000 characters")])
def test_copy_offers_the_answer_as_it_came_and_no_more_than_a_clipboard_takes(answer: str, said: str) -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await live(app, pilot)
        await pilot.press("8")
        await ask(app, pilot, 1, "one", answer)
        app.effects.run("copy")
        await finished(app, pilot)
        assert answer.startswith(app.clipboard) and len(app.clipboard.encode()) <= MAX_CLIPBOARD_BYTES and said in shown(app)

    run(test, (120, 40))


# --- an editor ----------------------------------------------------------------------------------------------------------
def script(folder: Path, text: str) -> str:
    """An editor that does what `text` says with the file `$1`."""
    path = folder / "editor"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def edit(fake: FakeCoordinator, editor: str, then: Callable[[PtyConsole], None]) -> None:
    with PtyConsole(["--connect", fake.address], env={"EDITOR": editor, "VISUAL": ""}) as console:
        console.wait_for("LIVE")
        console.send("8draft\x10edit\r")
        then(console)


def test_an_editor_gets_the_terminal_and_the_text_and_gives_both_back(fake: FakeCoordinator, tmp_path: Path) -> None:
    editor = script(tmp_path, 'printf "EDITING %s, say: " "$(cat $1)"; read said; printf "%s\\nsecond" "$said" > $1')

    def then(console: PtyConsole) -> None:
        console.wait_for("EDITING draft, say: ")
        assert console.raw.count(b"\x1b[?1049l") == 1, "the screen is as it was before the console"
        console.send("hello\n")
        console.wait_for(lambda: console.screen.display[-4].startswith(" prompt > hello"))
        assert console.screen.display[-3].startswith("          second")
        console.send(" R y\r")
        console.wait_for("ended the stream early")
        assert [request.prompt for request in fake.control.requests] == ["hello\nsecond R y"]
        console.send("\x1b\x1b2")
        console.wait_for("2.NODES")

    edit(fake, editor, then)


def test_ctrl_c_in_an_editor_is_the_editors(fake: FakeCoordinator, tmp_path: Path) -> None:
    editor = script(tmp_path, "trap 'echo caught > $1; exit 0' INT; echo EDITING; while :; do read x; done")

    def then(console: PtyConsole) -> None:
        console.wait_for("EDITING")
        console.send("\x03")
        console.wait_for("prompt > caught")
        console.send("\x1b2q")
        assert console.exit_code(20) == 0, "by q, and not by the signal"

    edit(fake, editor, then)


@pytest.mark.parametrize(("editor", "said"), [("exit 3", "ended with code 3"), ("", "did not run (No such"), ("'", "EDITOR is no command")])
def test_an_editor_that_fails_is_a_sentence_and_loses_nothing(fake: FakeCoordinator, tmp_path: Path, editor: str, said: str) -> None:
    command = script(tmp_path, editor) if editor == "exit 3" else editor or str(tmp_path / "none")

    def then(console: PtyConsole) -> None:
        console.wait_for(lambda: said in re.sub(r"\s+", " ", console.text), 20)
        assert "prompt > draft" in console.text

    edit(fake, command, then)


def test_the_clipboard_is_offered_by_its_sequence(fake: FakeCoordinator) -> None:
    fake.control.chunks = (frames.chunk(0, "to be copied"),)
    with PtyConsole(["--connect", fake.address, "--ascii"]) as console:
        console.wait_for("LIVE")
        console.send("8x\r")
        console.wait_for("to be copied")
        console.send("\x10copy\r")
        console.wait_for("offered to the terminal's clipboard")
        assert b"\x1b]52;c;" + base64.b64encode(b"to be copied") in console.raw and console.raw.isascii()
