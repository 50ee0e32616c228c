"""What a file or a folder really is, when it is not the safetensors model that its name promises, and what helps.

Looks at names and at the first bytes of a file; opens nothing else and imports no torch.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

_SNIFFED_BYTES = 512
_LFS = b"version https://git-lfs"
_LFS_SIZE = re.compile(rb"^size (\d+)$", re.MULTILINE)
_FETCH = "fetch the file again, for instance with `hf download`"
# First bytes, and what a file is that begins with them.
_SIGNS: tuple[tuple[bytes, str], ...] = (
    (b"GGUF", "is a GGUF file: give it the ending .gguf and name it as the model"),
    (b"PK\x03\x04", "is a PyTorch pickle or another zip archive, which can run code when loaded: convert it with save_pretrained()"),
    (b"\x80\x02", "is a pickle, which can run code when loaded: convert it with save_pretrained()"),
    (b"\x80\x04", "is a pickle, which can run code when loaded: convert it with save_pretrained()"),
    (b"\x89HDF", "is an HDF5 file of TensorFlow: convert it with from_pretrained(..., from_tf=True) of an older transformers"),
    (b"\x1f\x8b", "is compressed with gzip: unpack it"),
    (b"\x28\xb5\x2f\xfd", "is compressed with zstd: unpack it"),
    (b"\xfd7zXZ", "is compressed with xz: unpack it"),
    (b"\xff\xfe", "is text in UTF-16: store it as UTF-8"),
)
_WEB_PAGE = re.compile(rb"\s*<(!doctype|html|head|body|\?xml)", re.IGNORECASE)
_UNFINISHED = ("*.incomplete", "*.aria2", "*.part", "*.crdownload", "*.download", "*.tmp", "*.!qB")


def mistaken(path: Path) -> str:
    """What the file is instead, and what helps, to put behind its name; empty if its first bytes tell nothing."""
    try:
        with path.open("rb") as stream:
            start = stream.read(_SNIFFED_BYTES)
    except OSError:
        return ""
    if not start:
        return f"is empty: {_FETCH}"
    if start.startswith(_LFS):
        size = _LFS_SIZE.search(start)
        bytes_text = f"{int(size[1])} bytes" if size else "the content"
        return f"is a git-LFS pointer to {bytes_text} that were not fetched: run `git lfs pull` in its folder"
    if _WEB_PAGE.match(start):
        return f"is a web page, such as a login or error page, saved under that name: {_FETCH}"
    return next((text for sign, text in _SIGNS if start.startswith(sign)), "")


def mistaken_weights(path: Path) -> str:
    """The same for a safetensors file, whose ninth byte begins a JSON object."""
    try:
        with path.open("rb") as stream:
            start = stream.read(9)
    except OSError:
        return ""
    if start[8:] == b"{":
        return ""
    if start[:1] in (b"{", b"["):
        return f"is JSON text, such as an error message, and holds no weights: {_FETCH}"
    return mistaken(path)


# ---------------------------------------------------------------------------------------------- folders
def other_weights(folder: Path) -> str:
    """What a folder holds instead of safetensors weights, and what helps, to put behind its name; empty if nothing is known."""
    return next((text for look in _LOOKS if (text := look(folder))), "")


def _first(folder: Path, *patterns: str) -> str:
    return next((path.name for pattern in patterns for path in sorted(folder.glob(pattern)) if path.is_file()), "")


def _adapter(folder: Path) -> str:
    if _first(folder, "adapter_config.json", "adapter_model.*"):
        return (
            "holds a PEFT adapter, which is only a change to another model: load both with peft, call merge_and_unload() and"
            " save_pretrained(), and give that folder"
        )
    return ""


def _unfinished(folder: Path) -> str:
    name = _first(folder, *_UNFINISHED)
    return f"holds a download that was not finished ({name}): let it finish, or start it again" if name else ""


def _pickles(folder: Path) -> str:
    if name := _first(folder, "consolidated*.pth"):
        return f"is in the layout of the model's makers ({name}): take the version for transformers, with config.json and safetensors files"
    if name := _first(folder, "*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl"):
        return (
            f"holds only pickle weights ({name}), which can run code when loaded and are never read: take a version with safetensors files,"
            " or convert it with from_pretrained() and save_pretrained()"
        )
    return ""


def _other_frameworks(folder: Path) -> str:
    found = (
        ("TensorFlow", _first(folder, "*.h5", "saved_model.pb", "*.tflite", "*.ckpt.index")),
        ("Flax", _first(folder, "*.msgpack")),
        ("ONNX", _first(folder, "*.onnx")),
        ("OpenVINO", _first(folder, "openvino_model*")),
        ("Core ML", _first(folder, "*.mlmodel", "*.mlpackage/Manifest.json")),
        ("TensorRT", _first(folder, "*.engine", "*.plan")),
        ("NeMo", _first(folder, "*.nemo")),
    )
    return next((f"holds only {kind} weights ({name}): take a version with safetensors files" for kind, name in found if name), "")


def _pipelines(folder: Path) -> str:
    return "is a diffusers pipeline, which makes pictures and not text" if (folder / "model_index.json").is_file() else ""


def _hub_folder(folder: Path) -> str:
    if not (folder / "snapshots").is_dir() or not (folder / "refs").is_dir():
        return ""
    return f"is a folder of the hub cache: give the model's id, {folder.name.removeprefix('models--').replace('--', '/')}"


def _inner_folder(folder: Path) -> str:
    inner = next((path.parent.name for path in sorted(folder.glob("*/config.json"))), "")
    return f"holds no model itself, but its folder {inner} may: give {folder / inner}" if inner else ""


_LOOKS: tuple[Callable[[Path], str], ...] = (
    _hub_folder, _adapter, _unfinished, _pipelines, _pickles, _other_frameworks, _inner_folder,
)  # fmt: skip
