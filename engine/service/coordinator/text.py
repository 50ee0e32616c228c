"""Text to token ids and back, with the `tokenizers` library only: the coordinator never imports transformers."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from tokenizers.decoders import DecodeStream

from engine.data.errors import Corrupt


class TextCodec:
    """The model's tokenizer, or a byte-level stand-in when its folder has none.

    The stand-in maps byte b to token b; an id beyond 255 shows as `<id>`, because nobody knows what it means.
    """

    def __init__(self, folder: Path, bos_token_id: int | None = None) -> None:
        path = folder / "tokenizer.json"
        self.is_stand_in = not path.is_file()
        if self.is_stand_in:
            self._tokenizer = _byte_tokenizer()
        else:
            try:
                self._tokenizer = Tokenizer.from_file(str(path))
            except Exception as e:
                raise Corrupt(f"{path} cannot be read ({e}): fetch the model again") from e
            self._tokenizer.no_truncation()
            self._tokenizer.no_padding()

    def encode(self, text: str) -> tuple[int, ...]:
        return tuple(self._tokenizer.encode(text).ids)

    def stream(self) -> DecodeStream:
        return DecodeStream(skip_special_tokens=True)

    def step(self, stream: DecodeStream, token_id: int) -> str:
        """The text that `token_id` completes; empty while a character is still in pieces."""
        if self.is_stand_in and token_id > 255:
            return f"<{token_id}>"
        return stream.step(self._tokenizer, token_id) or ""


class TextStream:
    """Text of one session, token by token, cut before the first stop string.

    Text that could be the beginning of a stop string is held back until the next token decides.
    """

    def __init__(self, codec: TextCodec, stop: tuple[str, ...]) -> None:
        self._codec, self._stop = codec, stop
        self._stream = codec.stream()
        self._held = ""
        self.stopped = False

    def push(self, token_id: int) -> str:
        """The text to show after this token; sets `stopped` when a stop string is complete."""
        self._held += self._codec.step(self._stream, token_id)
        first = min((i for i in (self._held.find(s) for s in self._stop) if i >= 0), default=-1)
        if first >= 0:
            self.stopped = True
            shown, self._held = self._held[:first], ""
            return shown
        keep = max((n for s in self._stop for n in range(1, len(s)) if self._held.endswith(s[:n])), default=0)
        cut = len(self._held) - keep
        shown, self._held = self._held[:cut], self._held[cut:]
        return shown

    def flush(self) -> str:
        """What was held back for a stop string that did not come."""
        shown, self._held = ("" if self.stopped else self._held), ""
        return shown


def _byte_tokenizer() -> Tokenizer:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    by_byte = {_char_of_byte(b): b for b in range(256)}
    if sorted(by_byte) != alphabet:
        raise AssertionError("the byte-level alphabet changed")
    tokenizer = Tokenizer(models.BPE(vocab=by_byte, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _char_of_byte(byte: int) -> str:
    """GPT-2's printable stand-in for a byte (Radford et al. 2019, `bytes_to_unicode`)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    if byte in printable:
        return chr(byte)
    return chr(256 + [b for b in range(256) if b not in printable].index(byte))
