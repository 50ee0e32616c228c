"""Makes the small folder that stands for a GGUF file: config.json and tokenizer by transformers' own code, and the index of its tensors.

A GGUF file does not say everything that its model's configuration says, and transformers restores some of what it says. So only
architectures whose files were compared with the model that they were made from are taken, and nothing in a file is passed over: a
key or tensor that has no place in the model is a refusal, not a guess.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.data.errors import Corrupt, Exhausted, NotSupported
from engine.data.json_text import json_text
from engine.model.formats import gguf_index

if TYPE_CHECKING:
    from gguf import GGUFReader

ARCHITECTURES = ("gpt2", "llama", "phi3", "qwen2", "qwen3", "qwen3moe", "starcoder2")
_PLAIN = ("F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8")
# Keys that say what the configuration holds already; the value must be the configuration's.
_SAME_AS = {
    "vocab_size": "vocab_size",
    "rope.dimension_count": "head_dim",
    "attention.key_length": "head_dim",
    "attention.value_length": "head_dim",
    "attention.sliding_window": "sliding_window",
    "rope.scaling.original_context_length": "max_position_embeddings",
    "expert_feed_forward_length": "moe_intermediate_size",
    "feed_forward_length": "n_inner",
    "context_length": "n_positions",
}
_ROPE_FACTORS = "rope_freqs.weight"  # Llama 3.1 and later: what each rotary frequency is divided by


def build(file: Path, folder: Path) -> None:
    """Write `folder`, which appears whole or not at all. Raises NotSupported, Corrupt or Exhausted."""
    reader = _open(file)
    _check(file, reader)
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", suffix=".partial", dir=folder.parent))
    try:
        (part / "config.json").write_text(json_text(_config(file, reader), indent=1), encoding="utf-8")
        _write_generation_config(part, reader)
        _write_tokenizer(file, part, reader)
        with file.open("rb") as stream:
            header_sha256 = hashlib.sha256(stream.read(reader.data_offset)).hexdigest()
        tensors = [(t.name, t.tensor_type.name, tuple(map(int, reversed(t.shape))), int(t.data_offset)) for t in reader.tensors]
        gguf_index.write(part, file, header_sha256, tensors)
        with suppress(FileExistsError, OSError):  # another process was quicker
            os.rename(part, folder)
    except OSError as error:
        raise Exhausted(f"{folder} cannot be written ({error.strerror or error}): free some space, or choose another cache") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _open(file: Path) -> GGUFReader:
    try:
        import gguf
    except ImportError as error:
        raise NotSupported(f"{file} is a GGUF file, and the package that reads it is missing here: {gguf_index.GGUF_INSTALL}") from error
    try:
        return gguf.GGUFReader(file)
    except Exception as error:  # the reader trusts the file and raises whatever numpy raises
        raise Corrupt(f"{file} is not a whole GGUF file, it was cut short or damaged ({error}): fetch it again") from error


def _value(reader: GGUFReader, key: str, default: Any = None) -> Any:
    field = reader.get_field(key)
    return default if field is None else field.contents()


def _check(file: Path, reader: GGUFReader) -> None:
    architecture = _value(reader, "general.architecture")
    if architecture not in ARCHITECTURES:
        raise NotSupported(
            f"{file} is a GGUF file of architecture {str(architecture)[:40]!r}, which is not read: take the model's safetensors version;"
            f" read are {', '.join(ARCHITECTURES)}"
        )
    if int(_value(reader, "split.count", 0)) > 1:
        raise NotSupported(f"{file} is one part of a GGUF file that was split: join the parts with `llama-gguf-split --merge`")
    odd = sorted({t.tensor_type.name for t in reader.tensors} - {*gguf_index.BLOCKS, *_PLAIN})
    if odd:
        raise NotSupported(f"{file} has tensors of GGUF type {', '.join(odd)}, which is not read: take another quantisation of the model")


def _config(file: Path, reader: GGUFReader) -> dict[str, Any]:
    """What transformers makes of the file's metadata, completed; `gguf_architecture` tells the loader how tensors are named."""
    from transformers import AutoConfig

    architecture = str(_value(reader, "general.architecture"))
    try:
        config = AutoConfig.from_pretrained(file.parent, gguf_file=file.name, local_files_only=True)
    except Exception as error:  # whatever a family objects to
        raise NotSupported(f"transformers cannot make a configuration of the GGUF file {file}: {error}") from error
    if architecture == "gpt2":
        config.n_positions, config.n_inner = config.n_ctx, config.feed_forward_length
    _restore(file, reader, architecture, config)
    if config.pad_token_id is not None and config.pad_token_id >= config.vocab_size:
        config.pad_token_id = None  # the family's default, which the file does not name
    return {**config.to_dict(), "gguf_architecture": architecture, "dtype": "float32"}


def _restore(file: Path, reader: GGUFReader, architecture: str, config: Any) -> None:
    """Put into the configuration what transformers left out. Raises NotSupported for what has no place in it."""
    for key in sorted(_unmapped(reader, architecture, config)):
        name, value = key.removeprefix(f"{architecture}."), _value(reader, key)
        if name == "rope.freq_base":
            config.rope_parameters = {**(config.rope_parameters or {}), "rope_theta": float(value)}
        elif (attribute := _SAME_AS.get(name)) and hasattr(config, attribute) and name != "rope.dimension_count":
            setattr(config, attribute, value)
        elif value not in (0, False, "none", "", _head_size(config) if attribute == "head_dim" else 0):
            raise NotSupported(f"{file} states {key} = {str(value)[:40]}, which is not restored from GGUF: {_OTHER}")
    factors = next((t for t in reader.tensors if t.name == _ROPE_FACTORS), None)
    if factors is not None:
        config.rope_parameters = {**config.rope_parameters, **_long_rope(factors.data.tolist(), config.max_position_embeddings)}


def _head_size(config: Any) -> int:
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


_OTHER = "take the model's safetensors version"


def _unmapped(reader: GGUFReader, architecture: str, config: Any) -> set[str]:
    """Keys of the file's architecture that transformers passes over."""
    from transformers.integrations.ggml import GGUF_CONFIG_MAPPING

    mapping: Any = GGUF_CONFIG_MAPPING.get(config.model_type) or GGUF_CONFIG_MAPPING.get(architecture) or {}
    known = {f"{architecture}.{name}" for name, target in mapping.items() if target is not None}
    return {key for key in reader.fields if key.startswith(f"{architecture}.")} - known


def _long_rope(factors: list[float], context_tokens: int) -> dict[str, Any]:
    """Rotary frequencies divided one by one: transformers spells that longrope, with the same factors at every length."""
    return {
        "rope_type": "longrope",
        "short_factor": factors,
        "long_factor": factors,
        "attention_factor": 1.0,
        "original_max_position_embeddings": context_tokens,
    }


def _write_generation_config(folder: Path, reader: GGUFReader) -> None:
    """The tokens that end an answer: of the text, of a turn, of a message."""
    keys = ("tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id")
    ends = list(dict.fromkeys(int(value) for key in keys if (value := _value(reader, key)) is not None))
    if ends:
        (folder / "generation_config.json").write_text(json_text({"eos_token_id": ends}), encoding="utf-8")


def _write_tokenizer(file: Path, folder: Path, reader: GGUFReader) -> None:
    """The file's tokenizer as tokenizer.json; a file without one gets none, and the byte-level one stands in."""
    if reader.get_field("tokenizer.ggml.model") is None or reader.get_field("tokenizer.ggml.tokens") is None:
        return
    from transformers import AutoTokenizer

    try:
        AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name, local_files_only=True).save_pretrained(folder)
    except Exception as error:  # whatever the conversion of a family objects to
        raise NotSupported(f"the tokenizer in the GGUF file {file} cannot be read ({error}): {_OTHER}") from error
