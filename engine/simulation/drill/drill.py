"""The drill: the real cluster and the real worker-side session logic in a world where everything that can fail does. Pure.

First a *calm* phase: layers move and a worker is restarted under load, and nothing may be sent twice. Then *trials*: one session is
interrupted after each of its tokens, and goes on all the same. Then a *safety* phase: workers are killed, stopped, woken and drained,
links are cut in one direction or both, messages are lost, doubled, delayed and reordered, reports are confused, keys and values cannot
be read, the coordinator crashes, its disk fails, plans change. At last a *liveness* phase: the world is kind again, every session must
come to its end, and every worker gives back what no plan needs. Throughout, no client may see a token that is wrong, missing, repeated
or not journalled, the cluster's invariants hold after every event, and two referees judge each event and what follows from it. In some
seeds the keys and values of few sessions fit at once. A seed replays bit for bit.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

from engine.control import events as on
from engine.control.sessions.scheduler import MAX_RECOVERIES
from engine.data.errors import Refused
from engine.data.generation import FinishReason, GenerateRequest, Grammar, GrammarKind
from engine.data.plan import NodeSpec, Stage
from engine.data.sampling import Sampling
from engine.data.status import Phase
from engine.simulation.drill.calm import Calm
from engine.simulation.drill.coordinator import NAME, Disk, DrillCoordinator, failed
from engine.simulation.drill.model import FICKLE_SEEDS, NUM_ITEMS, card, undisturbed
from engine.simulation.drill.prompts import any_prompt
from engine.simulation.drill.result import DrillFailure, DrillResult
from engine.simulation.drill.wire import Wire
from engine.simulation.drill.worker import DrillWorker
from engine.simulation.drill.world import HOSTILE, PEACE, Generator, World

JOINED_S, SAFETY_S = 2.0, 10.0
RELEASED_S = 0.05  # in which the stages hear that a session ended
MOVE_S = 1.0  # in which a move under load comes to its end where nothing fails
LIVENESS_S = 400.0
QUIET_S = 60.0  # in which the last changes of plan come to their end
TRIAL_S = 5.0  # in which an interrupted session gets its next token where nothing else fails
NUM_TRIALS = MAX_RECOVERIES + 2
TRIAL_TOKENS = 2 * NUM_TRIALS + 5  # another one may be on its way when the plan goes
AMPLE_KV_BYTES = 100_000
LEAST_KV_TOKENS = 40  # any one session fits on any one node
BEAT_S = 0.25
GRAMMAR = Grammar(GrammarKind.REGEX, ".*")  # that some sessions have: steps of theirs need a mask, whatever is in it


class Drill:
    """One history. Build it with a seeded generator and `run` it once."""

    def __init__(self, seed: int, generator: Generator, num_workers: int = 3, num_sessions: int = 6) -> None:
        self.seed, self._generator = seed, generator
        self.world = World(generator)
        self.names = [f"w{i + 1}" for i in range(num_workers)]
        self.workers: dict[str, DrillWorker] = {}
        self.disk = Disk()
        self.got: dict[str, list[int]] = {}
        self.expected: dict[str, list[int]] = {}
        self.num_faults = self._num_pids = 0
        self._num_sessions = num_sessions
        self._kv_bytes = self._any_kv_bytes()
        self.calm = Calm(self.workers)
        self.wire = Wire(self.world, self.workers, NUM_ITEMS, lambda: self.coordinator)
        self.coordinator = self._new_coordinator()
        for name in self.names:
            self._start_worker(name)

    def run(self) -> DrillResult:
        """All phases; raises DrillFailure."""
        try:
            self._calm()
            self._trials()
            self._safety()
            self._liveness()
            self._quiet()
        except AssertionError as e:
            raise DrillFailure(f"seed {self.seed} at {self.world.now_s:.3f} s: {e}") from e
        ended = self.disk.sessions.values()
        return DrillResult(
            seed=self.seed,
            num_tokens=sum(map(len, self.got.values())),
            num_faults=self.num_faults,
            num_sessions=len(ended),
            num_failed=sum(map(failed, ended)),
            num_given_up=sum(failed(session) and not session.lost_token for session in ended),
            num_plans=self.disk.plan_version,
            num_moves=self.wire.num_moves,
            trace=self.world.trace,
        )

    # ------------------------------------------------------------------------------------------ phases
    def _calm(self) -> None:
        self.world.run(JOINED_S)
        self.calm.is_on = self.calm.forbids_resending = True
        for _ in range(2):
            self._submit(1 + self._generator.randrange(25))
            self._run_for(0.06 * self._generator.random())
            self._move()
            self._run_for(MOVE_S, lambda: self.coordinator.cluster.rebalancer.move is None)
            self.calm.check_moves(self.coordinator.cluster)
        over = [session_id for session_id, session in self.disk.sessions.items() if session.ended is not None]
        self._run_for(RELEASED_S)
        self.calm.check_released(over)
        self.coordinator.check_quiet()
        self._converse()
        self._start_twin()
        self.calm.forbids_resending = False
        self._restart_worker()
        self.calm.is_on = False

    def _converse(self) -> None:
        """Each turn begins with what the one before it left."""
        turns, sessions, num_before = [tuple(range(6))], self.disk.sessions, len(self.disk.sessions)
        for _ in range(3):
            names = [self._submit(2, prompt) for prompt in turns]
            self._run_for(MOVE_S, self._all_ended)
            turns = [(*sessions[name].prompt_ids, *sessions[name].tokens, 7) for name in (names[0], names[-1])]
        self.calm.check_reuse(self.coordinator.cluster)
        self._num_sessions += len(sessions) - num_before

    def _restart_worker(self) -> None:
        """A supervisor starts a worker anew, and only later does the coordinator hear that the former one's connection broke."""
        name = self.world.choose(self.names)
        former = self.workers[name]
        former.is_alive = False
        successor = self._start_worker(name)
        self._run_for(0.1 * self._generator.random())
        self.coordinator.feed(on.WorkerLost(name, former.generation, "its connection broke"))
        self._run_for(2 * BEAT_S)
        if self.workers[name] is not successor:
            raise AssertionError(f"{name} was started again and did not get its name back")

    def _start_twin(self) -> None:
        """A machine was cloned: a second process asks for a name whose holder lives, and has to go."""
        name = self.world.choose(self.names)
        holder, twin = self.workers[name], self._start_worker(name)
        self._run_for(1.0)
        if twin.is_alive or self.workers[name] is not holder:
            raise AssertionError(f"a second process called {name} was not turned away")

    def _trials(self) -> None:
        session_id = self._submit(TRIAL_TOKENS, first_seed=FICKLE_SEEDS)  # token by token: each interruption comes after the next one
        got, cluster = self.got[session_id], self.coordinator.cluster
        for _ in range(NUM_TRIALS):
            before = len(got)
            self._run_for(TRIAL_S, lambda n=before: len(got) > n and cluster.phase is Phase.SERVING)  # type: ignore[misc]
            held = [m for m in cluster.members if m.stage is not None]
            if len(got) == before or not held:
                raise AssertionError(f"{session_id} does not get on: token {before + 1} of it did not come in {TRIAL_S} s")
            member = held[self._generator.randrange(len(held))]
            self.coordinator.feed(on.WorkerLost(member.spec.node_id, member.generation, "its connection broke"))

    def _run_for(self, time_s: float, done: Callable[[], bool] = lambda: False) -> None:
        self.world.run(self.world.now_s + time_s, done)

    def _safety(self) -> None:
        level = self._generator.random()
        self.world.hostility = HOSTILE.times(level)
        at_s = self.world.now_s
        until_s = at_s + SAFETY_S
        while at_s < until_s:
            at_s += 0.02 + 0.6 * self._generator.random() ** 2
            self.world.run(at_s)
            self._something_happens()

    def _liveness(self) -> None:
        self.world.hostility = PEACE
        self.world.blocked.clear()
        for worker in self.workers.values():
            worker.wake()
        self.coordinator.live_on()
        if not self.coordinator.is_alive:
            self.coordinator = self._new_coordinator()
        for name in self.names:
            if not self.workers[name].is_alive:
                self._start_worker(name)
        self.world.run(self.world.now_s + LIVENESS_S, self._all_ended)
        if not self._all_ended():
            left = [i for i, s in self.disk.sessions.items() if s.ended is None]
            cluster = self.coordinator.cluster
            raise AssertionError(f"{left} never end: {cluster.phase}, {cluster.state.detail!r}, plan {cluster.plan_version}")
        for session_id, session in self.disk.sessions.items():
            if session.ended is not None and session.ended.reason is FinishReason.LENGTH and session.tokens != self.expected[session_id]:
                raise AssertionError(f"{session_id} ended with {len(session.tokens)} tokens of {len(self.expected[session_id])}")

    def _quiet(self) -> None:
        def is_quiet() -> bool:
            cluster = self.coordinator.cluster
            return cluster.phase is Phase.SERVING and cluster.rebalancer.move is None and cluster.state.wish is None

        self._run_for(QUIET_S, is_quiet)
        if not is_quiet():
            raise AssertionError(f"changes of plan never end: {self.coordinator.cluster.phase}, {self.coordinator.cluster.state.wish}")
        self.coordinator.check_quiet()

    def _all_ended(self) -> bool:
        return all(s.ended is not None for s in self.disk.sessions.values())

    # ------------------------------------------------------------------------------------------ what happens
    def _something_happens(self) -> None:
        faults: list[Callable[[], None]] = [
            self._submit_another,
            self._submit_another,
            self._move,
            self._move,
            self._kill,
            self._pause,
            self._cut,
            self._crash,
        ]
        faults += [self._replan, self._cancel, self._drain, self._take_back]
        faults[self._generator.randrange(len(faults))]()
        self.num_faults += 1

    def _submit_another(self) -> None:
        if len(self.disk.sessions) < self._num_sessions and self.coordinator.is_alive:
            self._submit(1 + self._generator.randrange(25))

    def _submit(self, num_tokens: int, prompt: tuple[int, ...] = (), first_seed: int = 0) -> str:
        session_id = f"s{len(self.disk.sessions)}"
        prompt = prompt or any_prompt([*self.disk.sessions.values()], self._generator)
        seed = first_seed + self._generator.randrange(FICKLE_SEEDS)
        self.expected[session_id] = undisturbed(prompt, seed, num_tokens, NUM_ITEMS)
        self.got[session_id] = []
        request = GenerateRequest(prompt_ids=prompt, max_new_tokens=num_tokens, grammar=GRAMMAR if len(self.got) % 6 == 5 else None)
        self.coordinator.submit(session_id, prompt, request, Sampling(seed=seed))
        return session_id

    def _cancel(self) -> None:
        if self._generator.random() < 0.2 and self.disk.sessions:
            self.coordinator.feed(on.SessionCancelled(self.world.choose(list(self.disk.sessions)), "drill"))

    def _move(self) -> None:
        cluster = self.coordinator.cluster
        nodes = [m.spec.node_id for m in cluster.members.eligible()]
        if not nodes:
            return
        count = 1 + self._generator.randrange(len(nodes))
        order = sorted(nodes, key=lambda _: self._generator.random())[:count]
        cuts = sorted({1 + self._generator.randrange(NUM_ITEMS - 1) for _ in range(count - 1)})
        bounds = itertools.pairwise([0, *cuts, NUM_ITEMS])
        stages = tuple(Stage(n, a, b) for n, (a, b) in zip(order, bounds, strict=False))
        self.coordinator.feed(on.ReplanRequested(cluster.plan_version, "", stages))

    def _replan(self) -> None:
        self.coordinator.feed(on.ReplanRequested(self.coordinator.cluster.plan_version, ""))

    def _drain(self) -> None:
        self.coordinator.feed(on.DrainRequested((self.world.choose(self.names),)))

    def _take_back(self) -> None:
        """An operator ends a drain or strikes a node off the list, whether it makes sense or not."""
        name = self.world.choose(self.names)
        self.coordinator.feed(on.UndrainRequested((name,)) if self._generator.random() < 0.5 else on.ForgetRequested(name))

    def _kill(self) -> None:
        name = self.world.choose(self.names)
        worker = self.workers[name]
        if not worker.is_alive:
            return
        worker.is_alive = False
        if self._generator.random() < 0.7:  # its connection breaks; else only silence tells
            generation = worker.generation
            self.world.send(name, NAME, lambda: self.coordinator.feed(on.WorkerLost(name, generation, "its connection broke")))
        self.world.after(0.2 + 3.0 * self._generator.random(), lambda: self._revive(name, worker))

    def _revive(self, name: str, former: DrillWorker) -> None:
        if self.workers[name] is former:
            self._start_worker(name)

    def _pause(self) -> None:
        name = self.world.choose(self.names)
        worker = self.workers[name]
        worker.is_paused = True
        if self._generator.random() < 0.3:  # a supervisor takes it for dead: when it wakes, it has a successor
            self.world.after(self._generator.random(), lambda: self._revive(name, worker))
        self.world.after(6.0 * self._generator.random() ** 2, worker.wake)

    def _cut(self) -> None:
        one, other = self.world.choose([*self.names, NAME]), self.world.choose([*self.names, NAME])
        pairs = {(one, other)} if self._generator.random() < 0.5 else {(one, other), (other, one)}
        self.world.blocked |= pairs
        self.world.after(4.0 * self._generator.random() ** 2, lambda: self.world.blocked.difference_update(pairs))

    def _crash(self) -> None:
        if not self.coordinator.is_alive or self._generator.random() < 0.5:
            return
        if self._generator.random() < 0.5:
            self.coordinator.crash()
            self._crashed()
        else:
            self.coordinator.crash_while_writing(self._crashed)

    def _crashed(self) -> None:
        for worker in self.workers.values():
            if worker.is_alive and self._generator.random() < 0.8:
                self.world.after(0.01, lambda w=worker: w.receive(w.forget))  # type: ignore[misc]
        self.world.after(0.3 + self._generator.random(), self._restart)

    def _restart(self) -> None:
        if not self.coordinator.is_alive:
            self.coordinator = self._new_coordinator()

    # ------------------------------------------------------------------------------------------ processes
    def _new_coordinator(self) -> DrillCoordinator:
        return DrillCoordinator(self.world, self.disk, card(), len(self.names), self.wire.carry_out, self._deliver, self.calm.watch)

    def _start_worker(self, name: str) -> DrillWorker:
        self._num_pids += 1
        worker = DrillWorker(name, NUM_ITEMS, self._num_pids)
        self.workers.setdefault(name, worker)
        self._register(worker)
        self._beat(worker)
        return worker

    def _register(self, worker: DrillWorker) -> None:
        """Once, or again with every heartbeat while a former process has the name; it ends if that one is seen to live."""

        def arrive() -> None:
            coordinator = self.coordinator
            try:
                is_free = coordinator.is_alive and coordinator.is_free(self._spec(worker))
            except Refused:
                self.world.send(NAME, worker.worker_id, lambda: worker.receive(worker.end))
                return
            if is_free:
                self.workers[worker.worker_id] = worker
                generation = coordinator.next_generation()
                coordinator.feed(on.WorkerRegistered(self._spec(worker), generation, ready=True))
                self.world.send(NAME, worker.worker_id, lambda: worker.receive(lambda: self._registered(worker, generation)))

        self.world.send(worker.worker_id, NAME, arrive)

    def _registered(self, worker: DrillWorker, generation: int) -> None:
        worker.generation = max(worker.generation, generation)

    def _beat(self, worker: DrillWorker) -> None:
        if not worker.is_alive:
            return
        self.world.after(BEAT_S, lambda: self._beat(worker))
        if worker.is_paused:
            return
        generation = worker.generation

        def arrive() -> None:
            coordinator = self.coordinator
            if not coordinator.is_alive:
                return
            if coordinator.cluster.members.current(worker.worker_id, generation) is None:
                self.world.send(NAME, worker.worker_id, lambda: worker.receive(lambda: self._fenced(worker, generation)))
            coordinator.feed(on.HeartbeatArrived(worker.worker_id, generation, "", -1.0))

        self.world.send(worker.worker_id, NAME, arrive)

    def _fenced(self, worker: DrillWorker, generation: int) -> None:
        """The coordinator does not know this registration: hold nothing, and join again."""
        if worker.generation == generation:
            worker.forget()
            self._register(worker)

    def _spec(self, worker: DrillWorker) -> NodeSpec:
        host = f"host-{worker.worker_id}"
        return NodeSpec(worker.worker_id, f"{worker.worker_id}:1", host, worker.pid, "cpu", "", 1, 1_000_000, self._kv_bytes, 1)

    def _any_kv_bytes(self) -> int:
        if self._generator.random() < 0.6:
            return AMPLE_KV_BYTES
        token_bytes = sum(item.kv_bytes_per_token for item in card().items)
        return (LEAST_KV_TOKENS + self._generator.randrange(LEAST_KV_TOKENS)) * token_bytes

    # ------------------------------------------------------------------------------------------ clients
    def _deliver(self, session_id: str, index: int, token_id: int) -> None:
        got, expected = self.got[session_id], self.expected[session_id]
        if self.disk.sessions[session_id].tokens[index : index + 1] != [token_id]:
            raise AssertionError(f"{session_id}: token {index} was given out before it was journalled")
        got.extend(self.disk.sessions[session_id].tokens[len(got) :])  # a client that was away comes back for what it missed
        if got != expected[: len(got)]:
            raise AssertionError(f"{session_id}: token {len(got) - 1} is {got[-1]}, undisturbed it is {expected[len(got) - 1 : len(got)]}")
