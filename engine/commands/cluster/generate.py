"""`noodle-engine generate`: one session on a running cluster, streamed."""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.commands.cluster.options import Generate
from engine.commands.cluster.used import logprobs_document, used_document, used_notes
from engine.commands.output import note, print_json, stand_in_note
from engine.data.errors import InvalidInput, NoodleError
from engine.data.generation import FinishReason, GenerateRequest, Grammar, GrammarKind, PromptMode, TokenChunk, Used
from engine.data.json_text import json_text
from engine.files import read_document, read_stdin
from engine.printable import printable
from engine.service.client import Client


@dataclass(slots=True)
class Transcript:
    """Everything one session sent, with when it came."""

    started_s: float
    prompt_ids: tuple[int, ...] = ()
    chunks: list[TokenChunk] = field(default_factory=list)
    arrived_s: list[float] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    used: Used | None = None  # what the coordinator made of the request
    stand_in_tokenizer: str = ""  # why the text went through bytes; empty if it went through the model's own tokenizer
    cached_tokens: int = 0  # of the prompt's, those that were not computed again

    def add(self, chunk: TokenChunk) -> None:
        self.prompt_ids = chunk.prompt_ids or self.prompt_ids
        self.finish_reason = chunk.finish_reason or self.finish_reason
        self.used = chunk.used or self.used
        self.stand_in_tokenizer = chunk.stand_in_tokenizer or self.stand_in_tokenizer
        self.cached_tokens = chunk.cached_tokens or self.cached_tokens
        self.chunks.append(chunk)
        if chunk.index >= 0:
            self.arrived_s.append(time.monotonic())

    @property
    def ttft_s(self) -> float:
        return self.arrived_s[0] - self.started_s if self.arrived_s else 0.0

    @property
    def tokens_per_s(self) -> float:
        """Decode speed: tokens after the first, over the time after the first."""
        spent_s = self.arrived_s[-1] - self.arrived_s[0] if len(self.arrived_s) > 1 else 0.0
        return (len(self.arrived_s) - 1) / spent_s if spent_s > 0 else 0.0

    def document(self) -> dict[str, Any]:
        tokens = [c for c in self.chunks if c.index >= 0]
        return {
            "prompt_ids": self.prompt_ids,
            "token_ids": [c.token_id for c in tokens],
            "text": "".join(c.text for c in self.chunks),
            "stand_in_tokenizer": self.stand_in_tokenizer,
            "finish_reason": self.finish_reason,
            "cached_tokens": self.cached_tokens,
            "ttft_s": self.ttft_s,
            "tokens_per_s": self.tokens_per_s,
            "step_p50_s": statistics.median([c.step_s for c in tokens[1:]] or [0.0]),
            "stages": _stages(tokens[1:] or tokens),
            "proposed": max((c.num_proposed for c in self.chunks), default=0),
            "accepted": max((c.num_accepted for c in self.chunks), default=0),
            **(used_document(self.used) if self.used is not None else {}),
            **({"logprobs": logprobs} if (logprobs := [logprobs_document(c.logprobs) for c in tokens if c.logprobs is not None]) else {}),
        }


def _stages(tokens: list[TokenChunk]) -> list[dict[str, Any]]:
    """Median time per stage over the decode steps, in pipeline order."""
    rows = []
    for position, worker_id in enumerate(t.worker_id for t in (tokens[-1].timings if tokens else ())):
        seen = [c.timings[position] for c in tokens if len(c.timings) > position]
        medians = {name: statistics.median(getattr(t, name) for t in seen) for name in ("compute_s", "queue_s", "wire_in_s", "wire_out_s")}
        rows.append({"worker_id": worker_id, **medians})
    return rows


def generate(options: Generate) -> int:
    """Generate, print, return the exit code."""
    return asyncio.run(_run(options, _request(options)))


def _request(options: Generate) -> GenerateRequest:
    prompt = read_stdin("a prompt") if options.prompt == "-" else options.prompt
    if prompt is not None and options.prompt_ids:
        raise InvalidInput("give either a prompt text or --prompt-ids, not both")
    chats = [name for name, given in (("--chat", options.chat), ("--system", options.system is not None)) if given]
    if chats and (options.raw or prompt is None):
        raise InvalidInput(
            f"{chats[0]} is for a prompt text that goes through the chat template: leave out {chats[0]}, --raw and --prompt-ids"
        )
    common: dict[str, Any] = {"max_new_tokens": options.max_new_tokens, "stop": options.stop, "ignore_eos": options.ignore_eos}
    if options.json_schema is not None:
        common["grammar"] = _schema(options.json_schema)
    sampling = options.sampling.request()
    if prompt is not None and options.system is not None:
        turns = [{"role": "system", "content": options.system}, {"role": "user", "content": prompt}]
        return GenerateRequest(messages=json_text(turns), sampling=sampling, **common)
    mode = PromptMode.RAW if options.raw else PromptMode.CHAT if options.chat else PromptMode.AUTO
    return GenerateRequest(prompt, options.prompt_ids, sampling=sampling, mode=mode, **common)


def _schema(path: Path) -> Grammar:
    try:
        return Grammar(GrammarKind.JSON_SCHEMA, read_document(path, "a JSON schema"))
    except InvalidInput as e:
        raise InvalidInput(f"--json-schema {path}: {e}") from e


async def transcribe(
    client: Client, request: GenerateRequest, show: Callable[[TokenChunk], None] | None = None, transcript: Transcript | None = None
) -> Transcript:
    """Run one session to its end; closing early cancels it, and what came until then stands in a `transcript` of the caller's."""
    transcript = transcript if transcript is not None else Transcript(0.0)
    transcript.started_s = time.monotonic()
    async with contextlib.aclosing(client.generate(request)) as chunks:
        async for chunk in chunks:
            transcript.add(chunk)
            if show is not None:
                show(chunk)
    return transcript


async def _run(options: Generate, request: GenerateRequest) -> int:
    async with options.connection.client() as client:
        transcript = await transcribe(client, request, _say_used if options.json else _show)
        dtype, grade = await _precision(client) if options.json else ("", "")
    document = transcript.document()
    if transcript.stand_in_tokenizer:
        note(stand_in_note(transcript.stand_in_tokenizer))
    if options.json:
        document |= {"dtype": dtype, "identity": grade}
        print_json(document)
        return 0
    print()
    stages = "  ".join(f"{s['worker_id']} {1e3 * s['compute_s']:.1f} ms" for s in document["stages"])
    note(
        f"{len(transcript.arrived_s)} tokens, {transcript.finish_reason}; first after {transcript.ttft_s:.2f} s, "
        f"then {transcript.tokens_per_s:.1f} tokens/s; {stages}"
    )
    return 0


async def _precision(client: Client) -> tuple[str, str]:
    """The dtype the cluster computes in and its identity grade; the answer is worth more, so a cluster that went away is no failure."""
    try:
        status = await client.status()
    except NoodleError:
        return "", ""
    return status.model.precision.computed_dtype, str(status.identity)


def _say_used(chunk: TokenChunk) -> None:
    """Before the answer: what was made of the request."""
    for text in used_notes(chunk.used) if chunk.used is not None else ():
        note(f"noodle-engine: {text}")


def _show(chunk: TokenChunk) -> None:
    """A terminal gets what cannot steer it; a file or a pipe gets the text."""
    _say_used(chunk)
    print(printable(chunk.text) if sys.stdout.isatty() else chunk.text, end="", flush=True)
