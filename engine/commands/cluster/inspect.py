"""`status` and `events`: what the console shows, for scripts and screen readers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from engine.commands.cluster.options import Events, Status
from engine.commands.output import print_json, say, table
from engine.data.binary_size import binary_size
from engine.data.measured_link import MeasuredLink
from engine.data.status import ClusterStatus, Event, NodeStatus, PrefixCacheStatus, SessionStatus
from engine.printable import one_line


def status(options: Status) -> int:
    """Print one look at the cluster."""
    found, links = asyncio.run(_status(options))
    if options.json:
        print_json(_document(found) | {"links": [asdict(link) for link in links]})
    else:
        say(_text(found) + link_table(links))
    return 0


async def _status(options: Status) -> tuple[ClusterStatus, tuple[MeasuredLink, ...]]:
    async with options.connection.client() as client:
        return await client.status(), await client.links()


def link_table(links: Sequence[MeasuredLink]) -> str:
    """Round trip and bandwidth with their spread, behind an empty line; nothing without links."""
    rows = [(link.from_id, link.to_id, *_link_cells(link)) for link in links]
    return f"\n\n{table(('LINK', 'TO', 'TRIP ms', '10%-90%', 'MB/s', '10%-90%', 'WHAT'), rows)}" if rows else ""


def _link_cells(link: MeasuredLink) -> tuple[str, ...]:
    if link.failure:
        return "-", "-", "-", "-", link.failure
    trips = f"{1e3 * link.round_trip_low_s:.2f}-{1e3 * link.round_trip_high_s:.2f}"
    rates = f"{link.bandwidth_low_bytes_per_s / 1e6:.0f}-{link.bandwidth_high_bytes_per_s / 1e6:.0f}"
    return f"{1e3 * link.round_trip_s:.2f}", trips, f"{link.bandwidth_bytes_per_s / 1e6:.0f}", rates, ""


def _document(found: ClusterStatus) -> dict[str, Any]:
    """The status under the names that scripts rely on."""
    document: dict[str, Any] = asdict(found)
    model, ended, adaptation = document.pop("model"), document.pop("ended"), document.pop("adaptation")
    nodes = [{**node.pop("gauges"), **node} for node in document.pop("nodes")]
    document |= {"model": model.pop("name"), **model, **document.pop("speed"), **document.pop("alarms")}
    document |= {"finished": ended["latest"], "num_sessions_done": ended["num_done"], "num_sessions_failed": ended["num_failed"]}
    document |= {"adaptation_mode": adaptation["mode"], "suggestion_id": adaptation["suggestion_id"]}
    work = document["work"]
    document |= {
        "prefix_cache": work.pop("prefix_cache") | {"hit_rate": found.work.prefix_cache.hit_rate},
        "speculation": work.pop("speculation"),
    }
    precision = found.model.precision
    document["precision"] |= {"text": precision.sentence, "memory_text": precision.memory_sentence}
    document["identity_text"] = found.identity.sentence
    document["workers"] = [{**n, "memory_bytes": n["resident_bytes"], "memory_limit_bytes": n["memory_bytes"]} for n in nodes]
    return document


def _text(found: ClusterStatus) -> str:
    model = f"{found.model.name} (random weights)" if found.model.random_weights else found.model.name
    speed, ended, offered = found.speed, found.ended, found.adaptation.suggestion_id
    lines = [
        f"{found.cluster_id}  {found.phase}  {model}  plan #{found.plan_version} {found.strategy}",
        f"{speed.tokens_per_s:.1f} tokens/s  step p50 {1e3 * speed.step_p50_s:.1f} ms  p95 {1e3 * speed.step_p95_s:.1f} ms  "
        f"sessions {len(found.sessions)} now, {ended.num_done} done, {ended.num_failed} failed",
    ]
    if found.failure or found.detail:
        lines.append(found.failure or found.detail)
    if found.model.precision.sentence:
        lines.append(f"weights: {found.model.precision.sentence}")
    if found.model.precision.choices:
        lines.append(f"memory: {found.model.precision.memory_sentence}")
    if found.identity:
        lines.append(f"identity: grade {found.identity}, {found.identity.sentence}")
    if found.adaptation.mode not in ("", "off"):
        offer = f"; suggestion {offered}: noodle-engine adapt confirm {offered}" if offered else ""
        lines.append(f"adaptation: {found.adaptation.mode}{offer}")
    if found.work.prefix_cache.is_on and found.work.prefix_cache.prompt_tokens:
        lines.append(_prefix_line(found.work.prefix_cache))
    if found.work.speculation.mode not in ("", "off"):
        lines.append(f"speculation: {found.work.speculation.sentence}")
    if found.alarms.num_unacknowledged:
        count = f"{found.alarms.num_unacknowledged} warning{'' if found.alarms.num_unacknowledged == 1 else 's'}"
        lines.append(f"{count} that nobody has acknowledged: noodle-engine events, then noodle-engine acknowledge")
    tables = ["", table(("NODE", "STATE", "ITEMS", "RESIDENT", "KV", "AGE", "PID", "WHAT"), [_node_row(n) for n in found.nodes])]
    if found.stages:
        rows = [(s.worker_id, f"{s.start}-{s.stop - 1}", _ms(s.predicted_s), _ms(s.compute_p50_s), _ms(s.hop_p50_s)) for s in found.stages]
        tables += ["", table(("STAGE", "ITEMS", "PLANNED ms", "P50 ms", "HOP ms"), rows)]
    if found.sessions:
        sessions = [
            (*_session_cells(s), f"{s.queue_place} for {s.waiting_s:.0f}s: {s.why}" if s.queue_place else "-") for s in found.sessions
        ]
        tables += ["", table((*_SESSION_TITLES, "WAITS"), sessions)]
    if ended.latest:
        ends = [(*_session_cells(s), f"{s.age_s:.1f}s {s.finish_reason}" + (f": {s.why}" if s.why else "")) for s in ended.latest]
        tables += ["", table((*_SESSION_TITLES, "END"), ends)]
    return "\n".join([*map(one_line, lines), *tables])


def _prefix_line(cache: PrefixCacheStatus) -> str:
    kept = f"{binary_size(cache.kept_bytes)} of KV kept of {cache.num_kept} sessions, {cache.num_evictions} made room"
    return f"prompts: {cache.prompt_tokens} tokens, {100 * cache.hit_rate:.0f} % of them not computed again; {kept}"


_SESSION_TITLES = ("SESSION", "STATE", "PROMPT", "OUT", "TOK/S", "TTFT ms", "P95 ms")


def _session_cells(s: SessionStatus) -> tuple[str, ...]:
    out, rate = f"{s.num_generated}/{s.max_new_tokens}", f"{s.tokens_per_s:.1f}"
    return s.session_id, s.state, str(s.num_prompt_tokens), out, rate, _known_ms(s.ttft_s), _known_ms(s.step_p95_s)


def _known_ms(seconds: float) -> str:
    return _ms(seconds) if seconds > 0 else "-"


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:.2f}"


def _node_row(n: NodeStatus) -> tuple[str, ...]:
    items = f"{n.start}-{n.stop - 1}" if n.stop > n.start else "-"
    return (
        n.worker_id,
        n.state,
        items,
        binary_size(n.gauges.resident_bytes),
        f"{binary_size(n.gauges.kv_used_bytes)}/{binary_size(n.kv_budget_bytes)}",
        f"{n.heartbeat_age_s:.1f}s",
        str(n.pid),
        n.detail,
    )


def events(options: Events) -> int:
    """Print the events the coordinator still holds, and with --follow the ones to come."""
    asyncio.run(_events(options))
    return 0


async def _events(options: Events) -> None:
    async with options.connection.client() as client:
        async for frame in client.watch():
            for event in frame.events:
                if options.json:
                    print_json(asdict(event))
                else:
                    say(_line(event))
            if not options.follow:
                return


def _line(event: Event) -> str:
    at = time.strftime("%H:%M:%S", time.localtime(event.wall_s))
    return one_line(f"{at} {event.severity:<5} {event.kind:<7} {event.subject:<10} {event.text}")
