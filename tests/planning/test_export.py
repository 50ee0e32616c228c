"""Plans in other engines' terms, read back by those engines' code where it is installed and else by the rule that they document."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import dispatch_model
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from engine.data.errors import InvalidInput
from engine.data.model import Item
from engine.model.running.slicing import item_modules
from engine.model.weights.weight_folder import WeightFolder
from engine.planning.documents.partition_plan import PartitionPlan
from engine.planning.export.engines import ENGINES, export, export_document
from engine.planning.export.exported import Wish
from engine.planning.export.modules import modules_of
from engine.planning.export.rank_engines import SGLANG_VARIABLE, VLLM_VARIABLE
from engine.planning.export.shares import block_range, shares_of
from tests.planning.plans import plan
from tests.report.profiles import make_profile
from tests.service.reference import folder_of

Ranges = list[tuple[int, int]]


def chain(num_blocks: int, *, kv: int = 8) -> tuple[Item, ...]:
    return (Item("embed", 100, 0, 4), *(Item(f"h.{k}", 100, kv, 4) for k in range(num_blocks)), Item("head", 100, 0, 4, 0, 100))


def planned(bounds: list[int], *, kv: int = 8) -> PartitionPlan:
    """Stages between the bounds, on n0, n1, ..."""
    stages = [(f"n{k}", start, stop, 0.01, 0.0) for k, (start, stop) in enumerate(pairwise(bounds))]
    return plan(*stages, items=chain(bounds[-1] - 2, kv=kv))


@st.composite
def plans(draw: st.DrawFn, most_blocks: int = 130, most_stages: int = 20) -> PartitionPlan:
    last = draw(st.integers(3, most_blocks + 2))
    cuts = draw(st.sets(st.integers(1, last - 1), max_size=most_stages - 1))
    return planned([0, *sorted(cuts), last])


def wanted_blocks(found: PartitionPlan) -> Ranges:
    """Of every stage: the items between the first and the last, less one for the embedding."""
    last = len(found.items) - 2
    return [(min(max(s.start - 1, 0), last), min(max(s.stop - 1, 0), last)) for s in found.stages]


# --- shares ------------------------------------------------------------------------------------------------------
@given(plans())
def test_every_block_is_on_one_stage_and_the_ends_are_apart(found: PartitionPlan) -> None:
    shares = shares_of(found)
    assert [(s.start, s.stop) for s in shares] == wanted_blocks(found)
    assert [s.has_embedding for s in shares] == [True, *[False] * (len(shares) - 1)]
    assert [s.has_head for s in shares] == [*[False] * (len(shares) - 1), True]


def test_blocks_are_found_without_keys_and_values_too() -> None:
    assert block_range(chain(4)) == block_range(chain(4, kv=0)) == (1, 5)
    bare = tuple(Item(f"item {k}", 1, 0, 1) for k in range(4))
    assert block_range(bare) == (0, 4) and block_range(bare[:1]) == (0, 1)


# --- vLLM, SGLang ------------------------------------------------------------------------------------------------
def documented_indices(variable: str) -> Callable[[int, int, int], tuple[int, int]]:
    """The rule of `get_pp_indices` in both engines where the variable is set."""

    def indices(num_hidden_layers: int, pp_rank: int, pp_size: int) -> tuple[int, int]:
        import os

        counts = [int(text) for text in os.environ[variable].split(",")]
        assert len(counts) == pp_size and sum(counts) == num_hidden_layers
        start = sum(counts[:pp_rank])
        return start, start + counts[pp_rank]

    return indices


def indices_of(engine: str, variable: str) -> Callable[[int, int, int], tuple[int, int]]:
    try:
        if engine == "vllm":
            from vllm.distributed.utils import get_pp_indices  # type: ignore[import-not-found]
        else:
            from sglang.srt.distributed.utils import get_pp_indices  # type: ignore[import-not-found]
    except ImportError:
        return documented_indices(variable)
    return get_pp_indices  # type: ignore[no-any-return]


@pytest.mark.parametrize(("engine", "variable"), [("vllm", VLLM_VARIABLE), ("sglang", SGLANG_VARIABLE)])
@given(found=plans())
def test_every_rank_holds_the_blocks_of_its_stage(engine: str, variable: str, found: PartitionPlan) -> None:
    exported = export(engine, Wish(found, "some/model"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(variable, exported.settings[variable])
        indices = indices_of(engine, variable)
        size = exported.settings["pipeline_parallel_size"]
        assert [indices(len(found.items) - 2, rank, size) for rank in range(size)] == wanted_blocks(found)
    assert [c.environment for c in exported.commands] == [{variable: exported.settings[variable]}] * size
    assert [c.node_id for c in exported.commands] == [s.node_id for s in found.stages]


def test_the_command_lines_of_ranks() -> None:
    found = planned([0, 3, 6])
    first, second = map(str, export("vllm", Wish(found, "some/model")).commands)
    assert first == f"{VLLM_VARIABLE}=2,2 vllm serve some/model --pipeline-parallel-size 2 --nnodes 2 --node-rank 0 --master-addr n0"
    assert second.endswith("--node-rank 1 --master-addr n0 --headless")
    (alone,) = export("vllm", Wish(planned([0, 6]), "some/model")).commands
    assert str(alone) == f"{VLLM_VARIABLE}=4 vllm serve some/model --pipeline-parallel-size 1"
    _, second = map(str, export("sglang", Wish(found, "a model")).commands)
    assert "--model-path 'a model' --pp-size 2 --nnodes 2 --node-rank 1 --dist-init-addr n0:5000" in second


def test_a_rank_without_a_block_is_said() -> None:
    said = export("vllm", Wish(planned([0, 1, 6]), "m")).not_expressed
    assert any("rank 0 on n0 has no block" in sentence for sentence in said)
    assert not any("has no block" in sentence for sentence in export("vllm", Wish(planned([0, 2, 6]), "m")).not_expressed)


# --- llama.cpp ---------------------------------------------------------------------------------------------------
def llama_devices(tensor_split: list[int], n_gpu_layers: int, num_blocks: int) -> list[int]:
    """The device of every block and of the output, -1 for the CPU: load_tensors of llama.cpp, in float32 as there."""
    splits = np.cumsum(np.asarray(tensor_split, np.float32), dtype=np.float32)
    splits /= splits[-1]
    first, places = max(num_blocks + 1 - n_gpu_layers, 0), min(n_gpu_layers, num_blocks + 1)
    found = []
    for layer in range(num_blocks + 1):
        is_on_cpu = layer < first or layer - first >= places
        share = np.float32(layer - first) / np.float32(places)
        found.append(-1 if is_on_cpu else int(np.searchsorted(splits, share, side="right")))
    return found


@given(plans(most_blocks=600, most_stages=60))
def test_llamacpp_puts_every_block_where_the_plan_has_it(found: PartitionPlan) -> None:
    settings = export("llamacpp", Wish(found, "m.gguf")).settings
    devices = llama_devices(settings["tensor_split"], settings["n_gpu_layers"], len(found.items) - 2)
    owner = [k for k, s in enumerate(found.stages) for _ in range(s.start, s.stop)]
    assert devices == owner[1:]


def test_local_devices_stand_among_remote_ones() -> None:
    exported = export("llamacpp", Wish(planned([0, 2, 4, 7]), "m.gguf", {"n1": "CUDA0"}))
    assert [c.node_id for c in exported.commands] == ["n0", "n2", "the machine that serves"]
    assert str(exported.commands[-1]) == (
        "llama-server -m m.gguf --n-gpu-layers 6 --rpc n0:50052,n2:50052 --device RPC0,CUDA0,RPC1 --tensor-split 1,2,3 --split-mode layer"
    )
    assert any("the plan has it on n0" in sentence for sentence in exported.not_expressed)


# --- DeepSpeed ---------------------------------------------------------------------------------------------------
@given(plans())
def test_deepspeed_gets_the_bounds_of_its_list_of_layers(found: PartitionPlan) -> None:
    exported = export("deepspeed", Wish(found))
    parts, layers = exported.settings["parts"], [item.name for item in found.items]
    assert [layers[start:stop] for start, stop in pairwise(parts)] == [layers[s.start : s.stop] for s in found.stages]
    compile(exported.text, "exported", "exec")
    assert f"self.parts = {parts}\n" in exported.text and any("TiedLayerSpec" in sentence for sentence in exported.not_expressed)


# --- accelerate --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("model", ["gpt2:tiny", "llama:tiny", "gemma2:tiny"])
def test_accelerate_runs_the_map_and_answers_the_same(model: str, tmp_path: Path) -> None:
    """One machine with one CPU: what is not on "cpu" is on "disk", and comes from there for every forward pass."""
    folder = folder_of(model)
    modules = item_modules(WeightFolder(folder).config)
    found = plan(("a", 0, 2, 0.1, 0.0), ("b", 2, 4, 0.1, 0.0), ("c", 4, len(modules), 0.1, 0.0), items=chain(len(modules) - 2))
    exported = export("accelerate", Wish(found, model, {"a": "cpu", "b": "disk", "c": "cpu"}, modules))
    device_map = json.loads(exported.text)
    assert device_map == exported.settings["device_map"] and {"cpu", "disk"} == set(device_map.values())

    def answer(dispatched: bool) -> list[int]:
        whole = AutoModelForCausalLM.from_pretrained(folder, dtype="float32").eval()
        if dispatched:
            whole = dispatch_model(whole, device_map, offload_dir=str(tmp_path))
            on_disk = {name for name, tensor in whole.named_parameters() if tensor.is_meta}
            assert {".".join(name.split(".")[:3]) for name in on_disk} == {path for item in modules[2:4] for path in item}
        return whole.generate(torch.tensor([[5, 6, 7]]), max_new_tokens=12, do_sample=False, eos_token_id=-1)[0].tolist()

    assert answer(dispatched=True) == answer(dispatched=False)


def test_modules_of_a_profile_are_its_outermost_ones() -> None:
    modules = modules_of(make_profile(3))
    assert modules[0] == ("transformer.wte", "transformer.wpe") and modules[1] == ("transformer.h.0",)
    assert modules[-1] == ("transformer.ln_f", "transformer.lm_head") and len(modules) == 5


def test_accelerates_devices_are_this_machines() -> None:
    modules = tuple((f"m.{k}",) for k in range(6))
    found = planned([0, 2, 4, 6])
    assert set(export("accelerate", Wish(found, "", {}, modules)).settings["device_map"].values()) == {0, 1, 2}
    mapped = export("accelerate", Wish(found, "", {"n0": "cuda:3", "n2": "mps"}, modules))
    assert mapped.settings["device_map"]["m.1"] == 3 and mapped.settings["device_map"]["m.5"] == "mps"
    assert any(sentence.startswith("n1: taken as") for sentence in mapped.not_expressed)
    with pytest.raises(InvalidInput, match="nobody knows them here"):
        export("accelerate", Wish(found))
    with pytest.raises(InvalidInput, match="those of 5 items are known, the plan has 6"):
        export("accelerate", Wish(found, "", {}, modules[:5]))


# --- all ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("engine", ENGINES)
def test_every_export_is_a_document_and_says_what_it_lacks(engine: str) -> None:
    found = planned([0, 3, 6])
    document = export_document(export(engine, Wish(found, "", {}, tuple((f"m.{k}",) for k in range(6)))))
    assert json.loads(json.dumps(document)) == document and document["engine"] == engine and document["not_expressed"]
    assert [(b["start"], b["stop"]) for b in document["blocks"]] == [(0, 2), (2, 4)]


def test_an_unknown_engine_and_a_device_of_nobody_are_refused() -> None:
    with pytest.raises(InvalidInput, match="'tgi' is unknown: export to one of vllm, sglang, llamacpp"):
        export("tgi", Wish(planned([0, 3])))
    with pytest.raises(InvalidInput, match="names node 'x', which holds no stage: the plan has n0"):
        export("vllm", Wish(planned([0, 3]), "", {"x": "0"}))
