"""`noodle-engine profile`: measure a model's layers on this machine, write what was found, name the bottleneck.

Writes profile.json (what the planner reads), profile.jsonl, profile.csv and dashboard.html; each appears by a rename,
so a reader sees a whole file or none.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from engine.commands.machine import options as commands
from engine.commands.machine.profile_text import as_text, bottlenecks
from engine.commands.output import note, print_json, say
from engine.commands.progress import Progress, ended_like_interrupted, shown_progress
from engine.data.errors import Corrupt, InvalidInput, NoodleError
from engine.data.model import ModelRef
from engine.data.precision import AUTO
from engine.files import make_folder, read_document
from engine.profile.profile import Profile
from engine.program import INTERRUPTED

if TYPE_CHECKING:
    from engine.model.profiling.workload import Workload


def profile(options: commands.Profile) -> int:
    """Profile a model, or compare two profiles that were written before."""
    if options.compare:
        from engine.commands.machine.profile_compare import compare

        if options.named.model is not None:
            raise InvalidInput("--compare takes two profiles and no model: leave the model out")
        return compare(read_profile(options.compare[0]), read_profile(options.compare[1]), as_json=options.json)
    if options.json_lines:
        return _take_lines(options)
    found, is_stopped = _take(options) if options.node is None else (_take_there(options, options.node), False)
    folder = options.out or Path(f"profile-{_file_name(found.model)}")
    files = _write(found, folder)
    if options.json:
        document = json.loads(found.to_json())
        print_json({**document, "bottlenecks": bottlenecks(found), "files": {name: str(path) for name, path in files.items()}})
    else:
        say(as_text(found))
        say(f"\nwritten to {folder}: {', '.join(files)}")
    if is_stopped:
        note("stopped: the profile holds what was measured until then")
    return INTERRUPTED if is_stopped else 0


def read_profile(path: Path) -> Profile:
    """A profile.json, or the one in a folder. Raises NotFound, Corrupt or NotSupported."""
    file = path / "profile.json" if path.is_dir() else path
    text = read_document(file, "a profile", "write it with `noodle-engine profile MODEL --out DIR`")
    try:
        return Profile.from_json(text)
    except Corrupt as error:
        raise Corrupt(f"{file}: {error}") from error


def _take(options: commands.Profile) -> tuple[Profile, bool]:
    """The profile, and whether it was stopped before its time was spent."""
    named = options.named
    stops: list[bool] = []
    with shown_progress("profile") as show, ended_like_interrupted():
        found = take_profile(named.ref(), options.measuring, named.cache.folder, show, options.out, on_stop=lambda: stops.append(True))
    return found, bool(stops)


def _take_there(options: commands.Profile, node_id: str) -> Profile:
    """The profile that a worker of a running cluster takes of the model it serves."""
    if options.named.model is not None:
        raise InvalidInput(f"--node {node_id} profiles the model that the cluster serves: leave {options.named.model!r} out")

    async def ask(show: Progress) -> str:
        document = ""
        async with options.connection.client() as client:
            async for answer in client.profile(node_id, options.measuring.quick):
                document = answer.profile_json
                show(answer.progress, answer.detail)
        return document

    with shown_progress(f"profile on {node_id}") as show:
        return Profile.from_json(asyncio.run(ask(show)))


def _take_lines(options: commands.Profile) -> int:
    """The same for a worker: progress, then the profile or the error, each as one JSON line."""
    from engine.service.errors import status_number

    try:
        found = take_profile(
            replace(options.named.ref(), model=options.named.model or ""),
            options.measuring,
            options.named.cache.folder,
            lambda done, detail: print_json({"detail": detail, "progress": done}),
        )
    except NoodleError as error:
        print_json({"error": str(error), "code": status_number(error)})
        return error.exit_code
    print_json({"profile": json.loads(found.to_json())})
    return 0


def take_profile(
    ref: ModelRef,
    measuring: commands.Measuring,
    cache_dir: Path,
    on_progress: Progress | None,
    out: Path | None = None,
    on_stop: Callable[[], None] | None = None,
) -> Profile:
    """Load the model and measure it; with `on_stop` an interrupt ends the measuring and not the profile.

    Raises what loading raises, NotSupported for a device without layer timing.
    """
    import torch

    from engine.model.hardware.devices import check_device
    from engine.model.hardware.limits import num_cores
    from engine.model.profiling.profile_assembly import profile_of
    from engine.model.profiling.profiler import WorkloadProfiler
    from engine.model.profiling.workload import CausalWorkload, load_workload
    from engine.model.sources.automatic import decided

    device = check_device(measuring.device or "cpu")
    torch.set_num_threads(measuring.num_threads or num_cores())
    if measuring.made_up_weights and ref.dtype == AUTO:
        ref = replace(ref, dtype="float32")
    ref = decided(ref, cache_dir, device=device, on_progress=on_progress)
    if measuring.made_up_weights:
        workload: Workload = CausalWorkload.made_up(Path(ref.model), ref, device=device)
    else:
        workload = load_workload(ref, cache_dir=cache_dir, device=device, on_progress=on_progress)
    if out is not None:
        make_folder(out)  # before the time is spent on what could not be written
    engine = WorkloadProfiler(workload, depth=measuring.depth, quick=measuring.quick, on_progress=on_progress, on_stop=on_stop)
    return profile_of(workload, engine.run(), depth=measuring.depth)


def _write(profile: Profile, folder: Path) -> dict[str, Path]:
    from engine.report.csv_export import write_csv, write_json
    from engine.report.dashboard import write_dashboard
    from engine.report.jsonl import write_profile_jsonl

    writers: dict[str, Callable[[Profile, Path], None]] = {
        "profile.json": write_json,
        "profile.jsonl": write_profile_jsonl,
        "profile.csv": write_csv,
        "dashboard.html": write_dashboard,
    }
    for name, write in writers.items():
        write(profile, folder / name)
    return {name: folder / name for name in writers}


def _file_name(model: str) -> str:
    """A label as a file name: the hub id's last part, letters, digits, '.', '_' and '-' only."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", model.partition(" (")[0].rstrip("/").rpartition("/")[2]).strip("-.")
    return name[:64] or "model"
