"""`bench gpu` with a tiny model and the CPU as its device: its figures come from where they say, and refusals name the way out."""

from __future__ import annotations

from typing import Any

import pytest

from engine.commands.bench import gpu, gpu_peers, gpu_stage
from engine.commands.bench.options import Bench
from engine.commands.cluster.generate import Transcript
from engine.data.errors import InvalidInput
from engine.data.generation import StageTiming, TokenChunk
from engine.model.running.stage import StageModel
from tests.model import tiny


def tiny_stage() -> StageModel:
    return gpu_stage.build(tiny.tiny_config("llama"), "cpu", 2**24, "float32")


def test_a_row_counts_its_steps_and_leaves_no_session_behind() -> None:
    stage = tiny_stage()
    lengths: list[int] = []
    forward = stage.forward
    stage.forward = lambda rows, hidden: lengths.append(stage.length(rows[0][0])) or forward(rows, hidden)  # type: ignore[method-assign,assignment]
    row = gpu_stage.decode_row(stage, 3, 16, 5, 1e9)
    assert lengths == list(range(16, 16 + 5 + gpu_stage.WARM_UP_STEPS))
    assert row.sessions == 3 and row.tokens_per_s == 3 / row.step_s
    read_bytes = stage.weight_bytes - stage.vocab_size * stage.hidden_size * 4 + 3 * 16 * stage.kv.bytes_per_token
    assert row.floor_s == pytest.approx(read_bytes / 1e9)
    assert stage.kv.session_ids == () and gpu_stage.prompt_s(stage, 20, 2) > 0 and stage.kv.session_ids == ()


def test_a_peer_that_cannot_run_is_a_row_that_says_so() -> None:
    def refuses(*_: Any) -> float:
        raise TypeError("generate() takes other arguments now\nand a trace")

    row = gpu_peers._tried("generate()", 4, refuses, None, "cpu")
    assert (row.tokens_per_s, row.refusal) == (0.0, "TypeError: generate() takes other arguments now")


def test_the_table_has_every_row() -> None:
    document = {
        "dtype": "bfloat16",
        "device": "cuda:0",
        "copy_bytes_per_s": 4.2e12,
        "running": "how it runs",
        "prompt_s": {512: 0.018},
        "decode": [{"sessions": 32, "context": 128, "step_s": 0.005, "floor_s": 0.004, "tokens_per_s": 6400.0, "of_floor": 0.8}],
        "peers": [
            {"name": "generate()", "sessions": 1, "step_s": 0.05, "refusal": "", "tokens_per_s": 20.0},
            {"name": "generate_batch", "sessions": 32, "step_s": 0.0, "refusal": "not here", "tokens_per_s": 0.0},
        ],
        "cluster": [
            {
                "workers": 2,
                "devices": ["cuda:0", "cuda:0"],
                "sessions": [
                    {"sessions": 8, "context": 128, "step_s": 0.006, "compute_s": 0.0054, "tokens_per_s": 1333.0, "share": 0.9},
                ],
            }
        ],
    }
    lines = gpu._text("llama-1b", document).splitlines()
    assert lines[0].startswith("llama-1b, bfloat16, cuda:0, copies at 4.20 TB/s")
    assert [line.split() for line in lines[2:6]] == [
        ["generate()", "1", "50.00", "20"],
        ["generate_batch", "32", "-", "-", "not", "here"],
        ["stage,", "128", "tokens", "32", "5.00", "6400", "0.80"],
        ["2", "workers", "on", "cuda:0,", "128", "tokens", "8", "6.00", "1333", "compute", "0.90"],
    ]
    assert lines[6:] == ["prompts: 512 tokens in 18.0 ms", "how it runs"]


def test_steps_count_from_the_last_first_token_to_the_first_last_one() -> None:
    def transcript(first_s: float, count: int, every_s: float) -> Transcript:
        found = Transcript(0.0)
        for index in range(count):
            found.chunks.append(TokenChunk("s", index, 7, "", (StageTiming("w1", every_s / 2, 0.0, 0.0, 0.0),)))
            found.arrived_s.append(first_s + index * every_s)
        return found

    together = gpu._figures(2, [transcript(0.0, 30, 0.25), transcript(3.0, 12, 0.25)])
    assert together["step_s"] == pytest.approx(0.25) and together["compute_s"] == pytest.approx(0.125)
    assert gpu._figures(2, [transcript(0.0, 4, 0.25), transcript(3.0, 12, 0.25)]) == {}


def test_clusters_share_the_first_device_or_spread_over_all() -> None:
    assert gpu.layouts(["a"], 2) == [("a",), ("a", "a")]
    assert gpu.layouts(["a", "b"], 1) == [("a",)]
    assert gpu.layouts(["a", "b"], 3) == [("a",), ("a", "a"), ("a", "a", "a"), ("a", "b")]


def test_a_point_that_does_not_fit_the_card_is_left_out() -> None:
    config, weights = gpu_stage.config_of("llama-8b"), 16 * 2**30
    small = [(1, 128), (8, 128), (32, 128)]
    assert gpu.fitting(config, ("a",), 100, weights, 130 * 2**30) == [*small, (128, 2048)]
    assert gpu.fitting(config, ("a",), 100, weights, 80 * 2**30) == small
    assert gpu.fitting(config, ("a", "a"), 100, weights, 80 * 2**30) == small
    assert gpu.fitting(config, ("a", "b"), 100, weights, 80 * 2**30) == [*small, (128, 2048)]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"device": "cpu"}, "bench decode"),
        ({"device": "cpu", "model_config": "llama-9b"}, "'llama-9b' is not known: use llama-1b, llama-8b"),
        ({"device": "cuda:99"}, "is not on this machine"),
        ({"device": "cpu,cuda:99"}, "'cuda:99' is not on this machine"),
    ],
)
def test_what_cannot_be_measured_is_refused(options: dict[str, str], reason: str) -> None:
    with pytest.raises(InvalidInput, match=reason):
        gpu.bench_gpu(Bench(suite="gpu", **options))
