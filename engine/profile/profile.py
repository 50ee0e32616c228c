"""The profile document: what every layer and item of a model costs on one machine, and how far to trust it.

Plain frozen data that the planner, the reports and the console share. It does not know how anything was measured.
Times are seconds of one step (`_s`), sizes bytes, rates per second.

A *layer* is a hooked module and may lie inside another one (`parent`), so layer times overlap: only `self_s` adds up.
*Items* tile the step without gap or overlap, so their times add up to it. Names and paths come from a model's files:
they are data, and whoever shows them cleans them first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum

from engine.data.errors import Corrupt, InvalidInput, NotSupported, Refused
from engine.data.json_text import exact_json
from engine.data.typed_json import decode, read_object
from engine.profile.cost_model import CostModel
from engine.profile.point import DECODE, Point

SCHEMA_VERSION = 1
FEWEST_SAMPLES = 5  # for a figure of spread
TOO_NOISY_CV = 0.25  # of a step: beyond it, what one layer takes cannot be told from what the machine did besides
TOO_FAR_OFF = 0.25  # of a step that the items do not cover, or cover twice


class Role(StrEnum):
    """What a layer is for."""

    EMBEDDING = "embedding"
    ATTENTION = "attention"
    MLP = "mlp"
    BLOCK = "block"
    NORM = "norm"
    HEAD = "head"
    OTHER = "other"


class Bound(StrEnum):
    """What limits a layer at a point, by the machine's measured roofline."""

    MEMORY = "memory"
    COMPUTE = "compute"
    OVERHEAD = "overhead"  # neither: dispatch, launches, small kernels


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Shape and dtype of one tensor that went into or came out of a layer."""

    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True, slots=True)
class LayerFigures:
    """One layer at one point. Latencies are per step: a module that a step calls twice counts with both calls."""

    point: Point
    p50_s: float  # with everything inside it
    p95_s: float
    self_s: float  # without the hooked layers inside it; mean over the middle half of the steps, so that layers add up
    total_s: float  # sum over all samples, with everything inside it
    num_samples: int
    cv: float | None  # standard deviation / mean of the samples: the noise; None where they are too few to tell
    activation_bytes: int  # its output tensors
    peak_memory_change_bytes: int  # highest allocation while it ran, above what was allocated when it began
    flops: int  # a multiply-add counts as two
    moved_bytes: int  # read and written by its kernels: weights, KV, inputs, outputs
    flops_per_s: float
    bytes_per_s: float
    bound: Bound
    why: str  # one sentence with the numbers behind `bound`
    inputs: tuple[TensorInfo, ...] = ()
    outputs: tuple[TensorInfo, ...] = ()
    samples_s: tuple[float, ...] = ()  # in the order they were taken; at most the first 64


@dataclass(frozen=True, slots=True)
class LayerProfile:
    """One hooked module."""

    index: int  # in the order the model runs them; parents come before their children
    name: str  # short, e.g. `h.0.attn`
    path: str  # in the model, e.g. `transformer.h.0.attn`; unique
    role: Role
    class_name: str
    depth: int  # 0 = inside no other hooked layer
    parent: str | None  # path of the hooked layer around it
    item: int | None  # index of the item it belongs to
    device: str
    param_bytes: int  # with everything inside it
    buffer_bytes: int
    kv_bytes_per_token: int  # what one token of one session leaves in the KV here
    figures: tuple[LayerFigures, ...] = ()

    def at(self, point: Point) -> LayerFigures | None:
        return next((f for f in self.figures if f.point == point), None)


@dataclass(frozen=True, slots=True)
class ItemFigures:
    """One item at one point; the items of a step add up to it."""

    point: Point
    time_s: float  # its mean share of the middle half of the steps, of the median step: so the items add up to it
    p50_s: float
    p95_s: float
    cv: float | None
    num_samples: int


@dataclass(frozen=True, slots=True)
class ItemProfile:
    """One schedulable unit of the chain, as the planner needs it; the sizes mean what `engine.data.model.Item` says."""

    index: int
    name: str
    weight_bytes: int
    kv_bytes_per_token: int
    output_bytes_per_token: int
    tied_to: int | None = None
    tied_bytes: int = 0
    figures: tuple[ItemFigures, ...] = ()

    def at(self, point: Point) -> ItemFigures | None:
        return next((f for f in self.figures if f.point == point), None)


@dataclass(frozen=True, slots=True)
class StepFigures:
    """The whole model at one point: steps without hooks (`plain`) and with them, taken alternately."""

    point: Point
    plain_p50_s: float
    hooked_p50_s: float
    items_s: float  # sum of the items' times
    num_samples: int
    cv: float | None  # of the plain steps
    plain_samples_s: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class ServedFigures:
    """A step of the whole model as it is served, where that is not what hooks see: with fused blocks, and recorded."""

    point: Point
    p50_s: float


@dataclass(frozen=True, slots=True)
class Roofline:
    """What this device reached with these threads and this dtype, measured just before the profile."""

    flops_per_s: float  # a large square matrix product
    bytes_per_s: float  # reading a matrix far larger than the caches
    dispatch_s: float = 0.0  # one operation too small to count; 0 = not measured


@dataclass(frozen=True, slots=True)
class Environment:
    """Where and with what the figures were taken; a figure of another environment is another figure."""

    device: str  # "cpu", "cuda:0"
    device_name: str
    cpu_name: str
    num_threads: int
    num_cores: int
    dtype: str
    host: str
    platform: str
    roofline: Roofline
    libraries: dict[str, str] = field(default_factory=dict)  # python, torch, transformers: versions


@dataclass(frozen=True, slots=True)
class Honesty:
    """How far the figures can be trusted. Fractions: 0.02 is 2 %."""

    overhead: float  # what the hooks cost: hooked / plain decode steps, less 1 (median of neighbouring steps)
    overhead_error: float | None  # half the width of the 95 % interval of that median; None where the steps are too few to tell
    coverage: float  # sum of the items / plain step (median of neighbouring steps); 1 = every microsecond is accounted for
    layer_coverage: float  # sum of the layers' self times / plain step; the rest ran between the layers
    noise_cv: float | None  # the worst point's variation of plain steps, of those with enough samples; None if there is none
    num_steps: int  # steps taken, hooked and plain
    spent_s: float  # how long profiling took
    doubt: str = ""  # why the figures are too noisy to use; empty if they are not


def spread_of(values: Sequence[float]) -> float | None:
    """The coefficient of variation; None for fewer than FEWEST_SAMPLES, which say nothing of a spread."""
    if len(values) < FEWEST_SAMPLES:
        return None
    mean = math.fsum(values) / len(values)
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))
    return deviation / mean if mean > 0 else 0.0


def doubt_of(steps: Sequence[StepFigures], coverage: float) -> str:
    """Why figures from these steps are too noisy to use; empty if they are not."""
    known = [step for step in steps if step.cv is not None]
    if not known:
        return f"no point has {FEWEST_SAMPLES} samples, so how much a step varies is not known"
    worst = max(known, key=lambda step: step.cv or 0.0)
    if worst.cv is not None and worst.cv > TOO_NOISY_CV:
        return f"a step varies by {100 * worst.cv:.0f} % at {worst.point.label}"
    if abs(coverage - 1.0) > TOO_FAR_OFF:
        return f"the items add up to {100 * coverage:.0f} % of a step"
    return ""


@dataclass(frozen=True, slots=True)
class Bottleneck:
    """The layer that a phase spends most of its step in, without what runs inside other hooked layers."""

    layer: LayerProfile
    figures: LayerFigures
    share: float  # 0..1 of the un-hooked step


@dataclass(frozen=True, slots=True)
class Profile:
    """Everything one run of the profiler found."""

    model: str  # label; says so when the weights are random
    architecture: str
    fingerprint: str
    random_weights: bool
    num_parameters: int
    hook_depth: str  # item, layer or leaf
    wall_s: float  # when it was taken, seconds since 1970
    environment: Environment
    honesty: Honesty
    steps: tuple[StepFigures, ...]
    layers: tuple[LayerProfile, ...]
    items: tuple[ItemProfile, ...]
    cost_model: CostModel | None = None  # of steps as they are served
    served: tuple[ServedFigures, ...] = ()  # on an accelerator; elsewhere steps are served as `steps` says
    schema_version: int = SCHEMA_VERSION

    @property
    def points(self) -> tuple[Point, ...]:
        return tuple(step.point for step in self.steps)

    @property
    def phases(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(point.phase for point in self.points))

    def check_usable(self) -> None:
        """Raise Refused with the reason if the figures are too noisy to predict anything from."""
        if self.honesty.doubt:
            raise Refused(f"the profile is too noisy to use: {self.honesty.doubt}; take it again when the machine is quiet")

    def step(self, point: Point) -> StepFigures:
        """The whole model at a point. Raises InvalidInput if it was not measured."""
        found = next((step for step in self.steps if step.point == point), None)
        if found is None:
            raise InvalidInput(f"the profile has no point {point.label!r}: it has {', '.join(p.label for p in self.points)}")
        return found

    def reference_point(self, phase: str) -> Point:
        """The point that stands for a phase: one session; decode at the middle context, else the most tokens."""
        points = sorted(p for p in self.points if p.phase == phase)
        if not points:
            raise InvalidInput(f"the profile has no phase {phase!r}: it has {', '.join(self.phases) or 'none'}")
        alone = [p for p in points if p.batch == min(q.batch for q in points)]
        return alone[len(alone) // 2] if phase == DECODE else alone[-1]

    def bottleneck(self, phase: str) -> Bottleneck:
        """The slowest layer of a phase at its reference point. Raises InvalidInput for a phase without layers."""
        point = self.reference_point(phase)
        found = [(layer, figures) for layer in self.layers if (figures := layer.at(point)) is not None]
        if not found:
            raise InvalidInput(f"the profile has no layers at {point.label!r}: take it again")
        layer, figures = max(found, key=lambda pair: pair[1].self_s)
        wall_s = self.step(point).plain_p50_s
        return Bottleneck(layer, figures, figures.self_s / wall_s if wall_s > 0 else 0.0)

    def to_json(self) -> str:
        """One JSON document, ASCII: the fields, and on top `overhead`, `coverage` and the reference point of every phase.

        Scripts and the console look for them there.

        Raises InvalidInput if a figure is not finite, for such a figure is no measurement.
        """
        honesty = {"overhead": self.honesty.overhead, "coverage": self.honesty.coverage}
        references = [asdict(self.reference_point(phase)) for phase in self.phases]
        document = {**asdict(self), **honesty, "reference_points": references}
        try:
            return exact_json(document)
        except ValueError as error:
            raise InvalidInput(f"the profile of {self.model!r} holds a figure that is not finite: take it again") from error

    @staticmethod
    def from_json(text: str) -> Profile:
        """The profile that `to_json` wrote. Raises Corrupt naming the field that is wrong, NotSupported for another schema."""
        raw = read_object(text, "a profile", "take it again")
        version = raw.get("schema_version")
        if type(version) is not int:
            raise Corrupt("this is not a profile (it has no schema_version): take it again")
        if version != SCHEMA_VERSION:
            raise NotSupported(f"the profile has schema version {version}, this program reads {SCHEMA_VERSION}: take it again")
        profile = decode(Profile, raw, "profile", "take the profile again")
        if not isinstance(profile, Profile):
            raise Corrupt("this is not a profile: take it again")
        return profile
