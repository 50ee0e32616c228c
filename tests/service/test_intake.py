"""How many bytes of large requests are read at once: of one machine, and of all; beyond that a caller is told to come again."""

from __future__ import annotations

import asyncio
import contextlib
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.data.errors import Exhausted, InvalidInput
from engine.model.profiling.measure import MeasuredTimes
from engine.profile.row_law import RowLaw
from engine.service.incoming import MAX_HOST_BYTES, MAX_PLAIN_BYTES, MAX_READ_BYTES, WITH_PROMPT, Intake, _received, check_measured, rows_of
from engine.service.worker.profiling import measured_message
from protos import noodle_pb2 as pb

MIB = 2**20


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 6 * MIB)), max_size=60), st.data())
def test_no_machine_and_not_all_together_have_more_than_their_share(asked: list[tuple[int, int]], data: st.DataObject) -> None:
    """Against a slow count of what is being read."""
    intake = Intake()
    reading: list[tuple[int, int, contextlib.ExitStack]] = []
    for machine, size in asked:
        if reading and data.draw(st.booleans()):
            reading.pop(data.draw(st.integers(0, len(reading) - 1)))[2].close()
        mine = sum(n for m, n, _ in reading if m == machine)
        fits = mine + size <= MAX_HOST_BYTES and sum(n for _, n, _ in reading) + size <= MAX_READ_BYTES
        stack = contextlib.ExitStack()
        try:
            stack.enter_context(intake.taking(f"ipv4:10.0.0.{machine}:{40000 + size % 1000}", size))
        except Exhausted:
            assert not fits
        else:
            assert fits
            reading.append((machine, size, stack))
    for *_, stack in reading:
        stack.close()
    with intake.taking("ipv4:10.0.0.1:1", MAX_HOST_BYTES):  # nothing is left behind
        pass


def test_a_request_counts_while_it_is_read_and_not_after() -> None:
    content = pb.GenerateRequest(prompt="x" * (9 * MIB)).SerializeToString()
    go_on = threading.Event()

    def slowly(content: bytes) -> pb.GenerateRequest:
        go_on.wait(60)
        return pb.GenerateRequest.FromString(content)

    async def work() -> None:
        intake = Intake()
        first = asyncio.create_task(_received(slowly, content, WITH_PROMPT, intake, "ipv4:10.0.0.1:5"))
        await asyncio.sleep(0)  # it has begun
        with pytest.raises(Exhausted, match="your machine's large requests"):
            await _received(slowly, content, WITH_PROMPT, intake, "ipv4:10.0.0.1:6")
        small = pb.GenerateRequest(prompt="y").SerializeToString()
        assert len(small) <= MAX_PLAIN_BYTES
        assert (await _received(pb.GenerateRequest.FromString, small, WITH_PROMPT, intake, "ipv4:10.0.0.1:6")).prompt == "y"
        go_on.set()
        await first
        assert len((await _received(slowly, content, WITH_PROMPT, intake, "ipv4:10.0.0.1:6")).prompt) == 9 * MIB

    asyncio.run(work())


def test_how_a_worker_s_items_grow_with_rows_arrives_as_it_was_measured() -> None:
    law = RowLaw.measured({1: 2.0, 2: 2.5, 3: 3.0, 4: 3.0})
    reply = measured_message(MeasuredTimes((0.25, 0.5), 0.125, law), slowdown=2.0)
    assert (list(reply.decode_s), reply.base_s) == ([0.5, 1.0], 0.25)
    assert rows_of(check_measured(reply, 2)) == law
    older = pb.MeasureReply(decode_s=reply.decode_s, row_share=reply.row_share)
    assert rows_of(older).factor(4) == pytest.approx(law.factor(4))
    reply.row_factors[1] = 0.5
    with pytest.raises(InvalidInput, match="rows rise from 1"):
        check_measured(reply, 2)
