"""What the coordinator of a drill asks of its workers, and what they send each other, over the hostile network. Pure.

Calls have a reply and a time-out; steps and their reports only go one way, as on the streams of the real wire.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from engine.control import commands as do
from engine.control import events as on
from engine.control.moves import KvRange
from engine.data.errors import NoodleError, NotFound
from engine.simulation.drill.coordinator import NAME, DrillCoordinator
from engine.simulation.drill.worker import Copy, DrillWorker, Frame
from engine.simulation.drill.world import World

RPC_TIMEOUT_S = 4.0


class Wire:
    """Carries out commands on `workers`; reports go to whichever coordinator is there when they arrive."""

    def __init__(self, world: World, workers: dict[str, DrillWorker], num_items: int, coordinator: Callable[[], DrillCoordinator]) -> None:
        self.world, self.workers, self.num_moves = world, workers, 0
        self._num_items, self._coordinator = num_items, coordinator

    def carry_out(self, coordinator: DrillCoordinator, command: do.Command) -> None:
        match command:
            case do.SendStep():
                self._send_step(coordinator, command)
            case do.MeasureWorker():
                answer = on.WorkerMeasured(command.worker_id, command.generation, (1.0,) * self._num_items)
                self._ask(coordinator, command.worker_id, lambda w: answer, _lost(command.worker_id, command.generation))
            case do.MeasureLinks():
                none = on.LinksMeasured(command.worker_id, command.generation, ())
                self._ask(coordinator, command.worker_id, lambda w: none, none)
            case do.LoadStage():
                self._order_stage(coordinator, command, _lost(command.worker_id, command.generation))
            case do.PrepareStage():
                self._order_stage(coordinator, command, _move_failed(command.plan_version, command.worker_id))
            case do.CommitStage():
                failure = _move_failed(command.plan_version, command.worker_id)
                self._ask(coordinator, command.worker_id, lambda w: _committed(w, command), failure)
            case do.CopyKv():
                self._copy(coordinator, command)
            case do.ReleaseStage():
                worker = self.workers[command.worker_id]
                self.world.send(NAME, worker.worker_id, lambda: worker.receive(lambda: worker.release(command.plan_version)))
            case _:
                pass

    def _order_stage(self, coordinator: DrillCoordinator, order: do.LoadStage | do.PrepareStage, failure: on.ClusterEvent) -> None:
        """A stage takes a while to load, and meanwhile another order may take its place."""
        takes_s, random = self.world.hostility.load_s, self.world.generator.random
        begin = lambda w: w.begin_order(order.plan_version)  # noqa: E731
        self._ask(coordinator, order.worker_id, lambda w: _loaded(w, order), failure, begin, takes_s and takes_s * random())

    def _ask(
        self,
        coordinator: DrillCoordinator,
        name: str,
        work: Callable[[DrillWorker], on.ClusterEvent],
        failure: on.ClusterEvent,
        first: Callable[[DrillWorker], None] = lambda worker: None,
        takes_s: float = 0.0,
    ) -> None:
        """A call with a reply; its request, its reply or both may be lost, and then it fails by its time-out.

        The worker does what is `first` when the request arrives, and the `work` so much later.
        """
        worker, answered = self.workers[name], False

        def answer(event: on.ClusterEvent) -> None:
            nonlocal answered
            answered = True
            coordinator.feed(event)

        def begin() -> None:
            try:
                first(worker)
            except NoodleError:
                reply(failure)
                return
            self.world.after(takes_s, lambda: worker.receive(finish)) if takes_s else finish()

        def finish() -> None:
            try:
                event = work(worker)
            except NoodleError:
                event = failure
            reply(event)

        def reply(event: on.ClusterEvent) -> None:
            if event is failure and answered:  # a request that came once more: nobody waits for what becomes of it
                return
            if isinstance(event, on.StageCommitted):
                self.num_moves += 1
            self.world.send(name, NAME, lambda: answer(event))

        self.world.send(NAME, name, lambda: worker.receive(begin))
        self.world.after(RPC_TIMEOUT_S, lambda: None if answered else coordinator.feed(failure))

    def _copy(self, coordinator: DrillCoordinator, command: do.CopyKv) -> None:
        transfer, version = command.transfer, command.plan_version
        source, target = self.workers[transfer.source_id], self.workers[transfer.target_id]
        left, failure, answered = {r.session_id for r in command.ranges}, _move_failed(version, target.worker_id), False
        size = sum(r.stop_token - r.start_token for r in command.ranges)
        done = on.KvCopied(transfer, version, command.round, size)

        def answer() -> None:
            nonlocal answered
            answered = True
            coordinator.feed(done)

        def finish(session_id: str) -> None:
            left.discard(session_id)
            if not left:
                self.world.send(target.worker_id, NAME, answer)

        def take(part: KvRange, found: Copy) -> None:
            try:
                target.take(version, part, found)
            except NoodleError:
                return
            finish(part.session_id)

        def export(part: KvRange) -> None:
            try:
                if self.world.happens(self.world.hostility.unreadable):
                    raise NotFound(f"{part.session_id} cannot be read")
                found = source.export(part)
            except (NoodleError, KeyError):
                self.world.send(source.worker_id, target.worker_id, lambda: target.receive(lambda: finish(part.session_id)))
                return
            self.world.send(source.worker_id, target.worker_id, lambda: target.receive(lambda: take(part, found)))

        for part in command.ranges:
            self.world.send(target.worker_id, source.worker_id, lambda p=part: source.receive(lambda: export(p)))  # type: ignore[misc]
        self.world.after(RPC_TIMEOUT_S, lambda: None if answered else coordinator.feed(failure))

    def _send_step(self, coordinator: DrillCoordinator, command: do.SendStep) -> None:
        frame = Frame(command.plan_version, command.step_id, command.segments, releases=command.releases)
        frame = replace(frame, kept=command.kept, dropped=command.dropped)
        if command.segments and self.world.happens(self.world.hostility.undelivered):
            event = on.StepUndelivered(command.plan_version, command.step_id, "its stream broke")
            self.world.after(self.world.hostility.delay_s * self.world.generator.random(), lambda: coordinator.feed(event))
            if self.world.happens(0.5):
                return
        self._send_frame(NAME, command.first_worker_id, frame)

    def _send_frame(self, source: str, name: str, frame: Frame) -> None:
        worker = self.workers[name]
        self.world.send(source, name, lambda: worker.receive(lambda: self._run_step(worker, frame)))

    def _run_step(self, worker: DrillWorker, frame: Frame) -> None:
        held = worker.serving
        message = worker.step(frame)
        if isinstance(message, Frame) and held is not None and held.next_id is not None:
            self._send_frame(worker.worker_id, held.next_id, message)
        elif isinstance(message, on.StepReported):
            report = self._confused(message)
            self.world.send(worker.worker_id, NAME, lambda: self._coordinator().feed(report))

    def _confused(self, report: on.StepReported) -> on.StepReported:
        """The report of a stage that lost a session, or took its token for another one's."""
        if not report.outcomes or not self.world.happens(self.world.hostility.confused):
            return report
        k = self.world.generator.randrange(len(report.outcomes))
        one, others = report.outcomes[k], (report.outcomes[:k], report.outcomes[k + 1 :])
        if self.world.happens(0.5):
            return replace(report, outcomes=(*others[0], *others[1]))
        index = 1 + (one.sample_index or 0) if self.world.happens(0.5) else None
        return replace(report, outcomes=(*others[0], replace(one, sample_index=index, token_id=0), *others[1]))


def _loaded(worker: DrillWorker, order: do.LoadStage | do.PrepareStage) -> on.ClusterEvent:
    if isinstance(order, do.LoadStage):
        worker.load(order.plan_version, order.stage, order.next_worker_id)
        return on.StageLoaded(worker.worker_id, order.plan_version, 0, 0, 0.0)
    worker.prepare(order.plan_version, order.stage, order.next_worker_id)
    return on.StagePrepared(worker.worker_id, order.plan_version, 0)


def _committed(worker: DrillWorker, order: do.CommitStage) -> on.ClusterEvent:
    return on.StageCommitted(worker.worker_id, order.plan_version, worker.commit(order.plan_version, order.sessions))


def _lost(worker_id: str, generation: int) -> on.ClusterEvent:
    return on.WorkerLost(worker_id, generation, "it did not answer")


def _move_failed(plan_version: int, worker_id: str) -> on.ClusterEvent:
    return on.MoveFailed(plan_version, worker_id, "it did not answer")
