"""The drill's worker, without the network around it. `tests.simulation.mutants` runs this to prove that it notices a fault."""

from __future__ import annotations

from engine.control.moves import Carried
from engine.control.sessions.stage_sessions import StageSession
from engine.data.plan import Stage
from engine.data.sampling import Sampling
from engine.simulation.drill.worker import DrillWorker


def test_a_session_goes_on_only_with_the_memory_of_every_item_and_token() -> None:
    worker = DrillWorker("w1", 5, 1)
    worker.begin_order(1)
    worker.load(1, Stage("w1", 0, 2), "w2")
    worker.begin_order(2)
    worker.prepare(2, Stage("w1", 0, 4), "w2")
    assert worker.serving is not None and worker.prepared is not None
    kept, copied = {0: 6, 1: 6}, {"whole": {2: 6, 3: 6}, "longer": {2: 7, 3: 6}, "shorter": {2: 6, 3: 5}, "absent": {2: 6}}
    for name, numbers in copied.items():
        worker.serving.sessions.replace(name, StageSession(3, Sampling(), list(range(6)), 20))
        worker.serving.memory[name] = {item: list(range(count)) for item, count in kept.items()}
        worker.prepared.memory[name] = {item: list(range(count)) for item, count in numbers.items()}
        worker.serving.origins[name] = worker.prepared.origins[name] = (name, 3)
    assert worker.commit(2, tuple(Carried(name, 3, 4, 6) for name in copied)) == ("shorter", "absent")
    assert sorted(worker.serving.memory) == ["longer", "whole"] == sorted(worker.serving.sessions.ids())
    assert all(len(numbers) == 6 for memory in worker.serving.memory.values() for numbers in memory.values())
