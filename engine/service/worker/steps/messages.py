"""What a stage reads in the message of a step, and what it says of it: to the next stage, or to the coordinator."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence

import torch

from engine.data.errors import NoodleError
from engine.data.generation import Segment
from engine.service import wire
from engine.service.errors import status_number
from engine.service.worker import payload
from engine.service.worker.handover.outlet import Giving
from engine.service.worker.steps.rows import Row
from protos import noodle_pb2 as pb


def read_segments(frame: pb.StepFrame) -> list[Segment] | Exception:
    """The parts of a step, or why it has none."""
    try:
        return [wire.segment_from_message(s) for s in frame.segments]
    except Exception as e:
        return e


def next_frame(frame: pb.StepFrame, rows: Sequence[Row], failures: Iterable[pb.SegmentResult], giving: Giving | None) -> pb.StepFrame:
    """The message for the next stage: the rows that survived, and everything that has to travel on. Their hidden states are in it,
    or where `giving` says."""
    message = pb.StepFrame(plan_version=frame.plan_version, step_id=frame.step_id, releases=frame.releases, failures=failures)
    message.kept.extend(frame.kept)
    message.dropped.extend(frame.dropped)
    message.timings.extend(frame.timings)
    kept = {r.segment.session_id for r in rows}
    message.segments.extend(s for s in frame.segments if s.session_id in kept)
    if giving is not None:
        message.slot.CopyFrom(giving.slot)
        message.dtype = payload.number_of(giving.dtype)  # type: ignore[assignment]
        message.shape.extend(giving.shape)
    elif rows:
        out = rows[0].reply if len(rows) == 1 else torch.cat([r.reply for r in rows])  # [T, D]
        message.dtype, message.payload = payload.encode(out)  # type: ignore[assignment]
        message.shape.extend(out.shape)
        message.crc32 = zlib.crc32(message.payload)
    return message


def step_report(worker_id: str, frame: pb.StepFrame, rows: Iterable[Row], failures: Iterable[pb.SegmentResult]) -> pb.StepReport:
    """The last stage's answer."""
    message = pb.StepReport(worker_id=worker_id, plan_version=frame.plan_version, step_id=frame.step_id, results=failures)
    message.timings.extend(frame.timings)
    for row in rows:
        segment = row.segment
        if row.error is not None:
            message.results.append(failure(wire.segment_to_message(segment), row.error))
            continue
        if segment.sample_index is None:
            message.results.add(session_id=segment.session_id, epoch=segment.epoch, sample_index=-1)
            continue
        for index, sampled in enumerate(row.reply, segment.sample_index):
            result = message.results.add(session_id=segment.session_id, epoch=segment.epoch, sample_index=index)
            result.token_id = sampled.token_id
            if sampled.logprobs is not None:
                wire.to_message(sampled.logprobs, result.logprobs)
    return message


def failure(message: pb.Segment, error: NoodleError) -> pb.SegmentResult:
    """Why a stage did not run a segment."""
    return pb.SegmentResult(
        session_id=message.session_id, epoch=message.epoch, sample_index=message.sample_index, code=status_number(error), message=str(error)
    )
