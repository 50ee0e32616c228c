"""Turn what the user typed into a local folder with a config and safetensors files.

A model is a local folder, a GGUF file, a hub id (the local hub cache first, then a download), or an architecture name with a seed
for random weights. Everything here runs without torch: only building a folder, of random weights or for a GGUF file, imports it.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import Any

from engine.data.errors import Corrupt, InvalidInput, NoodleError, NotFound, NotSupported, Unavailable
from engine.data.json_text import json_text
from engine.data.model import ModelRef
from engine.data.precision import DTYPE_BYTES, INT8
from engine.model.formats import gguf_index
from engine.model.formats.file_kinds import mistaken, other_weights
from engine.model.formats.quantised import quantisation, refusal
from engine.model.progress import Progress
from engine.model.sources import hub
from engine.model.sources.architectures import TINY, architecture_of, likely_architecture
from engine.model.weights.tensor_files import CONFIG_FILE, read_config, read_json, weight_files

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?")
_GGUF_RECIPE = 1  # raise it when the same file would give another folder
_RECIPE = 1  # raise it when the same seed would give other weights, so that old folders are not mistaken for new ones


def default_ref() -> ModelRef:
    """GPT-2: the copy in the local hub cache if there is a usable one, else the architecture with random weights."""
    try:
        folder = hub.cached_snapshot("gpt2")
        if folder is not None:
            check_folder(folder)
            return ModelRef("gpt2")
    except NoodleError:
        pass  # an unfinished download is not a reason to fail when nothing was asked for
    return ModelRef("gpt2", random_weights=0)


def resolve(ref: ModelRef, *, cache_dir: Path, allow_download: bool = True, on_progress: Progress | None = None) -> Path:
    """The absolute local folder of `ref`: config.json and whole safetensors files.

    Raises InvalidInput for a name that cannot be a model, NotFound, NotSupported (no safetensors), Corrupt (parts
    missing), Exhausted (random weights too large for this machine) and Unavailable (not here, and no network).
    """
    if ref.dtype not in DTYPE_BYTES:
        raise InvalidInput(f"dtype {ref.dtype!r} is not known: use one of {', '.join(DTYPE_BYTES)}")
    if ref.random_weights is not None:
        return _random(ref, cache_dir, on_progress)
    if ref.model.endswith(TINY):
        raise InvalidInput(f"model {ref.model!r} exists with random weights only: add `--random-weights 0`")
    if (gguf := _gguf_file(ref.model)) is not None:
        return _gguf(gguf, cache_dir, on_progress)
    local = _local_folder(ref.model)
    return local if local is not None else _from_hub(ref.model, allow_download, on_progress)


def check_folder(folder: Path) -> dict[str, Any]:
    """The folder's config, after checking that its files can be a model: config.json and every safetensors part."""
    read_config(folder)
    config = read_json(folder / CONFIG_FILE)
    if "model_type" not in config:
        raise NotSupported(f"{folder / CONFIG_FILE} names no model_type: {_without_type(config)}")
    if reason := refusal(quantisation(config)):
        raise NotSupported(f"{folder}: {reason}")
    weight_files(folder)
    return config


def _without_type(config: dict[str, Any]) -> str:
    if "auto_map" in config:
        return "the model needs the repository's own code, which is never run"
    if "_class_name" in config:
        return "it is a part of a diffusers pipeline, which makes pictures and not text"
    return "use a folder in the layout of transformers, as save_pretrained() writes it"


def random_folder(ref: ModelRef, cache_dir: Path) -> Path:
    """Where the random weights of `ref` are, or will be; the name tells all that the weights depend on."""
    name, tiny = architecture_of(ref.model)
    size = "tiny" if tiny else "full"
    return (cache_dir / "random" / f"{name}.{size}.seed-{ref.random_weights}.{_written_dtype(ref)}.v{_RECIPE}").absolute()


def _written_dtype(ref: ModelRef) -> str:
    """8-bit layers are made of float32 weights as they are loaded, so that both dtypes have the same random ones."""
    return "float32" if ref.dtype == INT8 else ref.dtype


def must_be_built(ref: ModelRef, cache_dir: Path) -> bool:
    """Whether `resolve` has to make the folder first, which takes torch and time."""
    if ref.random_weights is not None:
        return not random_folder(ref, cache_dir).is_dir()
    gguf = _gguf_file(ref.model)
    return gguf is not None and not gguf_folder_of(gguf, cache_dir).is_dir()


def gguf_folder_of(file: Path, cache_dir: Path) -> Path:
    """Where the small folder of a GGUF file is, or will be; another file of that name, or another content, has another."""
    key = json_text([str(file), gguf_index.stamp(file), _GGUF_RECIPE])
    return (cache_dir / "gguf" / f"{file.stem[:80]}.{hashlib.sha256(key.encode()).hexdigest()[:16]}").absolute()


def _gguf(file: Path, cache_dir: Path, on_progress: Progress | None) -> Path:
    folder = gguf_folder_of(file, cache_dir)
    if not folder.is_dir():
        if on_progress is not None:
            on_progress(-1.0, f"reading the header of {file.name}")
        from engine.model.formats import gguf_folder

        gguf_folder.build(file, folder)
    check_folder(folder)
    return folder


def _gguf_file(model: str) -> Path | None:
    """The GGUF file that was named: by its path, or by a folder or a cached hub id that holds no safetensors.

    Raises InvalidInput if there are several in it.
    """
    name = os.path.expanduser(model)
    if os.path.isfile(name):
        return Path(name).resolve() if gguf_index.is_gguf(Path(name)) else None
    if not os.path.isdir(name):
        snapshot = hub.cached_snapshot(model) if _is_hub_id(model) else None
        name = str(snapshot or "")
    if not name or any(Path(name).glob("*.safetensors")):
        return None
    found = sorted(path for path in Path(name).glob("*.gguf") if not path.name.startswith("mmproj"))
    if len(found) > 1:
        names = ", ".join(path.name for path in found[:4]) + (", ..." if len(found) > 4 else "")
        raise InvalidInput(f"folder {model[:200]!r} holds {len(found)} GGUF files ({names}): name one of them, such as {found[0]}")
    return found[0].resolve() if found and gguf_index.is_gguf(found[0]) else None


def _random(ref: ModelRef, cache_dir: Path, on_progress: Progress | None) -> Path:
    seed = ref.random_weights
    if seed is None or not 0 <= seed < 2**63:
        raise InvalidInput(f"--random-weights {seed} is not allowed: the seed must lie in [0, 2**63)")
    folder = random_folder(ref, cache_dir)
    if not folder.is_dir():  # it appears by a rename, so a folder that is there is whole
        from engine.model.sources import random_weights

        name, tiny = architecture_of(ref.model)
        random_weights.build(folder, name, tiny=tiny, seed=seed, dtype=_written_dtype(ref), on_progress=on_progress)
    return folder


def _local_folder(model: str) -> Path | None:
    name = os.path.expanduser(model)  # os.path answers False where pathlib raises: names too long, unknown homes
    if os.path.isfile(os.path.join(name, CONFIG_FILE)):
        check_folder(Path(name))
        return Path(name).resolve()
    is_path = model.startswith((".", "/", "~", "\\")) or os.path.isabs(name) or model.count("/") > 1
    if os.path.isfile(name):
        raise NotSupported(f"model {model[:200]!r} is a file: {_about_file(Path(name))}")
    if is_path or (os.path.isdir(name) and other_weights(Path(name))):
        raise _no_model(model, Path(name)) if os.path.isdir(name) else _nowhere(model)
    return None


def _about_file(file: Path) -> str:
    if file.suffix == ".safetensors":
        return f"give its folder, {file.parent}, which needs {CONFIG_FILE} too"
    what = mistaken(file)
    return f"it {what}" if what else f"give a folder with {CONFIG_FILE} and *.safetensors, or a hub id"


def _no_model(model: str, folder: Path) -> NoodleError:
    if other := other_weights(folder):
        return NotSupported(f"model folder {model[:200]!r} {other}")
    return NotFound(f"model folder {model[:200]!r} has no {CONFIG_FILE}: give a folder with {CONFIG_FILE} and *.safetensors, or a hub id")


def _nowhere(model: str) -> NoodleError:
    return NotFound(f"model folder {model[:200]!r} does not exist: give a folder with {CONFIG_FILE} and *.safetensors, or a hub id")


def _from_hub(model: str, allow_download: bool, on_progress: Progress | None) -> Path:
    if not _is_hub_id(model):
        raise InvalidInput(
            f"model {model[:120]!r} is neither a folder nor a hub id such as `openai-community/gpt2`; an architecture"
            " name needs `--random-weights SEED`"
        )
    folder = hub.cached_snapshot(model)
    if folder is not None and (whole := _usable(folder)) is not None:
        return whole
    if not allow_download:
        raise _not_here(model, "downloads are not allowed")
    if variable := hub.offline_variable():
        raise _not_here(model, f"{variable} forbids the network")
    if on_progress is not None:
        on_progress(-1.0, f"downloading {model}")
    try:
        folder = hub.download(model)
    except Unavailable as error:
        raise _not_here(model, str(error)) from error
    check_folder(folder)
    return folder.resolve()


def _is_hub_id(model: str) -> bool:
    return _HUB_ID.fullmatch(model) is not None and "--" not in model and ".." not in model


def _usable(folder: Path) -> Path | None:
    try:
        check_folder(folder)
    except (Corrupt, NotFound, NotSupported):
        return None  # an unfinished download; asking the hub again completes it
    return folder.resolve()


def _not_here(model: str, why: str) -> Unavailable:
    return Unavailable(
        f"model {model!r} was not found: no such folder, no complete copy in the local hub cache {hub.hub_cache_dir()}, and {why}."
        f" Give a local folder, or try the architecture alone: `{likely_architecture(model)} --random-weights 0`"
    )
