"""Rules of the protocol that no client can see broken, judged from the events and commands of one coordinator alone. Pure.

Most faults of the protocol heal: the session is sent again and its answer is right. The referee keeps books of its own of what was sent
and of what came back, so that a fault is noticed where it happens and not only where it reaches a client. Orders to the workers have
a referee of their own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from engine.control import commands as do
from engine.control import events as on
from engine.control.cluster import Cluster
from engine.control.sessions.scheduler import MAX_RECOVERIES
from engine.control.sessions.serving import RETRIED
from engine.data.generation import FinishReason, Kept, Segment, Taken
from engine.data.status import Phase

Answer = on.StepReported | on.StepUndelivered


class Referee:
    """Asked before and after every event of one incarnation; raises AssertionError."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._out: dict[int, tuple[Segment, ...]] = {}  # steps of the present plan that did not come back
        self._plan_version = 0  # of those steps
        self._prompts: dict[str, tuple[int, ...]] = {}
        self._answers: dict[str, list[int]] = {}
        self._callers: dict[str, bytes] = {}
        self._kept: dict[int, Kept] = {}  # under the present plan
        self._taken: dict[str, int] = {}  # session -> with how many tokens of another one it began
        self._cuts: dict[str, dict[int, int]] = {}  # session -> where each chunk of its prompt began and ended
        self._num_again: Counter[str] = Counter()  # how often a session was sent again since its newest token
        self._careful: set[str] = set()  # a step of it failed, and no token came since
        self._epochs: dict[str, int] = {}
        self._in_step: dict[str, Segment] = {}
        self._was_serving = False

    def before(self, event: on.ClusterEvent) -> None:
        self._was_serving = self._cluster.phase is Phase.SERVING
        self._epochs = self._present_epochs()
        if isinstance(event, on.SessionSubmitted | on.SessionRestored):
            self._prompts[event.session_id] = event.prompt_ids
            self._answers[event.session_id] = [*event.generated] if isinstance(event, on.SessionRestored) else []
            self._callers[event.session_id] = event.caller if isinstance(event, on.SessionSubmitted) else b""

    def after(self, event: on.ClusterEvent, commands: Iterable[do.Command]) -> None:
        """Judge what the event led to."""
        commands = [*commands]
        again = self._sent_again(commands)
        self._num_again.update(again)
        if isinstance(event, on.StepReported | on.StepUndelivered):
            self._judge_answer(event, again, commands)
        elif isinstance(event, on.StageCommitted):
            self._careful |= again
        for command in commands:
            self._judge(command)
        if self._cluster.plan is None or self._cluster.plan_version != self._plan_version:
            self._out, self._kept, self._plan_version = {}, {}, self._cluster.plan_version
        for command in commands:
            if isinstance(command, do.SendStep):
                self._judge_step(command)

    # ------------------------------------------------------------------------------------------ answers to steps
    def _present_epochs(self) -> dict[str, int]:
        return {s.session_id: s.epoch for s in self._cluster.scheduler}

    def _sent_again(self, commands: Iterable[do.Command]) -> set[str]:
        """Sessions whose epoch rose although no change of plan carried them on."""
        carried = {one.session_id: one for c in commands if isinstance(c, do.CommitStage) for one in c.sessions}
        again = set()
        for session_id, epoch in self._present_epochs().items():
            before = self._epochs.get(session_id, epoch)
            expected = carried[session_id].epoch if session_id in carried else epoch
            if expected - before not in (0, 1):
                raise AssertionError(f"the epoch of {session_id} went from {before} to {expected}")
            if expected != before:
                again.add(session_id)
        return again

    def _judge_answer(self, event: Answer, again: set[str], commands: Iterable[do.Command]) -> None:
        """Only what a step holds in the present epoch counts, and all of it does."""
        is_current = self._was_serving and event.plan_version == self._plan_version
        segments = self._out.pop(event.step_id, ()) if is_current else ()
        held = {s.session_id: s for s in segments if self._epochs.get(s.session_id) == s.epoch}
        sound = {i: s for i, s in held.items() if not s.follows or s.sample_index == len(self._answers[i])}  # the token before it came
        good = _answered(event, sound) if isinstance(event, on.StepReported) else {}
        if strange := again - (held.keys() - good.keys()):
            raise AssertionError(f"{strange} were sent again for step {event.step_id}, which speaks of nothing that failed in their epoch")
        there = self._present_epochs()
        if forgotten := {s for s in held.keys() - good.keys() - again if s in there}:
            raise AssertionError(f"step {event.step_id} came back without an answer for {forgotten}, and nobody sends it again")
        self._careful |= again
        for command in commands:
            if isinstance(command, do.EmitToken) and good.get(command.session_id, {}).get(command.index) != command.token_id:
                raise AssertionError(f"{command.session_id}: token {command.index} is not what step {event.step_id} answered")

    # ------------------------------------------------------------------------------------------ commands
    def _judge(self, command: do.Command) -> None:
        match command:
            case do.EmitToken():
                self._answers[command.session_id].append(command.token_id)
                self._num_again[command.session_id] = 0
                self._careful.discard(command.session_id)
            case do.FinishSession() if command.reason is FinishReason.ERROR:
                given_up = isinstance(command.error, RETRIED) and not self._cluster.state.failure
                num_again = self._num_again[command.session_id] + (command.session_id in self._epochs)
                if given_up and num_again <= MAX_RECOVERIES:
                    raise AssertionError(
                        f"{command.session_id} was given up after {num_again} failures without a new token: {command.error}"
                    )

    def _judge_step(self, step: do.SendStep) -> None:
        for kept in step.kept:
            self._kept[kept.kept_id] = kept
        for kept_id in step.dropped:
            self._kept.pop(kept_id, None)
        for segment in step.segments:
            if segment.taken is not None:
                self._judge_taken(segment, segment.taken)
            self._judge_cut(segment)
            others = [s for out in self._out.values() for s in out if (s.session_id, s.epoch) == (segment.session_id, segment.epoch)]
            if segment.follows:
                self._judge_following(segment, others)
            if others and segment.session_id in self._careful:
                raise AssertionError(f"{segment.session_id} sends a part before the one ahead of it came back, though a step of it failed")
        if step.segments:
            self._out[step.step_id] = step.segments

    def _judge_following(self, segment: Segment, others: list[Segment]) -> None:
        """Only the stage that chose a token can feed it back, and only one that is certain to be chosen there, if any is."""
        session_id, plan = segment.session_id, self._cluster.plan
        if plan is None or len(plan.stages) != 1:
            raise AssertionError(f"{session_id} goes on behind a token that is not chosen on the first stage")
        before = [s for s in others if s.sample_index is not None]
        if [(s.sample_index, s.num_proposed) for s in before] != [((segment.sample_index or 0) - 1, 0)]:
            raise AssertionError(f"{session_id} goes on behind token {segment.sample_index}, and {before} are under way")
        session = self._cluster.scheduler.get(session_id)
        if session is None or session.request.grammar is not None:
            raise AssertionError(f"{session_id} has a grammar, and goes on behind a token that its mask depends on")

    def _judge_taken(self, segment: Segment, taken: Taken) -> None:
        """A session begins with what its caller's own session has, or left under this plan, and with the same tokens."""
        kept = self._kept.pop(taken.kept_id, None) if taken.moves else self._kept.get(taken.kept_id)
        is_running = taken.session_id in self._present_epochs()
        if not is_running and (kept is None or taken.num_tokens > kept.num_tokens):
            raise AssertionError(f"{segment.session_id} begins with {taken}, which no stage has and none was told to keep")
        owner_id = taken.session_id if is_running or kept is None else kept.session_id
        session_id, prompt = segment.session_id, self._prompts[segment.session_id]
        if self._callers[session_id] != self._callers[owner_id] or not self._callers[session_id]:
            raise AssertionError(f"{session_id} begins with tokens of another caller's {owner_id}")
        held = [*self._prompts[owner_id], *self._answers[owner_id]][: taken.num_tokens]
        if held != [*prompt[: taken.num_tokens]] or not segment.position == taken.num_tokens < len(prompt):
            raise AssertionError(f"{session_id} begins with {held} of {owner_id}, and its prompt is {prompt}")
        if session_id in self._cuts or self._taken.setdefault(session_id, taken.num_tokens) != taken.num_tokens:
            raise AssertionError(f"{session_id} was sent before, and now begins with tokens of {owner_id}")

    def _judge_cut(self, segment: Segment) -> None:
        """A prompt travels again in the chunks in which it first did: other shapes give other last bits.

        What it had taken over travels for the first time then, and only up to there.
        """
        start, stop = segment.position, segment.position + len(segment.token_ids)
        cuts = self._cuts.setdefault(segment.session_id, {})
        if start >= len(self._prompts[segment.session_id]):
            return
        if start < (taken := self._taken.get(segment.session_id, 0)) and not segment.taken:
            if stop > taken:
                raise AssertionError(f"{segment.session_id} had taken over {taken} tokens, and {start} to {stop} travel as one")
            return
        known = cuts.setdefault(start, stop) if start >= max(cuts.values(), default=0) else cuts.get(start)
        if known != stop:
            raise AssertionError(f"{segment.session_id} was cut at {cuts}, and now tokens {start} to {stop} travel as one")


def _answered(event: on.StepReported, held: dict[str, Segment]) -> dict[str, dict[int | None, int]]:
    """What the report really answers: by session, the token of each index, up to the first that is not the proposed one."""
    found: dict[str, dict[int | None, int]] = {}
    for session_id, segment in held.items():
        said = {
            o.sample_index: o.token_id for o in event.outcomes if (o.session_id, o.epoch) == (session_id, segment.epoch) and not o.error
        }
        if segment.sample_index not in said:
            continue
        tokens = found[session_id] = {segment.sample_index: said[segment.sample_index]}
        for proposed in segment.token_ids[len(segment.token_ids) - segment.num_proposed :]:
            index = (segment.sample_index or 0) + len(tokens)
            if said[index - 1] != proposed or index not in said:
                break
            tokens[index] = said[index]
    return found
