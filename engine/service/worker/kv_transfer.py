"""A session's keys and values as messages, out of one stage and into another. Runs on the compute thread.

The header travels first, so that the receiving stage can go on with the session exactly where the other one stood.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable

from engine.control.sessions.stage_sessions import StageSession, StageSessions
from engine.data.errors import InvalidInput
from engine.data.sampling import Sampling
from engine.model.running.stage import StageModel
from engine.service import wire
from engine.service.worker import payload
from engine.service.worker.prepared_stage import import_block
from protos import noodle_pb2 as pb


def export_session(model: StageModel, sessions: StageSessions, request: pb.ExportKvRequest) -> list[pb.KvMessage]:
    """The header and one block per wanted layer, tokens [start_token, stop_token); raises NotFound, Stale or InvalidInput."""
    session = sessions.get(request.session_id, request.epoch)
    stop = request.stop_token or len(session.token_ids)
    header = pb.KvSession(
        session_id=request.session_id,
        epoch=session.epoch,
        token_ids=session.token_ids[:stop],
        reserve_tokens=model.kv.max_tokens(request.session_id),
    )
    wire.to_message(session.sampling, header.sampling)
    layers = [layer for layer in model.kv.layers if not request.only_layers or layer in request.layers]
    blocks = (_block(model, request.session_id, layer, request.start_token, stop) for layer in layers)
    return [pb.KvMessage(session=header), *(pb.KvMessage(block=block) for block in blocks)]


def _block(model: StageModel, session_id: str, layer: int, start: int, stop: int) -> pb.KvBlock:
    keys, values = model.kv.export_block(session_id, layer, start, stop)
    dtype, key_bytes = payload.encode(keys)
    _, value_bytes = payload.encode(values)
    block = pb.KvBlock(layer=layer, start_token=start, keys=key_bytes, values=value_bytes)
    block.dtype = dtype  # type: ignore[assignment]
    block.key_shape.extend(keys.shape)
    block.value_shape.extend(values.shape)
    block.crc32 = zlib.crc32(value_bytes, zlib.crc32(key_bytes))
    return block


def import_session(model: StageModel, sessions: StageSessions, messages: Iterable[pb.KvMessage]) -> int:
    """Continue the session here and return the bytes taken over; on any error nothing of it is kept."""
    stream = iter(messages)
    first = next(stream, None)
    if first is None or first.WhichOneof("content") != "session":
        raise InvalidInput("keys and values must begin with their session header")
    header = first.session
    session = StageSession(header.epoch, wire.from_message(Sampling, header.sampling), list(header.token_ids), header.reserve_tokens)
    sessions.adopt(header.session_id, session)
    try:
        model.close(header.session_id)
        model.open(header.session_id, header.reserve_tokens)
        num_bytes = sum(import_block(model, header.session_id, message.block) for message in stream)
        model.kv.commit(header.session_id, len(header.token_ids))
    except Exception:
        sessions.release(header.session_id)
        model.close(header.session_id)
        raise
    return num_bytes
