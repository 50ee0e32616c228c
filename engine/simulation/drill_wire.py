"""What the coordinator of a drill asks of its workers, and what they send each other, over the hostile network. Pure.

Calls have a reply and a time-out; steps and their reports only go one way, as on the streams of the real wire.
"""

from __future__ import annotations

from collections.abc import Callable

from engine.control import commands as do
from engine.control import events as on
from engine.data.errors import NoodleError
from engine.simulation.drill_coordinator import NAME, DrillCoordinator
from engine.simulation.drill_worker import DrillWorker, Frame
from engine.simulation.drill_world import World

RPC_TIMEOUT_S = 4.0


class Wire:
    """Carries out commands on `workers`; reports go to whichever coordinator is there when they arrive."""

    def __init__(self, world: World, workers: dict[str, DrillWorker], num_items: int, coordinator: Callable[[], DrillCoordinator]) -> None:
        self.world, self.workers, self.num_moves = world, workers, 0
        self._num_items, self._coordinator = num_items, coordinator

    def carry_out(self, coordinator: DrillCoordinator, command: do.Command) -> None:
        match command:
            case do.SendStep():
                frame = Frame(command.plan_version, command.step_id, command.segments, None, command.releases)
                self._send_frame(NAME, command.first_worker_id, frame)
            case do.MeasureWorker():
                answer = on.WorkerMeasured(command.worker_id, command.generation, (1.0,) * self._num_items)
                self._ask(coordinator, command.worker_id, lambda w: answer, _lost(command.worker_id, command.generation))
            case do.MeasureLinks():
                none = on.LinksMeasured(command.worker_id, command.generation, ())
                self._ask(coordinator, command.worker_id, lambda w: none, none)
            case do.LoadStage():
                loaded = on.StageLoaded(command.worker_id, command.plan_version, 0, 0, 0.0)
                load = lambda w: (w.load(command.plan_version, command.stage, command.next_worker_id), loaded)[1]  # noqa: E731
                self._ask(coordinator, command.worker_id, load, _lost(command.worker_id, command.generation))
            case do.PrepareStage() | do.CommitStage():
                self._ask(
                    coordinator, command.worker_id, lambda w: _answer(w, command), _move_failed(command.plan_version, command.worker_id)
                )
            case do.CopyKv():
                self._copy(coordinator, command)
            case do.ReleaseStage():
                worker = self.workers[command.worker_id]
                self.world.send(NAME, worker.worker_id, lambda: worker.receive(lambda: worker.release(command.plan_version)))
            case _:
                pass

    def _ask(
        self, coordinator: DrillCoordinator, name: str, work: Callable[[DrillWorker], on.ClusterEvent], failure: on.ClusterEvent
    ) -> None:
        """A call with a reply; its request, its reply or both may be lost, and then it fails by its time-out."""
        worker, answered = self.workers[name], False

        def answer(event: on.ClusterEvent) -> None:
            nonlocal answered
            answered = True
            coordinator.feed(event)

        def arrive() -> None:
            try:
                event = work(worker)
            except NoodleError:
                if answered:  # a request that came once more: nobody waits for what becomes of it
                    return
                event = failure
            if isinstance(event, on.StageCommitted):
                self.num_moves += 1
            self.world.send(name, NAME, lambda: answer(event))

        self.world.send(NAME, name, lambda: worker.receive(arrive))
        self.world.after(RPC_TIMEOUT_S, lambda: None if answered else coordinator.feed(failure))

    def _copy(self, coordinator: DrillCoordinator, command: do.CopyKv) -> None:
        transfer, version = command.transfer, command.plan_version
        source, target = self.workers[transfer.source_id], self.workers[transfer.target_id]
        left, failure = {r.session_id for r in command.ranges}, _move_failed(version, target.worker_id)
        size = sum(r.stop_token - r.start_token for r in command.ranges)
        done = on.KvCopied(transfer, version, command.round, size)

        def finish(session_id: str) -> None:
            left.discard(session_id)
            if not left:
                self.world.send(target.worker_id, NAME, lambda: coordinator.feed(done))

        def take(part: do.KvRange, found: object) -> None:
            try:
                target.take(version, part, *found)  # type: ignore[misc]
            except NoodleError:
                return
            finish(part.session_id)

        def export(part: do.KvRange) -> None:
            try:
                found: object = source.export(part)
            except (NoodleError, KeyError):
                self.world.send(source.worker_id, target.worker_id, lambda: target.receive(lambda: finish(part.session_id)))
                return
            self.world.send(source.worker_id, target.worker_id, lambda: target.receive(lambda: take(part, found)))

        for part in command.ranges:
            self.world.send(target.worker_id, source.worker_id, lambda p=part: source.receive(lambda: export(p)))  # type: ignore[misc]
        self.world.after(RPC_TIMEOUT_S, lambda: coordinator.feed(failure) if left else None)

    def _send_frame(self, source: str, name: str, frame: Frame) -> None:
        worker = self.workers[name]
        self.world.send(source, name, lambda: worker.receive(lambda: self._run_step(worker, frame)))

    def _run_step(self, worker: DrillWorker, frame: Frame) -> None:
        held = worker.serving
        message = worker.step(frame)
        if isinstance(message, Frame) and held is not None and held.next_id is not None:
            self._send_frame(worker.worker_id, held.next_id, message)
        elif isinstance(message, on.StepReported):
            self.world.send(worker.worker_id, NAME, lambda: self._coordinator().feed(message))


def _answer(worker: DrillWorker, command: do.PrepareStage | do.CommitStage) -> on.ClusterEvent:
    if isinstance(command, do.CommitStage):
        return on.StageCommitted(worker.worker_id, command.plan_version, worker.commit(command.plan_version, command.sessions))
    worker.prepare(command.plan_version, command.stage, command.next_worker_id)
    return on.StagePrepared(worker.worker_id, command.plan_version, 0)


def _lost(worker_id: str, generation: int) -> on.ClusterEvent:
    return on.WorkerLost(worker_id, generation, "it did not answer")


def _move_failed(plan_version: int, worker_id: str) -> on.ClusterEvent:
    return on.MoveFailed(plan_version, worker_id, "it did not answer")
