"""`noodle-engine cache`: what is kept on this machine, and room made by removing what nobody used for long."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict

from engine.commands.machine.options import Cache
from engine.commands.output import note, print_json, say, table
from engine.data.binary_size import binary_size
from engine.model.sources.kept import Kept, kept_in, prune

DAY_S = 86400.0


def cache(options: Cache) -> int:
    """List, or prune."""
    folder = options.cache.folder
    is_pruned = options.action == "prune"
    found = prune(folder, options.older_than_days * DAY_S) if is_pruned else list(kept_in(folder))
    num_bytes = sum(kept.num_bytes for kept in found)
    if options.json:
        entries = [{**asdict(kept), "path": str(kept.path)} for kept in found]
        print_json({"folder": str(folder), "removed" if is_pruned else "entries": entries, "num_bytes": num_bytes})
        return 0
    if found:
        say(_text(found))
    did = f"removed {binary_size(num_bytes)}" if is_pruned else f"{binary_size(num_bytes)} in {folder}"
    hint = "" if is_pruned or not found else f"; `cache prune` removes what nobody used for {options.older_than_days} days"
    note(f"noodle-engine: {did}{hint}")
    return 0


def _text(found: Sequence[Kept]) -> str:
    rows = [(k.kind, k.name, binary_size(k.num_bytes), f"{max(0.0, time.time() - k.used_s) / DAY_S:.0f} days ago") for k in found]
    return table(("kind", "name", "size", "used"), rows)
