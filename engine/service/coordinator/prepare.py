"""Getting the model ready in a process of its own, because the coordinator never imports torch."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from pathlib import Path

from engine.data.errors import Unavailable
from engine.data.json_text import json_text
from engine.data.model import ModelCard, ModelRef
from engine.model.sources.card import from_json, ready_card
from engine.service.errors import from_number


async def prepare_model(ref: ModelRef, cache_dir: Path, on_progress: Callable[[float, str], None]) -> ModelCard:
    """The card of `ref`, whose folder is complete on return; raises what the model room raised."""
    card = await asyncio.to_thread(ready_card, ref, cache_dir)
    if card is not None:
        return card
    on_progress(-1.0, f"preparing {ref.label}")
    command = [sys.executable, "-m", "engine", "models", "describe", ref.model, "--dtype", ref.dtype, "--json-lines"]
    if ref.random_weights is not None:
        command += ["--random-weights", str(ref.random_weights)]
    command += ["--cache-dir", str(cache_dir)]
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, limit=2**24
    )
    try:
        return await _read(process, ref, on_progress)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _read(process: asyncio.subprocess.Process, ref: ModelRef, on_progress: Callable[[float, str], None]) -> ModelCard:
    if process.stdout is None or process.stderr is None:
        raise AssertionError("the pipes were asked for")
    errors = asyncio.create_task(process.stderr.read())
    async for line in process.stdout:
        document = json.loads(line)
        if "card" in document:
            await process.wait()
            return from_json(json_text(document["card"]))
        if "error" in document:
            raise from_number(document["code"], document["error"])
        on_progress(document["progress"], document["detail"])
    tail = (await errors).decode(errors="replace").strip().splitlines()[-1:] or ["no output"]
    raise Unavailable(f"preparing {ref.label} failed: {tail[0][:300]}")
