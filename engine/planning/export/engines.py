"""The engines that a plan can be handed to, by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from engine.data.errors import InvalidInput
from engine.planning.export.accelerate import for_accelerate
from engine.planning.export.deepspeed import for_deepspeed
from engine.planning.export.exported import Exported, Wish
from engine.planning.export.llamacpp import for_llamacpp
from engine.planning.export.rank_engines import for_sglang, for_vllm

ENGINES: dict[str, Callable[[Wish], Exported]] = {
    "vllm": for_vllm,
    "sglang": for_sglang,
    "llamacpp": for_llamacpp,
    "accelerate": for_accelerate,
    "deepspeed": for_deepspeed,
}


def check_engine(name: str) -> str:
    """Return `name` if plans can be handed to such an engine; else raise InvalidInput listing them."""
    if name not in ENGINES:
        raise InvalidInput(f"engine {name[:80]!r} is unknown: export to one of {', '.join(ENGINES)}")
    return name


def export(engine: str, wish: Wish) -> Exported:
    """Raises InvalidInput for an engine that is not there, a device of a node that is not in the plan, and what the engine refuses."""
    check_engine(engine)
    nodes = [stage.node_id for stage in wish.plan.stages]
    if foreign := [node_id for node_id in wish.devices if node_id not in nodes]:
        raise InvalidInput(f"--device names node {foreign[0][:64]!r}, which holds no stage: the plan has {', '.join(nodes[:8])}")
    return ENGINES[engine](wish)


def export_document(exported: Exported) -> dict[str, Any]:
    """As scripts read it; blocks are numbered from 0 without the embedding."""
    shares = [
        {"node": s.node_id, "start": s.start, "stop": s.stop, "has_embedding": s.has_embedding, "has_head": s.has_head}
        for s in exported.shares
    ]
    commands = [{"node": c.node_id, "environment": dict(c.environment), "words": list(c.words)} for c in exported.commands]
    return {
        "engine": exported.engine,
        "settings": dict(exported.settings),
        "text": exported.text,
        "blocks": shares,
        "commands": commands,
        "not_expressed": list(exported.not_expressed),
    }
