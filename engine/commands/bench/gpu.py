"""`noodle-engine bench gpu`: what a stage reaches on an accelerator, beside transformers on the same card, then through a cluster.

Weights are made up. The stage and its peers hold nothing on disk; the cluster's workers load the same configuration from a
folder that is written for it and removed again.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from engine.commands.bench import gpu_stage
from engine.commands.bench.gpu_peers import peer_rows
from engine.commands.bench.options import Bench
from engine.commands.cluster.generate import Transcript, transcribe
from engine.commands.output import note, print_json, say, table
from engine.commands.serving.serve import wait_until_serving
from engine.data.errors import InvalidInput, NoodleError
from engine.data.generation import GenerateRequest, TokenChunk
from engine.service.client import Client
from engine.service.local import LocalCluster
from engine.service.local_options import local_options

DTYPE = "bfloat16"
STEPS = 32
_SPARE = 1.3  # stages are not all equally large
_PROMPT_TOKENS_BESIDE = 256  # that a step takes beside decoding sessions
_ROOM_TOKENS = 256  # that each session of a point may have beside its context
_CLUSTER_POINTS = ((1, 128), (8, 128), (32, 128), (128, 2048))  # sessions, tokens that each has


def bench_gpu(options: Bench) -> int:
    """Print a table for each size of model. Raises InvalidInput for a size or a device that is not there."""
    from engine.model.hardware.devices import check_device, on_device

    devices = [check_device(device.strip()) for device in options.device.split(",")]
    names = [name.strip() for name in options.model_config.split(",")]
    if unknown := [name for name in names if name not in gpu_stage.SIZES]:
        raise InvalidInput(f"model configuration {unknown[0]!r} is not known: use {', '.join(gpu_stage.SIZES)}")
    if "cpu" in devices:
        raise InvalidInput("bench gpu measures an accelerator: give --device cuda:0; for CPUs there is `noodle-engine bench decode`")
    with on_device(devices[0]):
        documents = {name: _measure(name, devices, options) for name in names}
    if options.json:
        print_json({"gpu": documents})
    else:
        say("\n\n".join(_text(name, document) for name, document in documents.items()))
    return 0


def _measure(name: str, devices: Sequence[str], options: Bench) -> dict[str, Any]:
    """The stage, then transformers, then the cluster: one after another, each gives its memory back."""
    from engine.model.hardware.devices import usable_memory
    from engine.model.hardware.freed_memory import release_memory

    config, device = gpu_stage.config_of(name), devices[0]
    document: dict[str, Any] = {"device": device, "dtype": DTYPE}
    note(f"{name}: one stage")
    document |= _stage(config, device)
    release_memory()
    note(_text(name, document))
    if not options.no_peers:
        note(f"{name}: transformers")
        document["peers"] = [asdict(row) | {"tokens_per_s": row.tokens_per_s} for row in peer_rows(config, device, DTYPE)]
        release_memory()
    if options.workers:
        with tempfile.TemporaryDirectory(prefix="noodle-bench-") as folder:
            note(f"{name}: writing weights for the cluster")
            _write_weights(config, Path(folder), device)
            document["cluster"] = []
            for where in layouts(devices, options.workers):
                note(f"{name}: a cluster on {', '.join(where)}")
                try:
                    points = fitting(config, where, options.tokens, document["weight_bytes"], usable_memory(device)[0])
                    document["cluster"].append(asyncio.run(_cluster(config, folder, where, points, options.tokens)))
                    note(_text(name, document | {"cluster": document["cluster"][-1:], "decode": [], "peers": []}))  # all take minutes
                except NoodleError as error:  # the other figures are worth having
                    note(f"{name}: a cluster on {', '.join(where)} did not run: {error}")
    return document


def _stage(config: Any, device: str) -> dict[str, Any]:
    from engine.model.hardware.devices import usable_memory

    rate = gpu_stage.copy_bytes_per_s(device)
    per_token = 2 * 2 * config.num_hidden_layers * config.num_key_value_heads * config.hidden_size // config.num_attention_heads
    wanted = max((sessions * (context + _ROOM_TOKENS) for sessions, context in gpu_stage.POINTS), default=0) * per_token
    stage = gpu_stage.build(config, device, min(wanted, usable_memory(device)[0] // 2), DTYPE)
    rows = gpu_stage.decode_rows(stage, gpu_stage.POINTS, STEPS, rate)
    return {
        "running": stage.running_text,
        "weight_bytes": stage.weight_bytes,
        "copy_bytes_per_s": rate,
        "decode": [asdict(row) | {"tokens_per_s": row.tokens_per_s, "of_floor": row.floor_s / row.step_s} for row in rows],
        "prompt_s": {tokens: gpu_stage.prompt_s(stage, tokens, 5) for tokens in (512, gpu_stage.PROMPT_TOKENS)},
    }


def layouts(devices: Sequence[str], most: int) -> list[tuple[str, ...]]:
    """The devices of each cluster's workers: one worker, then more of them on the first device and over all devices."""
    found = [tuple([devices[0]] * workers) for workers in range(1, most + 1)]
    spread = [tuple(devices[:workers]) for workers in range(2, most + 1) if workers <= len(devices)]
    return [*found, *(where for where in spread if where not in found)]


def fitting(config: Any, where: Sequence[str], num_tokens: int, weight_bytes: int, memory_bytes: int) -> list[tuple[int, int]]:
    """The points whose keys and values fit beside the weights on cards of that memory; the smaller ones in any case."""
    most = max(where.count(device) for device in where) / len(where)  # of the layers, on one card
    room = [_room_bytes(config, [point], num_tokens) for point in _CLUSTER_POINTS]
    return [
        p for p, num_bytes in zip(_CLUSTER_POINTS, room, strict=True) if p[1] <= 128 or most * (weight_bytes + num_bytes) <= memory_bytes
    ]


def _room_bytes(config: Any, points: Sequence[tuple[int, int]], num_tokens: int) -> float:
    """Of keys and values of all layers, for the largest point."""
    per_token = 4 * config.num_hidden_layers * config.num_key_value_heads * config.hidden_size // config.num_attention_heads
    tokens = max(sessions * (context + _answer_tokens(sessions, context, num_tokens) + 64) for sessions, context in points)
    return _SPARE * tokens * per_token


async def _cluster(config: Any, folder: str, where: Sequence[str], points: Sequence[tuple[int, int]], num_tokens: int) -> dict[str, Any]:
    """Tokens a second of sessions side by side, by what their clients saw, and the compute of a step."""
    room_bytes = int(_room_bytes(config, points, num_tokens) / len(where))
    devices = ",".join(where)
    options = local_options(
        model=folder, dtype=DTYPE, num_workers=len(where), device=devices, kv_memory_bytes=room_bytes, strategy="balanced", adapt="off"
    )
    async with AsyncExitStack() as stack:
        cluster = LocalCluster(options)
        stack.push_async_callback(cluster.stop)
        await cluster.start()
        await wait_until_serving(cluster)
        client = await stack.enter_async_context(Client(cluster.address))
        await _round(client, 1, gpu_stage.POINTS[0][1], 16)
        rows = []
        for sessions, context in points:
            transcripts = await _round(client, sessions, context, _answer_tokens(sessions, context, num_tokens))
            if figures := _figures(sessions, transcripts):
                rows.append(figures | {"context": context})
            else:
                note(f"{sessions} sessions of {context} tokens: answers ended before the last prompt was read; give more --tokens")
        stages = [f"{stage.worker_id}: [{stage.start}, {stage.stop})" for stage in (await client.status()).stages]
    return {"workers": len(where), "devices": list(where), "stages": stages, "sessions": rows}


def _write_weights(config: Any, folder: Path, device: str) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    from engine.model.hardware.freed_memory import release_memory

    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, DTYPE))
    model.save_pretrained(folder)
    del model
    release_memory()


def _answer_tokens(sessions: int, context: int, num_tokens: int) -> int:
    """So many that the first answers still go on when the last prompt has been read."""
    return num_tokens + sessions * context // _PROMPT_TOKENS_BESIDE


async def _round(client: Client, sessions: int, context: int, num_tokens: int) -> list[Transcript]:
    prompts = [tuple((7 * row + 3 * i) % 251 + 1 for i in range(context)) for row in range(sessions)]
    requests = [GenerateRequest(prompt_ids=prompt, max_new_tokens=num_tokens, ignore_eos=True) for prompt in prompts]
    return list(await asyncio.gather(*(transcribe(client, request) for request in requests)))


def _figures(sessions: int, transcripts: Sequence[Transcript]) -> dict[str, Any]:
    """Medians over the steps in which all sessions decode: from the last first token to the first last one. Empty without such steps."""
    begin_s, end_s = max(t.arrived_s[0] for t in transcripts), min(t.arrived_s[-1] for t in transcripts)
    tokens = [(chunk, s) for t in transcripts for chunk, s in zip(_with_token(t), t.arrived_s, strict=True) if begin_s < s <= end_s]
    if not tokens:
        return {}
    compute_s = statistics.median(sum(timing.compute_s for timing in chunk.timings) for chunk, _ in tokens)
    step_s = sessions * (end_s - begin_s) / len(tokens)
    return {"sessions": sessions, "step_s": step_s, "compute_s": compute_s, "tokens_per_s": sessions / step_s, "share": compute_s / step_s}


def _with_token(transcript: Transcript) -> Iterable[TokenChunk]:
    return (chunk for chunk in transcript.chunks if chunk.index >= 0)


def _text(name: str, document: dict[str, Any]) -> str:
    head = f"{name}, {document['dtype']}, {document['device']}, copies at {document['copy_bytes_per_s'] / 1e12:.2f} TB/s; medians"
    rows = [_peer_cells(row) for row in document.get("peers", ())]
    for row in document["decode"]:
        what = f"stage, {row['context']} tokens"
        rows.append((what, str(row["sessions"]), f"{1e3 * row['step_s']:.2f}", f"{row['tokens_per_s']:.0f}", f"{row['of_floor']:.2f}"))
    for cluster in document.get("cluster", ()):
        for row in cluster["sessions"]:
            cells = f"{1e3 * row['step_s']:.2f}", f"{row['tokens_per_s']:.0f}", f"compute {row['share']:.2f}"
            what = f"{cluster['workers']} workers on {', '.join(dict.fromkeys(cluster['devices']))}, {row['context']} tokens"
            rows.append((what, str(row["sessions"]), *cells))
    prompts = "; ".join(f"{tokens} tokens in {1e3 * spent_s:.1f} ms" for tokens, spent_s in document["prompt_s"].items())
    body = table(("WHAT", "SESSIONS", "STEP ms", "TOKENS/S", "OF FLOOR"), rows)
    return "\n".join((head, body, f"prompts: {prompts}", document["running"]))


def _peer_cells(row: dict[str, Any]) -> tuple[str, ...]:
    if row["refusal"]:
        return row["name"], str(row["sessions"]), "-", "-", row["refusal"]
    return row["name"], str(row["sessions"]), f"{1e3 * row['step_s']:.2f}", f"{row['tokens_per_s']:.0f}", ""
