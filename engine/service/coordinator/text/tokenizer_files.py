"""The tokenizer of a model's folder from the files its makers shipped: `tokenizer.json`, else `vocab.json` with `merges.txt`, else
`tokenizer.model`. Without transformers: what a tokenizer class adds to its files is said here for the classes that are read.

Ids must be those that the model learned, so a class that is not known is refused rather than guessed.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from engine.data.errors import Corrupt, NoodleError, NotSupported
from engine.model.formats.file_kinds import mistaken
from engine.service.coordinator.text.sentencepiece_model import SentencePieceModel

_ROLES = ("bos_token", "eos_token", "unk_token", "pad_token", "cls_token", "sep_token", "mask_token")
_GENERIC = ("", "PreTrainedTokenizer", "TokenizersBackend")  # these name no rule of their own
_OTHER_FILES = ("vocab.txt", "spiece.model", "sentencepiece.bpe.model", "tekken.json", "*.tiktoken", "vocab.bpe")
# Whose ids are the places of the pieces in tokenizer.model; True: a prompt begins with BOS unless the folder says otherwise.
_PIECES = {
    "": True, "Llama": True, "CodeLlama": True, "Gemma": True, "InternLM": True, "InternLM2": True, "Orion": True, "Yi": False,
    "Baichuan": False, "TokenizersBackend": False, "PreTrainedTokenizer": False,
}  # fmt: skip
_RENUMBERED = {"xglm", "xlm-roberta", "camembert", "mbart", "pegasus", "t5", "xlnet", "big_bird", "rembert", "reformer", "bert-generation"}
_QWEN2_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_BYTE_LEVEL = {  # of model types whose folder names no class
    **dict.fromkeys(("gpt2", "gpt_neo", "gptj", "codegen", "opt", "phi", "starcoder2", "gpt_bigcode"), "GPT2"),
    **dict.fromkeys(("qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "qwen3_next"), "Qwen2"),
}


@dataclass(frozen=True, slots=True)
class Settings:
    """What the small files beside a vocabulary say."""

    kind: str  # the tokenizer's class, without `Tokenizer` and `Fast`; empty if no file names one
    model_type: str
    options: dict[str, Any]
    added: dict[int, AddedToken] = field(default_factory=dict)  # by id
    special: frozenset[str] = frozenset()

    def name(self, role: str, default: str = "") -> str:
        """The token in that role, such as bos_token."""
        return _content(self.options.get(role)) or default


def load_tokenizer(folder: Path) -> tuple[Tokenizer, str]:
    """A tokenizer and the names of the files that it was read from.

    Raises NotSupported, saying why, if the folder has none that can be read, Corrupt if its files are damaged.
    """
    whole, vocabulary, merges, pieces = (folder / n for n in ("tokenizer.json", "vocab.json", "merges.txt", "tokenizer.model"))
    if whole.is_file():
        _check_kind(whole)
        tokenizer = _checked(whole, lambda: Tokenizer.from_file(str(whole)))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return tokenizer, whole.name
    if vocabulary.is_file() and merges.is_file():
        _check_kind(vocabulary, merges)
        return _byte_level(vocabulary, merges, _checked(folder, lambda: _settings(folder))), f"{vocabulary.name} and {merges.name}"
    if pieces.is_file():
        _check_kind(pieces)
        return _of_pieces(pieces, _checked(folder, lambda: _settings(folder))), pieces.name
    found = [path.name for pattern in _OTHER_FILES for path in sorted(folder.glob(pattern))]
    also = f"; {', '.join(found)} cannot be read here" if found else ""
    raise NotSupported(f"the model's folder has no tokenizer.json, no vocab.json with merges.txt and no tokenizer.model{also}")


def _byte_level(vocabulary: Path, merges: Path, settings: Settings) -> Tokenizer:
    """As `GPT2Tokenizer` and `Qwen2Tokenizer` build it."""
    kind = _BYTE_LEVEL.get(settings.model_type, "") if settings.kind in _GENERIC else settings.kind
    if kind not in ("GPT2", "Qwen2"):
        raise _unknown(settings, "vocab.json and merges.txt", "write the model's tokenizer.json with transformers' save_pretrained")
    tokenizer = Tokenizer(_checked(merges, lambda: models.BPE.from_file(str(vocabulary), str(merges))))
    space = bool(settings.options.get("add_prefix_space"))
    if kind == "Qwen2":
        tokenizer.normalizer = normalizers.NFC()
        words = pre_tokenizers.Split(Regex(_QWEN2_WORDS), behavior="isolated")
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, pre_tokenizers.ByteLevel(add_prefix_space=space, use_regex=False)])
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=space)
    tokenizer.decoder = decoders.ByteLevel()
    end = "<|endoftext|>"
    _add_tokens(tokenizer, settings, {end})
    return _framed(tokenizer, settings, settings.name("bos_token", end), settings.name("eos_token", end), begins=False)


def _of_pieces(path: Path, settings: Settings) -> Tokenizer:
    if settings.kind not in _PIECES or (settings.kind in _GENERIC and settings.model_type in _RENUMBERED):
        raise _unknown(settings, path.name, "write the model's tokenizer.json with transformers' save_pretrained")
    pieces = SentencePieceModel(path, {i: token.content for i, token in settings.added.items()})
    is_generic = settings.kind in _GENERIC
    tokenizer = _checked(path, lambda: pieces.tokenizer(prefixes_every_part=bool(settings.options.get("legacy", is_generic))))
    _add_tokens(tokenizer, settings, set())
    bos, eos = settings.name("bos_token", pieces.bos), settings.name("eos_token", pieces.eos)
    return _framed(tokenizer, settings, bos, eos, begins=_PIECES[settings.kind])


def _add_tokens(tokenizer: Tokenizer, settings: Settings, special: set[str]) -> None:
    """Those beside the vocabulary, with the ids that the folder says."""
    for token_id, token in sorted(settings.added.items()):
        tokenizer.add_tokens([token])
        if (given := tokenizer.token_to_id(token.content)) != token_id:
            raise NotSupported(f"the tokenizer's added token {token.content[:40]!r} has id {token_id}, but its vocabulary leads to {given}")
    known = [name for name in sorted(special | settings.special) if tokenizer.token_to_id(name) is not None]
    tokenizer.add_special_tokens([AddedToken(name, normalized=False, special=True) for name in known])


def _framed(tokenizer: Tokenizer, settings: Settings, bos: str, eos: str, *, begins: bool) -> Tokenizer:
    """With BOS before a prompt and EOS behind it, where the folder or its tokenizer's class says so."""
    before = [bos] if settings.options.get("add_bos_token", begins) and tokenizer.token_to_id(bos) is not None else []
    behind = [eos] if settings.options.get("add_eos_token", False) and tokenizer.token_to_id(eos) is not None else []
    if before or behind:
        names = [(name, tokenizer.token_to_id(name)) for name in dict.fromkeys((*before, *behind))]
        tokenizer.post_processor = processors.TemplateProcessing(single=[*before, "$A", *behind], special_tokens=names)
    return tokenizer


def tokenizer_config(folder: Path) -> dict[str, Any]:
    """What the small files beside a vocabulary say, as they stand; empty if there are none. Raises Corrupt."""
    return {**_document(folder / "special_tokens_map.json"), **_document(folder / "tokenizer_config.json")}


def special_tokens(folder: Path) -> dict[str, str]:
    """The text of each token with a role, such as bos_token. Raises Corrupt."""
    options = tokenizer_config(folder)
    return {role: content for role in _ROLES if isinstance(content := _content(options.get(role)), str) and content}


def _settings(folder: Path) -> Settings:
    options = tokenizer_config(folder)
    added = {int(i): AddedToken(name, normalized=False) for name, i in _document(folder / "added_tokens.json").items()}
    for number, token in options.get("added_tokens_decoder", {}).items():
        flags = {name: bool(token[name]) for name in ("single_word", "lstrip", "rstrip", "normalized", "special") if name in token}
        added[int(number)] = AddedToken(_content(token), **flags)
    special = {_content(options.get(role)) for role in _ROLES} | {_content(t) for t in options.get("additional_special_tokens") or ()}
    kind = str(options.get("tokenizer_class") or "").removesuffix("Fast").removesuffix("Tokenizer")
    model_type = str(_document(folder / "config.json").get("model_type", ""))
    return Settings("PreTrainedTokenizer" if kind == "PreTrained" else kind, model_type, options, added, frozenset(special - {""}))


def _document(path: Path) -> dict[str, Any]:
    """A JSON object; empty if there is no such file."""
    if not path.is_file():
        return {}
    document = _checked(path, lambda: json.loads(path.read_text(encoding="utf-8-sig")))
    if not isinstance(document, dict):
        raise Corrupt(f"{path} does not hold a JSON object: fetch the model again")
    return document


def _content(token: Any) -> str:
    """Configs write a token as its text or as an object with its flags."""
    return str(token.get("content", "")) if isinstance(token, dict) else token or ""


def _checked(path: Path, read: Callable[[], Any]) -> Any:
    try:
        return read()
    except NoodleError:
        raise
    except Exception as e:  # the library raises bare exceptions
        raise Corrupt(f"{path} cannot be read ({e}): fetch the model again") from e


def _check_kind(*paths: Path) -> None:
    """Raise Corrupt for a file that is something else, such as a pointer of git-LFS."""
    for path in paths:
        if path.stat().st_size and (what := mistaken(path)):
            raise Corrupt(f"{path} {what}")


def _unknown(settings: Settings, files: str, way_out: str) -> NotSupported:
    who = f"the tokenizer class {settings.kind}Tokenizer" if settings.kind not in _GENERIC else f"model type {settings.model_type!r}"
    return NotSupported(f"{files} of {who} cannot be read here: {way_out}")
