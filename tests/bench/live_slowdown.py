"""GPT-2 124M on three workers of this machine, eight sessions: one worker becomes slow and recovers, the cluster adapts by itself.

`python -m tests.bench.live --slowdown 3` prints one JSON document. Rates are tokens per second of all clients together. The new optimum
is not predicted but run: the planner's cut for the slowed cluster and its neighbours, each ordered by hand and served steadily in the
same run, and the best of them taken.
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import time
from dataclasses import dataclass, field, replace
from typing import Any

from engine.data.generation import GenerateRequest
from engine.data.plan import Plan, Stage
from engine.data.status import Event
from engine.planning.documents.problem_json import read_problem
from engine.planning.problem import PlanningNode, Problem
from engine.planning.strategies import make_plan
from engine.service.client import Client
from tests.bench.live import decoding, start

VICTIM = "w2"
WINDOW_S = 6.0
REACTION_S = 15.0
LIMIT_S = 60.0


@dataclass
class Load:
    """Eight clients that ask again as soon as they are answered."""

    client: Client
    arrived_s: list[float] = field(default_factory=list)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def start(self) -> None:
        self.tasks = [asyncio.create_task(self._ask(n)) for n in range(8)]

    async def _ask(self, number: int) -> None:
        prompt = tuple((7 * number + 3 * i) % 251 for i in range(32))
        while True:
            async for chunk in self.client.generate(GenerateRequest(prompt_ids=prompt, max_new_tokens=200 + 40 * number, ignore_eos=True)):
                if chunk.index >= 0:
                    self.arrived_s.append(time.time())

    def rate(self, start_s: float, stop_s: float) -> float:
        return sum(start_s <= t < stop_s for t in self.arrived_s) / max(1e-9, stop_s - start_s)

    async def steadily(self, seconds: float = WINDOW_S) -> float:
        started_s = time.time()
        await asyncio.sleep(seconds)
        return self.rate(started_s, started_s + seconds)

    async def stop(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


@dataclass
class Story:
    """The cluster's events, as they come."""

    client: Client
    events: list[Event] = field(default_factory=list)
    task: asyncio.Task[None] | None = None
    heard: asyncio.Event = field(default_factory=asyncio.Event)

    def start(self) -> None:
        self.task = asyncio.create_task(self._listen())

    async def until(self, start_s: float, kind: str, *words: str) -> None:
        """Return once there is such an event; after a minute without one, too."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LIMIT_S):
                while self.after(start_s, kind, *words) is None:
                    self.heard.clear()
                    await self.heard.wait()

    async def _listen(self) -> None:
        async for frame in self.client.watch(min_interval_s=0.1):
            self.events += frame.events
            self.heard.set()

    def after(self, start_s: float, kind: str, *words: str) -> float | None:
        """Seconds from `start_s` to the first event of that kind with all these words."""
        found = (e.wall_s for e in self.events if e.wall_s >= start_s and e.kind == kind and all(w in e.text for w in words))
        first = min(found, default=None)
        return None if first is None else first - start_s

    def told(self, start_s: float) -> list[str]:
        told = [e for e in self.events if e.wall_s >= start_s and e.kind in ("adapt", "plan")]
        return [f"{e.wall_s - start_s:6.2f} s {e.kind} {e.subject}: {e.text}" for e in told]


async def slowdown(factor: float, num_threads: int = 0) -> dict[str, Any]:
    """Before, slow, after the move, after the recovery, and the steady rates that the adapted rates are held against."""
    cluster, client = await start(num_threads)
    load, story = Load(client), Story(client)
    try:
        story.start()
        await client.set_adaptation("auto")
        load.start()
        await decoding(client)
        await asyncio.sleep(REACTION_S)  # the detectors know what is usual
        before = await load.steadily()
        slowed = await _change(client, load, story, factor)
        recovered = await _change(client, load, story, 1.0)
        steady = await _optima(client, load, factor)
        healthy = {"before": before, "recovered": recovered["after"], "optimum": steady["healthy"]}
        slow = {"slow": slowed["until_moved"], "after": slowed["after"], "optimum": steady["slowed"]}
        return {"factor": factor, "slowed": slowed, "recovered": recovered, "steady": steady, "tokens_per_s": {**healthy, "slowed": slow}}
    finally:
        await load.stop()
        if story.task is not None:
            story.task.cancel()
        await client.close()
        await cluster.stop()


async def _change(client: Client, load: Load, story: Story, factor: float) -> dict[str, Any]:
    """Change the victim's speed and wait for what the cluster does about it; None for what did not happen in a minute."""
    stages = await _stages(client)
    changed_s = time.time()
    await client.set_slowdown(VICTIM, factor)
    await story.until(changed_s, "plan", "moved")
    moved_s = story.after(changed_s, "plan", "moved")
    until_moved = load.rate(changed_s + 0.5, changed_s + (story.after(changed_s, "plan", "preparing") or LIMIT_S))
    await asyncio.sleep(max(0.0, changed_s + REACTION_S - time.time()))
    return {
        "noticed_s": story.after(changed_s, "adapt", VICTIM),
        "decided_s": story.after(changed_s, "adapt", "migrate"),
        "moved_s": moved_s,
        "stages_before": _text(stages),
        "until_moved": until_moved,
        "after": await load.steadily(2 * WINDOW_S),
        "stages_after": _text(await _stages(client)),
        "pauses_s": [m.pause_s for m in await client.moves()],
        "told": story.told(changed_s),
    }


async def _optima(client: Client, load: Load, factor: float) -> dict[str, Any]:
    """What the best cuts reach when they are simply given: rates in turns, so that a busy machine is as unkind to all of them."""
    await client.set_adaptation("off")
    problem, strategy = read_problem(await client.problem_json()), (await client.status()).strategy
    out: dict[str, Any] = {}
    for name, played in (("slowed", factor), ("healthy", 1.0)):
        await client.set_slowdown(VICTIM, played)
        plan = make_plan(_slowed(problem, played), strategy, 1)
        rates: dict[tuple[Stage, ...], list[float]] = {cut: [] for cut in (plan.stages, *neighbours(plan))}
        for _ in range(2):
            for cut in rates:
                await _apply(client, cut)
                rates[cut].append(await load.steadily())
        found = {cut: statistics.mean(r) for cut, r in rates.items()}
        best = max(found, key=lambda cut: found[cut])
        out[name], out[f"{name}_cuts"] = found[best], {_text(cut): rate for cut, rate in found.items()}
    return out


def neighbours(plan: Plan) -> list[tuple[Stage, ...]]:
    """One item more for the victim, one less: times of single tokens do not decide about packed steps to the last item."""
    out = []
    for delta in (-1, 1):
        sizes = [s.num_items + (delta if s.node_id == VICTIM else 0) for s in plan.stages]
        other = max((k for k, s in enumerate(plan.stages) if s.node_id != VICTIM), key=lambda k: -delta * sizes[k])
        sizes[other] -= delta
        if min(sizes) > 0:
            starts = [sum(sizes[:k]) for k in range(len(sizes))]
            out.append(tuple(Stage(s.node_id, a, a + n) for s, a, n in zip(plan.stages, starts, sizes, strict=True)))
    return out


def _slowed(problem: Problem, factor: float) -> Problem:
    def node(n: PlanningNode) -> PlanningNode:
        return replace(n, time_s=tuple(factor * t for t in n.time_s)) if n.node_id == VICTIM else n

    return replace(problem, nodes=tuple(node(n) for n in problem.nodes))


async def _apply(client: Client, cut: tuple[Stage, ...]) -> None:
    if await _stages(client) == cut:
        return
    await client.apply((await client.status()).plan_version, "", list(cut))
    async with contextlib.aclosing(client.watch(min_interval_s=0.1)) as frames:
        async for frame in frames:
            if tuple(Stage(s.worker_id, s.start, s.stop) for s in frame.status.stages) == cut:
                return


async def _stages(client: Client) -> tuple[Stage, ...]:
    return tuple(Stage(s.worker_id, s.start, s.stop) for s in (await client.status()).stages)


def _text(stages: tuple[Stage, ...]) -> str:
    return " ".join(f"{s.node_id}:{s.start}-{s.stop - 1}" for s in stages)
