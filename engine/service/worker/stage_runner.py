"""The worker's compute thread: it alone touches the stage's model, KV and sessions, one step after the other.

Because loading, stepping and releasing all run here in order, the plan and epoch checks stand in the same critical
section as the KV append, without a lock. It knows messages and tensors; it does not know streams or peers.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TypeVar

import torch

from engine.control.moves import Carried
from engine.control.sessions.stage_sessions import Append, StageSessions
from engine.data.errors import NoodleError, Unavailable
from engine.data.generation import Kept, Segment
from engine.model.hardware.devices import on_device
from engine.model.hardware.freed_memory import release_memory
from engine.model.profiling.measure import MeasuredTimes, measure_config
from engine.model.running.accelerator.acceleration import Acceleration
from engine.model.running.feeding import Hidden, arrived
from engine.model.running.stage import StageModel
from engine.model.weights.weight_folder import WeightFolder
from engine.service import wire
from engine.service.errors import as_noodle_error
from engine.service.meters import Meters
from engine.service.worker import memory, payload
from engine.service.worker.handover.arrival import Arrival
from engine.service.worker.handover.inlet import GivenUp, Inlet, reading
from engine.service.worker.handover.outlet import Giving, LateRows
from engine.service.worker.handover.outlets import Outlets
from engine.service.worker.handover.step_times import StepTimes
from engine.service.worker.prepared_stage import PreparedStage
from engine.service.worker.profiling import measured_message
from engine.service.worker.steps.messages import failure, next_frame, read_segments, step_report
from engine.service.worker.steps.rows import Row, sample
from engine.service.worker.steps.thread import ComputeThread
from protos import noodle_pb2 as pb

T = TypeVar("T")
Finish = Callable[[], pb.StepFrame | pb.StepReport | None]  # makes the message that follows from a step, None if nobody needs one


@dataclass(frozen=True, slots=True)
class RunnerOptions:
    worker_id: str
    device: str
    kv_budget_bytes: int
    slowdown: float = 1.0
    acceleration: Acceleration | None = None  # None: all that the device was found to run


class StageRunner:
    """`deliver` is called on this thread with a StepFrame for the next stage or a StepReport for the coordinator."""

    def __init__(self, options: RunnerOptions, meters: Meters, deliver: Callable[[pb.StepFrame | pb.StepReport], None]) -> None:
        self._options, self._meters, self._deliver = options, meters, deliver
        self.slowdown = options.slowdown  # may change at any time
        self.least_plan = 0  # steps of older plans are waited for no longer; may change at any time
        self._outlets = Outlets(options.device, options.worker_id)
        self._measured: dict[tuple[str, str, str], MeasuredTimes] = {}  # by (fingerprint, dtype, KV dtype), at this machine's own speed
        self.model: StageModel | None = None
        self.sessions = StageSessions(plan_version=0)
        self._unsaid: tuple[pb.StepFrame, Finish | pb.StepReport] | None = None  # of the last step
        self._jobs = ComputeThread(options.device, self._between)
        self._jobs.start()

    # ------------------------------------------------------------------------------------------ jobs
    def submit(self, frame: pb.StepFrame, inlet: Inlet | None = None) -> None:
        """Run a step after everything that was submitted before; it is read here, while the steps before it compute. `inlet` is the shared
        memory of the stream that it came by."""
        received_s, segments = time.perf_counter(), read_segments(frame)
        self._meters.queue_depth += 1
        self._jobs.put(lambda: self._step(frame, segments, received_s, inlet))

    def call(self, function: Callable[[], T]) -> Future[T]:
        """Run any function on the compute thread."""

        def behind_steps() -> T:
            self._say_last()
            return function()

        return self._jobs.call(behind_steps)

    def close(self) -> None:
        self._jobs.put(self._say_last)
        self._jobs.close()

    def _between(self) -> bool:
        """Say what nothing holds up any more, and how long steps took that were not waited for; whether one of those goes on."""
        if self._jobs.is_idle:
            self._say_last()
        self._meters.compute_s += self._outlets.tell_times()
        return self._outlets.has_untold

    # ------------------------------------------------------------------------------------------ memory shared with neighbours
    def offer(self, model: StageModel, plan_version: int) -> str:
        """Make memory for what this stage of a plan will hand on; returns what to tell the next worker, empty if there is none. From a
        thread of the caller's."""
        outlet = self._outlets.make(model)
        if outlet is None:
            return ""
        self.call(lambda: self._outlets.hold(plan_version, outlet))
        return outlet.offer

    def withdraw(self, plan_version: int) -> None:
        """No step of that plan is handed on any more."""
        self.call(lambda: self._outlets.drop(plan_version))

    def inlet(self, offer: str | bytes | None) -> Inlet | None:
        """The memory that the sender of a stream offers, if it can be read here. From a thread of the caller's."""
        with on_device(self._options.device):
            return Inlet.of(offer, self._options.device)

    # ------------------------------------------------------------------------------------------ owning a stage
    def measure(self, request: pb.MeasureRequest, weights: WeightFolder) -> pb.MeasureReply:
        """Time the items of the model of `weights`, once for each model in the life of this process; reads no tensors."""
        key = (request.fingerprint, request.model.dtype, request.model.kv_dtype)
        if key not in self._measured:
            self._meters.say("measuring items", 0.0)
            self._measured[key] = measure_config(
                weights.config,
                dtype=request.model.dtype,
                kv_dtype=request.model.kv_dtype,
                device=self._options.device,
                on_progress=self._say_progress,
            )
            self._meters.say("", -1.0)
        return measured_message(self._measured[key], self.slowdown)

    def load(self, request: pb.LoadRequest, weights: WeightFolder) -> pb.LoadReply:
        """Own [start, stop) from now on: items held already are kept, every session of the old plan is dropped.

        Raises Stale if a newer plan is served already.
        """
        self.sessions.check_newer(request.plan_version)
        started_s = time.perf_counter()
        old, self.model = self.model, None
        if old is not None:
            old.retire()
        self.sessions = StageSessions(request.plan_version)
        self.model = StageModel.load(
            weights,
            request.start,
            request.stop,
            dtype=request.model.dtype,
            kv_dtype=request.model.kv_dtype,
            device=self._options.device,
            kv_budget_bytes=self._options.kv_budget_bytes,
            reuse=old,
            on_progress=self._say_progress,
            acceleration=self._options.acceleration,
        )
        release_memory()
        self._say_running()
        return pb.LoadReply(
            weight_bytes=self.model.weight_bytes,
            resident_bytes=memory.resident_bytes(),
            load_s=time.perf_counter() - started_s,
            read_bytes=self.model.bytes_beyond(old),
        )

    def prepare(self, request: pb.LoadRequest, weights: WeightFolder) -> PreparedStage:
        """The stage of a plan to come, beside the one that serves; called on a thread of the caller's."""
        options = self._options
        with on_device(options.device), torch.inference_mode():
            prepared = PreparedStage(
                request, weights, options.device, options.kv_budget_bytes, self.model, self._say_progress, options.acceleration
            )
        self._meters.say("", -1.0)
        return prepared

    def _say_progress(self, done: float, what: str) -> None:
        self._meters.say(what, done)

    def _say_running(self) -> None:
        """How the stage runs, where there is more than one way: `status` shows it."""
        model = self.owned_model()
        self._meters.say("" if self._options.device == "cpu" else model.running_text, -1.0)

    def commit(self, prepared: PreparedStage, carried: tuple[Carried, ...]) -> tuple[str, ...]:
        """Serve the prepared stage from the next step on; returns the sessions that are not complete here."""
        self.sessions, missing = prepared.commit(self.model, self.sessions, carried)
        self.model = prepared.model
        self._say_running()
        self._meters.kv_used_bytes = self.model.kv.held_bytes
        return missing

    def unload(self) -> None:
        self.model, self.sessions = None, StageSessions(plan_version=0)
        self._meters.kv_used_bytes = 0
        release_memory()

    def forget_sessions(self) -> None:
        """Belong to no plan any more; the weights stay, for the next plan may want them."""
        if self.model is not None:
            for session_id in self.model.kv.session_ids:
                self.model.close(session_id)
            self.model.kv.drop_all()
        self.sessions = StageSessions(plan_version=0)
        self._meters.kv_used_bytes = 0

    def owned_model(self) -> StageModel:
        """The stage's model; raises Unavailable while there is none."""
        if self.model is None:
            raise Unavailable(f"worker {self._options.worker_id} holds no stage: it is loading, or left out of the plan")
        return self.model

    def held_items(self, request: pb.LoadRequest) -> range:
        """The items in memory that loading this stage would keep."""
        if self.model is None:
            return range(0)
        return self.model.items_for(request.fingerprint, request.model.dtype, self._options.device)

    # ------------------------------------------------------------------------------------------ steps
    def _step(self, frame: pb.StepFrame, segments: list[Segment] | Exception, received_s: float, inlet: Inlet | None = None) -> None:
        """Run one step and deliver what follows from it, a failure of the whole step too: this thread outlives them all.

        A device that works by itself and holds the whole model begins the step that waits before anything is said of this one.
        """
        self._meters.queue_depth -= 1

        def process() -> Finish:
            with reading(inlet, frame.slot.sequence):
                return self._process(frame, segments, received_s, inlet)

        try:
            finish = self._or_failed(frame, process)
        except GivenUp:  # as if the message had never come
            return
        self._say_last()
        self._unsaid = frame, finish
        is_whole = self.model is not None and self.model.is_first and self.model.is_last
        if self._options.device == "cpu" or not is_whole or self._jobs.is_idle:
            self._say_last()

    def _say_last(self) -> None:
        """Deliver what the step before led to, if that was not done yet."""
        if self._unsaid is not None:
            (frame, finish), self._unsaid = self._unsaid, None
            message = finish if isinstance(finish, pb.StepReport) else self._or_failed(frame, finish)
            if message is not None:
                self._deliver(message)

    def _or_failed(self, frame: pb.StepFrame, work: Callable[[], T]) -> T | pb.StepReport:
        """What `work` makes of a step; or that it failed as a whole, for the coordinator: later stages have nothing to do with it."""
        try:
            return work()
        except GivenUp:
            raise
        except Exception as e:
            error = as_noodle_error(e)
            return step_report(self._options.worker_id, frame, (), [failure(s, error) for s in frame.segments])

    def _process(self, frame: pb.StepFrame, segments: list[Segment] | Exception, received_s: float, inlet: Inlet | None) -> Finish:
        """Run a step; raises if it fails as a whole."""
        if isinstance(segments, Exception):
            raise segments
        times = StepTimes(received_s, time.perf_counter())
        failures: list[pb.SegmentResult] = list(frame.failures)
        self.sessions.check_plan(frame.plan_version)
        model = self.owned_model()
        self._release(model, frame)
        arrival = Arrival.of(frame, inlet, lambda: frame.plan_version < self.least_plan)
        rows, hidden = self._admit(model, frame, segments, failures, arrival)
        times.computing_s, slowdown = time.perf_counter(), self.slowdown
        giving = self._giving(model, frame, rows, arrival, may_be_late=slowdown == 1.0)
        self._compute(model, rows, hidden, giving)
        self._meters.kv_used_bytes = model.kv.held_bytes
        if arrival is not None:
            times.computing_s, times.ended_s = max(times.computing_s, arrival.arrived_s), arrival.correct()
        times.computed_s = time.perf_counter()
        if slowdown > 1.0 and rows:
            time.sleep((slowdown - 1.0) * (times.computed_s - times.computing_s))
            times.computed_s = time.perf_counter()

        def finish() -> pb.StepFrame | pb.StepReport | None:
            worker_id = self._options.worker_id
            message = step_report(worker_id, frame, rows, failures) if model.is_last else next_frame(frame, rows, failures, giving)
            timing = message.timings.add(worker_id=worker_id)
            times.write(timing, is_computed=giving is None or not giving.is_late)
            self._meters.add_step(timing.compute_s, timing.queue_s, timing.wire_in_s, timing.wire_out_s)
            needed = frame.segments or failures or ((frame.releases or frame.kept or frame.dropped) and not model.is_last)
            return message if needed else None

        return finish

    def _release(self, model: StageModel, frame: pb.StepFrame) -> None:
        """Free what ended, or what is kept of it no longer."""
        for session_id in frame.releases:
            if self.sessions.release(session_id):
                model.close(session_id)
        for message in frame.kept:
            kept = wire.from_message(Kept, message)
            if self.sessions.keep(kept):
                model.kv.keep(kept.session_id, kept.kept_id, kept.num_tokens)
            else:
                model.close(kept.session_id)
        for kept_id in frame.dropped:
            self.sessions.drop(kept_id)
            model.kv.drop(kept_id)

    def _admit(
        self,
        model: StageModel,
        frame: pb.StepFrame,
        segments: list[Segment],
        failures: list[pb.SegmentResult],
        arrival: Arrival | None = None,
    ) -> tuple[list[Row], Hidden]:
        """The segments this stage may run, and the hidden states of the whole frame ([T, D]; None on the first stage)."""
        num_tokens = sum(len(s.token_ids) for s in segments)
        hidden: Hidden = None
        if segments and not model.is_first:
            expected = (num_tokens, model.hidden_size)
            hidden = arrival.hidden(expected) if arrival is not None else None
        if segments and not model.is_first and hidden is None:
            hidden = payload.decode(frame.payload, frame.dtype, tuple(frame.shape), frame.crc32, expected).to(self._options.device)
        rows, offset = [], 0
        for segment, message in zip(segments, frame.segments, strict=True):
            try:
                if segment.follows:
                    if (known := self.sessions.known(segment)) is None:
                        continue  # the step before this one has failed for the session, and said so
                    segment = known
                decision = self.sessions.admit(segment)
                if isinstance(decision, Append) and decision.opens:
                    model.close(segment.session_id)
                    if segment.taken is None:
                        model.open(segment.session_id, message.reserve_tokens)
                    else:
                        model.take_over(segment.session_id, message.reserve_tokens, segment.taken)
                elif isinstance(decision, Append) and decision.cuts:
                    model.kv.truncate(segment.session_id, segment.position)
                    decision.session.cut(segment.position)
                rows.append(Row(segment, decision, offset))
            except NoodleError as e:
                failures.append(failure(message, e))
            finally:
                offset += len(segment.token_ids)
        return rows, hidden

    def _giving(self, model: StageModel, frame: pb.StepFrame, rows: list[Row], arrival: Arrival | None, may_be_late: bool) -> Giving | None:
        """Room for the step's output in shared memory; None if it takes the stream, as all does that has been sent before."""
        if model.is_last or not rows or not all(isinstance(row.decision, Append) for row in rows):
            return None
        giving = self._outlets.begin(frame.plan_version, sum(len(row.segment.token_ids) for row in rows), model, may_be_late)
        if giving is not None and arrival is not None:
            arrival.on_arrival = giving.start
        elif giving is not None:
            giving.start()
        return giving

    def _compute(self, model: StageModel, rows: list[Row], hidden: Hidden, giving: Giving | None = None) -> None:
        """Run the rows that append; fills each row's reply and commits it."""
        new = []
        for row in rows:
            if isinstance(row.decision, Append):
                new.append(row)
            else:
                reply = row.decision.reply
                row.reply = reply.settled() if isinstance(reply, LateRows) else reply
        if not new:
            return
        if hidden is not None and sum(len(r.segment.token_ids) for r in new) < hidden.shape[0]:
            hidden = arrived(hidden, self._options.device)
        if isinstance(hidden, torch.Tensor):
            parts = [hidden[r.offset : r.offset + len(r.segment.token_ids)] for r in new]  # each [n, D]
            hidden = parts[0] if len(parts) == 1 else torch.cat(parts)
        lengths = [(r.segment.session_id, model.length(r.segment.session_id)) for r in new]
        tokens = [(r.segment.session_id, r.segment.token_ids) for r in new]
        out = model.forward(tokens, hidden, [r.num_logits for r in new])  # [T, D] or [sum of num_logits, V]
        self._say_last()  # a device that works by itself has its work
        try:
            self._answer(model, new, out, giving)
        except NoodleError:
            for session_id, length in lengths:
                model.kv.truncate(session_id, length)
            raise
        for row in new:
            if row.error is None:
                self.sessions.commit(row.segment, row.decision.session, row.reply, row.chosen)

    def _answer(self, model: StageModel, new: list[Row], out: torch.Tensor, giving: Giving | None) -> None:
        """Fill in each row's hidden states, or its tokens, or why it has none. Raises Corrupt for the step if `out` is not finite, but
        for a step that is given late: then the next stage does."""
        if model.is_last:
            sample(new, out, self._outlets.name_of(model), model.picks)
            return
        here = giving.give(out) if giving is not None else payload.checked_on_host(out, self._outlets.name_of(model))
        offset = 0
        for row in new:
            stop = offset + len(row.segment.token_ids)
            row.reply = LateRows(giving, offset, stop) if giving is not None and giving.is_late else here[offset:stop]
            offset = stop
