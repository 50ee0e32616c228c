"""A session's keys and values as messages, out of one stage; `PreparedStage.take` is how another takes them. Runs on the compute thread.

The header travels first, so that the receiving stage can go on with the session exactly where the other one stood.
"""

from __future__ import annotations

import zlib

from engine.control.sessions.stage_sessions import StageSessions
from engine.model.running.stage import StageModel
from engine.service import wire
from engine.service.worker import payload
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
