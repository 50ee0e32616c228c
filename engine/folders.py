"""Where this user keeps what the programs write: caches, state, settings, and what lives only as long as a cluster.

Each platform has its own places, which `platformdirs` knows; the XDG variables count on all of them. What lies where an earlier version
kept it stays there and is used, until something lies in the new place.
"""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

NAME = "noodlecore"
CACHE_VARIABLE, RUN_VARIABLE = "NOODLE_CACHE", "NOODLE_RUN_DIR"


def cache_folder() -> Path:
    """For weights: `$NOODLE_CACHE`, else the platform's place for caches."""
    return Path(chosen).expanduser() if (chosen := os.environ.get(CACHE_VARIABLE)) else _platform_cache()


def state_folder() -> Path:
    """For what programs remember: profiles that the console took, the lines of a chat."""
    return _used(_xdg("XDG_STATE_HOME") or platformdirs.user_state_path(NAME, appauthor=False), Path.home() / ".local" / "state" / NAME)


def settings_path(name: str) -> Path:
    """Of a file or folder among the user's settings: `console.toml`, `themes`."""
    former = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "noodle"
    return _used((_xdg("XDG_CONFIG_HOME") or platformdirs.user_config_path(NAME, appauthor=False)) / name, former / name)


def shown_path(path: Path) -> str:
    """As people write it: from their home on."""
    home = Path.home()
    return f"~{os.sep}{path.relative_to(home)}" if path.is_relative_to(home) else str(path)


def run_folder() -> Path:
    """For what lets this user into their clusters: `$NOODLE_RUN_DIR`, else the session's folder, else one beside the caches."""
    if given := os.environ.get(RUN_VARIABLE):
        return Path(given)
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    return Path(runtime) / NAME if runtime and Path(runtime).is_dir() else Path.home() / ".cache" / NAME / "run"


def _platform_cache() -> Path:
    return _xdg("XDG_CACHE_HOME") or platformdirs.user_cache_path(NAME, appauthor=False, opinion=False)


def _xdg(variable: str) -> Path | None:
    return Path(base) / NAME if (base := os.environ.get(variable)) else None


def _used(place: Path, former: Path) -> Path:
    return former if former.exists() and not place.exists() else place
