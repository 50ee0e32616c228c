"""8-bit clusters of other sizes, threads and KV answer as one whole stage does. `exact.py` is the long run of this."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from tests.service.exact import Reference, Setting, compare, questions, started
from tests.service.matrix import MODEL
from tests.service.nursery import Nursery

NUM_TOKENS = 24


@pytest.mark.parametrize(
    "setting",
    [Setting(1, 2, "auto", "off"), Setting(2, 1, "int8", "always"), Setting(3, 2, "int8", "off"), Setting(3, 1, "auto", "always")],
    ids=str,
)
@pytest.mark.timeout(300)  # a cluster of real processes, and a worker that starts again
def test_answers_are_the_same_alone_in_company_and_after_a_kill(setting: Setting, tmp_path: Path) -> None:
    reference, nursery = Reference(MODEL, setting.kv_dtype), Nursery()
    nursery.folder = tmp_path
    try:
        groups = [next(questions(random.Random(setting.num_workers), reference.vocabulary))]
        matrix = started(nursery, setting, MODEL)
        count, wrong = asyncio.run(asyncio.wait_for(compare(matrix, setting, reference, groups, NUM_TOKENS, [8]), 240))
    finally:
        nursery.close()
    assert count == 17 and not wrong
