"""The Hugging Face hub as a source of model folders: the local hub cache first, the network only when allowed.

Only safetensors, config and tokenizer files are ever fetched; code in a repository is neither fetched nor run.
Knows nothing of random weights or cards, and imports no torch.
"""

from __future__ import annotations

import os
from pathlib import Path

from engine.data.errors import NoodleError, NotFound, Refused, Unavailable

# Old short names that the hub still redirects, so a cache may hold either spelling.
CANONICAL_IDS = {
    "gpt2": "openai-community/gpt2",
    "gpt2-medium": "openai-community/gpt2-medium",
    "gpt2-large": "openai-community/gpt2-large",
    "gpt2-xl": "openai-community/gpt2-xl",
    "distilgpt2": "distilbert/distilgpt2",
}
_WANTED_FILES = [
    "model*.safetensors",
    "model.safetensors.index.json",
    "config.json",
    "generation_config.json",
    "tokenizer*",
    "vocab*",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template*",
]


def hub_cache_dir() -> Path:
    """Where huggingface_hub keeps its repositories, by its own environment variables."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def cached_snapshot(repo_id: str) -> Path | None:
    """The folder of `repo_id` in the local hub cache, complete or not, or None; never touches the network."""
    spellings = dict.fromkeys((CANONICAL_IDS.get(repo_id, repo_id), repo_id))
    here = [name for name in spellings if (hub_cache_dir() / repo_folder(name)).is_dir()]
    if not here:
        return None  # the usual case: answers without the 0.3 s that importing the hub's client takes
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    for name in here:
        try:
            return Path(snapshot_download(name, local_files_only=True))
        except (LocalEntryNotFoundError, OSError):
            continue
    return None


def repo_folder(repo_id: str) -> str:
    """The hub cache's folder name of a model repository."""
    return "models--" + repo_id.replace("/", "--")


def repo_id_of(folder_name: str) -> str | None:
    """The repository that a hub cache folder belongs to, or None when it holds no model."""
    return folder_name.removeprefix("models--").replace("--", "/") if folder_name.startswith("models--") else None


def download(repo_id: str) -> Path:
    """Fetch the model's files into the local hub cache and return their folder.

    Raises NotFound, Refused (gated) or Unavailable (no network, or offline by environment), saying what to do instead.
    """
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(CANONICAL_IDS.get(repo_id, repo_id), allow_patterns=_WANTED_FILES, ignore_patterns=["*/*"]))
    except Exception as error:  # the hub's client lets through its own errors, httpx's, and OSError
        raise _explained(repo_id, error) from error


def offline_variable() -> str | None:
    """The environment variable that forbids the network, if one is set."""
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        if os.environ.get(name, "").strip().upper() in {"1", "ON", "YES", "TRUE"}:
            return name
    return None


def _explained(repo_id: str, error: Exception) -> NoodleError:
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    if isinstance(error, GatedRepoError):
        return Refused(f"model {repo_id!r} is gated on the hub: accept its licence on its page, then run `hf auth login`")
    if isinstance(error, RepositoryNotFoundError):
        return NotFound(f"the hub has no model {repo_id!r} (or it is private: run `hf auth login`); check the spelling")
    first_line = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
    return Unavailable(f"downloading {repo_id!r} from the hub failed ({type(error).__name__}: {first_line})")
