"""How long work tells how far it is."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[float, str], None]  # the fraction done in 0..1, or -1 when unknown, and a sentence
