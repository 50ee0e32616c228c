"""The stage a worker will serve next, built beside the one that serves: weights first, then keys and values. Worker side only.

It lives on a thread of its own until the compute thread takes it over in `commit`; nothing runs on it before that, so the
two threads never touch the same buffers.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable

from engine.control.moves import Carried
from engine.control.sessions.stage_sessions import StageSession, StageSessions
from engine.data.errors import Corrupt, InvalidInput
from engine.data.sampling import Sampling
from engine.model.progress import Progress
from engine.model.running.accelerator.acceleration import Acceleration
from engine.model.running.stage import StageModel
from engine.model.weights.weight_folder import WeightFolder
from engine.service import wire
from engine.service.worker import payload
from protos import noodle_pb2 as pb


class PreparedStage:
    """Plan `plan_version`'s stage of this worker. `imported` are sessions whose keys and values were copied here."""

    def __init__(
        self,
        request: pb.LoadRequest,
        weights: WeightFolder,
        device: str,
        kv_budget_bytes: int,
        serving: StageModel | None,
        say: Progress,
        acceleration: Acceleration | None = None,
    ) -> None:
        self.plan_version = request.plan_version
        self.imported = StageSessions(request.plan_version)
        self.model = StageModel.load(
            weights,
            request.start,
            request.stop,
            dtype=request.model.dtype,
            kv_dtype=request.model.kv_dtype,
            device=device,
            kv_budget_bytes=kv_budget_bytes,
            reuse=serving,
            on_progress=say,
            acceleration=acceleration,
        )
        self.read_bytes = self.model.bytes_beyond(serving)
        held = set(serving.kv.layers) if serving is not None else set()
        self.missing_layers = tuple(sorted(set(self.model.kv.layers) - held))

    def take(self, messages: Iterable[pb.KvMessage]) -> int:
        """One answer to ExportKv: a session's header, then blocks; returns the bytes of the blocks. Raises Corrupt or InvalidInput."""
        num_bytes, session_id = 0, ""
        for message in messages:
            if message.WhichOneof("content") == "session":
                session_id = message.session.session_id
                self._take_header(message.session)
            elif not session_id:
                raise InvalidInput("keys and values must begin with their session header")
            else:
                num_bytes += _write(self.model, session_id, message.block)
        return num_bytes

    def _take_header(self, header: pb.KvSession) -> None:
        known = self.imported.find(header.session_id)
        if known is None or known.epoch != header.epoch:
            self.imported.release(header.session_id)
            self.model.close(header.session_id)
            self.model.open(header.session_id, header.reserve_tokens)
        sampling = wire.from_message(Sampling, header.sampling)
        self.imported.replace(header.session_id, StageSession(header.epoch, sampling, list(header.token_ids), header.reserve_tokens))

    def commit(
        self, model: StageModel | None, sessions: StageSessions, carried: Iterable[Carried]
    ) -> tuple[StageSessions, tuple[str, ...]]:
        """The sessions that go on here, and the ids of those that are not complete; called on the compute thread."""
        carried = tuple(carried)
        going_on, missing = sessions.carry(self.plan_version, carried, self.imported)
        complete = []
        for one in carried:
            session = going_on.find(one.session_id)
            if session is None:
                continue
            if self.model.kv.carry(one.session_id, one.num_tokens, session.reserve_tokens, model.kv if model is not None else None):
                complete.append(one.session_id)
            else:
                going_on.release(one.session_id)
                missing += (one.session_id,)
        for session_id in self.model.kv.session_ids:
            if session_id not in complete:
                self.model.close(session_id)
        return going_on, missing


def _write(model: StageModel, session_id: str, block: pb.KvBlock) -> int:
    """Write one block of an open session; returns its bytes. Raises Corrupt if it was damaged."""
    if zlib.crc32(block.values, zlib.crc32(block.keys)) != block.crc32:
        raise Corrupt(f"keys and values of layer {block.layer} were damaged on the way: send them again")
    keys, values = (
        payload.decode(data, block.dtype, tuple(shape), zlib.crc32(data), tuple(shape))
        for data, shape in ((block.keys, block.key_shape), (block.values, block.value_shape))
    )
    model.kv.import_block(session_id, block.layer, block.start_token, keys, values)
    return len(block.keys) + len(block.values)
