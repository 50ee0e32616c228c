"""Whom a worker may ask for weights, best first, and how a fetch reads in the event list. The coordinator's side."""

from __future__ import annotations

from collections.abc import Mapping

from engine.control.commands import Record
from engine.control.nodes.members import Members
from engine.data.status import Severity
from engine.service.coordinator.worker_peer import WorkerPeer
from protos import noodle_pb2 as pb

MAX_SOURCES = 8
MAX_NOTE_CHARACTERS = 500


def weight_sources(members: Members, peers: Mapping[str, WorkerPeer], worker_id: str) -> list[pb.WeightPeer]:
    """The other live workers: those on the same host first, then by the measured bandwidth towards `worker_id`."""
    target = members.get(worker_id)
    rates = {link.from_id: link.bandwidth_bytes_per_s for link in members.links if link.to_id == worker_id and not link.failure}
    others = [m for m in members if m.alive and m.ready and m.spec.node_id != worker_id and m.spec.node_id in peers]
    is_elsewhere = {m.spec.node_id: target is None or m.spec.host != target.spec.host for m in others}
    others.sort(key=lambda m: (is_elsewhere[m.spec.node_id], -rates.get(m.spec.node_id, 0.0), m.spec.node_id))
    return [
        pb.WeightPeer(worker_id=m.spec.node_id, address=m.spec.address, bandwidth_bytes_per_s=rates.get(m.spec.node_id, 0.0))
        for m in others[:MAX_SOURCES]
    ]


def note_record(worker_id: str, text: str) -> Record:
    """What a worker has to say, cut to a length that a list can show."""
    return Record(Severity.WARN, "node", worker_id, text[:MAX_NOTE_CHARACTERS])


def fetch_records(worker_id: str, reply: pb.LoadReply) -> list[Record]:
    """What had to travel for a stage; nothing to say where the model's folder is on the worker's machine."""
    if not reply.used_cache:
        return []
    parts = ", ".join(f"{part.num_bytes / 1e6:.1f} MB from {part.source_id}" for part in reply.fetched_from)
    fetched = f"fetched {reply.fetched_bytes / 1e6:.1f} MB of weights in {reply.fetch_s:.1f} s ({parts})" if parts else "fetched no weights"
    text = f"{fetched}, {reply.cached_bytes / 1e6:.1f} MB were in its cache"
    return [Record(Severity.INFO, "node", worker_id, text)]
