"""A `PartitionPlan` read from the JSON that it writes; the files of earlier versions lack some fields."""

from __future__ import annotations

import math
from dataclasses import dataclass

from engine.data.errors import Corrupt, InvalidInput, NotSupported
from engine.data.model import Item
from engine.data.plan import Stage
from engine.data.typed_json import decode, read_object
from engine.planning.documents.partition_plan import SCHEMA_VERSION, PartitionPlan
from engine.planning.estimating.bands import Band, Rival
from engine.planning.solution import Proof, Search, SolvedStage

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
class _RangeDocument:
    node: str
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class _BandDocument:
    least_period_s: float
    most_period_s: float
    within: dict[str, float]


@dataclass(frozen=True, slots=True)
class _RivalDocument:
    stages: tuple[_RangeDocument, ...]
    if_node: str
    takes_times: float
    gain: float
    else_loss: float


@dataclass(frozen=True, slots=True)
class _PlanDocument:
    """The fields of PartitionPlan as they are written; those of its proof and of its search stand beside them."""

    strategy: str
    items: tuple[Item, ...]
    stages: tuple[_StageDocument, ...]
    bottleneck_s: float
    round_trip_s: float
    period_s: float
    in_flight: int
    link_cost: str
    plan_version: int
    model: str
    binds: str
    notes: tuple[str, ...]
    band: _BandDocument | None = None
    uncertain: _RivalDocument | None = None


def plan_from_json(text: str) -> PartitionPlan:
    """Raises Corrupt naming the field that is missing or wrong, NotSupported for another schema version."""
    raw = read_object(text, "a plan", _REMEDY)
    version = raw.get("schema_version")
    if type(version) is not int:
        raise Corrupt(f"this is not a plan (it has no schema_version): {_REMEDY}")
    if version != SCHEMA_VERSION:
        raise NotSupported(f"the plan has schema version {version}, this program reads {SCHEMA_VERSION}: {_REMEDY}")
    document, proof, search = (decode(kind, raw, "plan", _REMEDY) for kind in (_PlanDocument, Proof, Search))
    try:
        return _plan(document, proof, search)
    except InvalidInput as error:
        raise Corrupt(f"the plan cannot be: {error}; {_REMEDY}") from error


def _plan(document: _PlanDocument, proof: Proof, search: Search) -> PartitionPlan:
    values = {name: getattr(document, name) for name in _PlanDocument.__dataclass_fields__}
    stages = tuple(_stage(stage) for stage in document.stages)
    apart = {"stages": stages, "band": _band(document.band), "uncertain": _rival(document.uncertain)}
    return PartitionPlan(**{**values, **apart}, proof=proof, search=search)


def _band(band: _BandDocument | None) -> Band | None:
    return None if band is None else Band(band.least_period_s, band.most_period_s, tuple(band.within.items()))


def _rival(rival: _RivalDocument | None) -> Rival | None:
    if rival is None:
        return None
    stages = tuple(Stage(stage.node, stage.start, stage.stop) for stage in rival.stages)
    return Rival(stages, rival.if_node, rival.takes_times, rival.gain, rival.else_loss)


def _stage(stage: _StageDocument) -> SolvedStage:
    room_bytes = math.inf if stage.room_bytes is None else stage.room_bytes
    return SolvedStage(stage.node, stage.start, stage.stop, stage.time_s, stage.hop_s, stage.memory_bytes, room_bytes, stage.held_s)
