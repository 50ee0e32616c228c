"""Keys and commands in the running app: lists, drill-down, palette, files, themes; and what they must not do."""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from textual.pilot import Pilot

from engine.data.errors import Refused
from engine.data.status import Severity, WrittenLine
from noodle_tui.app import ConsoleApp
from noodle_tui.cluster.recording import Recording
from noodle_tui.config import Config
from noodle_tui.core import messages as m
from noodle_tui.core.keys import KEYS, with_keys
from noodle_tui.core.pages import Page
from noodle_tui.glyphs import UNICODE
from tests.tui import frames
from tests.tui.harness import finished, link_of, live, run, shown

THEME = (Path(__file__).resolve().parents[2] / "themes" / "noodle-dark.toml").read_text("utf-8")


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Files land in the test's folder, and no user's own settings get in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    yield


async def command(pilot: Pilot[None], text: str) -> None:
    await pilot.press("colon", *text, "enter")
    await pilot.pause()


def test_digits_open_the_screens_and_tab_goes_round() -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await live(app, pilot)
        for page in Page:
            await pilot.press(str(page.number))
            assert app.state.ui.page is page
            await pilot.pause()
            assert f"{page.number}.{shown(app).split(chr(10))[1].split(f'{page.number}.')[1][:2].upper()}" in shown(app)
            if page is Page.PROMPT:
                assert "esc then 1-9 screens" in shown(app)
                await pilot.press("escape")
        await pilot.press("tab")
        assert app.state.ui.page is Page.OVERVIEW
        await pilot.press("tab")
        assert app.state.ui.list_page is Page.SESSIONS, "on the Overview tab moves between its panels"

    run(test)


def test_a_filter_works_while_it_is_typed_and_esc_clears_it() -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await live(app, pilot)
        await pilot.press("2", "slash", *"!gpu q")
        await pilot.pause()
        assert app.is_running and not app.state.quitting, "q is a letter here"
        await pilot.press("backspace", "backspace", "enter")
        await pilot.pause()
        assert "cpu-b" in shown(app) and "gpu-a" not in shown(app)
        await pilot.press("escape")
        await pilot.pause()
        assert "gpu-a" in shown(app)

    run(test)


def test_sorting_keeps_the_cursor_on_its_row() -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await live(app, pilot)
        await pilot.press("2", "down", "down")
        for _ in range(5):
            await pilot.press("o")
        await pilot.press("O")
        await pilot.pause()
        rows = shown(app).split("\n")[5:9]
        assert [row.split()[0].lstrip(">") for row in rows] == ["gpu-c", "cpu-b", "gpu-a", "pi-d"], "slowest first"
        assert rows[0].startswith(">gpu-c")

    run(test)


def test_enter_goes_in_and_esc_comes_back() -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await live(app, pilot)
        await pilot.press("3", "down", "enter")
        assert app.state.ui.page is Page.NODES
        await pilot.pause()
        assert " cpu-b  ok  runs S1" in shown(app)
        await pilot.press("escape")
        assert app.state.ui.page is Page.PLAN
        await pilot.press("escape")
        assert app.state.ui.page is Page.OVERVIEW

    run(test)


def test_the_palette_finds_runs_and_refuses() -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await live(app, pilot)
        await pilot.press("ctrl+p", *"theme mo")
        await pilot.pause()
        assert "theme mono" in shown(app)
        await pilot.press("down", "enter")
        assert app.look.name == "mono"
        await command(pilot, "events")
        assert app.state.ui.page is Page.EVENTS
        await command(pilot, "theem ansi")
        assert "there is no command 'theem'" in shown(app) and "did you mean 'theme'" in shown(app)

    run(test)


def test_every_command_line_is_survived() -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await live(app, pilot)
        lines = (
            "theme \x1b[31m",
            "plan x",
            "plan 99",
            "seek 1",
            "speed 2",
            "export xml",
            "export json /dev/null/folder/f",
            "profile /no",
            "record off",
            "ctx nonsense",
        )
        for text in lines:
            app.effects.run(text)
            await pilot.pause()
            assert app.is_running
            assert (app.state.said and app.state.said.is_error) or app.state.profile.error, text
        app.effects.run("")
        await pilot.pause()
        assert app.is_running

    run(test)


@pytest.mark.parametrize("form", ["json", "jsonl", "csv"])
def test_export_writes_the_rows_on_screen(form: str, tmp_path: Path) -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await live(app, pilot, nodes=(frames.node("=evil()"), frames.node("gpu-a")), stages=())
        await pilot.press("2")
        await command(pilot, f"export {form} out")
        assert "2 nodes written to out" in shown(app)
        await command(pilot, f"export {form} out")
        assert "out exists" in shown(app), "nothing is overwritten"

    run(test)
    text = (tmp_path / "out").read_text()
    assert text.isascii()
    names = {
        "json": lambda: [row["node"] for row in json.loads(text)],
        "jsonl": lambda: [json.loads(line)["node"] for line in text.splitlines()],
        "csv": lambda: [row["node"] for row in csv.DictReader(text.splitlines())],
    }[form]()
    assert names == (["'=evil()", "gpu-a"] if form == "csv" else ["=evil()", "gpu-a"])


def test_x_offers_the_export_and_shot_writes_a_picture(tmp_path: Path) -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await live(app, pilot)
        await pilot.press("5", "x", "enter")
        await pilot.pause()
        assert "events written to noodle-events-" in shown(app)
        await command(pilot, "shot s.svg")
        assert "this screen is in s.svg" in shown(app)

    run(test)
    assert "<svg" in (tmp_path / "s.svg").read_text()


def test_recording_and_ending_it(tmp_path: Path) -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await live(app, pilot)
        await command(pilot, "record r.jsonl")
        assert "[REC]" in shown(app)
        await live(app, pilot, plan_version=15)
        await live(app, pilot, plan_version=16)
        await command(pilot, "record off")
        assert "[REC]" not in shown(app) and "--replay r.jsonl" in shown(app)

    run(test)
    recording = Recording(tmp_path / "r.jsonl")
    assert [entry.plan_version for entry in recording.entries] == [15, 16]


def test_a_recording_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await live(app, pilot)
        await pilot.pause()
        assert "/dev/null/folder/f" in shown(app) and "LIVE" in shown(app)

    run(test, record="/dev/null/folder/f")


def test_a_profile_is_read_when_its_screen_opens(tmp_path: Path) -> None:
    (tmp_path / "profile-tiny").mkdir()
    fixture = Path(__file__).parent / "profile.json"
    (tmp_path / "profile-tiny" / "profile.json").write_text(fixture.read_text())

    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await live(app, pilot)
        await pilot.press("7")
        await finished(app, pilot, "profile")
        assert "PROFILE  gpt2:tiny" in shown(app) and "ITEM NAME" in shown(app)
        first = shown(app)
        await pilot.press("b", "down", "enter")
        await pilot.pause()
        assert shown(app) != first and "decode" in shown(app) and "attn" in shown(app)

    run(test)


def test_a_users_theme_is_reloaded_when_its_file_changes_and_a_broken_one_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "config" / "noodle" / "themes"
    folder.mkdir(parents=True)
    path = folder / "mine.toml"
    path.write_text(THEME)

    def save(text: str, time_s: int) -> None:
        path.write_text(text)
        os.utime(path, (time_s, time_s))

    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await live(app, pilot)
        await command(pilot, "theme mine")
        assert app.look.name == "mine"
        save(THEME.replace('ok = "#7fce8b"', 'ok = "#00ff00"'), 2_000_000_000)
        app._on_timer()
        assert app.look.colors["ok"] == "#00ff00"
        save(THEME.replace('ok = "#7fce8b"', 'ok = "green"'), 2_000_000_100)
        app._on_timer()
        app.paint()
        await pilot.pause()
        assert app.look.colors["ok"] == "#00ff00", "the last good colours stay"
        assert app.state.said and "mine.toml: state.ok must be a colour" in app.state.said.text

    run(test)


def test_the_theme_of_saved_settings_is_used_at_once_and_broken_settings_are_named(tmp_path: Path) -> None:
    settings = tmp_path / "config" / "noodlecore" / "console.toml"
    settings.parent.mkdir(parents=True)

    def save(text: str, time_s: int) -> None:
        settings.write_text(text)
        os.utime(settings, (time_s, time_s))

    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await live(app, pilot)
        save('theme = "noodle-light"', 2_000_000_000)
        app._on_timer()
        assert app.look.name == "noodle-light"
        await command(pilot, "theme cvd-dark")
        save('theme = "noodle-light"\nhz = 2', 2_000_000_100)
        app._on_timer()
        assert app.look.name == "cvd-dark", "the settings have said nothing new of it"
        save('theme = "noodle-dork"', 2_000_000_200)
        app._on_timer()
        assert app.look.name == "cvd-dark" and app.state.said and "'noodle-dork'" in app.state.said.text
        settings.unlink()
        app._on_timer()
        assert app.look.name == "noodle-dark"

    run(test)


def test_a_users_own_keys() -> None:
    config = Config(keys=with_keys({"view.hold": "u", "list.filter": "ctrl+f"}))

    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await live(app, pilot)
        await pilot.press("space")
        assert app.state.held is None
        await pilot.press("u")
        assert app.state.held is not None
        await pilot.press("question_mark")
        await pilot.pause()
        assert "ctrl+f" in shown(app)

    run(test, (120, 50), config=config)


def test_the_link_is_switched() -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await live(app, pilot)
        before = link_of(app)
        await command(pilot, "ctx 10.0.0.9:7070")
        await finished(app, pilot, "switch")
        assert before.num_stops == 1 and app.link is not before
        assert app.state.latest is None and app.state.link.address == "10.0.0.9:7070" and app.state.read_only
        assert "10.0.0.9:7070" in shown(app)

    run(test)


def test_what_was_missed_is_said_and_goes_away() -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await live(app, pilot)
        app.dispatch(m.LinkLost("gone", 0.0))
        await live(app, pilot, plan_version=15, uptime_s=1.0)
        assert "missed: the coordinator began anew, plan #14 > #15" in shown(app)
        await pilot.press("escape")
        await pilot.pause()
        assert "missed" not in shown(app)

    run(test, (120, 40))


def test_logs_follow_until_the_cursor_moves() -> None:
    def line(i: int) -> m.LogsArrived:
        from noodle_tui.core.logs import LogLine

        return m.LogsArrived((LogLine(0, 2e9 + i, "info", "w1", f"line {i}"),))

    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await live(app, pilot)
        await pilot.press("9")
        for i in range(50):
            app.dispatch(line(i))
        app.paint()
        await pilot.pause()
        assert "line 49" in shown(app) and "following" in shown(app)
        await pilot.press("pageup")
        for i in range(50, 90):
            app.dispatch(line(i))
        app.paint()
        await pilot.pause()
        assert "line 40" in shown(app) and "line 89" not in shown(app)
        await pilot.press("f")
        await pilot.pause()
        assert "line 89" in shown(app)
        await pilot.press("n", "n")
        await pilot.pause()
        assert "LOGS  w1" in shown(app)

    run(test, (100, 24))


def test_no_key_changes_the_cluster_without_y() -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await live(app, pilot)
        for page in Page:
            for key in KEYS:
                if key.id not in ("app.quit", "app.interrupt", "dialog.yes"):
                    for press in (f"screen.{page.value}", key.id, "nav.in", "nav.out", "nav.out"):
                        app.effects.press(press)
                    app.dispatch(m.EntryChanged(None))
        await finished(app, pilot, "preview", "what-if", "action")
        assert link_of(app).calls == []

    run(test, (120, 40), UNICODE)


def test_a_picture_by_key_or_command_holds_the_screen_and_no_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await live(app, pilot)
        await command(pilot, "shot by-command.svg")
        await pilot.press("i")
        await pilot.pause()
        assert "this screen is in noodle-overview-" in shown(app)

    run(test)
    files = sorted(tmp_path.glob("*.svg"))
    assert len(files) == 2
    for file in files:
        text = file.read_text()
        assert "THROUGHPUT" in text and "shot&#160;by-command" not in text, file


def test_the_logs_of_a_joined_cluster_have_what_its_processes_write_each_line_once() -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await live(app, pilot)
        link_of(app).answers["lines"] = (WrittenLine(5, 1e9, Severity.WARN, "the disk of this node is slow"),)
        app.calls.look_at_lines()
        assert not link_of(app).questions, "only while they are shown"
        await pilot.press("9")
        for _ in range(2):
            app.calls.look_at_lines()
            await finished(app, pilot, "lines")
        names = ("", *(node.worker_id for node in frames.status(4).nodes))
        asked = [question[1:] for question in link_of(app).questions if question[0] == "lines"]
        assert set(asked[: len(names)]) == {(name, 0) for name in names}
        assert set(asked[len(names) : 2 * len(names)]) == {(name, 5) for name in names}
        assert re.search(r"WARN  gpu-c +the disk of this node is slow", shown(app))
        assert "coordinator" in shown(app) and "what coordinator and workers write" in shown(app)

    run(test, (120, 40))


def test_why_no_lines_can_be_read_is_said_once() -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await live(app, pilot)
        link_of(app).answers["lines"] = Refused("GetLines needs the role operator")
        await pilot.press("9")
        for _ in range(3):
            app.calls.look_at_lines()
            await finished(app, pilot, "lines")
        assert shown(app).count("cannot be read: GetLines needs the role operator") == 1

    run(test, (120, 40))


def test_l_goes_through_the_clusters_that_were_joined() -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await live(app, pilot)
        await pilot.press("l")
        assert "no other cluster was joined" in shown(app)
        await command(pilot, "ctx 127.0.0.1:2")
        await finished(app, pilot, "switch")
        await live(app, pilot)
        assert "[2/2]" in shown(app).split("\n")[0]
        assert shown(app).split("\n")[2].startswith("-- lab-a 127.0.0.1:1 -- LAB-A 127.0.0.1:2 -- l = next ---")
        for address in ("127.0.0.1:1", "127.0.0.1:2"):
            await pilot.press("l")
            await finished(app, pilot, "switch")
            assert app.options.connect == address

    run(test)
