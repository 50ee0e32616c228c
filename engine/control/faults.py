"""What a bug in the cluster costs: the session it is about, or nothing; never what was decided before it. Pure."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from engine.control import commands as do


@contextlib.contextmanager
def survived(out: list[do.Command], session_id: str = "") -> Iterator[None]:
    """An exception inside becomes a `Fault` behind the commands that came before it."""
    try:
        yield
    except Exception as error:
        out.append(do.Fault(error, session_id))
