"""Text from outside (models, nodes, peers, files) as a terminal may get it."""

from __future__ import annotations

import re

# What steers a terminal or turns the order of what stands on it: C0 and C1 controls, bidirectional controls. Lone surrogates cannot be
# written. Joiners and the spaces of French and Japanese are text. Carriage returns go, so that lines of Windows stay lines.
_STEERING = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """`text` as a terminal may get it: what a model or a node says must not steer it."""
    return _STEERING.sub("?", text.replace("\r", ""))


def one_line(text: str) -> str:
    """The same where it stands in a line among others, which it must not be able to make up."""
    return printable(text).replace("\n", " ")
