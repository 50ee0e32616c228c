"""Shortened forwards compute what the modules' own do, for any number of rows and however the weights lie."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from engine.model.running import rows
from engine.model.running.loading import empty_weight
from engine.model.running.rows import FEWEST_ROWS, LEAST_WORK, MOST_ROWS, MOST_ROWS_ALONG, leaves_threads_idle, shorten_forwards
from engine.model.running.stage import StageModel
from tests.model import tiny

COUNTS = (1, 2, FEWEST_ROWS - 1, FEWEST_ROWS, MOST_ROWS_ALONG, MOST_ROWS_ALONG + 1, MOST_ROWS, MOST_ROWS + 1)
SHAPES = ((48, 16), (16, 48), (24, 24))  # in, out
CUTS = (0, 2, 4, tiny.NUM_LAYERS + 2)
HAS_ONEDNN = pytest.mark.skipif(not rows._has_onednn(), reason="this machine's torch multiplies without oneDNN")


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def decide(monkeypatch: pytest.MonkeyPatch, leaves_idle: bool, least_work: int = 1) -> None:
    """From now on modules are shortened as on a machine whose trial comes out like that."""
    monkeypatch.setattr(rows, "leaves_threads_idle", lambda _: leaves_idle)
    monkeypatch.setattr(rows, "LEAST_WORK", least_work)


def filled(module: nn.Module) -> nn.Module:
    """`module` with its weight in memory as a stage lays it out."""
    weight = empty_weight(module.weight.shape, torch.float32, "cpu", long_side_contiguous=True)
    with torch.no_grad():
        module.weight = nn.Parameter(weight.copy_(torch.randn(module.weight.shape)), requires_grad=False)
        module.bias.copy_(torch.randn(module.bias.shape))
    return module


@pytest.mark.parametrize("leaves_idle", [False, True])
@pytest.mark.parametrize("kind", [nn.Linear, lambda n_in, n_out: Conv1D(n_out, n_in)], ids=["Linear", "Conv1D"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_linear_layers_compute_the_same(kind: type, shape: tuple[int, int], leaves_idle: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    decide(monkeypatch, leaves_idle)
    module = filled(kind(*shape))
    hidden = [torch.randn(1, n, shape[0]) for n in COUNTS]
    expected = [module(h) for h in hidden]
    shorten_forwards(module)
    with torch.inference_mode():
        for h, want in zip(hidden, expected, strict=True):
            torch.testing.assert_close(module(h), want, rtol=1e-5, atol=1e-5)


def by_onednn(module: nn.Module, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of rows that take oneDNN."""
    shorten_forwards(module)
    counts: list[int] = []
    monkeypatch.setattr(rows, "_by_onednn", lambda hidden, *_: counts.append(hidden.shape[1]))
    for n in COUNTS:
        module(torch.randn(1, n, module.weight.shape[1]))
    return counts


@HAS_ONEDNN
def test_some_rows_take_onednn_where_the_weight_lies_along_its_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    decide(monkeypatch, leaves_idle=False)
    assert by_onednn(filled(nn.Linear(48, 16)), monkeypatch) == [n for n in COUNTS if FEWEST_ROWS <= n <= MOST_ROWS]
    assert by_onednn(filled(nn.Linear(16, 48)), monkeypatch) == []


@HAS_ONEDNN
def test_few_rows_take_it_too_where_torch_leaves_threads_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    decide(monkeypatch, leaves_idle=True)
    assert by_onednn(filled(nn.Linear(48, 16)), monkeypatch) == [n for n in COUNTS if n <= MOST_ROWS]
    assert by_onednn(filled(nn.Linear(16, 48)), monkeypatch) == [n for n in COUNTS if n <= MOST_ROWS_ALONG]


@HAS_ONEDNN
def test_what_is_done_at_once_is_not_shared_among_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    decide(monkeypatch, leaves_idle=True, least_work=2 * 16 * 48)
    assert by_onednn(filled(nn.Linear(48, 16)), monkeypatch) == [n for n in COUNTS if 2 <= n <= MOST_ROWS]
    assert by_onednn(filled(nn.Linear(16, 48)), monkeypatch) == [n for n in COUNTS if 2 <= n <= MOST_ROWS_ALONG]
    decide(monkeypatch, leaves_idle=True, least_work=100 * 16 * 48)
    assert by_onednn(filled(nn.Linear(48, 16)), monkeypatch) == [n for n in COUNTS if FEWEST_ROWS <= n <= MOST_ROWS]
    assert by_onednn(filled(nn.Linear(16, 48)), monkeypatch) == []


def test_the_trial_is_for_models_of_some_size_and_says_the_same_again(monkeypatch: pytest.MonkeyPatch) -> None:
    small, large = nn.Linear(64, 96), nn.Linear(LEAST_WORK // 256, 256)
    asked: list[int] = []
    monkeypatch.setattr(rows, "leaves_threads_idle", lambda num_threads: asked.append(num_threads) or leaves_threads_idle(num_threads))
    shorten_forwards(filled(small))
    assert asked == []
    shorten_forwards(filled(large))
    assert asked == ([torch.get_num_threads()] if rows._has_onednn() else [])
    torch.set_num_threads(2)
    assert len({leaves_threads_idle.__wrapped__(2) for _ in range(5)}) == 1
    assert not leaves_threads_idle(1), "one thread has nobody to share with"


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_answers_are_those_of_generate_whatever_the_trial_of_each_worker_says(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Alone, in company of one to four rows, and on the workers that take over in the middle and compute the text as a prompt."""
    torch.set_num_threads(2)
    model, asked, num_new = tiny.random_model(tiny.tiny_config(family)), tiny.prompts(), 8
    model.save_pretrained(tmp_path)
    expected = tiny.whole(model, asked, num_new)

    def workers(*trials: bool) -> list[StageModel]:
        stages = []
        for leaves_idle, (start, stop) in zip(trials, pairwise(CUTS), strict=True):
            decide(monkeypatch, leaves_idle)
            stages.append(StageModel.load(tmp_path, start, stop, kv_budget_bytes=tiny.KV_BYTES))
        return stages

    mixed, unlike, fast, slow = (
        workers(True, False, True),
        workers(False, True, True),
        workers(True, True, True),
        workers(False, False, False),
    )
    for stages, others in ((mixed, unlike), (fast, slow)):
        assert [tiny.sliced(stages, [prompt], num_new)[0] for prompt in asked] == expected
        for num_sessions in (2, 3, 4):
            assert tiny.sliced(stages, asked[:num_sessions], num_new) == expected[:num_sessions]
        so_far = [prompt + tokens[:3] for prompt, tokens in zip(asked, expected, strict=True)]
        assert tiny.sliced(others, so_far, num_new - 3) == [tokens[3:] for tokens in expected]
