"""A folder with `config.json` and weight files, checked by their headers and read one tensor at a time.

Pickle files are never opened and code from a checkpoint is never run.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.data.errors import Corrupt, InvalidInput, NotSupported
from engine.model.families import TEXT_CLASSES, WRAPPERS
from engine.model.formats.file_kinds import mistaken
from engine.model.formats.quantised import quantisation
from engine.model.weights.stored_tensor import StoredTensor, stored_tensor
from engine.model.weights.tensor_files import CONFIG_FILE, read_config, read_folder

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


_TEXT_KEYS = ("text_config", "llm_config", "language_config", "hidden_size")  # what describes a text model inside another


class WeightFolder:
    """The configuration and the tensor headers of a local model folder; reads no weights by itself."""

    folder: Path
    config: PreTrainedConfig
    names: frozenset[str]
    fingerprint: str

    def __init__(self, folder: Path) -> None:
        """Raises NotFound, InvalidInput, NotSupported or Corrupt; see the messages for the way out."""
        found = read_folder(Path(folder))
        tensors = (stored_tensor(place, place.file, place.offset_bytes) for place in found.tensors.values())
        self._fill(found.folder, found.config_text, found.fingerprint, tensors)

    def _fill(self, folder: Path, config_text: bytes, fingerprint: str, tensors: Iterable[StoredTensor]) -> None:
        self.folder, self.fingerprint = folder, fingerprint
        self.config = _build_config(folder, config_text)
        self._tensors = {t.name: t for t in tensors}
        self.names = frozenset(self._tensors)

    @property
    def stored_dtype(self) -> str:
        """The dtype of most bytes of the weights, or the method or block type that quantised them; empty if there are none."""
        stated = quantisation(self.config.to_dict())
        if stated is not None:
            return str(stated["quant_method"])
        num_bytes: Counter[str] = Counter()
        for stored in self._tensors.values():
            num_bytes[stored.blocks or str(stored.dtype).removeprefix("torch.")] += stored.num_bytes
        return num_bytes.most_common(1)[0][0] if num_bytes else ""

    def tensor(self, name: str) -> StoredTensor:
        """The place of one tensor. Raises Corrupt if the folder does not hold it."""
        stored = self._tensors.get(name)
        if stored is None:
            raise Corrupt(f"{self.folder} has no tensor {name!r}: fetch the model again")
        return stored


class ConfigOnly(WeightFolder):
    """A folder of which nothing but config.json is here: enough to describe and time a model."""

    def __init__(self, folder: Path) -> None:
        """Raises NotFound, InvalidInput or NotSupported."""
        self._fill(folder, read_config(folder), "", ())


def _build_config(folder: Path, text: bytes) -> PreTrainedConfig:
    raw = _parsed(folder / CONFIG_FILE, text)
    from transformers import AutoConfig  # heavy, so only when a folder is opened

    if foreign := _foreign_class(raw):
        raise NotSupported(
            f"{folder / CONFIG_FILE}: the class {foreign!r} of its auto_map is the repository's own code, which is never run: "
            f"use a version of the model that transformers supports itself"
        )
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # transformers raises many kinds for a bad value or an unknown model_type
        raise NotSupported(f"{folder / CONFIG_FILE}: {_unreadable(raw['model_type'], error)}") from error
    return _text_part(folder, raw, config)


def _text_part(folder: Path, raw: dict[str, Any], config: PreTrainedConfig) -> PreTrainedConfig:
    """The text model's configuration where transformers loads a wrapper's folder into a class for it alone, else the whole."""
    if config.model_type in (*WRAPPERS, *TEXT_CLASSES) and not any(name in raw for name in _TEXT_KEYS):
        raise NotSupported(
            f"{folder / CONFIG_FILE}: model family {config.model_type!r} joins a text model with an image or audio model, and it does not"
            f" say which text model: fetch the model's own {CONFIG_FILE}"
        )
    if config.model_type not in TEXT_CLASSES:
        return config
    text = config.get_text_config(decoder=True)
    text.architectures = config.architectures
    if getattr(config, "quantization_config", None) is not None:
        text.quantization_config = config.quantization_config
    return text


def _parsed(path: Path, text: bytes) -> dict[str, Any]:
    try:
        raw = json.loads(text)
    except ValueError as error:
        what = mistaken(path) or f"is not JSON ({error}): fetch it again"
        raise InvalidInput(f"{path} {what}") from error
    if not isinstance(raw, dict) or not isinstance(raw.get("model_type"), str):
        raise InvalidInput(f"{path} names no model_type: use a Hugging Face model folder")
    return raw


def _foreign_class(raw: dict[str, Any]) -> str:
    """The class of an auto_map that transformers does not have itself, or an empty text.

    Makers ship an auto_map long after transformers took their model in; then it is not needed. Class names are compared
    without case and underscores, which is where the two differ.
    """
    from transformers.models.auto import modeling_auto as native
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    auto_map = raw.get("auto_map")
    if not isinstance(auto_map, dict) or not auto_map:
        return ""
    family = raw["model_type"]
    tables: dict[str, Any] = {
        "AutoModelForCausalLM": native.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        "AutoModelForImageTextToText": native.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
        "AutoModel": native.MODEL_MAPPING_NAMES,
    }
    asked = next((str(auto_map[key]).rpartition(".")[2] for key in (*tables, "AutoConfig") if key in auto_map), family)
    if family not in CONFIG_MAPPING_NAMES:
        return asked
    if not tables.keys() & auto_map.keys():
        return ""  # at most its configuration class, which transformers has
    return "" if _plain(asked) in {_plain(str(table.get(family))) for table in tables.values()} else asked


def _plain(class_name: str) -> str:
    return class_name.replace("_", "").lower()


def _unreadable(family: str, error: Exception) -> str:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    if family not in CONFIG_MAPPING_NAMES:
        return f"transformers knows no model_type {family[:64]!r}: use a model that it supports itself, or a newer transformers"
    first_line = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
    return f"transformers cannot read this {family!r} configuration: {first_line}"
