"""Text to token ids and back, with the `tokenizers` library only: the coordinator never imports transformers.

The text of an answer is what the tokenizer makes of all its token ids at once. It leaves in pieces that are never taken back, so what a
later token could still change waits: a character of which not all bytes are there, and a run of byte tokens, because the decoder of
sentencepiece models (`ByteFallback`) turns such a run into characters only if all of it is UTF-8, else into one U+FFFD for each byte.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer

from engine.data.errors import InvalidInput, NotSupported
from engine.service.coordinator.text.spelling import Spelling
from engine.service.coordinator.text.tokenizer_files import load_tokenizer

TORN = "\ufffd"  # stands for bytes that are no character, or not yet
NORMALISED = 4  # a normaliser may turn so many characters into one
CONTEXT_TOKENS = 8  # behind which a decoder does not look back; a character has at most four bytes


class TextCodec:
    """The tokenizer of a model's folder, or a byte-level stand-in where none can be read.

    `source` names the files that it was read from; if there are none, `stand_in` says why.

    The stand-in maps byte b to token b; an id beyond 255 shows as `<id>`, because nobody knows what it means.
    """

    def __init__(self, folder: Path) -> None:
        """Raises Corrupt if the tokenizer's files are damaged."""
        self._tokenizer: Tokenizer | None = None
        self._spelling: Spelling | None = None
        self.stand_in, self.source, self._special = "", "", frozenset[int]()
        self._longest = 1  # characters of a token
        try:
            tokenizer, self.source = load_tokenizer(folder)
            self._use(tokenizer)
        except NotSupported as e:
            self.stand_in = str(e)

    def _use(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._special = frozenset(i for i, token in tokenizer.get_added_tokens_decoder().items() if token.special)
        self._longest = max(map(len, tokenizer.get_vocab()), default=1)
        self._spelling = Spelling(tokenizer)

    def tokenizer_json(self) -> str:
        """The tokenizer as a tokenizer.json; empty for the stand-in."""
        return "" if self._tokenizer is None else str(self._tokenizer.to_str())

    def check_length(self, text: str, context_tokens: int) -> None:
        """Raise InvalidInput for a text that fills the context whatever its tokens are, before it costs the time to find them."""
        if len(text) > (most := self.most_characters(context_tokens)):
            raise InvalidInput(
                f"the prompt has {len(text)} characters, and {most} are more than the model's context of {context_tokens} tokens can hold: "
                "shorten it"
            )

    def most_characters(self, context_tokens: int) -> int:
        """No text that is longer fits into so many tokens."""
        return context_tokens * self._longest * NORMALISED

    def encode(self, text: str, frames: bool = True) -> tuple[int, ...]:
        """The ids of a text, with what the tokenizer puts around a prompt if it `frames`: a chat template writes that itself."""
        return tuple(text.encode() if self._tokenizer is None else self._tokenizer.encode(text, add_special_tokens=frames).ids)

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of all these tokens."""
        if self._tokenizer is None:
            return b"".join(bytes([i]) if i < 256 else b"<%d>" % i for i in token_ids).decode("utf-8", "replace")
        return str(self._tokenizer.decode(list(token_ids), skip_special_tokens=True))

    def spelling(self, token_id: int) -> bytes:
        """The bytes that a token stands for, alone."""
        if self._spelling is not None:
            return self._spelling.of(token_id)
        return bytes([token_id]) if token_id < 256 else b"<%d>" % token_id

    def is_silent(self, token_id: int) -> bool:
        """It never shows, and what stands around it is decoded as if it were not there."""
        return self._tokenizer is not None and (token_id in self._special or self._tokenizer.id_to_token(token_id) is None)

    def is_run_byte(self, token_id: int) -> bool:
        """What it says depends on the byte tokens before and behind it."""
        return self._spelling is not None and self._spelling.is_byte(token_id)


class _Decoding:
    """Token ids to text, piece by piece. Its values are never changed in place, so a shallow copy is a look ahead."""

    def __init__(self, codec: TextCodec) -> None:
        self._codec = codec
        self._ids: tuple[int, ...] = ()  # the newest tokens that show: all whose text has not come out, and what stands before them
        self._num_out = 0  # characters of their text that came out

    def push(self, token_id: int) -> str:
        """What is certain from now on."""
        if self._codec.is_silent(token_id):
            return ""
        self._ids = (*self._ids, token_id)
        if self._codec.is_run_byte(token_id):
            return ""
        text = self._codec.decode(self._ids)
        stop = len(text) - text.endswith(TORN)
        piece = text[self._num_out : stop]
        num_left = len(text) - max(stop, self._num_out)
        if len(self._ids) >= 2 * CONTEXT_TOKENS:
            self._ids = self._ids[-CONTEXT_TOKENS:]
            text = self._codec.decode(self._ids)
        self._num_out = len(text) - num_left
        return piece

    def rest(self) -> str:
        """What the held back tokens say if none follows."""
        return self._codec.decode(self._ids)[self._num_out :]


class TextStream:
    """Text of one session, token by token, cut before the first stop string in what follows its first `min_tokens` tokens.

    Text that could be the beginning of a stop string is held back until the next token decides.
    """

    def __init__(self, codec: TextCodec, stop: tuple[str, ...], min_tokens: int = 0) -> None:
        self._stop, self._num_unstoppable = stop, min_tokens
        self._decoding = _Decoding(codec)
        self._held = ""
        self.stopped = False

    def push(self, token_id: int) -> str:
        """The text to show after this token; sets `stopped` when a stop string is complete."""
        self._held += self._decoding.push(token_id)
        if self._num_unstoppable > 0:
            self._num_unstoppable -= 1
            shown, self._held = self._held, ""
            return shown
        if self._stop and (first := self._first_stop(self._held + self._decoding.rest().rstrip(TORN))) is not None:
            return self._end(first)
        keep = max((n for s in self._stop for n in range(1, len(s)) if self._held.endswith(s[:n])), default=0)
        cut = len(self._held) - keep
        shown, self._held = self._held[:cut], self._held[cut:]
        return shown

    def would_stop(self, token_ids: Sequence[int]) -> bool:
        """Whether a stop string is complete with these tokens; nothing changes."""
        if not self._stop:
            return False
        ahead = copy.copy(self)
        ahead._decoding = copy.copy(self._decoding)
        for token_id in token_ids:
            if not ahead.stopped:
                ahead.push(token_id)
        return ahead.stopped

    def flush(self) -> str:
        """The rest of an answer that ends here: what waited for a token that did not come."""
        shown, self._held = ("" if self.stopped else self._held + self._decoding.rest()), ""
        return shown

    def _first_stop(self, text: str) -> int | None:
        return min((i for i in (text.find(s) for s in self._stop) if i >= 0), default=None)

    def _end(self, first: int) -> str:
        text, self._held, self.stopped = self._held + self._decoding.rest(), "", True
        return text[:first]
