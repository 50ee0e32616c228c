"""sha-256 of token ids and of lists of fields: what keys and values that are kept are found and checked by. Pure."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Sequence


def token_digest(token_ids: Sequence[int]) -> bytes:
    """sha-256 of token ids."""
    return hashlib.sha256(token_bytes(token_ids)).digest()


def token_bytes(token_ids: Sequence[int]) -> bytes:
    return struct.pack(f"<{len(token_ids)}q", *token_ids)


def field_digest(fields: Iterable[bytes]) -> bytes:
    """sha-256 over fields, each behind its length: no two lists of fields are the same bytes."""
    found = hashlib.sha256()
    for field in fields:
        found.update(struct.pack("<q", len(field)))
        found.update(field)
    return found.digest()
