"""The tensors of a GGUF file as `gguf_folder` wrote them down, so that a process needs neither torch nor the `gguf` package.

A GGUF file carries configuration, tokenizer and weights in one; the engine's other rooms know folders. So a file gets a small
folder in the cache: config.json, tokenizer, and this index, which says where in the file each tensor lies. The weights stay where
they are.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from engine.data.errors import Corrupt, NotFound
from engine.data.json_text import json_text

INDEX = "gguf.json"
GGUF_INSTALL = "install it with `pip install 'noodlecore[gguf]'`"
# Numbers and bytes of one block, by ggml's names; rows are whole blocks. GGML_QUANT_SIZES of the `gguf` package.
BLOCKS = {
    "Q4_0": (32, 18), "Q4_1": (32, 20), "Q5_0": (32, 22), "Q5_1": (32, 24), "Q8_0": (32, 34),
    "Q2_K": (256, 84), "Q3_K": (256, 110), "Q4_K": (256, 144), "Q5_K": (256, 176), "Q6_K": (256, 210),
    "IQ1_S": (256, 50), "IQ1_M": (256, 56), "IQ2_XXS": (256, 66), "IQ2_XS": (256, 74), "IQ2_S": (256, 82), "IQ3_XXS": (256, 98),
    "IQ3_S": (256, 110), "IQ4_NL": (32, 18), "IQ4_XS": (256, 136), "TQ1_0": (256, 54), "TQ2_0": (256, 66), "MXFP4": (32, 17),
}  # fmt: skip


def is_gguf(path: Path) -> bool:
    """Whether the file begins as GGUF files do."""
    try:
        with path.open("rb") as stream:
            return stream.read(4) == b"GGUF"
    except OSError:
        return False


def stamp(file: Path) -> list[int]:
    """What tells that a file was changed: bytes and time of its last change. Raises NotFound."""
    try:
        stat = file.stat()
    except OSError as error:
        raise NotFound(f"the GGUF file {file} is gone or cannot be read ({error.strerror}): put it back, or name another model") from error
    return [stat.st_size, stat.st_mtime_ns]


def write(folder: Path, file: Path, header_sha256: str, tensors: list[tuple[str, str, tuple[int, ...], int]]) -> None:
    """`tensors` are name, dtype, shape and the offset in the file, of each."""
    content = {"file": str(file), "stamp": stamp(file), "header_sha256": header_sha256, "tensors": tensors}
    (folder / INDEX).write_text(json_text(content), encoding="utf-8")


def read(folder: Path) -> tuple[Path, str, list[tuple[str, str, tuple[int, ...], int]]]:
    """The GGUF file, the hash of its header and its tensors. Raises NotFound if it is gone, Corrupt if it is another by now."""
    path = folder / INDEX
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        file = Path(content["file"])
        tensors = [(str(name), str(dtype), tuple(map(int, shape)), int(offset)) for name, dtype, shape, offset in content["tensors"]]
        held, header = list(content["stamp"]), str(content["header_sha256"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Corrupt(f"{path} is damaged ({error}): remove {folder}, it is made again") from error
    if stamp(file) != held:
        raise Corrupt(f"the GGUF file {file} has changed since {folder} was made from it: name the file as the model again")
    return file, header, tensors
