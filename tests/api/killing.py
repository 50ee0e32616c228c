"""Streams of one cluster in whose midst a worker is killed."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Sequence
from typing import Any

from tests.api.conftest import Served

DEADLINE_S = 60.0


def texts_through_a_kill(own: Served, asked: Sequence[dict[str, Any]], begun_after: int = 5) -> list[str]:
    """The text of each chat completion; `w2` is killed when `begun_after` chunks of every one have come."""
    texts = [""] * len(asked)
    begun = threading.Barrier(len(asked) + 1)

    def ask(number: int) -> None:
        for i, chunk in enumerate(own.openai().chat.completions.create(**asked[number], stream=True)):
            if i == begun_after:
                begun.wait(DEADLINE_S)
            texts[number] += chunk.choices[0].delta.content or ""

    asking = [threading.Thread(target=ask, args=(n,)) for n in range(len(asked))]
    for thread in asking:
        thread.start()
    begun.wait(DEADLINE_S)
    os.kill(own.pids["w2"], signal.SIGKILL)
    for thread in asking:
        thread.join(120)
    return texts
