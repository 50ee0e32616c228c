"""A cluster over several hosts whose network is cut again and again: `python -m tests.service.partition [--minutes 3]`.

A coordinator, three workers and an operator, each in a network namespace of its own, 20 ms apart and with capped bandwidth (`hosts`; needs
root). Clients generate all the time; every 20 s some of the ways between the hosts go silent for 5 s, in both directions or in one, and
every answer is compared with that of single-process `generate()`. Figures for each cut: when anybody noticed, when the first token
came after it healed, how long tokens paused at most, when all three stages served again.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field

from engine.data.errors import NoodleError
from engine.data.generation import GenerateRequest
from engine.data.status import ClusterStatus, Event, Phase, Severity
from engine.service.client import Client
from tests.service.hosts import Hosts, enter_new_namespace, why_not
from tests.service.look_around import LONG_PROMPT, look_around
from tests.service.nursery import Nursery

MODEL = "llama:tiny"
PROMPTS = ((5, 6, 7, 8), (1, 2, 3), tuple(range(4, 40)))
NUM_TOKENS = 64
WORKERS = ("w1", "w2", "w3")
DELAY_S = 0.02
RATE_BITS_PER_S = 50e6
CUT_S = 5.0
PERIOD_S = 20.0
DEADLINE_S = 60.0


@dataclass(frozen=True)
class Cut:
    """The ways that go silent: frames of these (from, to) vanish."""

    name: str
    pairs: tuple[tuple[str, str], ...]


def both(*ends: tuple[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(pair for a, b in ends for pair in ((a, b), (b, a)))


def around(name: str, *, outwards: bool = True, inwards: bool = True) -> tuple[tuple[str, str], ...]:
    others = [other for other in ("op", "c", *WORKERS) if other != name]
    return tuple((name, o) for o in others if outwards) + tuple((o, name) for o in others if inwards)


CUTS = (
    Cut("w2 is cut off", around("w2")),
    Cut("coordinator and workers are cut apart", both(*(("c", w) for w in WORKERS))),
    Cut("w1 hears nobody", around("w1", outwards=False)),
    Cut("nobody hears w3", around("w3", inwards=False)),
    Cut("w1 and w2 are cut apart", both(("w1", "w2"))),
    Cut("w3 does not hear w2", (("w2", "w3"),)),
    Cut("the coordinator is cut off", around("c")),
    Cut("the client is cut off", around("op")),
    Cut("the coordinator does not hear w2", (("w2", "c"),)),
)


@dataclass
class Figures:
    """Of one cut, in seconds; the first two from its begin, the others from its end."""

    name: str
    noticed_s: float | None
    noticed_by: str
    longest_gap_s: float
    first_token_s: float
    whole_again_s: float


@dataclass
class Network:
    """Five hosts and the processes on them."""

    hosts: Hosts
    nursery: Nursery
    address: str = ""
    pids: dict[str, int] = field(default_factory=dict)

    def start(self, model: str = MODEL) -> None:
        state = str(self.nursery.folder / "state")
        arguments = [
            "--model",
            model,
            "--random-weights",
            "0",
            "--workers",
            str(len(WORKERS)),
            "--strategy",
            "balanced",
            "--state-dir",
            state,
            "--insecure",
        ]
        arguments += ["--listen", f"{self.hosts.address('c')}:7070", "--log-level", "WARNING"]
        self.pids["c"], said = self.nursery.start("coordinator", *arguments, namespaces=self.hosts.namespaces("c"))
        self.address = str(said["address"])
        for worker_id in WORKERS:
            self.start_worker(worker_id, "--listen", "0.0.0.0:0")

    def start_worker(self, worker_id: str, *more: str, host: str = "") -> dict[str, object]:
        arguments = ["--join", self.address, "--id", worker_id, "--threads", "1", "--insecure", "--log-level", "WARNING", *more]
        self.pids[worker_id], said = self.nursery.start("worker", *arguments, namespaces=self.hosts.namespaces(host or worker_id))
        return said


@dataclass
class Load:
    """Clients that generate without end, when their tokens came, and the answers that were wrong."""

    client: Client
    expected: dict[tuple[int, ...], list[int]]
    arrivals_s: list[float] = field(default_factory=list)
    num_answers: int = 0
    wrong: list[str] = field(default_factory=list)
    going: bool = True
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def keep_busy(self, prompt: tuple[int, ...]) -> None:
        while self.going:
            request = GenerateRequest(prompt_ids=prompt, max_new_tokens=NUM_TOKENS, ignore_eos=True)
            got = []
            try:
                async for chunk in self.client.generate(request):
                    if chunk.index >= 0:
                        self.arrived()
                        got.append(chunk.token_id)
            except NoodleError as e:
                self.wrong.append(f"{e}, after {len(got)} tokens")
                continue
            self.num_answers += 1
            if got != self.expected[prompt]:
                self.wrong.append(f"{got} for {prompt}")

    def arrived(self) -> None:
        self.arrivals_s.append(time.time())
        self.changed.set()

    async def first_after(self, time_s: float) -> float:
        """When the first token came after that time."""
        while not self.arrivals_s or self.arrivals_s[-1] <= time_s:
            self.changed.clear()
            await self.changed.wait()
        return next(t for t in self.arrivals_s if t > time_s)

    def longest_gap_s(self, start_s: float, stop_s: float) -> float:
        times = [t for t in self.arrivals_s if start_s - 1 < t < stop_s]
        return max((b - a for a, b in itertools.pairwise(times)), default=stop_s - start_s)


async def one_cut(network: Network, client: Client, load: Load, cut: Cut, length_s: float) -> Figures:
    """Cut, heal, and wait until all three stages serve again."""
    await until(client, is_whole)
    last = (await events(client))[-1].sequence
    watcher = asyncio.create_task(watch_ends(network.address))
    await asyncio.sleep(0.3)
    cut_s = network.hosts.cut(cut.pairs)
    await asyncio.sleep(length_s)
    healed_s = network.hosts.cut([])
    first_s = await asyncio.wait_for(load.first_after(healed_s), DEADLINE_S)
    await until(client, is_whole)
    whole_s = time.time()
    found = [e for e in await events(client) if e.sequence > last and e.severity in (Severity.WARN, Severity.ERROR)]
    signs = [(e.wall_s - cut_s, f"{e.subject}: {e.text}") for e in found if e.wall_s > cut_s]
    watcher.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        signs.append((await watcher - cut_s, "a client: its watch ended"))
    noticed_s, by = min(signs, default=(None, "nobody"))
    gap_s = load.longest_gap_s(cut_s, whole_s)
    return Figures(cut.name, noticed_s, by, gap_s, first_s - healed_s, whole_s - healed_s)


async def watch_ends(address: str) -> float:
    """When a client that looks on loses its connection."""
    async with Client(address) as client:
        with contextlib.suppress(NoodleError):
            async for _ in client.watch(min_interval_s=0.5):
                pass
    return time.time()


def is_whole(status: ClusterStatus) -> bool:
    return status.phase is Phase.SERVING and len(status.stages) == len(WORKERS)


async def until(client: Client, condition: Callable[[ClusterStatus], bool]) -> ClusterStatus:
    started_s = time.monotonic()
    status: object = None
    while time.monotonic() - started_s < DEADLINE_S:
        try:
            status = await client.status()
            if condition(status):
                return status
        except NoodleError as e:
            status = e
        await asyncio.sleep(0.05)
    raise AssertionError(f"waited {DEADLINE_S:.0f} s: {status}")


async def events(client: Client) -> list[Event]:
    async with contextlib.aclosing(client.watch()) as frames:
        async for frame in frames:
            return list(frame.events)
    return []


async def run(network: Network, cuts: list[Cut], expected: dict[tuple[int, ...], list[int]], options: argparse.Namespace) -> bool:
    """Carry the cuts out under load; prints a line of JSON for each, and one for the whole."""
    async with Client(network.address) as client:
        await until(client, is_whole)
        if LONG_PROMPT in expected:
            print(json.dumps(await look_around(network, client, expected.pop(LONG_PROMPT))), flush=True)
        load = Load(client, expected)
        clients = [asyncio.create_task(load.keep_busy(prompt)) for prompt in expected]
        await asyncio.wait_for(load.first_after(time.time()), DEADLINE_S)
        figures = []
        for cut in cuts:
            began_s = time.monotonic()
            figures.append(await one_cut(network, client, load, cut, options.seconds))
            print(json.dumps(asdict(figures[-1])), flush=True)
            await asyncio.sleep(max(0.0, began_s + options.period - time.monotonic()))
        load.going = False
        await asyncio.wait_for(asyncio.gather(*clients), DEADLINE_S)
        if options.verbose:
            for event in await events(client):
                print(f"{event.wall_s:.2f} {event.severity} {event.kind} {event.subject}: {event.text}")
    worst = {
        "identical": not load.wrong and load.num_answers > 0,
        "num_answers": load.num_answers,
        "noticed_s": max((f.noticed_s if f.noticed_s is not None else float("inf")) for f in figures),
        "first_token_s": max(f.first_token_s for f in figures),
        "wrong": load.wrong[:3],
    }
    print(json.dumps(worst), flush=True)
    return bool(worst["identical"])


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--period", type=float, default=PERIOD_S, help="seconds from one cut to the next")
    parser.add_argument("--seconds", type=float, default=CUT_S, help="how long each cut lasts")
    parser.add_argument("--rate", type=float, default=RATE_BITS_PER_S, help="bandwidth of each host, bits/s")
    parser.add_argument("--look-around", action="store_true", help="print other facts of such a cluster first")
    parser.add_argument("--only", type=int, nargs="*", help="these cuts, by number from 0")
    parser.add_argument("--verbose", action="store_true", help="print the coordinator's events at the end")
    options = parser.parse_args()
    if reason := why_not():
        print(f"skipped: {reason}")
        return 2
    enter_new_namespace()
    from tests.service.reference import reference

    chosen = [CUTS[i] for i in options.only] if options.only else [*CUTS]
    num_cuts = round(60 * options.minutes / options.period) if not options.only else len(chosen)
    cuts = [chosen[i % len(chosen)] for i in range(num_cuts)]
    hosts = Hosts(["op", "c", *WORKERS], "op", DELAY_S, options.rate)
    nursery = Nursery()
    try:
        network = Network(hosts, nursery)
        network.start()
        expected = {prompt: reference(MODEL, prompt, NUM_TOKENS) for prompt in PROMPTS}
        if options.look_around:
            expected[LONG_PROMPT] = reference(MODEL, LONG_PROMPT, 4)
        is_good = asyncio.run(run(network, cuts, expected, options))
    except BaseException:
        for path in sorted(nursery.folder.glob("*.err")):
            print(path.name, path.read_text()[-2000:])
        raise
    finally:
        nursery.close()
        hosts.close()
    return 0 if is_good else 1


if __name__ == "__main__":
    raise SystemExit(main())
