"""Which families may be sliced: the stated lists must equal what token-identity with `generate()` shows.

The families come from transformers itself. Each is built tiny with wide random weights, saved, loaded in three slices
and run as a ragged batch (one prompt longer than the sliding window, one session joining late).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from engine.data.errors import InvalidInput, NotSupported
from engine.model import attention, cut, families, slicing
from engine.model.stage import StageModel
from tests.model import tiny

NUM_NEW = 8
CUTS = (0, 2, 4, tiny.NUM_LAYERS + 2)
CHUNKED = ("bloom", "deepseek_v3", "gemma2", "gpt2", "gpt_oss", "llama4_text", "mistral", "qwen2_moe")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def force(monkeypatch: pytest.MonkeyPatch, family: str, mode: str) -> None:
    """Let the family through in that mode, whatever the lists say."""
    monkeypatch.setattr(slicing, "PACKED", (family,) if mode == "packed" else ())
    monkeypatch.setattr(slicing, "ROW_BY_ROW", (family,) if mode == "row by row" else ())


def equals_whole(folder: Path, expected: list[list[int]], chunk: int | None = None) -> bool:
    stages = tiny.load_slices(folder, CUTS)
    return tiny.sliced(stages, tiny.prompts(), NUM_NEW, chunk) == expected


MODES = ("packed", "row by row")


def verdict(family: str, folder: Path, monkeypatch: pytest.MonkeyPatch, modes: tuple[str, ...] = MODES) -> str | None:
    """The first of `modes` in which the family is sliced exactly, None if in none or if it cannot even be built and generate."""
    try:
        model = tiny.random_model(tiny.tiny_config(family))
        expected = tiny.whole(model, tiny.prompts(), NUM_NEW)
    except Exception:
        return None
    assert len({token for tokens in expected for token in tokens}) >= 3, "the weights are degenerate: every slice would look right"
    model.save_pretrained(folder)
    for mode in modes:
        force(monkeypatch, family, mode)
        try:
            if equals_whole(folder, expected) and (family not in CHUNKED or equals_whole(folder, expected, chunk=3)):
                return mode
        except Exception:
            continue
    return None


@pytest.mark.parametrize("family", [name for name in tiny.causal_families() if name not in families.NOT_DECODER_ONLY])
def test_listed_families_are_those_that_pass(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = "packed" if family in families.PACKED else "row by row" if family in families.ROW_BY_ROW else None
    if transformers.__version__.startswith(f"{families.VERIFIED_WITH}."):
        assert verdict(family, tmp_path, monkeypatch) == listed
    elif listed is not None:  # another release may do more than the lists say, never less
        assert verdict(family, tmp_path, monkeypatch, (listed,)) == listed


def test_every_family_is_listed_once_or_refused_by_name() -> None:
    supported = [*families.PACKED, *families.ROW_BY_ROW]
    assert len(supported) == len(set(supported)) >= 90
    assert not set(supported) & set(families.REFUSED)
    assert set(supported) <= set(tiny.causal_families())
    for family in sorted(set(tiny.causal_families()) - set(supported)):
        config = type("Config", (), {"model_type": family})()
        with pytest.raises(NotSupported, match=f"'{family}'"):
            slicing.check_supported(config)


@pytest.mark.parametrize(
    ("family", "options", "reason"),
    [
        ("llama", {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}}, "dynamic"),
        ("gpt2", {"add_cross_attention": True}, "encoder"),
        ("llama", {"quantization_config": {"quant_method": "awq", "bits": 4}}, r"quantised \(AWQ, 4 bit\)"),
        ("llama", {"architectures": ["LlamaForSequenceClassification"]}, "no language-model head"),
        ("gemma3_text", {"use_bidirectional_attention": True}, "later tokens"),
    ],
)
def test_options_that_change_a_family_are_refused(family: str, options: dict[str, Any], reason: str) -> None:
    config = tiny.tiny_config(family)
    for name, value in options.items():
        setattr(config, name, value)
    with pytest.raises(NotSupported, match=reason):
        slicing.check_supported(config)


def test_longrope_is_held_to_its_original_context(tmp_path: Path) -> None:
    config = tiny.tiny_config("phi3")
    factors = {"short_factor": [1.0] * 4, "long_factor": [9.0] * 4, "original_max_position_embeddings": 40}
    config.rope_parameters = {"rope_type": "longrope", "rope_theta": 1e4, "partial_rotary_factor": 1.0, **factors}
    config.original_max_position_embeddings = 40
    model = tiny.random_model(config)
    model.save_pretrained(tmp_path)
    stages = tiny.load_slices(tmp_path, CUTS)
    assert tiny.sliced(stages, tiny.prompts(), NUM_NEW) == tiny.whole(model, tiny.prompts(), NUM_NEW)
    with pytest.raises(InvalidInput, match="context of 40"):
        stages[0].open("long", 41)


def _no_window(self: Any, num_new: int, length: int, device: torch.device) -> None:
    return None


def _late_positions(self: StageModel, rows: Any, lengths: list[int], sizes: list[int]) -> dict[str, Any]:
    return ARGUMENTS(self, rows, [length + 1 for length in lengths], sizes)


def _keep_input(self: Any, _: Any, args: Any, kwargs: Any) -> tuple[Any, Any]:
    return args, kwargs


ARGUMENTS = StageModel._arguments
SABOTAGE = {
    "a window ignored": ("mistral", attention.MaskRule, "mask", _no_window),
    "positions off by one": ("gpt2", StageModel, "_arguments", _late_positions),
    "hidden states dropped": ("llama", cut.CutModel, "_inject", _keep_input),
    "sinks ignored": ("gpt_oss", attention, "softmax", lambda scores, **_: torch.softmax(scores[..., :-1], -1)),
}


@pytest.mark.parametrize("name", SABOTAGE)
def test_the_comparison_sees_a_broken_slice(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    family, owner, attribute, broken = SABOTAGE[name]
    model = tiny.random_model(tiny.tiny_config(family))
    expected = tiny.whole(model, tiny.prompts(), NUM_NEW)
    model.save_pretrained(tmp_path)
    assert equals_whole(tmp_path, expected)
    monkeypatch.setattr(owner, attribute, broken)
    assert not equals_whole(tmp_path, expected)
