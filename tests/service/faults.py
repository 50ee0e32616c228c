"""Breaks one step of the way from a worker's report to a client, inside real processes, for the session whose prompt says which.

`install()` runs in a forked coordinator or worker before its command line does. A prompt that begins with token `FIRST + i` is the
victim of step i of `STEPS`, from its fourth token on; every other session must notice nothing.
"""

from __future__ import annotations

import functools
import sqlite3
from collections.abc import Callable
from typing import Any

FIRST = 100
FROM_INDEX = 3


class Broken(Exception):
    """What no step of the way expects."""


_victims: dict[str, str] = {}  # the step that fails, by session id


def step_of(prompt_ids: Any) -> str:
    number = prompt_ids[0] - FIRST if len(prompt_ids) else -1
    return STEPS[number] if 0 <= number < len(STEPS) else ""


def _breaks(owner: Any, name: str, step: str, is_hit: Callable[..., bool], error: Exception | None = None) -> None:
    """Let `owner.name` fail when it is called for a victim of that step."""
    whole = getattr(owner, name)

    @functools.wraps(whole)
    def broken(*args: Any, **kwargs: Any) -> Any:
        if is_hit(lambda session_id: _victims.get(session_id) == step, *args):
            raise error or Broken(step)
        return whole(*args, **kwargs)

    setattr(owner, name, broken)


def _observed(hit: Any, _: Any, event: Any, *__: Any) -> bool:
    outcomes = getattr(event, "outcomes", ())
    return any(hit(o.session_id) and (o.sample_index or 0) >= FROM_INDEX for o in outcomes)


def _note_victims() -> None:
    from engine.service.coordinator.outputs.session_outputs import SessionOutputs

    new = SessionOutputs._new

    def noted(self: Any, session_id: str, prepared: Any, request: Any) -> Any:
        _victims[session_id] = step_of(prepared.prompt_ids)
        return new(self, session_id, prepared, request)

    SessionOutputs._new = noted  # type: ignore[method-assign]


def _break_the_report() -> None:
    from engine.service.coordinator.outputs.session_output import SessionOutput

    _breaks(SessionOutput, "would_stop", "report", lambda hit, output, _: hit(output.session_id) and len(output._chunks) >= FROM_INDEX)


def _break_the_cluster() -> None:
    from engine.control.adapting import Adapting
    from engine.control.sessions.batching import Batcher
    from engine.control.sessions.scheduler import Scheduler

    _breaks(Scheduler, "accept_token", "accept", lambda hit, _, s, *__: hit(s.session_id) and len(s.generated) >= FROM_INDEX)
    _breaks(Scheduler, "finish_reason", "reason", lambda hit, _, s, *__: hit(s.session_id) and len(s.generated) > FROM_INDEX)
    _breaks(Batcher, "observe", "figures", lambda hit, _, flight, *__: any(hit(s.session_id) for s in flight.segments))
    _breaks(Adapting, "observe", "adaptation", _observed)


def _break_the_journal() -> None:
    from engine.service.coordinator.journal.journal import Journal

    damaged = sqlite3.DatabaseError("database disk image is malformed")
    _breaks(Journal, "append_token", "journal", lambda hit, _, session_id, index, *__: hit(session_id) and index >= FROM_INDEX, damaged)
    _breaks(Journal, "close_session", "closing", lambda hit, _, session_id, *__: hit(session_id), damaged)
    session, asked = Journal.session, list[str]()

    def broken(self: Any, session_id: str) -> Any:
        found = session(self, session_id)
        if found is not None and step_of(found.prompt_ids) == "restart":
            asked.append(session_id)
            raise Broken("restart")
        return found

    Journal.session = broken  # type: ignore[method-assign]


def _break_the_output() -> None:
    from engine.service import wire
    from engine.service.coordinator.metrics.recorder import Recorder
    from engine.service.coordinator.outputs.session_output import SessionOutput
    from engine.service.coordinator.text.codec import TextStream

    _breaks(SessionOutput, "_add", "text", lambda hit, output, index, *_: hit(output.session_id) and index >= FROM_INDEX)
    _breaks(wire, "segment_to_message", "sending", lambda hit, s: hit(s.session_id) and (s.sample_index or 0) >= FROM_INDEX)
    _breaks(Recorder, "observe", "recorder", _observed)
    stream = SessionOutput.stream

    async def broken(self: Any, next_index: int) -> Any:
        async for chunk in stream(self, next_index):
            if chunk.index >= FROM_INDEX and _victims.get(self.session_id) == "subscriber":
                raise Broken("subscriber")
            yield chunk

    SessionOutput.stream = broken  # type: ignore[method-assign]
    finish = SessionOutput.finish

    def finished(self: Any, reason: Any, error: Any, *status: Any) -> None:
        if _victims.get(self.session_id) == "rest" and error is None:
            TextStream.flush(None)  # type: ignore[arg-type]
        finish(self, reason, error, *status)

    SessionOutput.finish = finished  # type: ignore[method-assign]


def _break_the_sampling() -> None:
    from engine.model.running.accelerator import device_sampling
    from engine.service.worker.steps import rows as step_rows

    sample = device_sampling.sample

    def broken(logits: Any, sampling: Any, history: Any, index: int) -> Any:
        if step_of(history) == "sampling" and index >= FROM_INDEX:
            raise Broken("sampling")
        return sample(logits, sampling, history, index)

    device_sampling.sample = broken
    step_rows.needs_history = lambda _: True  # it says whose token it is


# Those that end their session, in the order of the way, then those that concern none.
ENDING = ("sampling", "report", "accept", "reason", "journal", "text", "rest", "subscriber", "sending", "restart")
HARMLESS = ("figures", "adaptation", "recorder", "closing")
STEPS = (*ENDING, *HARMLESS)


def install() -> None:
    _note_victims()
    _break_the_report()
    _break_the_cluster()
    _break_the_journal()
    _break_the_output()
    _break_the_sampling()
