"""Files and folders that are not what they seem: each is called what it is, with the way out, in one sentence."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from engine.data.errors import NoodleError, NotSupported
from engine.data.model import ModelRef
from engine.model.running.stage import StageModel
from engine.model.sources.card import describe, prepare, ready_card
from engine.model.sources.source import resolve
from engine.model.weights.weight_folder import WeightFolder
from tests.model import published, tiny

FILE = published.FILE
INDEX = "model.safetensors.index.json"
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 548105171\n"
PAGE = b"\n<!DOCTYPE html>\n<html><body>Please log in</body></html>"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("original")
    tiny.random_model(tiny.tiny_config("llama")).save_pretrained(folder)
    return folder


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "model"))


def write(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(content)


def only(*names: str) -> Callable[[Path], object]:
    """Empty files instead of the weights."""

    def change(folder: Path) -> None:
        (folder / FILE).unlink()
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(b"")

    return change


def alone(*names: str) -> Callable[[Path], object]:
    """Empty files instead of weights and configuration."""

    def change(folder: Path) -> None:
        (folder / "config.json").unlink()
        only(*names)(folder)

    return change


def shards(folder: Path, *numbers: int, total: int = 3, index: bool = False) -> None:
    """The weights in `total` files, of which only `numbers` are there."""
    tensors = load_file(folder / FILE)
    (folder / FILE).unlink()
    names = sorted(tensors)
    weight_map = {}
    for number in range(1, total + 1):
        part = names[number - 1 :: total]
        file = f"model-{number:05}-of-{total:05}.safetensors"
        weight_map |= dict.fromkeys(part, file)
        if number in numbers:
            save_file({name: tensors[name] for name in part}, folder / file)
    if index:
        (folder / INDEX).write_text(json.dumps({"weight_map": weight_map}))


CASES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a pointer of git-LFS": (write(FILE, LFS), r"git-LFS pointer to 548105171 bytes .* `git lfs pull`"),
    "a pointer for the configuration": (write("config.json", LFS), "git-LFS pointer"),
    "a web page": (write(FILE, PAGE), "is a web page"),
    "a web page for the configuration": (write("config.json", PAGE), "is a web page"),
    "an error message in JSON": (write(FILE, b'{"error":"Repository not found"}'), "is JSON text, such as an error message"),
    "nothing": (write(FILE, b""), "is empty"),
    "a pickle": (write(FILE, b"\x80\x02}q\x00." + bytes(600)), "is a pickle"),
    "a zip of PyTorch": (write(FILE, b"PK\x03\x04" + bytes(600)), "PyTorch pickle"),
    "a GGUF file": (write(FILE, b"GGUF\x03\x00\x00\x00" + bytes(600)), r"is a GGUF file: give it the ending \.gguf"),
    "HDF5": (write(FILE, b"\x89HDF\r\n\x1a\n" + bytes(600)), "HDF5 file of TensorFlow"),
    "gzip": (write(FILE, b"\x1f\x8b\x08" + bytes(600)), "compressed with gzip"),
    "a file cut short": (lambda f: (f / FILE).write_bytes((f / FILE).read_bytes()[:-7]), "cut short or damaged"),
    "PyTorch alone": (only("pytorch_model.bin"), r"only pickle weights \(pytorch_model\.bin\)"),
    "TensorFlow alone": (only("tf_model.h5"), "only TensorFlow weights"),
    "Flax alone": (only("flax_model.msgpack"), "only Flax weights"),
    "ONNX alone": (only("model.onnx"), "only ONNX weights"),
    "an unfinished download": (only("model.safetensors.incomplete"), "not finished"),
    "an adapter with a configuration": (only("adapter_config.json", "adapter_model.safetensors"), "PEFT adapter.*merge_and_unload"),
    "an adapter alone": (alone("adapter_config.json", "adapter_model.safetensors"), "PEFT adapter.*merge_and_unload"),
    "Meta's own layout": (alone("consolidated.00.pth", "params.json"), "layout of the model's makers"),
    "a diffusers pipeline": (alone("model_index.json", "unet/config.json"), "makes pictures and not text"),
    "a folder of the hub cache": (alone("snapshots/abc/config.json", "refs/main"), "folder of the hub cache"),
    "a folder around the model": (alone("checkpoint-500/config.json"), "checkpoint-500 may"),
    "no weights": (only(), "no safetensors files"),
    "a shard of several is not there": (lambda f: shards(f, 1, 3, index=True), r"lacks 1 of 3 weight files \(model-00002"),
    "neither is the index": (lambda f: shards(f, 1), r"lacks 2 of 3 weight files \(number 2, 3\)"),
    "an index that is a web page": (lambda f: (shards(f, 1, 2, 3), write(INDEX, PAGE)(f)), "is a web page"),
    "an index without a map": (lambda f: (shards(f, 1, 2, 3), write(INDEX, b"{}")(f)), "no weight_map"),
    "files that nobody numbered": (lambda f: (write("a.safetensors", b"")(f), (f / FILE).rename(f / "b.safetensors")), "which belong to"),
    "a part of a pipeline": (write("config.json", b'{"_class_name": "UNet2DConditionModel"}'), "part of a diffusers pipeline"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_it_is_called_what_it_is(case: str, folder: Path, tmp_path: Path) -> None:
    change, said = CASES[case]
    change(folder)
    with pytest.raises(NoodleError, match=said) as caught:
        prepare(ModelRef(str(folder)), tmp_path / "cache")
    message = str(caught.value)
    assert len(message) - len(str(folder)) < 300 and message.isascii() and "\n" not in message


def test_a_safetensors_file_is_not_taken_for_anything_else(folder: Path) -> None:
    assert describe(folder, ModelRef("m")).missing == ""


def test_shards_without_their_index_are_read(folder: Path) -> None:
    expected = {name: tensor.shape for name, tensor in load_file(folder / FILE).items()}
    shards(folder, 1, 2, 3)
    weights = WeightFolder(folder)
    assert {name: weights.tensor(name).shape for name in weights.names} == {name: tuple(shape) for name, shape in expected.items()}
    assert describe(folder, ModelRef("m")).missing == ""


@pytest.mark.parametrize("name", ["m.safetensors", "notes.txt"])
def test_a_file_in_place_of_the_folder_is_said(name: str, folder: Path, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes((folder / FILE).read_bytes())
    with pytest.raises(NotSupported, match=r"is a file: give (its|a) folder"):
        resolve(ModelRef(str(tmp_path / name)), cache_dir=tmp_path / "cache")


# --- names of tensors ---------------------------------------------------------------------------------------------
WRAPPED: dict[str, Callable[[str], str]] = {
    "torch.compile": lambda name: f"_orig_mod.{name}",
    "DDP": lambda name: f"module.{name}",
    "DDP around torch.compile": lambda name: f"module._orig_mod.{name}",
    "PEFT, merged": lambda name: f"base_model.model.{name}",
    "FSDP": lambda name: name.replace(".layers.", "._fsdp_wrapped_module.layers."),
    "activation checkpoints": lambda name: name.replace(".mlp.", "._checkpoint_wrapped_module.mlp."),
    "each block compiled": lambda name: name.replace(".self_attn.", "._orig_mod.self_attn."),
}


@pytest.mark.parametrize("wrapper", WRAPPED)
def test_what_training_put_before_the_names_is_taken_off(wrapper: str, folder: Path) -> None:
    plain = tiny.sliced(tiny.load_slices(folder, (0, 6)), tiny.prompts((5,)), 4)
    published.rename_tensors(folder, WRAPPED[wrapper])
    assert describe(folder, ModelRef("m")).missing == ""
    assert tiny.sliced(tiny.load_slices(folder, (0, 2, 6)), tiny.prompts((5,)), 4) == plain


LACKING: dict[str, tuple[Callable[[str], str | None], str]] = {
    "an adapter that was not merged": (lambda n: n.replace("q_proj.weight", "q_proj.lora_A.default.weight"), "PEFT adapter"),
    "GPTQ without a word in config.json": (lambda n: n.replace("_proj.weight", "_proj.qweight"), "GPTQ or AWQ"),
    "bitsandbytes": (lambda n: n.replace("q_proj.weight", "q_proj.weight.absmax"), "bitsandbytes"),
    "compressed-tensors": (lambda n: n.replace("q_proj.weight", "q_proj.weight_packed"), "compressed-tensors"),
    "a head that scores": (lambda n: n.replace("lm_head", "score"), "scores or classifies"),
    "no head": (lambda n: None if "lm_head" in n else n, "no language-model head"),
    "another model": (lambda n: f"other.{n}", r"none of the model's \d+ tensors"),
    "a block that is not there": (lambda n: None if ".layers.2." in n else n, r"lacks 9 of the model's \d+ tensors"),
}


@pytest.mark.parametrize("case", LACKING)
def test_what_a_folder_lacks_is_told_before_anything_is_loaded(case: str, folder: Path, tmp_path: Path) -> None:
    change, said = LACKING[case]
    published.rename_tensors(folder, change)
    ref = ModelRef(str(folder))
    with pytest.raises(NotSupported, match=said) as caught:
        prepare(ref, tmp_path / "cache")
    assert len(str(caught.value)) - len(str(folder)) < 420
    with pytest.raises(NotSupported, match=said):
        ready_card(ref, tmp_path / "cache")  # the card is there by now, and says the same
    card = prepare(ref, tmp_path / "cache", to_load=False)
    assert card.missing and card.num_parameters > 10_000


def test_what_is_said_to_be_whole_can_be_loaded(folder: Path) -> None:
    """And a tied head needs no tensor of its own."""
    model = tiny.random_model(tiny.tiny_config("gpt2"))
    model.save_pretrained(folder / "tied")
    assert "lm_head.weight" not in WeightFolder(folder / "tied").names
    card = describe(folder / "tied", ModelRef("m"))
    assert (card.missing, card.num_parameters) == ("", sum(p.numel() for p in model.parameters()))
    stage = StageModel.load(folder / "tied", 5, 6, kv_budget_bytes=0)
    assert torch.equal(stage.module.get_output_embeddings().weight, model.get_input_embeddings().weight)


# --- own code -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("auto_map", "foreign"),
    [
        ({"AutoConfig": "configuration_llama.LlamaConfig", "AutoModelForCausalLM": "modeling_llama.LlamaForCausalLM"}, ""),
        ({"AutoModelForCausalLM": "someone/else--modeling_llama.LLamaForCausalLM"}, ""),
        ({"AutoConfig": "configuration.Config"}, ""),
        ({"AutoModelForSequenceClassification": "modeling.Score"}, ""),
        ({}, ""),
        ({"AutoModelForCausalLM": "modeling_mine.MyLlamaForCausalLM"}, "MyLlamaForCausalLM"),
        ({"AutoModel": "modeling_mine.MyLlama"}, "MyLlama"),
    ],
)
def test_an_auto_map_matters_only_where_the_class_is_not_native(auto_map: dict[str, str], foreign: str, folder: Path) -> None:
    (folder / "modeling_mine.py").write_text("raise SystemExit('ran')")
    published.edit_config(folder, auto_map=auto_map)
    if not foreign:
        assert describe(folder, ModelRef("m")).missing == ""
        return
    with pytest.raises(NotSupported, match=f"class '{foreign}' of its auto_map .* never run"):
        describe(folder, ModelRef("m"))


def test_a_family_that_transformers_does_not_have_is_refused_with_its_class(folder: Path) -> None:
    published.edit_config(folder, model_type="chatglm", auto_map={"AutoModelForCausalLM": "modeling_chatglm.ChatGLM"})
    with pytest.raises(NotSupported, match="class 'ChatGLM' of its auto_map"):
        describe(folder, ModelRef("m"))
    published.edit_config(folder, auto_map=None)
    with pytest.raises(NotSupported, match="knows no model_type 'chatglm'"):
        describe(folder, ModelRef("m"))


def test_a_configuration_without_architectures_is_no_obstacle(folder: Path) -> None:
    published.edit_config(folder, architectures=None)
    assert describe(folder, ModelRef("m")).missing == ""
