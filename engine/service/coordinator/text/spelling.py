"""The bytes that single tokens stand for. A decoder tells what tokens say together: it drops special ones, and spaces before words."""

from __future__ import annotations

import re

from tokenizers import Tokenizer

SPACE = "\u2581"  # in the pieces of sentencepiece models
BYTE_TOKEN = re.compile(r"<0x[0-9A-Fa-f]{2}>")


def _byte_of_character() -> dict[str, int]:
    """GPT-2's alphabet, in which a byte-level vocabulary writes each byte as one character that can be seen."""
    seen = [*range(ord("!"), ord("~") + 1), *range(ord("\u00a1"), ord("\u00ac") + 1), *range(ord("\u00ae"), ord("\u00ff") + 1)]
    others = [byte for byte in range(256) if byte not in seen]
    return {chr(byte): byte for byte in seen} | {chr(256 + number): byte for number, byte in enumerate(others)}


_BYTE_OF = _byte_of_character()


class Spelling:
    """Of one tokenizer's tokens."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer, decoder = tokenizer, tokenizer.decoder
        self._added = frozenset(tokenizer.get_added_tokens_decoder())
        self.has_byte_tokens = decoder is not None and "\u00e9" in decoder.decode(["<0xC3>", "<0xA9>"])
        self._is_byte_level = decoder is not None and decoder.decode(["\u00c3\u00a9"]) == "\u00e9"

    def is_byte(self, token_id: int) -> bool:
        """It stands for one byte, and what it says depends on the byte tokens beside it."""
        token = self._tokenizer.id_to_token(token_id) if self.has_byte_tokens else None
        return token is not None and BYTE_TOKEN.fullmatch(token) is not None

    def of(self, token_id: int) -> bytes:
        """Empty for an id without a token."""
        token = self._tokenizer.id_to_token(token_id)
        if token is None:
            return b""
        if self.is_byte(token_id):
            return bytes([int(token[3:5], 16)])
        if token_id in self._added:
            return str(token).encode()
        if self._is_byte_level and all(character in _BYTE_OF for character in token):
            return bytes(_BYTE_OF[character] for character in token)
        return str(token).replace(SPACE, " ").encode()
