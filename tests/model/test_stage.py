"""What a stage promises besides the right tokens: isolation, atomic steps, movable KV, bounded memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.data.errors import Exhausted, InvalidInput, NotFound
from engine.model.running.stage import StageModel
from tests.model import tiny

ALL = (0, tiny.NUM_LAYERS + 2)
THREE = (0, 2, 4, tiny.NUM_LAYERS + 2)


@pytest.fixture(scope="module", params=["gpt2", "mistral", "gemma2", "falcon"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    path = tmp_path_factory.mktemp(request.param)
    tiny.random_model(tiny.tiny_config(request.param)).save_pretrained(path)
    return path


@pytest.fixture
def gpt2(tmp_path: Path) -> Path:
    tiny.random_model(tiny.tiny_config("gpt2")).save_pretrained(tmp_path)
    return tmp_path


def only(folder: Path, start: int, stop: int, **options: Any) -> StageModel:
    return StageModel.load(folder, start, stop, **{"kv_budget_bytes": tiny.KV_BYTES} | options)


def test_company_in_the_batch_changes_no_tokens(folder: Path) -> None:
    stages = tiny.load_slices(folder, THREE)
    asked = tiny.prompts((4, 19, 1, 30, 2))
    alone = [tiny.sliced(stages, [prompt], 12)[0] for prompt in asked]
    assert tiny.sliced(stages, asked, 12) == alone
    assert tiny.sliced(stages, asked[::-1], 12, late=3)[::-1] == alone
    assert tiny.sliced(stages, asked, 12, chunk=4) == alone


def test_every_cut_gives_the_same_tokens(folder: Path) -> None:
    asked = tiny.prompts()
    expected = tiny.sliced(tiny.load_slices(folder, ALL), asked, 6)
    for cuts in ((0, 1, 6), (0, 5, 6), (0, 1, 2, 3, 4, 5, 6), (0, 3, 6)):
        assert tiny.sliced(tiny.load_slices(folder, cuts), asked, 6) == expected


def test_shapes_and_types_at_the_ends(folder: Path) -> None:
    first, last = tiny.load_slices(folder, (0, 3, 6))
    for stage in (first, last):
        stage.open("a", 10)
        stage.open("b", 10)
    hidden = first.forward([("a", [5, 6, 7]), ("b", [8])], None)
    assert hidden.shape == (4, first.hidden_size)
    logits = last.forward([("a", [5, 6, 7]), ("b", [8])], hidden)
    assert logits.shape == (2, last.vocab_size)
    assert logits.dtype == torch.float32
    assert (first.length("a"), last.length("b")) == (3, 1)


class Broken(Exception):
    pass


def break_block(stage: StageModel, index: int) -> Any:
    def fail(*_: Any) -> None:
        raise Broken

    blocks: Any = stage._cut.model.get_submodule(stage._chain.blocks)
    return blocks[index].register_forward_pre_hook(fail)


def test_a_step_that_fails_half_way_leaves_every_session_as_it_was(folder: Path) -> None:
    (stage,) = tiny.load_slices(folder, ALL)
    for session in ("a", "b"):
        stage.open(session, 20)
    stage.forward([("a", [5, 6, 7]), ("b", [8])], None)
    expected = stage.forward([("a", [9]), ("b", [10])], None)
    stage.kv.truncate("a", 3)
    stage.kv.truncate("b", 1)
    handle = break_block(stage, 2)
    with pytest.raises(Broken):
        stage.forward([("a", [11, 12]), ("b", [13])], None)
    handle.remove()
    assert (stage.length("a"), stage.length("b")) == (3, 1)
    assert torch.equal(stage.forward([("a", [9]), ("b", [10])], None), expected)


def test_a_session_moves_to_another_stage_and_goes_on(folder: Path) -> None:
    asked = tiny.prompts((11,))[0]
    (old,) = tiny.load_slices(folder, ALL)
    (new,) = tiny.load_slices(folder, ALL)
    for stage in (old, new):
        stage.open("a", 30)
    old.forward([("a", asked)], None)
    for layer in old.kv.layers:
        for start in range(0, len(asked), 4):
            new.kv.import_block("a", layer, start, *old.kv.export_block("a", layer, start, min(start + 4, len(asked))))
    assert new.length("a") == len(asked)
    assert torch.equal(new.forward([("a", [7])], None), old.forward([("a", [7])], None))


def test_reused_items_share_memory_and_answer_the_same(gpt2: Path) -> None:
    old = only(gpt2, 0, 4)
    grown = only(gpt2, 0, 6, reuse=old)
    fresh = only(gpt2, 0, 6)
    assert tiny.sliced([grown], tiny.prompts(), 5) == tiny.sliced([fresh], tiny.prompts(), 5)
    shared = {p.data_ptr() for p in old._cut.model.parameters() if not p.is_meta}
    assert shared <= {p.data_ptr() for p in grown._cut.model.parameters() if not p.is_meta}


def test_a_stage_holds_nothing_of_other_items(gpt2: Path) -> None:
    stage = only(gpt2, 2, 4)
    held = {name for name, p in stage._cut.model.named_parameters() if not p.is_meta}
    assert {name.split(".")[2] for name in held} == {"1", "2"}


def test_made_up_weights_run_and_are_not_zero() -> None:
    config = tiny.tiny_config("mixtral")
    stage = StageModel.synthetic(config, 1, 3, dtype="float32", device="cpu", kv_budget_bytes=tiny.KV_BYTES)
    assert all(bool(p.any()) for p in stage._cut.model.parameters() if not p.is_meta)
    stage.open("a", 5)
    output = stage.forward([("a", [1, 2])], torch.randn(2, stage.hidden_size))
    assert output.shape == (2, stage.hidden_size)
    assert bool(output.isfinite().all())


def test_progress_is_told(gpt2: Path) -> None:
    told: list[tuple[float, str]] = []
    only(gpt2, 0, 3, on_progress=lambda fraction, text: told.append((fraction, text)))
    assert [fraction for fraction, _ in told] == [0.0, pytest.approx(1 / 3), pytest.approx(2 / 3), 1.0]


@pytest.mark.parametrize(
    ("rows", "hidden", "error"),
    [
        ([], None, InvalidInput),
        ([("a", [1]), ("a", [2])], None, InvalidInput),
        ([("a", [])], None, InvalidInput),
        ([("a", [tiny.VOCABULARY])], None, InvalidInput),
        ([("a", [-1])], None, InvalidInput),
        ([("a", [1])], torch.zeros(1, 32), InvalidInput),
        ([("nobody", [1])], None, NotFound),
        ([("b", [1]), ("a", [1] * 6)], None, Exhausted),
    ],
)
def test_wrong_steps_are_refused_before_anything_runs(gpt2: Path, rows: Any, hidden: Any, error: type[Exception]) -> None:
    stage = only(gpt2, 0, 3)
    stage.open("a", 5)
    stage.open("b", 5)
    with pytest.raises(error):
        stage.forward(rows, hidden)
    assert stage.length("b") == 0


def test_hidden_states_of_the_wrong_shape_or_type_are_refused(gpt2: Path) -> None:
    stage = only(gpt2, 2, 4)
    stage.open("a", 5)
    for hidden in (None, torch.zeros(2, 32), torch.zeros(1, 31), torch.zeros(1, 32, dtype=torch.float64)):
        with pytest.raises(InvalidInput, match="hidden states"):
            stage.forward([("a", [1])], hidden)


def test_opening_beyond_budget_or_context_is_refused(gpt2: Path) -> None:
    stage = only(gpt2, 1, 3, kv_budget_bytes=100 * 2 * 2 * 32 * 4)
    with pytest.raises(Exhausted, match="101 tokens"):
        stage.open("a", 101)
    stage.open("a", 100)
    with pytest.raises(InvalidInput, match="context of 256"):
        stage.open("b", 257)
    stage.close("a")
    stage.close("a")
    stage.open("b", 100)


@pytest.mark.parametrize(("start", "stop"), [(0, 0), (3, 2), (-1, 2), (0, 7)])
def test_slices_outside_the_model_are_refused(gpt2: Path, start: int, stop: int) -> None:
    with pytest.raises(InvalidInput, match=r"items \[0, 6\)"):
        only(gpt2, start, stop)


MEASURE_LOADING = """
import re, sys
from pathlib import Path
from engine.model.running.stage import StageModel

def status_bytes(name):
    return 1024 * int(re.search(rf"{name}:\\s+(\\d+)", Path("/proc/self/status").read_text()).group(1))

folder, start, stop = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
StageModel.load(folder, 2, 3, kv_budget_bytes=0)  # imports, so that what follows is the weights' own memory
Path("/proc/self/clear_refs").write_text("5")
before = status_bytes("VmRSS")
stage = StageModel.load(folder, start, stop, kv_budget_bytes=0)
print(stage.weight_bytes, status_bytes("VmHWM") - before, status_bytes("VmRSS") - before)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux to reset the peak")
@pytest.mark.parametrize(("family", "dtype"), [("llama", torch.float32), ("llama", torch.bfloat16), ("mixtral", torch.float32)])
def test_loading_a_slice_takes_little_more_than_the_slice(family: str, dtype: torch.dtype, tmp_path: Path) -> None:
    config = tiny.tiny_config(family)
    config.hidden_size, config.intermediate_size, config.vocab_size, config.head_dim = 1024, 4096, 20_000, 256
    config.num_hidden_layers = 6
    with torch.device("meta"):
        model = tiny.AutoModelForCausalLM.from_config(config, dtype=dtype)
    model.to_empty(device="cpu").save_pretrained(tmp_path)
    del model
    run = subprocess.run(
        [sys.executable, "-c", MEASURE_LOADING, str(tmp_path), "1", "4"], capture_output=True, text=True, check=False, timeout=120
    )
    assert run.returncode == 0, run.stderr
    weight_bytes, peak_bytes, resident_bytes = (int(number) for number in run.stdout.split())
    assert weight_bytes > 100e6
    assert peak_bytes < 1.3 * weight_bytes + 150e6
    assert resident_bytes < 1.05 * weight_bytes + 30e6


def test_importing_a_stage_does_not_import_transformers() -> None:
    code = (
        "import sys, engine.model.running.stage; print([m for m in sys.modules if m.split('.')[0] in ('transformers', 'grpc', 'protos')])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert run.stdout.strip() == "[]"
