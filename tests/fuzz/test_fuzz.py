"""Some seconds of the fuzz; `python -m tests.fuzz` goes on for as long as you like."""

from __future__ import annotations

from tests.fuzz.__main__ import run

SEED = 14
NUM_MESSAGES = 2500


def test_messages_that_went_wrong_hurt_nothing_and_nobody() -> None:
    assert not run(NUM_MESSAGES, SEED)
