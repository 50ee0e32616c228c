"""What the model room's README states of files is what the code reads."""

from __future__ import annotations

from pathlib import Path

import gguf
import pytest

from engine.model import families
from engine.model.formats import gguf_folder, gguf_index, quantised

README = (Path(__file__).parents[2] / "engine" / "model" / "README.md").read_text()
SECTION = README.split("## Files that can be read, and those that cannot")[1].split("\n## ")[0]


@pytest.mark.parametrize("about", ["**GGUF.**", "**Text inside image models.**"])
def test_the_lists_are_those_of_the_code(about: str) -> None:
    listed = {"**GGUF.**": gguf_folder.ARCHITECTURES, "**Text inside image models.**": (*families.WRAPPERS, *families.TEXT_CLASSES)}
    words = set(SECTION.split(about)[1].split("\n\n")[0].replace(",", " ").replace(".", " ").split())
    assert set(listed[about]) <= words
    others = {"gemma2", "gemma3", "falcon", "bloom", "paligemma", "idefics3", "emu3", "mllama"}
    assert not others & words


def test_the_methods_that_are_read_are_named() -> None:
    assert all(f"{method}" in SECTION for method in quantised.READ)


def test_the_block_types_are_all_but_those_named() -> None:
    plain = {"F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8"}
    left_out = {kind.name for kind in gguf.GGML_QUANT_SIZES} - plain - {*gguf_index.BLOCKS} - {"Q8_1", "Q8_K"}  # never stored in files
    assert left_out == {"NVFP4", "Q1_0"} and all(name in SECTION for name in left_out)
