"""Finds, reads and writes the `profile.json` files of `noodle-engine profile`; what is shown of them is in `core/profile_view.py`."""

from __future__ import annotations

import json
from pathlib import Path

from engine.data.errors import Corrupt
from engine.files import read_document, replace_whole
from engine.folders import state_folder
from noodle_tui.core.profile_view import ProfileView, view_of

MAX_FILE_BYTES = 256 * 2**20


def newest_profile(folder: Path) -> Path | None:
    """The youngest `profile*/profile.json` or `profile.json` below a folder, or of those that the console took."""
    return max(_profiles(folder), key=lambda path: path.stat().st_mtime, default=None)


def profile_after(folder: Path, present: str) -> Path | None:
    """The one that follows `present` by name, around the end; None without any."""
    found = sorted(_profiles(folder))
    index = next((i for i, path in enumerate(found) if present and path.resolve() == Path(present).resolve()), -1)
    return found[(index + 1) % len(found)] if found else None


def _profiles(folder: Path) -> list[Path]:
    here = [path for pattern in ("profile.json", "profile*/profile.json") for path in folder.glob(pattern)]
    return [path for path in (*here, *state_folder().glob("profile-*/profile.json")) if path.is_file()]


def save_profile(worker_id: str, document: str) -> Path:
    """Write a node's profile to `profile-NODE/profile.json` in the user's state folder, whole or not at all."""
    path = state_folder() / f"profile-{worker_id}" / "profile.json"
    replace_whole(path, document.encode())
    return path


def read_profile(path: Path) -> ProfileView:
    """Raises NotFound, or Corrupt naming what is missing."""
    text = read_document(path, "a profile", "write one with `noodle-engine profile MODEL --out DIR`", MAX_FILE_BYTES)
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError):
        raise Corrupt(f"{path} is not JSON: take the profile again") from None
    try:
        return view_of(str(path), raw)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as problem:
        raise Corrupt(f"{path} is not a profile of noodle-engine ({type(problem).__name__}: {problem}): take it again") from None
