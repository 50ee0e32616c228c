"""`python -m tests.fuzz [--messages 100000] [--seed 1]`: every RPC of every service of a real cluster, with messages that went wrong.

Two workers and a coordinator serve; calls arrive by the worker's token, an operator's, a viewer's, an unknown one and none. Beside them
good sessions run all the time, and whatever the messages do to the cluster, their tokens must be those of single-process `generate()`.
It ends with 1 if a process died or wrote of a bug; if a call hung, was let in without the right, or ended with INTERNAL, UNKNOWN or no
reason; if a good session differed; or if memory, threads or descriptors grew. `--seed S --first I --messages N` sends the same again.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import contextlib
import random
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc.aio
from grpc_health.v1 import health_pb2

from engine.data.errors import NoodleError
from engine.data.generation import GenerateRequest
from engine.data.model import ModelRef
from engine.data.status import NodeState
from engine.folders import cache_folder
from engine.model.sources.source import resolve
from engine.model.weights.tensor_files import read_folder
from engine.planning.strategies import STRATEGIES
from engine.service.client import Client
from engine.service.trust.access import Access
from protos import noodle_pb2 as pb
from protos import noodle_pb2_grpc as rpc
from tests.fuzz.calls import Answer, Caller, call, callers, headers, objection
from tests.fuzz.messages import Nouns, message
from tests.service.good_sessions import GoodSessions
from tests.service.process_figures import ProcessFigures, figures_of, growth
from tests.service.reference import reference
from tests.service.running import Running, running

MODEL = "gpt2:tiny"
WORKERS = ("w1", "w2")
PROMPTS = ((5, 6, 7, 8), (1, 2, 3), tuple(range(4, 40)))
NUM_TOKENS = 48
NUM_SENDERS = 24
NUM_CHANNELS = 4  # to each process
WARM_UP = 0.2  # of the messages, before figures count
SETTLE_S = 60.0  # for what the last messages left behind to end
STANDSTILL_S = 60.0
SAY_S = 15.0
MOST_SAID = 40
VIEWER_TOKEN = "a-viewer-of-the-fuzz-alone"
METHODS = [
    method for file in (pb.DESCRIPTOR, health_pb2.DESCRIPTOR) for service in file.services_by_name.values() for method in service.methods
]
KINDS = [*pb.DESCRIPTOR.message_types_by_name.values()]
# Each of these occupies the cluster for a while when it is taken, so that there are fewer of them.
WEIGHTS = {"Profile": 0.02, "Measure": 0.05, "MeasureLinks": 0.1, "Load": 0.05, "Prepare": 0.1, "Unload": 0.05, "Drain": 0.2, "Apply": 0.2}


@dataclass
class Fuzz:
    """One run. What is sent follows from the seed and a message's number alone."""

    cluster: Running
    seed: int
    nouns: Nouns
    callers: tuple[Caller, ...]
    say: Callable[[str], None]
    findings: list[str] = field(default_factory=list)
    codes: collections.Counter[str] = field(default_factory=collections.Counter)
    num_sent: int = 0
    num_cut: int = 0

    async def run(self, indices: range) -> tuple[dict[str, ProcessFigures], dict[str, ProcessFigures]]:
        """Send them; returns the figures after warming up and at the end."""
        cut = indices.start + int(len(indices) * WARM_UP)
        await self.send_all(range(indices.start, cut))
        await self._settled({})
        before = figures_of(self.cluster.cluster.pids())
        await self.send_all(range(cut, indices.stop))
        return before, await self._settled(before)

    async def send_all(self, indices: range) -> None:
        pids, left = self.cluster.cluster.pids(), iter(indices)
        addresses = {"coordinator": self.cluster.address}
        addresses |= {n.worker_id: n.address for n in (await self.cluster.client.status()).nodes if n.worker_id in pids}
        async with contextlib.AsyncExitStack() as stack:
            channels = {
                name: [await stack.enter_async_context(Access().channel(address)) for _ in range(NUM_CHANNELS)]
                for name, address in addresses.items()
            }
            workers = [rpc.StageServiceStub(channels[name][0]) for name in WORKERS]
            mender = asyncio.create_task(self._mend(workers))
            try:
                await asyncio.gather(*(self._send(left, channels) for _ in range(NUM_SENDERS)))
            finally:
                mender.cancel()

    async def _send(self, left: Iterator[int], channels: Mapping[str, list[grpc.aio.Channel]]) -> None:
        for index in left:
            await self._send_one(index, channels)

    async def _send_one(self, index: int, channels: Mapping[str, list[grpc.aio.Channel]]) -> None:
        rng = random.Random(f"{self.seed}/{index}")
        method = rng.choices(METHODS, [WEIGHTS.get(m.name, 1.0) for m in METHODS])[0]
        who = "coordinator" if method.containing_service.name == "Control" else rng.choice(WORKERS)
        if method.containing_service.name in ("WeightService", "Health"):
            who = rng.choice([*channels])
        caller = rng.choice(self.callers)
        made = [message(method.input_type, KINDS, rng, self.nouns) for _ in range(rng.choice((1, 1, 3)) if method.client_streaming else 1)]
        extra = headers(rng, self.nouns) if method.name == "Report" else ()
        answer = await call(rng.choice(channels[who]), method, [content for _, content in made], (*caller.metadata, *extra))
        self._judge(index, method, who, caller, made, answer)

    def _judge(self, index: int, method: Any, who: str, caller: Caller, made: list[tuple[str, bytes]], answer: Answer) -> None:
        self.num_sent += 1
        self.num_cut += answer.is_cut
        self.codes["goes on" if answer.code is None else answer.code.name] += 1
        if said := objection(method, caller, answer):
            what = ", ".join(f"{name} ({content[:60].hex()}, {len(content)} bytes)" for name, content in made)
            self.find(f"{method.full_name} of {who} by {caller.name}: {said}; sent: {what}", index)

    def find(self, text: str, index: int = -1) -> None:
        again = f" (again: --seed {self.seed} --first {index} --messages 1)" if index >= 0 else ""
        self.findings.append(text + again)
        if len(self.findings) <= MOST_SAID:
            self.say(f"FINDING {text}{again}")

    async def _mend(self, workers: list[rpc.StageServiceStub]) -> None:
        """Take back what an operator may do for ever, so that the good sessions come to their end: they may wait, not differ."""
        client, metadata = self.cluster.client, self.callers[0].metadata
        while True:
            await asyncio.sleep(1.0)
            with contextlib.suppress(NoodleError):
                await client.set_adaptation("off")
            for node in await _status_or_none(client):
                with contextlib.suppress(NoodleError):
                    if node.worker_id not in WORKERS and node.state is NodeState.LOST:
                        await client.forget(node.worker_id)
                    elif node.is_drained:
                        await client.undrain(node.worker_id)
            for worker in workers:
                with contextlib.suppress(grpc.aio.AioRpcError):
                    await worker.SetSlowdown(pb.SetSlowdownRequest(factor=1.0), metadata=metadata, timeout=10.0)

    async def _drop_stages(self) -> None:
        """What serves is loaded again: the good sessions wait for a moment."""
        for node in await _status_or_none(self.cluster.client):
            if node.worker_id in WORKERS:
                async with Access().channel(node.address) as channel:
                    with contextlib.suppress(grpc.aio.AioRpcError):
                        await rpc.StageServiceStub(channel).Unload(pb.UnloadRequest(), metadata=self.callers[0].metadata, timeout=10.0)

    async def _settled(self, before: Mapping[str, ProcessFigures]) -> dict[str, ProcessFigures]:
        """The figures once they are flat, or once they had the time to become so.

        Steps that nobody's session sent have left sessions on the stages, with memory for them; they end with the stages.
        """
        await self._drop_stages()
        until_s = time.monotonic() + SETTLE_S
        while True:
            now = figures_of(self.cluster.cluster.pids())
            if time.monotonic() > until_s or (before and not growth(before, now)):
                return now
            if not before:
                await asyncio.sleep(2.0)
                return now
            await asyncio.sleep(0.5)


async def _status_or_none(client: Client) -> Any:
    with contextlib.suppress(NoodleError):
        return (await client.status()).nodes
    return ()


def nouns_of(cluster: Running) -> Nouns:
    """What a peer of this cluster would write into a field of that name."""
    status = cluster.status()
    folder = resolve(ModelRef(MODEL, 0), cache_dir=cache_folder())
    read = read_folder(folder)
    ids = (*WORKERS, "nobody")
    addresses = (*(n.address for n in status.nodes), cluster.address, "127.0.0.1:1")
    drained = ("worker_ids", "without_worker_id", "without_worker_ids", "with_worker_id", "with_worker_ids")
    workers = dict.fromkeys(("worker_id", "node_id", "to_worker_id", "source_worker_id", "next_worker_id", *drained), ids)
    versions = tuple(range(status.plan_version + 3))
    return {
        **workers,
        "unreachable_worker_id": ("", *ids),
        **dict.fromkeys(("address", "source_address", "next_address"), addresses),
        **dict.fromkeys(("plan_version", "expected_plan_version", "for_version"), versions),
        "session_id": ("", *(f"fuzz-{i}" for i in range(24))),
        "folder": (str(folder), str(folder), "", "/nowhere"),
        "fingerprint": (read.fingerprint, read.fingerprint, ""),
        "model": (MODEL, MODEL, "another"),
        "random_weights": (0,),
        "num_items": (status.model.num_items,),
        "start": tuple(range(status.model.num_items)),
        "stop": tuple(range(1, status.model.num_items + 1)),
        "strategy": ("", *STRATEGIES),
        "mode": ("off", "suggest", "auto"),
        "dtype": ("float32", "F32"),
        "factor": (1.0, 1.1, 2.0),
        "quick": (True,),
        "max_new_tokens": (1, 4, 16),
        "state": ("starting", "ready"),
        "top_p": (1.0, 0.5),
        "repetition_penalty": (1.0,),
    }


def run(num_messages: int, seed: int, first: int = 0, say: Callable[[str], None] = print, log: Path | None = None) -> list[str]:
    """One run on a cluster of its own; says what it sees and returns what was wrong."""
    with running(MODEL, len(WORKERS)) as cluster:
        lines: list[str] = []
        cluster.cluster.on_line = lambda name, line: lines.append(f"{name}: {line}")
        _add_viewer(cluster)
        tokens = cluster.cluster.tokens
        fuzz = Fuzz(cluster, seed, nouns_of(cluster), callers(tokens.worker, tokens.operator, VIEWER_TOKEN), say)
        asked = [GenerateRequest(prompt_ids=p, max_new_tokens=NUM_TOKENS, ignore_eos=True) for p in PROMPTS]
        good = GoodSessions(cluster.client, {r: reference(MODEL, r.prompt_ids, NUM_TOKENS) for r in asked})
        busy = [cluster.spawn(good.keep_busy(request)) for request in asked]
        began_s = time.monotonic()
        if flat := _watched(fuzz, good, cluster.spawn(fuzz.run(range(first, first + num_messages)))):
            before, after = flat
            for name, was in before.items():
                say(f"{name}: {was}; at the end {after.get(name)}")
            for text in growth(before, after):
                fuzz.find(text)
        good.is_going = False
        for session in busy:
            _wait(session, STANDSTILL_S)
            if not session.done():
                fuzz.find(f"a good session does not end: {cluster.status()}")
        for text in good.wrong:
            fuzz.find(f"a good session: {text}")
        for line in lines:
            if "incident" in line or "Traceback" in line:
                fuzz.find(f"a log: {line}")
        if log is not None:
            log.write_text("\n".join(lines))
        took_s = time.monotonic() - began_s
        say(f"{fuzz.num_sent} messages of seed {seed} in {took_s:.0f} s to {len(METHODS)} methods; {dict(fuzz.codes.most_common())}")
        say(f"{fuzz.num_cut} met a broken connection; {good.num_answers} good answers of {NUM_TOKENS} tokens, {len(good.wrong)} wrong")
        return fuzz.findings


def _watched(fuzz: Fuzz, good: GoodSessions, work: Any) -> Any:
    """What `work` returns; None if a process died, or no good session got a token for a while."""
    num_tokens, since_s = -1, time.monotonic()
    while not work.done():
        _wait(work, SAY_S)
        fuzz.say(f"{fuzz.num_sent} messages, {good.num_answers} good answers, {len(fuzz.findings)} findings")
        if good.num_tokens != num_tokens:
            num_tokens, since_s = good.num_tokens, time.monotonic()
        if time.monotonic() - since_s > STANDSTILL_S:
            fuzz.find(f"no good session got a token for {STANDSTILL_S:.0f} s, near message {fuzz.num_sent}: {fuzz.cluster.status()}")
            work.cancel()
            return None
        if died := fuzz.cluster.cluster.failures():
            for text in died:
                fuzz.find(f"near message {fuzz.num_sent}: {text}")
            work.cancel()
            return None
    return work.result()


def _add_viewer(cluster: Running) -> None:
    """A token of the least role, beside those that an embedded cluster has."""
    import os
    import signal

    path = cluster.cluster.tokens.path
    path.write_text(path.read_text() + f"viewer {VIEWER_TOKEN}\n")
    for pid in cluster.cluster.pids().values():
        os.kill(pid, signal.SIGHUP)


def _wait(work: Any, at_most_s: float) -> None:
    with contextlib.suppress(TimeoutError):
        work.exception(at_most_s)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="the number of the first message")
    parser.add_argument("--log", type=Path, help="write what the processes say into this file")
    options = parser.parse_args()
    findings = run(options.messages, options.seed, options.first, lambda text: print(text, flush=True), options.log)
    print(f"{len(findings)} findings" if findings else "nothing was found")
    return 1 if findings else 0


if __name__ == "__main__":
    raise SystemExit(main())
