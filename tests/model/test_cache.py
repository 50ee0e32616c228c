"""What a stock model may ask of a step's cache, and that whatever it computes from an answer is right or refused."""

from __future__ import annotations

import operator
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers.cache_utils import Cache, DynamicCache

from engine.data.errors import NotSupported
from engine.model.running import slicing
from engine.model.running.cache import NoPosition, StepCache
from engine.model.running.contiguous_kv import ContiguousKV
from engine.model.running.feeding import Feeding
from engine.model.running.kv import LayerShape
from tests.model import tiny

SHAPE = LayerShape(1, 2, 1, 2)
# Decided one by one: what transformers' cache can be asked that has an answer here. All else must be refused.
ANSWERED = {"update", "get_seq_length", "get_query_offset", "get_mask_sizes", "get_max_length"}
FACTS = {"is_compileable", "is_sliding", "is_linear", "is_dummy"}  # of the cache itself, whoever shares the step


def store(lengths: dict[str, int], layers: tuple[int, ...] = (0, 1)) -> ContiguousKV:
    kept = ContiguousKV(dict.fromkeys(layers, SHAPE), 1 << 20, dtype=torch.float32)
    for session, length in lengths.items():
        kept.open(session, 64)
        for layer in layers:
            kept.write(session, layer, torch.zeros(1, length, 2), torch.zeros(1, length, 2))
        kept.commit(session, length)
    return kept


def tokens(count: int) -> torch.Tensor:
    return torch.zeros(1, 1, count, 2)


@pytest.mark.parametrize("name", sorted(name for name in dir(Cache) if not name.startswith("_")))
def test_every_question_is_answered_by_decision_or_refused(name: str) -> None:
    cache = StepCache(store({"a": 3, "b": 5}), [("a", 1), ("b", 2)])
    if name in ANSWERED | FACTS:
        assert name in vars(StepCache) and not isinstance(vars(StepCache)[name], property), "a refusal is a property"
    else:
        with pytest.raises(NotSupported, match=name):
            getattr(cache, name)


def test_the_layers_of_a_cache_cannot_be_reached() -> None:
    for rows in ([("a", 1)], [("a", 1), ("b", 2)]):
        with pytest.raises(AttributeError, match="layers"):
            _ = StepCache(store({"a": 3, "b": 5}), rows).layers


USES: dict[str, Callable[[Any], Any]] = {
    "added to an arange": lambda length: torch.arange(3) + length,
    "the start of an arange": lambda length: torch.arange(length, length + 3),
    "a size": lambda length: torch.ones(1, length + 1),
    "a bare size": lambda length: torch.ones(1, length),
    "a slice": lambda length: torch.arange(9)[length:],
    "an index": lambda length: [1, 2, 3][length],
    "compared": lambda length: length > 0,
    "compared with zero": lambda length: length == 0,
    "tested": lambda length: 1 if length else 2,
    "negated": operator.neg,
    "subtracted": lambda length: 9 - length,
    "a float": lambda length: torch.log(torch.tensor(float(length))),
    "a tensor": lambda length: torch.tensor(length),
    "hashed": lambda length: {length: 1},
    "the larger": lambda length: max(length, 0),
    "at least": lambda length: length >= 1,
    "at most": lambda length: length <= 1,
    "unequal": lambda length: length != 1,
    "added": lambda length: length + 1,
    "less one": lambda length: length - 1,
    "doubled": lambda length: length * 2,
    "doubled from the left": lambda length: 2 * length,
    "halved": lambda length: length / 2,
    "halves of": lambda length: 2 / length,
    "in blocks": lambda length: length // 2,
    "blocks of": lambda length: 9 // length,
    "in a ring": lambda length: length % 2,
    "a ring of": lambda length: 9 % length,
    "an int": int,
    "measured": len,
    "run through": iter,
    "written": str,
}


@pytest.mark.parametrize("use", USES)
def test_no_length_of_a_packed_row_can_be_used(use: str) -> None:
    cache = StepCache(store({"a": 3, "b": 5}), [("a", 1), ("b", 2)])
    for length in (cache.get_seq_length(), cache.get_seq_length(1), cache.get_query_offset(0), cache.get_mask_sizes(3, 0)[0]):
        assert isinstance(length, NoPosition)
        with pytest.raises((NotSupported, TypeError, RuntimeError)):
            USES[use](length)


def test_a_lone_row_is_answered_as_by_the_cache_of_transformers() -> None:
    theirs = DynamicCache()
    ours = StepCache(store({"a": 0}), [("a", 3)])
    for layer in (0, 1):
        assert (ours.get_seq_length(), ours.get_seq_length(layer)) == (theirs.get_seq_length(), theirs.get_seq_length(layer))
        assert ours.get_mask_sizes(3, layer) == theirs.get_mask_sizes(3, layer)
        for cache in (ours, theirs):
            cache.update(tokens(3), tokens(3), layer)
        assert (ours.get_seq_length(), ours.get_seq_length(layer)) == (theirs.get_seq_length(), theirs.get_seq_length(layer))
        assert ours.get_query_offset(layer) == theirs.get_query_offset(layer)


def test_a_later_stage_answers_for_the_layers_of_earlier_ones() -> None:
    later = StepCache(store({"a": 5}, layers=(2, 3)), [("a", 1)])
    assert later.get_seq_length() == 5  # before the blocks nothing of this step is there
    later.pass_earlier_blocks()
    assert [later.get_seq_length(layer) for layer in range(4)] == [6, 6, 5, 5]
    later.update(tokens(1), tokens(1), 2)
    assert [later.get_seq_length(layer) for layer in range(4)] == [6, 6, 6, 5]


UPDATE = StepCache.update


def test_values_that_a_model_changes_behind_the_cache_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def changes_values(self: Any, *args: Any, **kwargs: Any) -> Any:
        keys, values = UPDATE(self, *args, **kwargs)
        return keys, values * 1.5

    model = tiny.random_model(tiny.tiny_config("llama"))
    model.save_pretrained(tmp_path)
    monkeypatch.setattr(StepCache, "update", changes_values)
    (stage,) = tiny.load_slices(tmp_path, (0, tiny.NUM_LAYERS + 2))
    stage.open("a", 8)
    with pytest.raises(NotSupported, match="cannot be split by session"):
        stage.forward([("a", [3, 4])], None)


@pytest.mark.parametrize(("family", "feeding"), [("llama", "packed"), ("opt", "packed with a mask"), ("llama4_text", "row by row")])
def test_the_way_of_feeding_is_found_by_trying(family: str, feeding: str) -> None:
    assert slicing.build_chain(tiny.tiny_config(family), torch.float32)[1].feeding is Feeding(feeding)


def test_a_packed_step_of_a_model_that_asks_late_is_refused(tmp_path: Path) -> None:
    """A question behind the attention function is not seen by the probe; the step itself must refuse it."""
    tiny.random_model(tiny.tiny_config("llama")).save_pretrained(tmp_path)
    (stage,) = tiny.load_slices(tmp_path, (0, tiny.NUM_LAYERS + 2))
    for session in ("a", "b"):
        stage.open(session, 8)

    def ask(_: Any, args: Any, kwargs: Any, output: Any) -> Any:
        return output[0] * (kwargs["cache"].get_seq_length() + 1), *output[1:]

    blocks: Any = stage.module.get_submodule(stage.blocks)
    blocks[1].self_attn.register_forward_hook(ask, with_kwargs=True)
    assert stage.forward([("a", [3])], None).isfinite().all()
    with pytest.raises(NotSupported, match="one text length"):
        stage.forward([("a", [3]), ("b", [4, 5])], None)
    assert (stage.length("a"), stage.length("b")) == (1, 0)
