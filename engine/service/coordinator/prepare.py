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
from engine.model.sources.card import from_json, ready_cards
from engine.service.errors import from_number


async def prepare_model(ref: ModelRef, cache_dir: Path, on_progress: Callable[[float, str], None]) -> tuple[ModelCard, ...]:
    """The card of `ref`, or one for each dtype that `auto` may stand for; raises what the model room raised.

    Their folder is complete on return.
    """
    cards = await asyncio.to_thread(ready_cards, ref, cache_dir)
    if cards:
        return cards
    on_progress(-1.0, f"preparing {ref.label}")
    command = [sys.executable, "-m", "engine", "models", "describe", ref.model, "--dtype", ref.dtype, "--kv-dtype", ref.kv_dtype]
    command.append("--json-lines")
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


async def _read(process: asyncio.subprocess.Process, ref: ModelRef, on_progress: Callable[[float, str], None]) -> tuple[ModelCard, ...]:
    if process.stdout is None or process.stderr is None:
        raise AssertionError("the pipes were asked for")
    errors = asyncio.create_task(process.stderr.read())
    async for line in process.stdout:
        document = json.loads(line)
        if "cards" in document:
            await process.wait()
            return tuple(from_json(json_text(card)) for card in document["cards"])
        if "error" in document:
            raise from_number(document["code"], document["error"])
        on_progress(document["progress"], document["detail"])
    tail = (await errors).decode(errors="replace").strip().splitlines()[-1:] or ["no output"]
    raise Unavailable(f"preparing {ref.label} failed: {tail[0][:300]}")
