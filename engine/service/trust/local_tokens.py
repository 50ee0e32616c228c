"""What lets the user of this machine into the clusters that they started from it: files that only this user can read.

`up` and the console make tokens for the cluster they start, and leave the operator's under the coordinator's address; a client of the
same user finds it there. A cluster over other machines has certificates instead: `up` leaves the operator's in the same way. Another
user of the machine finds nothing.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from engine.data.errors import Refused
from engine.files import decoded, failure, replace_whole
from engine.folders import RUN_VARIABLE, run_folder


@dataclass(frozen=True, slots=True)
class LocalTokens:
    """`path` is the file that a cluster's processes read."""

    path: Path
    operator: str = field(repr=False)
    worker: str = field(repr=False)


def make_tokens() -> LocalTokens:
    """New tokens for a cluster of this user. Raises what a folder that cannot be written raises, Refused for one that others can read."""
    operator, worker = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
    path = own_folder() / f"{secrets.token_hex(8)}.tokens"
    replace_whole(path, f"operator {operator}\nworker {worker}\n".encode(), mode=0o600)
    return LocalTokens(path, operator, worker)


def leave_token(tokens: LocalTokens, address: str) -> None:
    """Let clients of this user find the operator's token by the coordinator's address."""
    replace_whole(own_folder() / _name(address), tokens.operator.encode(), mode=0o600)


def token_path(address: str) -> Path:
    """Where the token of the cluster at `address` is, if this user started one there."""
    return run_folder() / _name(address)


def find_token(address: str) -> str | None:
    """The token left for the cluster at `address`, if this user started one there.

    Raises what a file that is there and cannot be read raises: without it the cluster would only say that it asks for a token.
    """
    path = token_path(address)
    try:
        content = path.read_bytes()
    except OSError as error:
        if os.path.lexists(path):
            raise failure(error, path) from error
        return None  # there is none, or its folder is another user's
    return decoded(content, f"{path}, a token,") or None


def remove_tokens(tokens: LocalTokens, address: str) -> None:
    """When the cluster is gone."""
    for path in (tokens.path, token_path(address)):
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class Papers:
    """An operator's certificate, its key, and the authority of the cluster: files in PEM."""

    certificate: Path
    key: Path
    authority: Path


def leave_papers(address: str, certificate: bytes, key: bytes, authority: bytes) -> Papers:
    """Let clients of this user find an operator's certificate by the coordinator's address."""
    own_folder()
    papers = _papers(address)
    for path, content in ((papers.authority, authority), (papers.key, key), (papers.certificate, certificate)):
        replace_whole(path, content, mode=0o600)
    return papers


def find_papers(address: str) -> Papers | None:
    """The certificate left for the cluster at `address`, if this user started one there."""
    papers = _papers(address)
    return papers if os.path.lexists(papers.certificate) else None  # the last to be written, the first to go


def remove_papers(address: str) -> None:
    """When the cluster is gone."""
    papers = _papers(address)
    for path in (papers.certificate, papers.key, papers.authority):
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        papers.certificate.parent.rmdir()


def _papers(address: str) -> Papers:
    folder = run_folder() / _name(address, ".certs")
    return Papers(folder / "operator.pem", folder / "operator.key", folder / "ca.pem")


def _name(address: str, ending: str = ".token") -> str:
    return re.sub(r"[^A-Za-z0-9.-]", "_", address) + ending


def own_folder() -> Path:
    """The folder, of this user alone. Raises what a folder that cannot be made raises, Refused for one that others can read."""
    folder = run_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        found = folder.lstat()
    except OSError as error:
        raise failure(error, folder) from error
    if hasattr(os, "getuid") and (found.st_uid != os.getuid() or found.st_mode & 0o077 or folder.is_symlink()):
        raise Refused(f"{folder} is not a folder of this user alone: `chmod 700` it, or name another with {RUN_VARIABLE}")
    return folder
