"""Files read whole and replaced whole; every failure is one sentence with the file and the way out.

Knows no format, and nothing of the rooms. What reads or writes piece by piece turns its `OSError` into `failure` itself.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from pathlib import Path

from engine.data.errors import Exhausted, InvalidInput, NoodleError, NotFound, Refused

MAX_DOCUMENT_BYTES = 64 << 20
_KINDS: dict[int, tuple[type[NoodleError], str]] = {
    errno.ENOENT: (NotFound, "check the name"),
    errno.EACCES: (Refused, "check its permissions and those of its folder, or choose another place"),
    errno.EPERM: (Refused, "check its permissions and those of its folder, or choose another place"),
    errno.EROFS: (Refused, "choose a place that can be written"),
    errno.ENOSPC: (Exhausted, "free some space, or choose another disk"),
    errno.EDQUOT: (Exhausted, "free some space, or choose another disk"),
    errno.EFBIG: (Exhausted, "free some space, or choose another disk"),
    errno.EMFILE: (Exhausted, "end other programs, or raise the limit of open files (ulimit -n)"),
    errno.ENFILE: (Exhausted, "end other programs, or raise the system's limit of open files"),
    errno.EISDIR: (InvalidInput, "this is a folder, name a file"),
    errno.ENOTDIR: (InvalidInput, "a part of this path is a file, name a folder"),
    errno.EEXIST: (Refused, "it exists already, or a part of its path is a file: choose another name"),
    errno.ENAMETOOLONG: (InvalidInput, "choose a shorter name"),
    errno.EIO: (NoodleError, "the disk reports errors: check it, or choose another"),
}


def failure(error: OSError, path: Path | str | None = None) -> NoodleError:
    """What to tell a user of a file operation that failed; `path` where the system call does not know its file (a write)."""
    kind, way_out = _KINDS.get(error.errno or 0, (NoodleError, "check the file and its disk, or choose another place"))
    reason = error.strerror or str(error) or type(error).__name__
    name = path if path is not None else error.filename
    if name is None:
        return kind(f"a file operation failed ({reason}): {way_out}")
    return kind(f"{shown(name)} cannot be used ({reason}): {way_out}")


def shown(path: object) -> str:
    """A path as text that any terminal and any message can carry: bytes of it that are no UTF-8 as escapes."""
    text = os.fsdecode(path) if isinstance(path, bytes) else str(path)
    return text.encode("utf-8", "backslashreplace").decode()


def read_document(path: Path, what: str, way_out: str = "", max_bytes: int = MAX_DOCUMENT_BYTES) -> str:
    """The UTF-8 text of a file, without a byte order mark. Raises NotFound, InvalidInput or what `failure` says.

    `what` names the kind of document in messages, `way_out` how to get one where the file does not exist.
    """
    try:
        with path.open("rb") as stream:
            content = stream.read(max_bytes + 1)
    except FileNotFoundError as error:
        raise NotFound(f"{shown(path)} does not exist: {way_out or f'name the file of {what}'}") from error
    except OSError as error:
        raise failure(error, path) from error
    if len(content) > max_bytes:
        raise InvalidInput(f"{shown(path)} has more than {max_bytes} bytes, too many for {what}: is it the right file?")
    return decoded(content, f"{shown(path)}, {what},")


def read_stdin(what: str, max_bytes: int = MAX_DOCUMENT_BYTES) -> str:
    """The UTF-8 text that arrives on standard input, whatever the locale says. Raises InvalidInput."""
    try:
        content = sys.stdin.buffer.read(max_bytes + 1)
    except OSError as error:
        raise failure(error, "standard input") from error
    if len(content) > max_bytes:
        raise InvalidInput(f"standard input has more than {max_bytes} bytes, too many for {what}")
    return decoded(content, f"standard input, {what},")


def read_bytes(path: Path) -> bytes:
    """All of a file. Raises what `failure` says."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise failure(error, path) from error


def decoded(content: bytes, name: str) -> str:
    """`content` as text, without a byte order mark; raises InvalidInput naming the first byte that is no UTF-8."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        where = f"byte {error.start} is 0x{content[error.start]:02x}"
        raise InvalidInput(f"{name} is not UTF-8 text ({where}): convert it to UTF-8") from error


def make_folder(path: Path) -> None:
    """Make the folder and those around it, where they are not there. Raises what `failure` says."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise failure(error, path) from error


def replace_whole(path: Path, content: bytes, mode: int = 0o666) -> None:
    """Write beside `path`, then rename: a reader sees the old file or the new one, never a part. Makes the folder.

    `mode` are the most permissions it may have, from the first byte on; the umask takes some away.

    Raises what `failure` says; then `path` is as it was.
    """
    draft = path.with_name(f".{path.name}.{os.urandom(4).hex()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(content)
        draft.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
        raise failure(error, path) from error
