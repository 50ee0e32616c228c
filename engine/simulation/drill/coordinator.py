"""The coordinator of a drill: the real `Cluster`, a journal that survives crashes, and the shell's order of doing things. Pure.

As in the real shell, steps leave the moment the cluster asks for them; everything else follows a little later, so that a crash can
fall between a step and the journalling of the token that led to it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from engine.control import commands as do
from engine.control import events as on
from engine.control.cluster import Cluster, ClusterConfig
from engine.control.invariants import check_cluster
from engine.control.nodes.claims import Claim
from engine.control.sessions.reuse.prefix_cache import PrefixSettings
from engine.control.sessions.scheduler import SchedulerLimits
from engine.data.errors import NoodleError
from engine.data.generation import FinishReason, GenerateRequest
from engine.data.model import ModelCard
from engine.data.plan import NodeSpec
from engine.data.sampling import Sampling
from engine.simulation.drill.order_referee import OrderReferee
from engine.simulation.drill.session_referee import Referee
from engine.simulation.drill.world import World

NAME = "coordinator"
BACKLOG_S = 0.0005
TICK_S = 0.1
BLOCK_TOKENS = 2  # of prompts that are compared: those of a drill are short


@dataclass
class Session:
    """What the journal knows of a session."""

    prompt_ids: tuple[int, ...]
    request: GenerateRequest
    sampling: Sampling
    tokens: list[int] = field(default_factory=list)
    ended: do.FinishSession | None = None
    lost_token: bool = False  # a write failed: this session ends with an error, whatever the cluster knows


@dataclass
class Disk:
    """The journal: what one coordinator wrote, the next one reads."""

    sessions: dict[str, Session] = field(default_factory=dict)
    plan_version: int = 0
    incarnation: int = 0
    generation: int = 0
    drained: tuple[str, ...] = ()


class DrillCoordinator:
    """One incarnation; a crash ends it for good. `carry_out` gets every command that needs the network, `deliver` every token,
    `watch` every event's commands."""

    def __init__(
        self,
        world: World,
        disk: Disk,
        card: ModelCard,
        num_workers: int,
        carry_out: Callable[[DrillCoordinator, do.Command], None],
        deliver: Callable[[str, int, int], None],
        watch: Callable[[Cluster, list[do.Command]], None],
    ) -> None:
        self.world, self.disk, self._carry_out, self._deliver, self._watch = world, disk, carry_out, deliver, watch
        disk.incarnation += 1
        limits = SchedulerLimits(unknown_chunk_tokens=5, prompt_chunk_tokens=5, queue_timeout_s=1e9, step_timeout_s=3.0)
        prefixes = PrefixSettings(is_on=True, block_tokens=BLOCK_TOKENS)
        config = ClusterConfig(num_workers, limits=limits, speculate=world.speculate, prefix_cache=prefixes)
        self.cluster = Cluster(config, world.now_s, disk.plan_version, drained=disk.drained)
        self._referees = (Referee(self.cluster), OrderReferee(self.cluster))
        self.is_alive = True
        self._claims: dict[int, Claim] = {}  # by pid: of processes whose name a former one has
        self._backlog: deque[do.Command] = deque()
        self._is_draining = False
        self._dies_then: Callable[[], None] | None = None
        if self.cluster.members.drained != disk.drained:
            raise AssertionError(f"operators drained {disk.drained}, the next coordinator knows of {self.cluster.members.drained}")
        self.feed(on.ModelReady(card))
        for session_id, session in disk.sessions.items():
            if session.ended is None:
                epoch, tokens = disk.incarnation << 20, tuple(session.tokens)
                self.feed(on.SessionRestored(session_id, session.prompt_ids, session.request, tokens, epoch, sampling=session.sampling))
        self._tick()

    def feed(self, event: on.ClusterEvent) -> None:
        """Handle an event, check every invariant, and do what follows."""
        if not self.is_alive:
            return
        for referee in self._referees:
            referee.before(event)
        try:
            commands = self.cluster.handle(event, self.world.now_s)
        except NoodleError:
            check_cluster(self.cluster)
            return
        if commands or not isinstance(event, on.HeartbeatArrived | on.Tick):  # one of these that asks for nothing changed nothing
            check_cluster(self.cluster)
        for referee in self._referees:
            referee.after(event, commands)
        self._watch(self.cluster, commands)
        for command in commands:
            if isinstance(command, do.SendStep):
                self._carry_out(self, command)
            else:
                self._backlog.append(command)
        if self._backlog and not self._is_draining:
            self._is_draining = True
            self.world.after(BACKLOG_S * self.world.generator.random(), self._drain)

    def submit(self, session_id: str, prompt_ids: tuple[int, ...], request: GenerateRequest, sampling: Sampling) -> None:
        self.disk.sessions[session_id] = Session(prompt_ids, request, sampling)
        caller = b"one" if len(self.disk.sessions) % 4 else b"two"
        self.feed(on.SessionSubmitted(session_id, prompt_ids, request, sampling, caller))

    def check_quiet(self) -> None:
        """Called when nothing is under way and nothing fails."""
        self._referees[1].check_quiet()

    def is_free(self, spec: NodeSpec) -> bool:
        """Whether a process can have its name now; raises Refused once the one that has it was seen to live."""
        claim = self._claims.setdefault(spec.pid, Claim(self.cluster.members, spec))
        if not claim.is_free():
            return False
        del self._claims[spec.pid]
        return True

    def crash(self) -> None:
        self.is_alive = False

    def crash_while_writing(self, then: Callable[[], None]) -> None:
        """Die as soon as several things have to be done, after the first of them."""
        self._dies_then = then

    def live_on(self) -> None:
        self._dies_then = None

    def next_generation(self) -> int:
        self.disk.generation += 1
        return self.disk.generation

    def _drain(self) -> None:
        self._is_draining = False
        if self._dies_then is not None and len(self._backlog) > 1 and self.is_alive:
            for _ in range(1 + self.world.generator.randrange(len(self._backlog) - 1)):
                self._perform(self._backlog.popleft())
            self.crash()
            self._dies_then()
        while self._backlog and self.is_alive:
            self._perform(self._backlog.popleft())

    def _perform(self, command: do.Command) -> None:
        disk = self.disk
        match command:
            case do.EmitToken() if self._disk_is_full():
                disk.sessions[command.session_id].lost_token = True
                self.feed(on.SessionCancelled(command.session_id, "the journal cannot be written"))
            case do.EmitToken() if disk.sessions[command.session_id].lost_token:
                pass
            case do.EmitToken():
                tokens = disk.sessions[command.session_id].tokens
                if command.index != len(tokens):
                    raise AssertionError(f"{command.session_id}: token {command.index} is journalled behind {len(tokens)} others")
                tokens.append(command.token_id)
                self._deliver(command.session_id, command.index, command.token_id)
            case do.FinishSession():
                session = disk.sessions[command.session_id]
                session.ended = replace(command, reason=FinishReason.ERROR) if session.lost_token else command
            case do.AdoptPlan() if self._disk_is_full():
                pass  # as in the real shell: said in the log, and the plan runs all the same
            case do.AdoptPlan():
                if command.plan.plan_version <= disk.plan_version:
                    raise AssertionError(f"plan {command.plan.plan_version} is adopted after {disk.plan_version}")
                disk.plan_version = command.plan.plan_version
            case do.KeepDrained():
                disk.drained = disk.drained if self._disk_is_full() else command.worker_ids
            case do.Record():
                pass
            case do.Fault():
                raise command.error
            case _:
                self._carry_out(self, command)

    def _disk_is_full(self) -> bool:
        return self.world.generator.random() < self.world.hostility.disk_error

    def _tick(self) -> None:
        if self.is_alive:
            self.feed(on.Tick())
            self.world.after(TICK_S, self._tick)


def failed(session: Session) -> bool:
    return session.ended is not None and session.ended.reason is FinishReason.ERROR
