"""The model card: what the coordinator must know of a model, kept as JSON so that it can be read without torch.

Importing this file imports no torch; only `describe` does, and only when it runs. Cards lie in the cache directory,
one file per folder and dtype, and hold for as long as the folder's files and the libraries stay the same.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.data.errors import Corrupt, NoodleError, NotFound, NotSupported, Unavailable
from engine.data.json_text import json_text
from engine.data.model import Item, ModelCard, ModelRef
from engine.data.precision import AUTO, MemoryChoice, offered_to_auto
from engine.files import replace_whole
from engine.model.progress import Progress
from engine.model.sources.source import must_be_built, resolve
from engine.model.weights.tensor_files import read_json

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

    from engine.model.weights.weight_folder import WeightFolder

_FORMAT = 6  # raise it when the same folder would give another card
_LIBRARIES = ("torch", "transformers")  # their versions decide which modules a model has
_DESCRIBED_FILES = ("config.json", "generation_config.json", "model.safetensors.index.json", "gguf.json")


def prepare(
    ref: ModelRef, cache_dir: Path, on_progress: Progress | None = None, *, allow_download: bool = True, to_load: bool = True
) -> ModelCard:
    """Resolve `ref` to a folder and return its card, described now if no card of it is cached.

    Raises what `resolve` and `describe` raise, and NotSupported for a folder that lacks tensors, unless it is not `to_load`. Takes
    milliseconds and no torch when folder and card are there.
    """
    folder = resolve(ref, cache_dir=cache_dir, allow_download=allow_download, on_progress=on_progress)
    card = cached_card(folder, ref, cache_dir)
    if card is None:
        if on_progress is not None:
            on_progress(-1.0, f"reading the structure of {ref.label}")
        card = describe(folder, ref)
        store_card(card, cache_dir)
    return _whole(card) if to_load else card


def prepare_choices(
    ref: ModelRef, cache_dir: Path, on_progress: Progress | None = None, *, allow_download: bool = True, to_load: bool = True
) -> tuple[ModelCard, ...]:
    """As `prepare`; of dtype `auto` a card for each dtype that it may stand for, all of one folder, float32 first."""
    if ref.dtype != AUTO:
        return (prepare(ref, cache_dir, on_progress, allow_download=allow_download, to_load=to_load),)
    first = prepare(replace(ref, dtype="float32"), cache_dir, on_progress, allow_download=allow_download, to_load=to_load)
    folder, cards = Path(first.folder), [first]
    for dtype in offered_to_auto(first.stored_dtype)[1:]:
        other = replace(ref, dtype=dtype)
        card = cached_card(folder, other, cache_dir)
        if card is None:
            card = describe(folder, other)
            store_card(card, cache_dir)
        cards.append(card)
    return tuple(cards)


def _whole(card: ModelCard) -> ModelCard:
    if card.missing:
        raise NotSupported(f"{card.folder} cannot be loaded: {card.missing}")
    return card


def ready_card(ref: ModelRef, cache_dir: Path) -> ModelCard | None:
    """The card of `ref` if it can be had without torch, network or waiting; None when `prepare` has work to do.

    Raises InvalidInput and the like for a `ref` that can never work, so that a user hears of it at once.
    """
    if must_be_built(ref, cache_dir):
        return None
    try:
        folder = resolve(ref, cache_dir=cache_dir, allow_download=False)
    except Unavailable:
        return None
    card = cached_card(folder, ref, cache_dir)
    return None if card is None else _whole(card)


def ready_cards(ref: ModelRef, cache_dir: Path) -> tuple[ModelCard, ...]:
    """The same of what `prepare_choices` returns; empty when it has work to do."""
    first = ready_card(replace(ref, dtype="float32") if ref.dtype == AUTO else ref, cache_dir)
    if first is None or ref.dtype != AUTO:
        return () if first is None else (first,)
    found = [cached_card(Path(first.folder), replace(ref, dtype=dtype), cache_dir) for dtype in offered_to_auto(first.stored_dtype)[1:]]
    others = tuple(card for card in found if card is not None)
    return (first, *others) if len(others) == len(found) else ()


def describe(folder: Path, ref: ModelRef) -> ModelCard:
    """Read the card of a model folder; imports torch and transformers, and reads headers only, no weights.

    Raises NotSupported when the model cannot be cut into a chain, Corrupt when its files are damaged.
    """
    from engine.model.weights.weight_folder import WeightFolder

    return describe_weights(WeightFolder(folder), ref)


def describe_weights(weights: WeightFolder, ref: ModelRef) -> ModelCard:
    """The same for a folder that is open already."""
    from engine.model.configuration import check_supported, context_tokens
    from engine.model.sources.description import describe_model

    folder = weights.folder
    check_supported(weights.config)
    text = weights.config.get_text_config()
    generation, text_bos = generation_config(folder), getattr(text, "bos_token_id", None)
    described = describe_model(weights, ref.dtype, ref.kv_dtype)
    return ModelCard(
        ref=ref,
        folder=str(folder),
        fingerprint=weights.fingerprint,
        architecture=_architecture(weights.config),
        items=described.items,
        hidden_size=text.hidden_size,
        vocab_size=text.vocab_size,
        context_tokens=context_tokens(weights.config),
        eos_token_ids=_token_ids(generation.get("eos_token_id", getattr(text, "eos_token_id", None))),
        bos_token_id=next((i for i in _token_ids(generation.get("bos_token_id", text_bos)) if i < text.vocab_size), None),
        num_parameters=described.num_parameters,
        missing=described.missing,
        inexact=described.inexact,
        choices=described.choices,
        stored_dtype=weights.stored_dtype,
    )


def to_json(card: ModelCard) -> str:
    """One JSON document, the same text for equal cards."""
    return json_text(card)


def from_json(text: str) -> ModelCard:
    """The card that `to_json` wrote. Raises Corrupt for anything else."""
    try:
        raw = json.loads(text)
        raw["ref"] = ModelRef(**raw["ref"])
        raw["items"] = tuple(Item(**item) for item in raw["items"])
        raw["choices"] = tuple(MemoryChoice(**choice) for choice in raw["choices"])
        raw["eos_token_ids"] = tuple(raw["eos_token_ids"])
        return ModelCard(**raw)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise Corrupt(f"this is not a model card ({type(error).__name__}: {error}): describe the model again") from error


def cached_card(folder: Path, ref: ModelRef, cache_dir: Path) -> ModelCard | None:
    """The stored card of `folder`, under the name that the user gave now; None if there is none that still holds."""
    try:
        stored = json.loads(_card_path(folder, ref, cache_dir).read_text(encoding="utf-8"))
        if stored["key"] != _key(folder, ref):
            return None
        return replace(from_json(stored["card"]), ref=ref)
    except (OSError, ValueError, KeyError, TypeError, NoodleError):
        return None  # a damaged cache entry costs a second, not an error


def store_card(card: ModelCard, cache_dir: Path) -> None:
    """Keep `card` for the next start; a cache that cannot be written is no reason to fail."""
    folder = Path(card.folder)
    path = _card_path(folder, card.ref, cache_dir)
    with suppress(OSError, NoodleError):
        document = json_text({"key": _key(folder, card.ref), "card": to_json(card)})
        replace_whole(path, document.encode("ascii"))


def _card_path(folder: Path, ref: ModelRef, cache_dir: Path) -> Path:
    name = f"{folder}|{ref.dtype}|{ref.kept_dtype}"
    return cache_dir / "cards" / f"{hashlib.sha256(name.encode()).hexdigest()[:24]}.json"


def _key(folder: Path, ref: ModelRef) -> dict[str, Any]:
    described = [folder / name for name in _DESCRIBED_FILES] + sorted(folder.glob("*.safetensors"))
    stats = {path.name: path.stat() for path in described if path.is_file()}
    return {
        "format": _FORMAT,
        "folder": str(folder),
        "dtype": ref.dtype,
        "kv_dtype": ref.kept_dtype,
        "files": {name: [stat.st_size, stat.st_mtime_ns] for name, stat in stats.items()},
        "libraries": {name: metadata.version(name) for name in _LIBRARIES},
    }


def generation_config(folder: Path) -> dict[str, Any]:
    """What the model's makers say of generating with it; empty if there is no such file. Raises Corrupt."""
    try:
        content = read_json(folder / "generation_config.json")
    except NotFound:
        return {}
    # A null stands for "not said", as it does in generate().
    return {name: value for name, value in content.items() if value is not None}


def _architecture(config: PreTrainedConfig) -> str:
    return str((getattr(config, "architectures", None) or [config.model_type])[0])


def _token_ids(value: Any) -> tuple[int, ...]:
    """A config writes one id, a list of ids, or nothing; -1 stands for none in some of them."""
    values = value if isinstance(value, list | tuple) else [value]
    return tuple(dict.fromkeys(int(v) for v in values if isinstance(v, int) and v >= 0))
