"""What a change of plan would carry, how long it would take and what is not known of it. Pure; it changes nothing.

Weights are read by their new owner from its disk, or fetched where the model's folder is not; keys and values come over the link
from the old owner, both while the old plan serves. Speeds are those of the moves that were done here; before the first one they
are assumed, and said to be.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median
from typing import TYPE_CHECKING

from engine.control.adaptation.cost import MigrationRates
from engine.control.moves import Transfer, num_moved, transfers
from engine.control.nodes.members import Supposed, capacity_tokens
from engine.control.nodes.operating import check_can_drain, check_can_undrain
from engine.data.errors import InvalidInput, Refused
from engine.data.model import Item, ModelCard
from engine.data.moves import MoveEstimate, MoveReport, NodeMemory
from engine.data.plan import Plan, Stage
from engine.planning.ties import tie_groups

if TYPE_CHECKING:
    from engine.control.cluster import Cluster

DONE = "done"


def estimate_move(cluster: Cluster, stages: Sequence[Stage]) -> MoveEstimate:
    """Of a move from the present plan to `stages`; raises Refused without a plan, InvalidInput for stages of another model."""
    old, card = cluster.plan, cluster.card
    if old is None or card is None:
        raise Refused("no plan serves now: there is nothing to move from")
    if not stages or min(s.start for s in stages) < 0 or max(s.stop for s in stages) > card.num_items:
        raise InvalidInput(f"a move needs stages within the items 0-{card.num_items - 1} of this model")
    new = Plan(old.plan_version + 1, "", tuple(stages))
    running = cluster.scheduler.running()
    kv_tokens = sum(session.num_landed for session in running)
    done = [report for report in cluster.rebalancer.reports if report.outcome == DONE]
    read = {s.node_id: _read_bytes(card.items, old.stage_of(s.node_id), s) for s in new.stages}
    load_s, pause_s = _speeds(done, max(read.values(), default=0))
    moved = transfers(old, new, card)
    copies = [(t, _kv_bytes(card.items, range(t.start, t.stop)) * kv_tokens) for t in moved]
    has_moves = new.stages != old.stages
    return MoveEstimate(
        plan_version=old.plan_version,
        num_items=num_moved(old, new),
        num_sessions=len(running),
        weight_bytes=sum(read.values()),
        kv_bytes=sum(size for _, size in copies),
        load_s=load_s if has_moves else 0.0,
        copy_s=_copy_s(cluster, copies),
        pause_s=pause_s if has_moves else 0.0,
        num_measured=len(done),
        nodes=_memory(cluster, card, old, new, kv_tokens),
        unknowns=tuple(_unknowns(cluster, card, new, copies, done)) if has_moves else (),
    )


def preview_of_drains(cluster: Cluster, supposed: Supposed) -> Plan:
    """The plan that these drains, or their ends, would lead to; raises what they would, and Infeasible without another node."""
    check_can_drain(cluster.members, supposed.drained)
    check_can_undrain(cluster.members, supposed.undrained)
    return cluster.preview(supposed=supposed)


def _speeds(done: Sequence[MoveReport], most_bytes: int) -> tuple[float, float]:
    """How long loading `most_bytes` on one node takes, and the pause: the best rate and the shortest preparation seen."""
    assumed = MigrationRates()
    if not done:
        return most_bytes / assumed.load_bytes_per_s, assumed.pause_s
    rates = [report.weight_bytes / report.prepare_s for report in done if report.weight_bytes and report.prepare_s > 0]
    load_s = most_bytes / max(rates, default=assumed.load_bytes_per_s)
    return max(load_s, min(report.prepare_s for report in done)), median(report.pause_s for report in done)


def _copy_s(cluster: Cluster, copies: Iterable[tuple[Transfer, int]]) -> float:
    """Targets copy side by side, each of them from its sources one after the other."""
    by_target: dict[str, float] = {}
    for transfer, size in copies:
        link = cluster.members.links.between(transfer.source_id, transfer.target_id) if size else None
        by_target[transfer.target_id] = by_target.get(transfer.target_id, 0.0) + (link.transfer_s(size) if link else 0.0)
    return max(by_target.values(), default=0.0)


def _memory(cluster: Cluster, card: ModelCard, old: Plan, new: Plan, kv_tokens: int) -> tuple[NodeMemory, ...]:
    """Every node that has a stage now or then; layers that a node keeps are held once."""
    found = []
    for node_id in dict.fromkeys(s.node_id for s in (*old.stages, *new.stages)):
        before, after = _items_of(old.stage_of(node_id)), _items_of(new.stage_of(node_id))
        now, peak, then = (_held_bytes(card.items, held, kv_tokens) for held in (before, before | after, after))
        member = cluster.members.get(node_id)
        found.append(NodeMemory(node_id, now, peak, then, member.spec.memory_bytes if member else 0))
    return tuple(found)


def _items_of(stage: Stage | None) -> set[int]:
    return set(range(stage.start, stage.stop)) if stage else set()


def _held_bytes(items: Sequence[Item], held: set[int], kv_tokens: int) -> int:
    return _weight_bytes(items, held) + _kv_bytes(items, held) * kv_tokens


def _kv_bytes(items: Sequence[Item], held: Iterable[int]) -> int:
    """For one token."""
    return sum(items[i].kv_bytes_per_token for i in held)


def _weight_bytes(items: Sequence[Item], held: set[int]) -> int:
    """A tensor that several of the items share is held once."""
    shared = sum(size * max(0, len(held & {*members}) - 1) for members, size in tie_groups(tuple(items)))
    return sum(items[i].weight_bytes for i in held) - int(shared)


def _read_bytes(items: Sequence[Item], before: Stage | None, after: Stage) -> int:
    """What the node has to read beside what it holds."""
    had, has = _items_of(before), _items_of(after)
    return _weight_bytes(items, had | has) - _weight_bytes(items, had)


def _unknowns(
    cluster: Cluster, card: ModelCard, new: Plan, copies: Sequence[tuple[Transfer, int]], done: Sequence[MoveReport]
) -> Iterable[str]:
    """What the figures rest on that nobody has measured, the gravest first."""
    room, reserved = capacity_tokens(card, new, cluster.members), cluster.scheduler.reserved_tokens
    if reserved > room:
        yield f"running sessions reserve {reserved} tokens of KV and the new plan holds {room}: it waits until some have ended"
    known = {(link.from_id, link.to_id) for link in cluster.members.links if not link.failure}
    for transfer, size in copies:
        if size and (transfer.source_id, transfer.target_id) not in known:
            rest = "the slowest known one is assumed" if known else "copying is taken as free"
            yield f"the link {transfer.source_id} > {transfer.target_id} was not measured: {rest}"
    if not done:
        rates = MigrationRates()
        yield f"no move was done here yet: {rates.load_bytes_per_s / 1e6:.0f} MB/s of loading and {rates.pause_s:g} s of pause are assumed"
    changed = [m for s in new.stages if (m := cluster.members.get(s.node_id)) is not None and m.stage != s]
    if idle := [m.spec.node_id for m in changed if m.stage is None]:
        serves = "serves nothing now: its" if len(idle) == 1 else "serve nothing now: their"
        yield f"{', '.join(idle)} {serves} times are from measuring alone"
    if short := [m.spec.node_id for m in changed if m.stage is not None and m.cost_model is None]:
        was, it = ("was", "it") if len(short) == 1 else ("were", "them")
        yield f"{', '.join(short)} {was} measured at a short context only: P on screen 2 profiles {it}"
