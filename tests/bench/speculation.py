"""Answers with and without `--speculate auto`, in turns: `python -m tests.bench.speculation FOLDER [--workers 1] [--far]`.

FOLDER holds an instruct model. Two clusters run side by side and are asked in turns, so that both see the same machine: one
proposes, one does not. With `--far` every process has a network namespace of its own, 20 ms from the others (needs root). Prompts
to summarise and code to edit come from Python's own library; new text is drawn at temperature 1. One JSON line per kind of prompt:
seconds between the first and the last token without, divided by those with; and the answers that differ, of which none may.
"""

from __future__ import annotations

import argparse
import asyncio
import calendar
import contextlib
import fnmatch
import heapq
import inspect
import json
import os
import shutil
import tempfile
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from engine.commands.cluster.generate import Transcript, transcribe
from engine.data.generation import GenerateRequest
from engine.data.sampling import SamplingRequest
from engine.data.status import Phase
from engine.service.client import Client
from tests.service.hosts import Hosts, enter_new_namespace, why_not
from tests.service.nursery import Nursery

DELAY_S = 0.02
RATE_BITS_PER_S = 50e6
DEADLINE_S = 300.0
MODES = ("off", "auto")
DOCUMENTS = (heapq.__about__, tempfile.__doc__, textwrap.TextWrapper.__doc__, inspect.__doc__)  # type: ignore[attr-defined]
TEXTS = [inspect.cleandoc(text or "") for text in DOCUMENTS]
CODE = [inspect.getsource(f) for f in (fnmatch.filter, calendar.monthrange, textwrap.indent, shutil.ignore_patterns)]
STORIES = ["Tell me about a lighthouse in a storm.", "Why is the sky blue?", "How do I bake bread?", "What was the Silk Road?"]
KINDS = {
    "summarise": ([f"Summarize this text:\n\n{text[:1500]}" for text in TEXTS], 0.0),
    "edit": ([f"Add type hints to this function and print all of it:\n\n```python\n{code}```" for code in CODE], 0.0),
    "new text": (STORIES, 1.0),
}


@dataclass
class Pair:
    """The two clusters, by what they propose."""

    nursery: Nursery
    model: str
    num_workers: int
    hosts: Hosts | None = None
    addresses: dict[str, str] = field(default_factory=dict)

    def start(self) -> None:
        for port, mode in enumerate(MODES, 7070):
            listen = f"{self.hosts.address('c')}:{port}" if self.hosts else "127.0.0.1:0"
            arguments = ["--model", self.model, "--workers", str(self.num_workers), "--speculate", mode, "--listen", listen, "--insecure"]
            state = str(self.nursery.folder / mode)
            self.addresses[mode] = self._start("c", "coordinator", *arguments, "--state-dir", state)
            for number in range(1, self.num_workers + 1):
                listen = "0.0.0.0:0" if self.hosts else "127.0.0.1:0"
                more = ["--memory", "2G", "--kv-memory", "300M", "--listen", listen, "--insecure"]
                threads = "2" if self.num_workers == 1 else "1"
                self._start(f"w{number}", "worker", "--join", self.addresses[mode], "--id", f"w{number}", "--threads", threads, *more)

    def _start(self, host: str, *arguments: str) -> str:
        namespaces = self.hosts.namespaces(host) if self.hosts else ()
        return str(self.nursery.start(*arguments, "--log-level", "WARNING", namespaces=namespaces)[1]["address"])


async def measure(pair: Pair, kinds: list[str], num_prompts: int, num_tokens: int, rounds: int) -> int:
    num_wrong = 0
    async with contextlib.AsyncExitStack() as stack:
        clients = {mode: await stack.enter_async_context(Client(address)) for mode, address in pair.addresses.items()}
        for client in clients.values():
            await _ready(client, pair.num_workers)
            await transcribe(client, _request("Hello", 0.0, 16, 0))
        for kind in kinds:
            prompts, temperature = KINDS[kind]
            spent_s, counts, differ = dict.fromkeys(MODES, 0.0), [0, 0], 0
            ratios = []
            for number in range(rounds * num_prompts):
                request = _request(prompts[number % num_prompts], temperature, num_tokens, number)
                order = MODES if number % 2 else MODES[::-1]
                found = {mode: await transcribe(clients[mode], request) for mode in order}
                took_s = {mode: _decode_s(transcript) for mode, transcript in found.items()}
                for mode in MODES:
                    spent_s[mode] += took_s[mode]
                ratios.append(round(took_s["off"] / took_s["auto"], 2))
                differ += _ids(found["off"]) != _ids(found["auto"])
                last = found["auto"].chunks[-1]
                counts = [counts[0] + last.num_proposed, counts[1] + last.num_accepted]
            num_wrong += differ
            facts = {
                "kind": kind,
                "workers": pair.num_workers,
                "delay_s": DELAY_S if pair.hosts else 0.0,
                "times_as_fast": round(spent_s["off"] / spent_s["auto"], 2),
                "each": ratios,
                "proposed": counts[0],
                "accepted": counts[1],
                "differ": differ,
                "off_s": round(spent_s["off"], 1),
            }
            print(json.dumps(facts | {"load": [round(x, 1) for x in os.getloadavg()]}), flush=True)
    return 1 if num_wrong else 0


def _request(text: str, temperature: float, num_tokens: int, seed: int) -> GenerateRequest:
    messages = json.dumps([{"role": "user", "content": text}])
    return GenerateRequest(messages=messages, max_new_tokens=num_tokens, sampling=SamplingRequest(temperature=temperature, seed=seed))


def _ids(transcript: Transcript) -> list[int]:
    return [c.token_id for c in transcript.chunks if c.index >= 0]


def _decode_s(transcript: Transcript) -> float:
    return transcript.arrived_s[-1] - transcript.arrived_s[0]


async def _ready(client: Client, num_workers: int) -> None:
    async with asyncio.timeout(DEADLINE_S), contextlib.aclosing(client.watch(min_interval_s=0.1)) as frames:
        async for frame in frames:
            if frame.status.phase is Phase.SERVING and len(frame.status.stages) == num_workers:
                return


@contextlib.contextmanager
def _hosts(num_workers: int) -> Iterator[Hosts]:
    if why := why_not():
        raise SystemExit(f"--far: {why}")
    enter_new_namespace()
    names = ["op", "c", *(f"w{number}" for number in range(1, num_workers + 1))]
    hosts = Hosts(names, "op", DELAY_S, RATE_BITS_PER_S)
    try:
        yield hosts
    finally:
        hosts.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--far", action="store_true", help="processes 20 ms apart")
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--prompts", type=int, default=4, help="of each kind, at most 4")
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        hosts = stack.enter_context(_hosts(options.workers)) if options.far else None
        nursery = stack.enter_context(contextlib.closing(Nursery()))
        pair = Pair(nursery, str(options.folder), options.workers, hosts)
        pair.start()
        return asyncio.run(measure(pair, options.kinds.split(","), options.prompts, options.tokens, options.rounds))


if __name__ == "__main__":
    raise SystemExit(main())
