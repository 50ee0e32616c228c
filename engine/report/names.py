"""Names from outside, made harmless for plain-text files: a layer's name is whatever its model says."""

from __future__ import annotations


def visible(text: str) -> str:
    """`text` with every control, invisible, line-ending and bidirectional character and lone surrogate as its escape."""
    return text if text.isprintable() else "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
