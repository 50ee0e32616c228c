"""Drives a `Cluster` without a network: answers its commands at once or later, and checks it after every event."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from engine.control import commands as do
from engine.control import events as on
from engine.control.cluster import Cluster, ClusterConfig
from engine.control.invariants import check_cluster
from engine.control.sessions.reuse.prefix_cache import PrefixSettings
from engine.data.generation import GenerateRequest, StageTiming
from engine.data.measured_link import MeasuredLink
from engine.data.model import Item, ModelCard, ModelRef
from engine.data.plan import NodeSpec

CONTEXT_TOKENS = 64
EOS = 99


def card(num_items: int = 5, kv_bytes: int = 10) -> ModelCard:
    items = tuple(Item(f"h.{i}", 100, kv_bytes, 4) for i in range(num_items))
    return ModelCard(ModelRef("gpt2", 0), "/models/gpt2", "f" * 64, "GPT2", items, 8, 100, CONTEXT_TOKENS, (EOS,), None, 1000)


def spec(worker_id: str, pid: int = 1, memory_bytes: int = 10_000, kv_budget_bytes: int = 2_000) -> NodeSpec:
    return NodeSpec(worker_id, f"127.0.0.1:{9000 + pid}", f"host-{worker_id}", pid, "cpu", "a CPU", 1, memory_bytes, kv_budget_bytes)


def token_after(position: int) -> int:
    """What the model under test answers at a position; never EOS."""
    return (position * 7 + 3) % 90


@dataclass
class Driver:
    """`hold` keeps steps unanswered until `answer_all`, `hold_moves` a move's commands; every command ever seen is in `seen`."""

    num_workers: int = 3
    hold: bool = False
    hold_moves: bool = False
    now_s: float = 0.0
    seen: list[do.Command] = field(default_factory=list)
    held: list[do.SendStep] = field(default_factory=list)
    held_moves: list[on.ClusterEvent] = field(default_factory=list)
    tokens: dict[str, list[int]] = field(default_factory=dict)
    finished: dict[str, do.FinishSession] = field(default_factory=dict)
    wanted: dict[str, int] = field(default_factory=dict)
    released: list[str] = field(default_factory=list)
    times: dict[str, float] = field(default_factory=dict)
    links: dict[tuple[str, str], MeasuredLink] = field(default_factory=dict)
    answers_links: bool = True
    generation: int = 0
    pending: deque[on.ClusterEvent] = field(default_factory=deque)
    prefix_cache: PrefixSettings = field(default_factory=PrefixSettings)

    def __post_init__(self) -> None:
        self.cluster = Cluster(ClusterConfig(num_workers_expected=self.num_workers, prefix_cache=self.prefix_cache), self.now_s)

    def feed(self, event: on.ClusterEvent) -> None:
        """Handle one event, then whatever the answers to its commands bring, in order."""
        self.pending.append(event)
        if len(self.pending) > 1:
            return
        try:
            while self.pending:
                commands = self.cluster.handle(self.pending[0], self.now_s)
                check_cluster(self.cluster)
                self.seen += commands
                for command in commands:
                    self._answer(command)
                self.pending.popleft()
        except BaseException:
            self.pending.clear()
            raise

    def _answer(self, command: do.Command) -> None:
        match command:
            case do.MeasureWorker():
                time_s = self.times.get(command.worker_id, 1.0)
                num_items = self.cluster.card.num_items if self.cluster.card else 0
                self.feed(on.WorkerMeasured(command.worker_id, command.generation, (time_s,) * num_items))
            case do.MeasureLinks():
                pairs = [(command.worker_id, peer_id) for peer_id in command.peer_ids]
                links = tuple(link for a, b in pairs for pair in ((a, b), (b, a)) if (link := self.links.get(pair)))
                if self.answers_links:
                    self.feed(on.LinksMeasured(command.worker_id, command.generation, links))
            case do.LoadStage():
                self.feed(on.StageLoaded(command.worker_id, command.plan_version, 100, 120, 0.1))
            case do.PrepareStage():
                self._answer_move(on.StagePrepared(command.worker_id, command.plan_version, 100))
            case do.CopyKv():
                size = sum(r.stop_token - r.start_token for r in command.ranges)
                self._answer_move(on.KvCopied(command.transfer, command.plan_version, command.round, size))
            case do.CommitStage():
                self._answer_move(on.StageCommitted(command.worker_id, command.plan_version))
            case do.SendStep():
                self.released += command.releases
                if command.segments:
                    self.held.append(command)
                    if not self.hold:
                        self.answer_all()
            case do.EmitToken():
                assert command.index == len(self.tokens.setdefault(command.session_id, []))
                self.tokens[command.session_id].append(command.token_id)
            case do.Fault():
                raise command.error
            case do.FinishSession():
                assert command.session_id not in self.finished
                self.finished[command.session_id] = command

    def _answer_move(self, answer: on.ClusterEvent) -> None:
        if self.hold_moves:
            self.held_moves.append(answer)
        else:
            self.feed(answer)

    def answer_moves(self) -> None:
        while self.held_moves:
            self.feed(self.held_moves.pop(0))

    def answer_moves_once(self) -> None:
        """Answer what is held now, not what the answers lead to."""
        held, self.held_moves = self.held_moves, []
        for answer in held:
            self.feed(answer)

    def answer_all(self) -> None:
        while self.held:
            self.report(self.held.pop(0))

    def report(self, step: do.SendStep, timings: tuple[StageTiming, ...] = (), **changes: object) -> None:
        outcomes = tuple(
            on.SegmentOutcome(s.session_id, s.epoch, s.sample_index, token_after(s.position + len(s.token_ids)), **changes)  # type: ignore[arg-type]
            for s in step.segments
        )
        self.feed(on.StepReported("last", step.plan_version, step.step_id, outcomes, timings))

    def join(self, worker_id: str, **changes: int) -> int:
        self.generation += 1
        self.feed(on.WorkerRegistered(spec(worker_id, pid=self.generation, **changes), self.generation, ready=True))
        return self.generation

    def start(self) -> Driver:
        self.feed(on.ModelReady(card()))
        for i in range(self.num_workers):
            self.join(f"w{i + 1}")
        return self

    def submit(self, session_id: str, num_prompt: int = 4, max_new_tokens: int = 5) -> None:
        prompt = tuple(range(num_prompt))
        self.wanted[session_id] = max_new_tokens
        self.feed(on.SessionSubmitted(session_id, prompt, GenerateRequest(prompt_ids=prompt, max_new_tokens=max_new_tokens)))

    def beat(self, worker_id: str) -> None:
        member = self.cluster.members.get(worker_id)
        assert member is not None
        self.feed(on.HeartbeatArrived(worker_id, member.generation, "", -1.0))

    def texts(self) -> list[str]:
        return [c.text for c in self.seen if isinstance(c, do.Record)]
