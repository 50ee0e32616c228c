"""What a change of plan would cost, and what it did: nouns that the control room, the wire and the client share."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class NodeMemory:
    """Weights and KV of one node: now, while it holds both stages, and afterwards; `limit_bytes` is what it may use."""

    node_id: str
    now_bytes: int
    peak_bytes: int
    after_bytes: int
    limit_bytes: int


@dataclass(frozen=True, slots=True)
class MoveEstimate:
    """Weights load for `load_s` and KV is copied for `copy_s` beside serving, then tokens wait for `pause_s`.

    `num_measured` earlier moves taught the speeds; 0 means that they are assumed. `unknowns` are sentences.
    """

    plan_version: int  # of the plan that it would leave
    num_items: int
    num_sessions: int
    weight_bytes: int
    kv_bytes: int
    load_s: float
    copy_s: float
    pause_s: float
    num_measured: int
    nodes: tuple[NodeMemory, ...] = ()
    unknowns: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class MoveReport:
    """What a live change of plan moved, and how long tokens waited for it; `outcome` is "done" or why it was dropped."""

    plan_version: int
    cause: str
    num_items: int
    weight_bytes: int
    kv_bytes: int
    prepare_s: float
    pause_s: float
    outcome: str
