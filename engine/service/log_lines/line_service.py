"""`LineService`: what a process wrote last; the coordinator's also passes on what a worker says of itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import grpc

from engine.service import wire
from engine.service.log_lines.kept_lines import KeptLines
from protos import noodle_pb2 as pb
from protos import noodle_pb2_grpc as rpc

Ask = Callable[[str, int], Awaitable[pb.LinesReply]]  # (worker id, number) -> that worker's lines after it


class LineService(rpc.LineServiceServicer):
    """Without `ask` it answers for its own process, whoever is named."""

    def __init__(self, own: KeptLines, ask: Ask | None = None) -> None:
        self._own, self._ask = own, ask

    async def GetLines(self, request: pb.LinesRequest, context: grpc.aio.ServicerContext) -> pb.LinesReply:
        if request.worker_id and self._ask is not None:
            return await self._ask(request.worker_id, request.after)
        return pb.LinesReply(lines=[wire.to_message(line, pb.WrittenLine()) for line in self._own.after(request.after)])
