"""What is said of dtypes and of the identity of answers."""

from __future__ import annotations

import pytest

from engine.data.model import Item, ModelCard, ModelRef
from engine.data.precision import Identity, MemoryChoice, Precision, automatic_dtype, identity
from engine.data.status import ClusterStatus
from engine.service import wire
from protos import noodle_pb2 as pb
from tests.tui import frames


@pytest.mark.parametrize(
    ("stored", "computed", "num_bytes", "sentence"),
    [
        ("bfloat16", "float32", 29_000_000_000, "stored as bfloat16, computed as float32: `--dtype bfloat16` halves 29.0 GB"),
        ("float16", "float32", 29_000_000_000, "stored as float16, computed as float32: `--dtype float16` halves 29.0 GB"),
        ("float32", "float32", 497_000_000, "stored and computed as float32: `--dtype bfloat16` halves 0.5 GB"),
        ("float8_e4m3fn", "float32", 3_140_000, "stored as float8_e4m3fn, computed as float32: `--dtype bfloat16` halves 3.1 MB"),
        ("float32", "bfloat16", 10**9, "stored as float32, computed as bfloat16"),
        ("bfloat16", "bfloat16", 10**9, "stored and computed as bfloat16"),
        ("bfloat16", "float16", 10**9, "stored as bfloat16, computed as float16"),
        ("bfloat16", "int8", 10**9, "stored as bfloat16, computed as int8"),
        ("", "float32", 10**9, "computed as float32: `--dtype bfloat16` halves 1.0 GB"),
        ("", "", 0, ""),
    ],
)
def test_a_sentence_says_what_is_stored_what_is_computed_and_what_another_dtype_saves(
    stored: str, computed: str, num_bytes: int, sentence: str
) -> None:
    assert Precision(stored, computed, num_bytes).sentence == sentence


@pytest.mark.parametrize(
    ("dtype", "devices", "grade"),
    [
        ("float32", ["cpu", "cpu"], Identity.SAME_TOKENS),
        ("float32", ["cuda"], Identity.SAME_TOKENS),
        ("float32", ["cpu", "cuda"], Identity.WITHIN_TOLERANCE),
        ("bfloat16", ["cpu"], Identity.WITHIN_TOLERANCE),
        ("float16", ["cuda", "cuda"], Identity.WITHIN_TOLERANCE),
        ("float32", [], Identity.UNKNOWN),
        ("", ["cpu"], Identity.UNKNOWN),
    ],
)
def test_only_float32_on_one_kind_of_device_is_grade_1(dtype: str, devices: list[str], grade: Identity) -> None:
    assert identity(dtype, devices) is grade


@pytest.mark.parametrize(
    ("devices", "arithmetics", "is_exact", "grade"),
    [
        (["cpu", "cpu"], ["torch 2.13, AVX2"] * 2, True, Identity.EXACT),
        (["cpu", "cpu"], ["torch 2.13, AVX2", "torch 2.13, AVX512"], True, Identity.WITHIN_TOLERANCE),
        (["cpu", "cpu"], ["torch 2.13, AVX2", "torch 2.14, AVX2"], True, Identity.WITHIN_TOLERANCE),
        (["cpu"], ["torch 2.13, AVX2"], False, Identity.WITHIN_TOLERANCE),
        (["cuda"], ["torch 2.13, cuda"], True, Identity.WITHIN_TOLERANCE),
        ([], [], True, Identity.UNKNOWN),
    ],
)
def test_int8_is_exact_on_workers_of_one_build_and_instruction_set(
    devices: list[str], arithmetics: list[str], is_exact: bool, grade: Identity
) -> None:
    assert identity("int8", devices, arithmetics, is_exact=is_exact) is grade


def test_a_tied_table_counts_once() -> None:
    items = (Item("embed", 100, 0, 0, 2, 60), Item("h.0", 50, 1, 0), Item("head", 70, 0, 0, 0, 60))
    card = ModelCard(ModelRef("m", dtype="bfloat16"), "", "", "", items, 1, 1, 1, (), None, num_parameters=0, stored_dtype="bfloat16")
    assert card.precision == Precision("bfloat16", "bfloat16", 160, "bfloat16", kv_bytes_per_token=1)


def test_both_cross_the_wire_and_a_grade_of_a_later_version_is_no_failure() -> None:
    sent = frames.status(
        precision=Precision("bfloat16", "float32", 2**33, "int8", 9, (MemoryChoice("int8", 5, 3),)), identity=Identity.SAME_TOKENS
    )
    message = wire.to_message(sent, pb.ClusterStatus())
    assert wire.from_message(ClusterStatus, message) == sent
    message.identity = "7"
    assert wire.from_message(ClusterStatus, message).identity is Identity.UNKNOWN


@pytest.mark.parametrize(
    ("dtype", "kv_dtype", "grade"),
    [
        ("float32", "float32", Identity.SAME_TOKENS),
        ("float32", "bfloat16", Identity.WITHIN_TOLERANCE),
        ("float32", "int8", Identity.WITHIN_TOLERANCE),
        ("int8", "int8", Identity.EXACT),
        ("int8", "bfloat16", Identity.EXACT),
    ],
)
def test_kv_in_fewer_bits_ends_grade_1_and_not_1b(dtype: str, kv_dtype: str, grade: Identity) -> None:
    assert identity(dtype, ["cpu"], ["torch 2.13, AVX2"], kv_dtype=kv_dtype) is grade


def test_kv_that_is_not_kept_as_it_is_computed_is_said() -> None:
    assert Precision("bfloat16", "int8", 1, "int8").sentence == "stored as bfloat16, computed as int8, KV kept in int8"
    assert Precision("bfloat16", "int8", 1, "float32").sentence == "stored as bfloat16, computed as int8"
    choices = (MemoryChoice("float32", 400_000_000, 46_080), MemoryChoice("int8", 130_000_000, 12_240))
    assert Precision(choices=choices).memory_sentence == (
        "weights 0.4 GB in float32, 0.1 GB in int8 (--dtype); KV of 1,000 tokens 46.1 MB in float32, 12.2 MB in int8 (--kv-dtype)"
    )
    assert Precision().memory_sentence == ""


EVERYTHING = {"float32", "bfloat16", "float16"}


@pytest.mark.parametrize(
    ("stored", "devices", "computes", "fits", "dtype"),
    [
        ("bfloat16", {"cpu"}, EVERYTHING, {"float32", "bfloat16"}, "float32"),
        ("bfloat16", {"cpu"}, EVERYTHING, {"bfloat16"}, "bfloat16"),
        ("float16", {"cpu"}, EVERYTHING, set(), "bfloat16"),
        ("bfloat16", {"cpu"}, {"float32"}, {"bfloat16"}, "float32"),
        ("bfloat16", {"cuda"}, EVERYTHING, EVERYTHING, "bfloat16"),
        ("float16", {"cuda"}, EVERYTHING, EVERYTHING, "float16"),
        ("float32", {"cuda"}, EVERYTHING, EVERYTHING, "float32"),
        ("float32", {"cuda"}, EVERYTHING, {"bfloat16"}, "bfloat16"),
        ("float8_e4m3fn", {"cuda"}, EVERYTHING, EVERYTHING, "bfloat16"),
        ("bfloat16", {"cuda", "cpu"}, EVERYTHING, EVERYTHING, "bfloat16"),
        ("bfloat16", {"cuda", "cpu"}, {"float32"}, EVERYTHING, "float32"),
    ],
)
def test_auto_is_float32_where_cpus_hold_it_and_what_is_stored_where_gpus_compute(
    stored: str, devices: set[str], computes: set[str], fits: set[str], dtype: str
) -> None:
    found, why = automatic_dtype(stored, devices, computes.__contains__, fits.__contains__)
    assert found == dtype and why
