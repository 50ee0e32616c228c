"""`bench quality`: its perplexity is that of transformers' own loss over the same windows."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from engine.cli import main
from engine.commands.bench import quality
from engine.commands.bench.options import Bench
from engine.data.errors import InvalidInput
from engine.data.model import ModelRef
from engine.service.coordinator.text.codec import TextCodec
from tests.service.reference import folder_of

NUM_TOKENS, WINDOW = 150, 40


def test_the_perplexity_is_that_of_transformers_and_8_bits_are_near(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quality, "WINDOW_TOKENS", WINDOW)
    folder = folder_of("llama:tiny")
    found = quality.measure(ModelRef(str(folder)), ("float32", "int8"), NUM_TOKENS)
    assert {row["text"] for row in found["rows"]} >= {"code"} and {row["num_tokens"] for row in found["rows"]} == {NUM_TOKENS}
    by_dtype = {row["dtype"]: row for row in found["rows"] if row["text"] == "code"}
    assert by_dtype["float32"]["perplexity"] == pytest.approx(expected(folder), rel=1e-4)
    assert by_dtype["int8"]["ratio"] == pytest.approx(1, abs=0.02) and by_dtype["int8"]["ratio"] != 1


def expected(folder: Path) -> float:
    text = dict(quality._texts())["code"]
    token_ids = TextCodec(folder).encode(text[: 16 * NUM_TOKENS])[:NUM_TOKENS]
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    total, predicted = 0.0, 0
    for start in range(0, NUM_TOKENS, WINDOW):
        part = torch.tensor([token_ids[start : start + WINDOW]])
        total += float(model(part, labels=part).loss.detach()) * (part.shape[1] - 1)
        predicted += part.shape[1] - 1
    return math.exp(total / predicted)


def test_a_run_without_a_model_says_what_it_needs() -> None:
    with pytest.raises(InvalidInput, match="needs a model"):
        quality.bench_quality(Bench(suite="quality"))


@pytest.mark.parametrize("words", [["--dtype", "int4"], ["--kv-dtype", "auto,int4"]])
def test_a_dtype_that_cannot_be_measured_is_named(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "quality", "m", *words]) == 2
    assert "dtype 'int4' is not known: use " in capsys.readouterr().err
