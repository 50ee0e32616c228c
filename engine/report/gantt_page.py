"""A simulation as one interactive HTML file: which stage computed what and when, its KV over time, utilisation, links.

This file turns a result into columns of plain figures; `page` makes the file, `web/gantt.js` draws it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engine.files import replace_whole
from engine.report.page import render_page
from engine.simulation.result import SimulationResult

_SCRIPTS = ("names.js", "chart.js", "gantt.js")
_MAX_SESSIONS_SHOWN = 6  # in the label of a step


def write_gantt(result: SimulationResult, title: str, path: Path) -> None:
    """Write the file, whole or not at all; raises NoodleError when the disk refuses."""
    replace_whole(path, render_page("gantt.html", title, gantt_document(result, title), _SCRIPTS))


def gantt_document(result: SimulationResult, title: str) -> dict[str, Any]:
    """What the page draws; times in seconds, sizes in bytes."""
    spans = result.spans
    return {
        "title": title,
        "tiles": _tiles(result),
        "stages": [
            {
                "name": f"S{k} {s.node_id} {s.start}-{s.stop - 1}",
                "utilisation": s.utilisation,
                "bubble_share": s.bubble_share,
                "kv_time_s": [time_s for time_s, _ in s.kv_timeline],
                "kv_bytes": [num_bytes for _, num_bytes in s.kv_timeline],
            }
            for k, s in enumerate(result.stages)
        ],
        "links": [{"name": f"{link.sender} > {link.receiver}", "num_bytes": link.num_bytes} for link in result.links],
        "spans": {
            "stage": [span.stage for span in spans],
            "start_s": [span.start_s for span in spans],
            "stop_s": [span.stop_s for span in spans],
            "label": [_label(span.session_ids) for span in spans],
            "session": [span.session_ids[0] for span in spans],
            "is_prompt": [span.is_prompt for span in spans],
        },
        "num_steps": sum(s.num_steps for s in result.stages),
    }


def _label(session_ids: tuple[str, ...]) -> str:
    more = len(session_ids) - _MAX_SESSIONS_SHOWN
    return ", ".join(session_ids[:_MAX_SESSIONS_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _tiles(result: SimulationResult) -> list[tuple[str, str]]:
    return [
        (f"{result.tokens_per_s:.1f}", "tokens/s, all sessions"),
        (f"{1e3 * result.ttft_s.p50:.1f} ms", "time to first token, p50"),
        (f"{1e3 * result.ttft_s.p95:.1f} ms", "time to first token, p95"),
        (f"{1e3 * result.inter_token_s.p50:.1f} ms", "between tokens, p50"),
        (f"{1e3 * result.inter_token_s.p95:.1f} ms", "between tokens, p95"),
        (f"{result.makespan_s:.2f} s", f"{result.num_sessions} sessions, {result.num_tokens} tokens"),
    ]
