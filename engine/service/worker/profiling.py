"""A profile taken on a worker's node, beside what it serves: a process of its own, so that no step waits for it.

The process measures the same folder on the same device with the same number of threads. What it finds while sessions run
includes their share of the machine; its honesty figures say how noisy it was.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from engine.data.errors import InvalidInput, Unavailable
from engine.data.json_text import json_text
from engine.data.model import ModelRef
from engine.data.precision import AUTO
from engine.profile.profile import Profile
from engine.service import wire
from engine.service.errors import from_number
from protos import noodle_pb2 as pb

if TYPE_CHECKING:
    from engine.model.profiling.measure import MeasuredTimes


def measured_message(found: MeasuredTimes, slowdown: float) -> pb.MeasureReply:
    """What the coordinator is told of a first measurement, by a worker that plays a machine `slowdown` times as slow."""
    return pb.MeasureReply(
        decode_s=[time_s * slowdown for time_s in found.item_s],
        base_s=found.base_s * slowdown,
        row_share=found.rows.share,
        rows=found.rows.rows,
        row_factors=found.rows.factors,
    )


async def take_profile(request: pb.ProfileNodeRequest, folder: Path, only_config: bool) -> AsyncIterator[pb.ProfileMessage]:
    """Progress as it goes, then one message with the document. Raises what the profiler raised; ends its process in any case.

    With `only_config` the folder lacks the weights: made-up ones take as long.
    """
    command = _command(request, folder, only_config)
    if wrong := next((word for word in command if "\0" in word), None):
        raise InvalidInput(f"{wrong[:80]!r} is not allowed: no program can be given a text with a zero character")
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=2**26,
    )
    try:
        async for message in _read(process, request):
            yield message
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _read(process: asyncio.subprocess.Process, request: pb.ProfileNodeRequest) -> AsyncIterator[pb.ProfileMessage]:
    if process.stdout is None or process.stderr is None:
        raise AssertionError("the pipes were asked for")
    errors = asyncio.create_task(process.stderr.read())
    async for line in process.stdout:
        document = json.loads(line)
        if "error" in document:
            raise from_number(document["code"], document["error"])
        if "profile" in document:
            profile = Profile.from_json(json_text(document["profile"]))
            ref = wire.from_message(ModelRef, request.model)
            random_weights = ref.random_weights is not None
            named = replace(profile, model=ref.label, random_weights=random_weights, fingerprint=request.fingerprint)
            yield pb.ProfileMessage(progress=1.0, profile_json=named.to_json())
            return
        yield pb.ProfileMessage(progress=document["progress"], detail=document["detail"])
    tail = (await errors).decode(errors="replace").strip().splitlines()[-1:] or ["no output"]
    refused = await process.wait() == InvalidInput.exit_code  # its command line says what the request said
    raise (InvalidInput if refused else Unavailable)(f"profiling {request.folder} failed: {tail[0][:300]}")


def _command(request: pb.ProfileNodeRequest, folder: Path, only_config: bool) -> list[str]:
    """The folder is profiled as such, without asking a hub or writing weights; it gets its name back afterwards."""
    arguments = [sys.executable, "-m", "engine", "profile", str(folder), "--dtype", request.model.dtype, "--json-lines"]
    arguments += ["--kv-dtype", request.model.kv_dtype or AUTO]
    arguments += ["--made-up-weights"] if only_config else []
    arguments += ["--device", request.device, "--threads", str(request.num_threads)]
    return [*arguments, "--quick"] if request.quick else arguments
