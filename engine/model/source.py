"""Turn what the user typed into a local folder with a config and safetensors files.

A model is a local folder, a hub id (the local hub cache first, then a download), or an architecture name with a seed
for random weights. Everything here runs without torch: only building a folder of random weights imports it.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from engine.data.errors import Corrupt, InvalidInput, NoodleError, NotFound, NotSupported, Unavailable
from engine.data.model import ModelRef
from engine.model import hub

Progress = Callable[[float, str], None]  # the fraction done in 0..1, or -1 when unknown, and a sentence

DTYPES = ("float32", "bfloat16", "float16")
TINY = ":tiny"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?")
_ARCHITECTURE = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")
_RECIPE = 1  # raise it when the same seed would give other weights, so that old folders are not mistaken for new ones
# What people call a family, where it is not the name that its config carries.
_ALIASES = {
    "gpt-2": "gpt2",
    "distilgpt2": "gpt2",
    "gptj": "gptj",
    "gpt-j": "gptj",
    "gpt-neo": "gpt_neo",
    "gpt-neox": "gpt_neox",
    "gptneox": "gpt_neox",
    "pythia": "gpt_neox",
    "gpt-oss": "gpt_oss",
    "llama2": "llama",
    "llama3": "llama",
    "llama-2": "llama",
    "llama-3": "llama",
    "phi-2": "phi",
    "phi2": "phi",
    "phi-3": "phi3",
    "phi-4": "phi3",
    "phi4": "phi3",
    "qwen2.5": "qwen2",
    "qwen-2": "qwen2",
    "qwen-3": "qwen3",
    "gemma-2": "gemma2",
    "gemma-3": "gemma3_text",
    "gemma3": "gemma3_text",
    "olmo-2": "olmo2",
}


def default_cache_dir() -> Path:
    """`$NOODLE_CACHE`, else the platform's place for caches."""
    if chosen := os.environ.get("NOODLE_CACHE"):
        return Path(chosen).expanduser()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "noodlecore"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "noodlecore"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "noodlecore"


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
    if ref.dtype not in DTYPES:
        raise InvalidInput(f"dtype {ref.dtype!r} is not known: use one of {', '.join(DTYPES)}")
    if ref.random_weights is not None:
        return _random(ref, cache_dir, on_progress)
    if ref.model.endswith(TINY):
        raise InvalidInput(f"model {ref.model!r} exists with random weights only: add `--random-weights 0`")
    local = _local_folder(ref.model)
    return local if local is not None else _from_hub(ref.model, allow_download, on_progress)


def check_folder(folder: Path) -> dict[str, Any]:
    """The folder's config, after checking that its files can be a model: config.json and every safetensors part."""
    config = _read_json(folder / "config.json")
    if "model_type" not in config:
        raise NotSupported(f"{folder / 'config.json'} names no model_type: it needs the repository's own code, which is never run")
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        wanted = set(_read_json(index).get("weight_map", {}).values())
        missing = sorted(name for name in wanted if not (folder / name).is_file())
        if missing or not wanted:
            raise Corrupt(f"{folder} lacks {len(missing)} of {len(wanted)} weight files ({', '.join(missing[:3])}): download it again")
    elif not any(folder.glob("*.safetensors")):
        raise NotSupported(f"{folder} holds no *.safetensors file: convert its weights with save_pretrained(); pickles are never read")
    return config


def architecture_of(model: str) -> tuple[str, bool]:
    """(model_type, tiny) of an architecture name as people write it: `llama:tiny`, `GPT-2`, `qwen2.5`."""
    tiny = model.endswith(TINY)
    name = model.removesuffix(TINY).lower()
    name = _ALIASES.get(name, name)
    if not _ARCHITECTURE.fullmatch(name):
        raise InvalidInput(
            f"model {model!r} cannot have random weights: --random-weights takes an architecture name, such as"
            f" `{_likely_architecture(model)}` or `llama{TINY}`; leave it out to load {model!r} itself"
        )
    return name, tiny


def random_folder(ref: ModelRef, cache_dir: Path) -> Path:
    """Where the random weights of `ref` are, or will be; the name tells all that the weights depend on."""
    name, tiny = architecture_of(ref.model)
    size = "tiny" if tiny else "full"
    return (cache_dir / "random" / f"{name}.{size}.seed-{ref.random_weights}.{ref.dtype}.v{_RECIPE}").absolute()


def _random(ref: ModelRef, cache_dir: Path, on_progress: Progress | None) -> Path:
    seed = ref.random_weights
    if seed is None or not 0 <= seed < 2**63:
        raise InvalidInput(f"--random-weights {seed} is not allowed: the seed must lie in [0, 2**63)")
    folder = random_folder(ref, cache_dir)
    if not folder.is_dir():  # it appears by a rename, so a folder that is there is whole
        from engine.model import random_weights

        name, tiny = architecture_of(ref.model)
        random_weights.build(folder, name, tiny=tiny, seed=seed, dtype=ref.dtype, on_progress=on_progress)
    return folder


def _local_folder(model: str) -> Path | None:
    name = os.path.expanduser(model)  # os.path answers False where pathlib raises: names too long, unknown homes
    if os.path.isfile(os.path.join(name, "config.json")):
        check_folder(Path(name))
        return Path(name).resolve()
    if model.startswith((".", "/", "~", "\\")) or os.path.isabs(name) or model.count("/") > 1:
        what = "has no config.json" if os.path.isdir(name) else "does not exist"
        raise NotFound(f"model folder {model[:200]!r} {what}: give a folder with config.json and *.safetensors, or a hub id")
    return None


def _from_hub(model: str, allow_download: bool, on_progress: Progress | None) -> Path:
    if not _HUB_ID.fullmatch(model) or "--" in model or ".." in model:
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


def _usable(folder: Path) -> Path | None:
    try:
        check_folder(folder)
    except (Corrupt, NotFound, NotSupported):
        return None  # an unfinished download; asking the hub again completes it
    return folder.resolve()


def _not_here(model: str, why: str) -> Unavailable:
    return Unavailable(
        f"model {model!r} was not found: no such folder, no complete copy in the local hub cache {hub.hub_cache_dir()}, and {why}."
        f" Give a local folder, or try the architecture alone: `{_likely_architecture(model)} --random-weights 0`"
    )


def _likely_architecture(model: str) -> str:
    """The family that a hub id most likely names, for a hint: the longest known name that it starts with."""
    name = model.rstrip("/").rsplit("/", 1)[-1].lower()
    known = {**_ALIASES, **{kind: kind for kind in ("gpt2", "llama", "mistral", "qwen2", "qwen3", "gemma2", "phi3", "olmo2", "opt")}}
    matches = [alias for alias in known if name.startswith(alias)]
    return known[max(matches, key=len)] if matches else "gpt2"


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise NotFound(f"{path} does not exist: a model folder needs it") from error
    except (OSError, ValueError) as error:
        raise Corrupt(f"{path} cannot be read as JSON ({error}): download or copy the model again") from error
    if not isinstance(content, dict):
        raise Corrupt(f"{path} holds a {type(content).__name__}, not an object: download or copy the model again")
    return content
