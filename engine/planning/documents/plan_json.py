"""A `PartitionPlan` read from the JSON that it writes; the files of earlier versions lack some fields."""

from __future__ import annotations

import math
from dataclasses import dataclass

from engine.data.errors import Corrupt, InvalidInput, NotSupported
from engine.data.model import Item
from engine.data.typed_json import decode, read_object
from engine.planning.documents.partition_plan import SCHEMA_VERSION, PartitionPlan
from engine.planning.solution import SolvedStage

_REMEDY = "write it again with `noodle-engine plan --json`"


@dataclass(frozen=True, slots=True)
class _StageDocument:
    node: str
    start: int
    stop: int
    time_s: float
    memory_bytes: float
    hop_s: float = 0.0
    room_bytes: float | None = None
    held_s: float | None = None


@dataclass(frozen=True, slots=True)
class _PlanDocument:
    """The fields of PartitionPlan, with stages as they are written."""

    strategy: str
    items: tuple[Item, ...]
    stages: tuple[_StageDocument, ...]
    bottleneck_s: float
    round_trip_s: float
    period_s: float
    objective: float
    lower_bound: float
    optimal: bool
    method: str
    ties_searched: bool
    in_flight: int
    link_cost: str
    plan_version: int
    model: str
    binds: str
    notes: tuple[str, ...]
    solve_ms: float
    route: str = ""
    why: str = ""


def plan_from_json(text: str) -> PartitionPlan:
    """Raises Corrupt naming the field that is missing or wrong, NotSupported for another schema version."""
    raw = read_object(text, "a plan", _REMEDY)
    version = raw.get("schema_version")
    if type(version) is not int:
        raise Corrupt(f"this is not a plan (it has no schema_version): {_REMEDY}")
    if version != SCHEMA_VERSION:
        raise NotSupported(f"the plan has schema version {version}, this program reads {SCHEMA_VERSION}: {_REMEDY}")
    document: _PlanDocument = decode(_PlanDocument, raw, "plan", _REMEDY)
    values = {name: getattr(document, name) for name in _PlanDocument.__dataclass_fields__}
    try:
        return PartitionPlan(**{**values, "stages": tuple(_stage(stage) for stage in document.stages)})
    except InvalidInput as error:
        raise Corrupt(f"the plan cannot be: {error}; {_REMEDY}") from error


def _stage(stage: _StageDocument) -> SolvedStage:
    room_bytes = math.inf if stage.room_bytes is None else stage.room_bytes
    return SolvedStage(stage.node, stage.start, stage.stop, stage.time_s, stage.hop_s, stage.memory_bytes, room_bytes, stage.held_s)
