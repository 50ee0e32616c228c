"""Where programs keep things: variables first, then the platform's places; what an earlier version left in another place is found."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import platformdirs
import pytest

from engine.folders import cache_folder, run_folder, settings_path, state_folder

VARIABLES = ("NOODLE_CACHE", "NOODLE_RUN_DIR", "XDG_CACHE_HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of a user who set nothing."""
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    return tmp_path


@pytest.mark.skipif(sys.platform != "linux", reason="the places of Linux")
def test_the_places_of_linux_are_those_of_earlier_versions(home: Path) -> None:
    assert cache_folder() == home / ".cache" / "noodlecore" and run_folder() == home / ".cache" / "noodlecore" / "run"
    assert state_folder() == home / ".local" / "state" / "noodlecore"
    assert settings_path("themes") == home / ".config" / "noodlecore" / "themes"


def test_variables_count_on_every_platform(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in VARIABLES[2:]:
        monkeypatch.setenv(variable, str(home / variable))
    (home / "XDG_RUNTIME_DIR").mkdir()
    found = (cache_folder(), state_folder(), settings_path("x").parent, run_folder())
    assert found == tuple(home / variable / "noodlecore" for variable in VARIABLES[2:])
    monkeypatch.setenv("NOODLE_CACHE", "~/weights")
    monkeypatch.setenv("NOODLE_RUN_DIR", str(home / "run"))
    assert (cache_folder(), run_folder()) == (home / "weights", home / "run")


def test_what_an_earlier_version_left_is_used_until_the_new_place_has_it(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    former = home / ".config" / "noodle"
    (former / "themes").mkdir(parents=True)
    (former / "console.toml").touch()
    assert (settings_path("console.toml"), settings_path("themes")) == (former / "console.toml", former / "themes")
    new = settings_path("nothing")
    new.parent.mkdir(parents=True)
    new.with_name("console.toml").touch()
    assert (settings_path("console.toml"), settings_path("themes")) == (new.with_name("console.toml"), former / "themes")

    elsewhere = home / "Library" / "Application Support" / "noodlecore"  # as on a Mac
    monkeypatch.setattr(platformdirs, "user_state_path", lambda *_, **__: elsewhere)
    assert state_folder() == elsewhere
    (home / ".local" / "state" / "noodlecore").mkdir(parents=True)
    assert state_folder() == home / ".local" / "state" / "noodlecore"
    elsewhere.mkdir(parents=True)
    assert state_folder() == elsewhere


@pytest.mark.skipif(sys.platform != "linux", reason="the former place of Linux")
@pytest.mark.parametrize("name", ["noodle", "noodlecore"])
def test_the_console_reads_its_settings_in_both_places(home: Path, name: str) -> None:
    """A console that is started finds the file: what is wrong in it ends it with a sentence."""
    (folder := home / ".config" / name).mkdir(parents=True)
    (folder / "console.toml").write_text('tehme = "dark"\n')
    done = subprocess.run([sys.executable, "-m", "noodle_tui", "--demo"], env=os.environ, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and f"{folder / 'console.toml'}: unknown key 'tehme'" in done.stderr, done.stderr


def test_cache_list_names_the_same_place(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "caches"))
    listed = subprocess.run([sys.executable, "-m", "engine", "cache", "list", "--json"], capture_output=True, text=True, timeout=60)
    assert json.loads(listed.stdout)["folder"] == str(cache_folder()) == str(home / "caches" / "noodlecore")
