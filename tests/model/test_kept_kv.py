"""Sessions that begin with what another one left on every stage, in both layouts: the tokens are those of the whole model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from engine.data.errors import NotFound
from engine.data.generation import Taken
from engine.model.running.accelerator.acceleration import Acceleration, CaptureLimits
from engine.model.running.accelerator.attending import PlainAttention
from engine.model.running.paged_kv import PagedKV
from engine.model.running.stage import StageModel
from tests.model import tiny

PAGED = Acceleration(attention=PlainAttention(), fuse=False, limits=CaptureLimits(max_rows=1))
CUTS = (0, 2, 4, tiny.NUM_LAYERS + 2)
PROMPT, ANSWER, TAKEN = 100, 6, 80  # a page of 64 is shared, 16 tokens behind it are copied


def step(stages: list[StageModel], rows: list[tuple[str, list[int]]]) -> list[int]:
    """The likeliest next token of each row."""
    out: Any = None
    for stage in stages:
        out = stage.forward(rows, out)
    return [int(token) for token in out.argmax(-1)]


def answer(stages: list[StageModel], names: list[str], newest: list[int], count: int) -> list[list[int]]:
    tokens = [[token] for token in newest]
    for _ in range(count - 1):
        for name_tokens, token in zip(tokens, step(stages, [(n, [t[-1]]) for n, t in zip(names, tokens, strict=True)]), strict=True):
            name_tokens.append(token)
    return tokens


@pytest.mark.parametrize("kind", [None, PAGED], ids=["buffers", "pages"])
@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_two_sessions_begin_with_what_a_third_one_left(family: str, kind: Acceleration | None, tmp_path: Path) -> None:
    """Side by side, then with the one that moves it, while the first two go on."""
    torch.set_num_threads(1)
    model = tiny.random_model(tiny.tiny_config(family))
    model.save_pretrained(tmp_path)
    prompt = tiny.prompts((PROMPT,))[0]
    others = {"same": prompt, "branch": [*prompt[:TAKEN], *prompt[:7]], "last": [*prompt[:TAKEN], *prompt[5:30]]}
    expected = {name: tiny.whole(model, [asked], ANSWER)[0] for name, asked in {"first": prompt, **others}.items()}
    stages = tiny.load_slices(tmp_path, CUTS, acceleration=kind) if kind else tiny.load_slices(tmp_path, CUTS)
    assert all(isinstance(stage.kv, PagedKV) is (kind is not None) for stage in stages)
    for stage in stages:
        stage.open("first", 110)
    assert answer(stages, ["first"], step(stages, [("first", prompt)]), ANSWER)[0] == expected["first"]
    for stage in stages:
        stage.kv.keep("first", 1, 96)
    names = ["same", "branch"]
    for stage in stages:
        for name in names:
            stage.take_over(name, 110, Taken(1, TAKEN, b""))
            stage.kv.check()
    firsts = step(stages, [(name, others[name][TAKEN:]) for name in names])
    assert answer(stages, names, firsts, ANSWER) == [expected[name] for name in names]
    for stage in stages:
        stage.take_over("last", 110, Taken(1, TAKEN, b"", moves=True))
        stage.kv.check()
        assert stage.kv.kept_ids == ()
    assert answer(stages, ["last"], step(stages, [("last", others["last"][TAKEN:])]), ANSWER) == [expected["last"]]


@pytest.mark.parametrize("kind", [None, PAGED], ids=["buffers", "pages"])
def test_a_session_begins_with_what_a_running_one_has_and_both_go_on(kind: Acceleration | None, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    model = tiny.random_model(tiny.tiny_config("llama"))
    model.save_pretrained(tmp_path)
    prompt = tiny.prompts((PROMPT,))[0]
    branch = [*prompt[:TAKEN], *prompt[:7]]
    expected = tiny.whole(model, [prompt], 2 * ANSWER)[0], tiny.whole(model, [branch], ANSWER + 1)[0]
    stages = tiny.load_slices(tmp_path, CUTS, acceleration=kind) if kind else tiny.load_slices(tmp_path, CUTS)
    for stage in stages:
        stage.open("first", 120)
    first = answer(stages, ["first"], step(stages, [("first", prompt)]), ANSWER)[0]
    for stage in stages:
        with pytest.raises(NotFound, match="'gone'"):
            stage.take_over("branch", 110, Taken(0, TAKEN, b"", session_id="gone"))
        stage.take_over("branch", 110, Taken(0, TAKEN, b"", session_id="first"))
        stage.kv.check()
    began = step(stages, [("branch", branch[TAKEN:])])
    both = answer(stages, ["first", "branch"], [first[-1], *began], ANSWER + 1)
    assert ([*first, *both[0][1:]], both[1]) == expected
    for stage in stages:
        stage.close("first")
        stage.kv.check()
    assert stages[0].kv.length("branch") == len(branch) + ANSWER
