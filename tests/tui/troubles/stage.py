"""Stages a trouble with real processes and records what a console receives: `python -m tests.tui.troubles.stage [NAME ...]`.

Each recording begins with a cluster under a steady load; at `onset_s` the trouble begins. `troubles.json` says when, and where. Run it on a
machine that does nothing else: it is asked for more of the processor than others (as root), but where the load of others is heavy, a
recording rightly tells of that, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from engine.client.local_cluster import wait_until_serving
from engine.data.errors import NoodleError
from engine.data.generation import GenerateRequest
from engine.data.plan import Stage
from engine.data.watch_frame import WatchFrame
from engine.service.client import Client
from engine.service.local import LocalCluster
from engine.service.local_options import local_options
from engine.service.worker.options import WorkerOptions
from noodle_tui.cluster.recording import Recorder
from noodle_tui.options import DEMO
from tests.tui.troubles.wire import Wire

FOLDER = Path(__file__).parent / "recordings"
FACTS = FOLDER / "troubles.json"
CALM_S = 8.0
LATE = 1  # index of the worker behind the wire
HOGS_PER_CORE = 2


class WiredCluster(LocalCluster):
    """The second worker is reached over a wire that can be made slow."""

    def __init__(self, wire: Wire, **options: Any) -> None:
        chosen = {"model": "gpt2:tiny", "num_workers": 3, "num_threads": 1, "random_weights": 0, "strategy": "balanced", "adapt": "off"}
        super().__init__(local_options(**chosen | options))
        self.wire = wire

    def worker_options(self, index: int) -> WorkerOptions:
        options = super().worker_options(index)
        if index != LATE:
            return options
        server = replace(options.server, listen=f"127.0.0.1:{self.wire.target_port}")
        return replace(options, server=server, advertise=f"127.0.0.1:{self.wire.port}")


@dataclass
class Scene:
    """A cluster that runs, and what a trouble may need of it."""

    cluster: WiredCluster
    client: Client
    wire: Wire
    subject: str = ""

    def pid(self, name: str) -> int:
        return self.cluster.pids()[name]

    async def middle(self) -> str:
        """The node of the second stage."""
        return (await self.client.status()).stages[1].worker_id

    async def prompts(self, count: int, tokens: int, new: int, forever: bool = True) -> None:
        """So many sessions at a time."""

        async def one(number: int) -> None:
            while True:
                request = GenerateRequest(prompt_ids=tuple(range(10 + number, 10 + number + tokens)), max_new_tokens=new, ignore_eos=True)
                with contextlib.suppress(NoodleError):
                    async for _ in self.client.generate(request):
                        pass
                if not forever:
                    return

        await asyncio.gather(*(one(number) for number in range(count)))


Trouble = Callable[[Scene], Awaitable[None]]


async def slow_node(scene: Scene) -> None:
    scene.subject = await scene.middle()
    await scene.client.set_slowdown(scene.subject, 60.0)


async def slow_link(scene: Scene) -> None:
    scene.subject = f"w{LATE + 1}"
    scene.wire.delay_s = 0.08


async def flapping_link(scene: Scene) -> None:
    scene.subject = f"w{LATE + 1}"
    while True:
        scene.wire.delay_s = 0.4
        await asyncio.sleep(0.3)
        scene.wire.delay_s = 0.0
        await asyncio.sleep(1.5)


async def dead_node(scene: Scene) -> None:
    scene.subject = "w3"
    os.kill(scene.pid("w3"), signal.SIGKILL)


async def memory_short(scene: Scene) -> None:
    """The budgets are small from the start: what it takes to compute, beside weights, is more than they leave."""


async def kv_full(scene: Scene) -> None:
    await scene.prompts(5, 300, 600)


async def huge_prompts(scene: Scene) -> None:
    await scene.prompts(3, 851, 4)


async def by_hand(scene: Scene) -> None:
    """Layers cut by hand, against what was measured of the nodes."""
    status = await scene.client.status()
    names, items = [s.worker_id for s in status.stages], status.model.num_items
    stages = (Stage(names[0], 0, 1), Stage(names[1], 1, 2), Stage(names[2], 2, items))
    await scene.client.apply(status.plan_version, stages=stages)


async def busy_host(scene: Scene) -> None:
    """Programs that are none of the cluster's compute on every core, several to each."""
    scene.subject = (await scene.client.status()).nodes[0].host
    count = HOGS_PER_CORE * (os.cpu_count() or 1)
    command = (sys.executable, "-c", "while True: pass")
    hogs = [await asyncio.create_subprocess_exec(*command, start_new_session=True) for _ in range(count)]
    _let_session_come_first(*(hog.pid for hog in hogs))
    try:
        await asyncio.Event().wait()
    finally:
        for hog in hogs:
            hog.kill()
            await hog.wait()


async def coordinator_stalled(scene: Scene) -> None:
    pid = scene.pid("coordinator")
    os.kill(pid, signal.SIGSTOP)
    await asyncio.sleep(8.0)
    os.kill(pid, signal.SIGCONT)


async def story(scene: Scene) -> None:
    """What `noodle-console --demo` shows: a node becomes slow, an operator drains it, another is killed."""
    slow = await scene.middle()
    await scene.client.set_slowdown(slow, 30.0)
    await asyncio.sleep(20.0)
    await scene.client.drain(slow)
    await asyncio.sleep(14.0)
    victim = next(s.worker_id for s in reversed((await scene.client.status()).stages) if s.worker_id != slow)
    os.kill(scene.pid(victim), signal.SIGKILL)


@dataclass(frozen=True)
class Plot:
    """What is started, what is done to it, how long it is watched."""

    trouble: Trouble
    options: dict[str, Any]
    sessions: int = 2
    lasts_s: float = 18.0
    calm_s: float = CALM_S
    is_first: bool = True  # comes before everything else on this machine, which it can as long as it computes little


BIG = {"model": "gpt2"}
PLOTS = {
    "slow-node": Plot(slow_node, {}),
    "busy-host": Plot(busy_host, BIG, sessions=1, lasts_s=14.0, is_first=False),
    "slow-link": Plot(slow_link, {}),
    "flapping-link": Plot(flapping_link, {}),
    "dead-node": Plot(dead_node, {}),
    "memory-short": Plot(
        memory_short, BIG | {"memory_bytes": 252 * 10**6, "kv_memory_bytes": 24 * 10**6}, lasts_s=12.0, calm_s=0.0, is_first=False
    ),
    "kv-full": Plot(kv_full, {"kv_memory_bytes": 2**20}, sessions=1),
    "huge-prompts": Plot(huge_prompts, BIG, sessions=1, is_first=False),
    "old-plan": Plot(by_hand, {"adapt": "off", "slowdowns": (6.0, 6.0, 6.0)}),
    "adaptation-rests": Plot(by_hand, {"adapt": "suggest", "slowdowns": (6.0, 6.0, 6.0)}),
    "coordinator-stalled": Plot(coordinator_stalled, {}, lasts_s=20.0),
    "demo": Plot(story, {"adapt": "suggest", "slowdowns": (4.0, 4.0, 4.0)}, lasts_s=52.0),
}


@contextlib.asynccontextmanager
async def staged(plot: Plot) -> AsyncIterator[Scene]:
    wire = Wire()
    await wire.start()
    cluster = WiredCluster(wire, **plot.options)
    client: Client | None = None
    try:
        client = Client(
            await cluster.start(),
        )
        _let_session_come_first(*cluster.pids().values())
        await wait_until_serving(cluster)
        yield Scene(cluster, client, wire)
    finally:
        if client is not None:
            await client.close()
        await cluster.stop()
        await wire.close()


async def record(name: str, path: Path) -> dict[str, Any]:
    """One trouble from a calm beginning; returns its facts."""
    plot = PLOTS[name]
    async with staged(plot) as scene:
        loads = [asyncio.create_task(scene.prompts(plot.sessions, 8, 200))]
        await asyncio.sleep(6.0)  # until what the first steps took is over
        began_s, onset_s = time.monotonic(), 0.0
        recorder = Recorder(path, name, time.time(), began_s)
        async for frame in _frames(scene.client, recorder):
            recorder.frame(frame, time.time(), time.monotonic())
            passed_s = time.monotonic() - began_s
            if not onset_s and passed_s >= plot.calm_s:
                onset_s = passed_s if plot.calm_s else 1e-3
                loads.append(asyncio.create_task(plot.trouble(scene)))  # type: ignore[arg-type]
            if passed_s >= plot.calm_s + plot.lasts_s:
                break
        recorder.close()
        for load in loads:
            load.cancel()
        await asyncio.gather(*loads, return_exceptions=True)
        return {"onset_s": round(onset_s, 3), "subject": scene.subject, "load_average": os.getloadavg()[0]}


async def _frames(client: Client, recorder: Recorder) -> AsyncIterator[WatchFrame]:
    """As a console gets them: a coordinator that cannot be reached is asked again and again."""
    while True:
        try:
            async with contextlib.aclosing(client.watch(min_interval_s=1.0)) as frames:
                async for frame in frames:
                    yield frame
        except NoodleError as error:
            recorder.lost(str(error), time.time(), time.monotonic())
            await asyncio.sleep(1.0)


def main() -> None:
    facts = json.loads(FACTS.read_text()) if FACTS.exists() else {}
    for name in sys.argv[1:] or PLOTS:
        _ask_for_cores(PLOTS[name].is_first)
        with tempfile.TemporaryDirectory() as folder:
            made = Path(folder) / f"{name}.jsonl.gz"
            facts[name] = asyncio.run(record(name, made))
            (DEMO if name == "demo" else FOLDER / made.name).write_bytes(made.read_bytes())
        facts.pop("demo", None)
        FACTS.write_text(json.dumps(facts, indent=1, sort_keys=True) + "\n")
        print(name, facts.get(name), flush=True)


def _ask_for_cores(is_first: bool) -> None:
    """The processes that follow are started the same way."""
    with contextlib.suppress(PermissionError, AttributeError):
        os.sched_setscheduler(0, os.SCHED_RR if is_first else os.SCHED_OTHER, os.sched_param(1 if is_first else 0))
        os.setpriority(os.PRIO_PROCESS, 0, 0 if is_first else -10)


def _let_session_come_first(*pids: int) -> None:
    """Linux may share cores by session first, and by process only within one."""
    for pid in pids:
        with contextlib.suppress(OSError):
            Path(f"/proc/{pid}/autogroup").write_text("-15")


if __name__ == "__main__":
    main()
