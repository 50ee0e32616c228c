"""What a coordinator asks of its planner by itself: beside its loop, and only when something changed."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from engine.control import events as on
from engine.data.status import Phase
from engine.service.coordinator import lookout
from engine.service.coordinator.lookout import OUTLOOK_S, Lookout
from tests.control.harness import Driver, card, spec


def test_another_plan_is_looked_for_on_a_thread_and_once_for_the_same_facts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, asked, find = Driver(num_workers=2), list[threading.Thread](), lookout.outlook
    run.feed(on.ModelReady(card()))
    for number, worker_id in enumerate(("a", "b"), 1):
        run.feed(on.WorkerRegistered(spec(worker_id), number, ready=True))
    assert run.cluster.phase is Phase.SERVING

    def counted(question: lookout.Question) -> lookout.Outlook:
        asked.append(threading.current_thread())
        return find(question)

    monkeypatch.setattr(lookout, "outlook", counted)
    seen = Lookout(tmp_path)

    async def look(*times_s: float) -> None:
        for now_s in times_s:
            await seen.look_ahead(run.cluster, now_s)

    asyncio.run(look(0.0, OUTLOOK_S / 2, OUTLOOK_S, 2 * OUTLOOK_S))
    assert len(asked) == 1 and asked[0] is not threading.main_thread()
    run.feed(on.DrainRequested(("b",)))
    asyncio.run(look(3 * OUTLOOK_S))
    assert len(asked) == 2
