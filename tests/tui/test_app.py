"""The shell in a headless terminal: keys, states, painting only what changed."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from textual import events
from textual.pilot import Pilot

from engine.data.generation import FinishReason, GenerateRequest, PromptMode
from engine.data.sampling import SamplingRequest
from noodle_tui.app import ConsoleApp
from noodle_tui.core import messages as m
from noodle_tui.core.keys import KEYS
from noodle_tui.core.pages import Page
from noodle_tui.glyphs import UNICODE
from noodle_tui.themes import theme_names
from noodle_tui.widgets.line_view import LineView
from noodle_tui.widgets.prompt_field import PromptField, TextField
from tests.tui import frames
from tests.tui.harness import link_of, live, run, shown

SIZES = [(80, 24), (120, 40)]


@pytest.mark.parametrize("size", SIZES)
def test_live_screen_shows_the_facts(size: tuple[int, int]) -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        assert "CONNECTING" in shown(app)
        await live(app, pilot)
        for fact in ("LIVE", "gpt2", "plan #14 balanced", "nodes 4/4", "S2 gpu-c", "!!", "first event", "3.Plan", "? help", "q quit"):
            assert fact in shown(app), fact
        assert shown(app).isascii()

    run(test, size)


@pytest.mark.parametrize("size", SIZES)
def test_unicode_screen_has_its_glyphs_and_the_same_rows(size: tuple[int, int]) -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await live(app, pilot)
        text = shown(app)
        assert "▅" in text and "│" in text
        assert [len(row) for row in text.split("\n")] == [size[0]] * size[1]

    run(test, size, UNICODE)


def test_typing_sends_the_prompt_with_the_settings_and_streams() -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await live(app, pilot)
        await pilot.press("p", *"quit now?", "enter")
        sampling = SamplingRequest(temperature=0.0, seed=0)
        sent = GenerateRequest("quit now?", max_new_tokens=5, sampling=sampling, mode=PromptMode.AUTO)
        assert link_of(app).requests == [sent], "printable keys type in the field"
        for i in range(3):
            app.dispatch(m.TokenArrived(1, frames.chunk(i, f" word{i}")))
        app.dispatch(m.TokenArrived(1, frames.chunk(-1, "", finish_reason=FinishReason.LENGTH)))
        app.dispatch(m.SessionEnded(1))
        app.paint()
        await pilot.pause()
        app.paint()
        await pilot.pause()
        assert "word0 word1 word2" in shown(app) and "finished: length" in shown(app) and "3/5 tok" in shown(app)
        assert app.main.query_one("#prompt", PromptField).value == ""
        await pilot.press("up")
        assert app.main.query_one("#prompt", PromptField).value == "quit now?"

    run(test, max_new_tokens=5)


def test_escape_stops_the_answer_then_leaves_the_field() -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await live(app, pilot)
        await pilot.press("p", "h", "i", "enter")
        await pilot.pause()
        await pilot.press("escape")
        await pilot.pause()
        assert link_of(app).num_cancelled == 1
        assert app.state.generation.finish_reason is FinishReason.CANCELLED
        assert isinstance(app.focused, PromptField)
        await pilot.press("escape")
        assert app.focused is None

    run(test)


def test_one_answer_at_a_time() -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await live(app, pilot)
        await pilot.press("p", "a", "enter", "b", "enter")
        assert len(link_of(app).requests) == 1
        await pilot.pause()
        assert "one answer at a time" in shown(app)
        assert app.main.query_one("#prompt", PromptField).value == "b", "nothing typed is lost"
        await pilot.press("escape")
        await pilot.pause()
        assert "one answer at a time" not in shown(app) and app.state.generation.running

    run(test)


def test_a_prompt_before_the_connection_is_kept_and_explained() -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await pilot.press("p", "x", "enter")
        await pilot.pause()
        assert "not connected" in shown(app) and link_of(app).requests == []

    run(test)


def test_a_wrong_setting_is_a_sentence() -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await live(app, pilot)
        app.main.query_one("#temperature", TextField).value = "warm"
        await pilot.press("p", "x", "enter")
        await pilot.pause()
        assert "temperature 'warm' is not a number" in shown(app)
        app.main.query_one("#temperature", TextField).value = "0.5"
        await pilot.press("enter")
        assert link_of(app).requests[0].sampling.temperature == 0.5

    run(test)


def test_pasted_text_is_safe_and_keeps_its_lines() -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await pilot.press("p")
        field = app.main.query_one("#prompt", PromptField)
        app.post_message(events.Paste("two\nlines \x1b[31mred\u202e " + "x" * 200_000))
        await pilot.pause()
        assert field.value.startswith("two\nlines ?[31mred xxx")
        assert 99_000 < len(field.value) <= 100_000

    run(test)


@pytest.mark.parametrize("page", list(Page))
def test_help_lists_the_keys_of_its_screen_and_keeps_line_1(page: Page) -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await live(app, pilot)
        await pilot.press(str(page.number), "f1")
        await pilot.pause()
        text = shown(app)
        assert "LIVE" in text.split("\n")[0] and f"HELP  screen {page.number}" in text
        for key in KEYS:
            if page in key.pages and not key.id.startswith("screen."):
                assert f"{key.label} " in text and key.text in text, key
        await pilot.press("escape")
        await pilot.pause()
        assert "HELP" not in shown(app) and "LIVE" in shown(app)

    run(test, (140, 60))


@pytest.mark.parametrize("key", ["q", "ctrl+c", "ctrl+q"])
def test_quitting_stops_the_cluster_first(key: str) -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await pilot.press(key)
        await pilot.pause()

    app = run(test)
    assert link_of(app).num_stops == 1
    assert app.return_code == (0 if key == "q" else 130)


def test_control_c_quits_from_the_field_where_q_is_a_letter() -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await pilot.press("p", "q")
        assert app.is_running and not app.state.quitting
        await pilot.press("ctrl+c")
        await pilot.pause()

    assert link_of(run(test)).num_stops == 1


def test_retry_is_for_links_that_are_down() -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await live(app, pilot)
        await pilot.press("r")
        assert link_of(app).num_retries == 0
        app.dispatch(m.LinkLost("connection refused", time.monotonic() + 5))
        await pilot.pause()
        assert "OFFLINE" in shown(app) and "connection refused" in shown(app) and "retry in" in shown(app)
        assert "gpu-c" in shown(app), "the last values stay"
        await pilot.press("r")
        assert link_of(app).num_retries == 1

    run(test)


def test_hold_freezes_the_panels() -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await live(app, pilot)
        await pilot.press("space")
        await live(app, pilot, plan_version=15)
        assert "HOLD" in shown(app) and "plan #14" in shown(app)
        await pilot.press("space")
        await pilot.pause()
        assert "HOLD" not in shown(app) and "plan #15" in shown(app)

    run(test)


def test_the_theme_picker_shows_every_theme_at_once_and_esc_takes_it_back() -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await live(app, pilot)
        before, seen = shown(app).split("\n"), []
        await pilot.press("t")
        for _ in theme_names():
            await pilot.pause()
            seen.append(app.look.name)
            await pilot.press("down")
        assert seen == theme_names()
        await pilot.press("escape")
        await pilot.pause()
        assert app.look.name == "noodle-dark"
        assert shown(app).split("\n")[1:] == before[1:], "line 1 holds an age"
        await pilot.press("t", "down", "enter")
        await pilot.pause()
        assert app.look.name == theme_names()[1]

    run(test)


def test_nodes_are_selected_with_the_arrow_keys() -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await live(app, pilot)
        await pilot.press("down", "j")
        await pilot.pause()
        assert ">gpu-c" in shown(app) and " gpu-c: cpu on lab" in shown(app)

    run(test)


def test_the_answer_scrolls_within_its_text() -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await live(app, pilot)
        await pilot.press("8")
        app.dispatch(m.PromptSent(1, "p", 64, 0.0, 0))
        app.dispatch(m.TokenArrived(1, frames.chunk(0, "\n".join(f"row{i}" for i in range(30)))))
        app.paint()
        await pilot.pause()
        app.paint()
        assert "row29" in shown(app)
        await pilot.press(*["pageup"] * 20)
        await pilot.pause()
        assert "row0" in shown(app) and "row29" not in shown(app)
        await pilot.press(*["pagedown"] * 20)
        await pilot.pause()
        assert "row29" in shown(app)

    run(test)


def test_too_small_and_back() -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await live(app, pilot)
        await pilot.resize_terminal(50, 10)
        await pilot.pause()
        app.paint()
        await pilot.pause()
        assert "LIVE" in shown(app) and "4/4 nodes" in shown(app) and "q quit" in shown(app) and "NODE" not in shown(app)
        await pilot.resize_terminal(120, 40)
        await pilot.pause()
        app.paint()
        await pilot.pause()
        assert "NODE" in shown(app) and "EVENTS" in shown(app)

    run(test)


def test_an_unchanged_state_repaints_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    refreshed: list[object] = []

    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await live(app, pilot)
        app.paint()
        monkeypatch.setattr(LineView, "refresh", lambda self, *regions, **_: refreshed.extend(regions))
        app.paint()
        assert refreshed == []
        app.dispatch(m.KeyPressed("nav.down"))
        app.paint()
        assert 2 <= len(refreshed) <= 4, "two cursor cells and the details"

    run(test)


def test_a_slow_terminal_drops_frames() -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await live(app, pilot)
        app._backlog = lambda: 3  # type: ignore[method-assign]
        await live(app, pilot, plan_version=15)
        assert "plan #14" in shown(app)
        app._backlog = lambda: 0  # type: ignore[method-assign]
        app.paint()
        await pilot.pause()
        assert "plan #15" in shown(app)

    run(test)


def test_hostile_names_are_drawn_as_text() -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        evil = "[/red]\x1b]0;x\x07\u202e"
        await live(app, pilot, name=evil, nodes=(frames.node(evil),), stages=(frames.stage(evil),))
        assert "[/red]?]0;x?" in shown(app)
        assert not any(ord(char) < 32 and char != "\n" for char in shown(app))

    run(test, (120, 40))


def test_an_answer_is_saved_and_offered_to_the_clipboard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    copied: list[str] = []

    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        monkeypatch.setattr(app, "copy_to_clipboard", copied.append)
        await live(app, pilot)
        await pilot.press("8", "f2", "f3")
        assert "there is no answer to export yet" in shown(app) and copied == []
        app.dispatch(m.PromptSent(1, "why?", 8, 0.0, 3))
        for i, word in enumerate(("because", " so")):
            app.dispatch(m.TokenArrived(1, frames.chunk(i, word)))
        await pilot.press("enter", "f2", "f3")  # in the field as well
        await pilot.pause()
        assert copied == ["because so"]

    run(test)
    (saved,) = tmp_path.glob("noodle-answer-*.jsonl")
    record = json.loads(saved.read_text())
    assert (record["prompt"], record["text"], record["num_tokens"], record["seed"]) == ("why?", "because so", 2, 3)
