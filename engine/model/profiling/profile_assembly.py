"""From raw measurements to the profile document: medians, shares, rates and the honesty figures. Takes no time itself."""

from __future__ import annotations

import math
import platform
import statistics
import time
from collections.abc import Iterable, Sequence
from importlib import metadata
from typing import Protocol, TypeVar

import torch
from torch import nn

from engine.data.model import Item, ModelCard
from engine.model.hardware.devices import device_name
from engine.model.hardware.limits import num_cores
from engine.model.hardware.roofline import explain
from engine.model.profiling.profiler import Measurements, PointSamples
from engine.model.profiling.roles import HookedLayer
from engine.model.profiling.spans import StepSpans
from engine.model.profiling.traffic import LayerCounts
from engine.profile.cost_model import CostModel, CostSample
from engine.profile.profile import (
    FEWEST_SAMPLES,
    Environment,
    Honesty,
    ItemFigures,
    ItemProfile,
    LayerFigures,
    LayerProfile,
    Profile,
    Role,
    Roofline,
    ServedFigures,
    StepFigures,
    doubt_of,
    spread_of,
)

T = TypeVar("T")

_MAX_SAMPLES = 64
_LIBRARIES = ("torch", "transformers", "noodlecore")
_NOTHING = LayerCounts(0, 0, 0, 0, (), ())


class Described(Protocol):
    """What of a workload its profile says."""

    @property
    def model(self) -> nn.Module: ...

    blocks: str
    device: str
    dtype: torch.dtype
    card: ModelCard


def profile_of(workload: Described, measured: Measurements, *, depth: str) -> Profile:
    """The document of one run of the profiler."""
    card = workload.card
    steps = tuple(_step(taken) for taken in measured.samples)
    layers = _layers(workload, measured)
    return Profile(
        model=card.ref.label,
        architecture=card.architecture,
        fingerprint=card.fingerprint,
        random_weights=card.ref.random_weights is not None,
        num_parameters=card.num_parameters,
        hook_depth=depth,
        wall_s=time.time(),
        environment=_environment(workload, measured.roofline),
        honesty=_honesty(measured, steps, layers),
        steps=steps,
        layers=layers,
        items=tuple(_item(index, item, measured.samples) for index, item in enumerate(card.items)),
        cost_model=_cost_model(measured),
        served=tuple(ServedFigures(step.point, sum(step.evenly_s)) for step in (*measured.served.learn, *measured.served.held_out))
        if measured.served
        else (),
    )


def _step(taken: PointSamples) -> StepFigures:
    hooked_s = [spans.step_s for spans in taken.spans]
    return StepFigures(
        point=taken.point,
        plain_p50_s=statistics.median(taken.plain_s),
        hooked_p50_s=statistics.median(hooked_s),
        items_s=sum(_item_times(taken)),
        num_samples=len(hooked_s),
        cv=spread_of(taken.plain_s),
        plain_samples_s=_rounded(taken.plain_s),
    )


def _typical(taken: PointSamples) -> Sequence[StepSpans]:
    """The middle half of the hooked steps by duration. A pause of the system falls into one part of one step: means over
    whole steps keep parts and step consistent, and the slowest and fastest quarters do not count."""
    return _middle_half(sorted(taken.spans, key=lambda spans: spans.step_s))


def _middle_half(ordered: Sequence[T]) -> Sequence[T]:
    cut = len(ordered) // 4
    return ordered[cut : len(ordered) - cut]


def _item_times(taken: PointSamples) -> tuple[float, ...]:
    """The items' shares of the typical steps, of the median step: medians of parts do not add up to the median of the whole."""
    typical = _middle_half(sorted(taken.item_s, key=sum))
    median_s = statistics.median(map(sum, taken.item_s))
    return tuple(median_s * statistics.fmean(shares) for shares in zip(*map(_shares, typical), strict=True))


def _shares(item_s: Sequence[float]) -> tuple[float, ...]:
    whole_s = sum(item_s)
    return tuple(time_s / whole_s for time_s in item_s)


def _item(index: int, item: Item, samples: Sequence[PointSamples]) -> ItemProfile:
    figures = []
    for taken in samples:
        times = [item_s[index] for item_s in taken.item_s]
        figures.append(
            ItemFigures(taken.point, _item_times(taken)[index], statistics.median(times), _p95(times), spread_of(times), len(times))
        )
    return ItemProfile(
        index=index,
        name=item.name,
        weight_bytes=item.weight_bytes,
        kv_bytes_per_token=item.kv_bytes_per_token,
        output_bytes_per_token=item.output_bytes_per_token,
        tied_to=item.tied_to,
        tied_bytes=item.tied_bytes,
        figures=tuple(figures),
    )


def _layers(workload: Described, measured: Measurements) -> tuple[LayerProfile, ...]:
    """The layers that were called, in the order of their first call."""
    order = dict.fromkeys(code for taken in measured.samples for code in taken.spans[0].entered)
    first_block = min((place for place, code in enumerate(order) if measured.layers[code].role is Role.BLOCK), default=0)
    rows = []
    for place, code in enumerate(order):
        layer = measured.layers[code]
        item = layer.item
        if item is None:
            item = layer.block + 1 if layer.block is not None else 0 if place < first_block else len(workload.card.items) - 1
        rows.append(_layer(place, code, layer, item, workload, measured))
    return tuple(rows)


def _layer(index: int, code: int, layer: HookedLayer, item: int, workload: Described, measured: Measurements) -> LayerProfile:
    return LayerProfile(
        index=index,
        name=layer.path.removeprefix(workload.blocks.rpartition(".")[0] + "."),
        path=layer.path,
        role=layer.role,
        class_name=type(layer.module).__name__,
        depth=layer.depth,
        parent=layer.parent,
        item=item,
        device=_device(layer.module, workload.device),
        param_bytes=sum(parameter.nbytes for parameter in layer.module.parameters()),
        buffer_bytes=sum(buffer.nbytes for buffer in layer.module.buffers()),
        kv_bytes_per_token=_kv_bytes(layer, workload.card.items[item]),
        figures=tuple(
            _figures(taken, code, measured.roofline) for taken in measured.samples if any(code in spans.layer_s for spans in taken.spans)
        ),
    )


def _kv_bytes(layer: HookedLayer, item: Item) -> int:
    """A block keeps what its item keeps, in its attention."""
    is_keeper = layer.role is Role.BLOCK or (layer.role is Role.ATTENTION and layer.depth == 1)
    return item.kv_bytes_per_token if is_keeper else 0


def _device(module: nn.Module, default: str) -> str:
    tensor = next((t for t in (*module.parameters(), *module.buffers())), None)
    return default if tensor is None else str(tensor.device)


def _figures(taken: PointSamples, code: int, roof: Roofline) -> LayerFigures:
    times = [spans.layer_s[code] for spans in taken.spans if code in spans.layer_s]
    own = [spans.self_s.get(code, 0.0) for spans in _typical(taken)]
    counts = taken.counts.get(code, _NOTHING)
    p50_s = max(statistics.median(times), 1e-9)
    bound, why = explain(p50_s, counts.flops, counts.moved_bytes, roof)
    return LayerFigures(
        point=taken.point,
        p50_s=p50_s,
        p95_s=_p95(times),
        self_s=statistics.fmean(own),
        total_s=sum(times),
        num_samples=len(times),
        cv=spread_of(times),
        activation_bytes=counts.activation_bytes,
        peak_memory_change_bytes=counts.peak_memory_change_bytes,
        flops=counts.flops,
        moved_bytes=counts.moved_bytes,
        flops_per_s=counts.flops / p50_s,
        bytes_per_s=counts.moved_bytes / p50_s,
        bound=bound,
        why=why,
        inputs=counts.inputs,
        outputs=counts.outputs,
        samples_s=_rounded(times),
    )


def _honesty(measured: Measurements, steps: Sequence[StepFigures], layers: Sequence[LayerProfile]) -> Honesty:
    """Overhead where hooked and plain steps were compared most often, the rest over all points; neighbouring steps are compared."""
    compared = max(measured.samples, key=lambda taken: len(taken.spans))
    own_s = {step.point: sum(f.self_s for layer in layers if (f := layer.at(step.point))) for step in steps}
    overhead, overhead_error = _overhead(compared)
    coverage = statistics.median(sum(i) / p for taken in measured.samples for i, p in zip(taken.item_s, taken.plain_s, strict=False))
    return Honesty(
        overhead=overhead,
        overhead_error=overhead_error,
        coverage=coverage,
        layer_coverage=statistics.median(own_s[step.point] / step.plain_p50_s for step in steps),
        noise_cv=max((step.cv for step in steps if step.cv is not None), default=None),
        num_steps=measured.num_steps,
        spent_s=measured.spent_s,
        doubt=doubt_of(steps, coverage),
    )


def _cost_model(measured: Measurements) -> CostModel | None:
    """Of steps as they are served."""
    if (served := measured.served) is None:
        return None
    if served.learn:
        learnt, unseen = ([CostSample(s.point, s.evenly_s) for s in steps] for steps in (served.learn, served.held_out))
        return CostModel.fit(learnt, unseen)
    learn, held_out = measured.of(measured.plan.learn), measured.of(measured.plan.held_out)
    return CostModel.fit(list(_cost_samples(learn)), list(_cost_samples(held_out)))


def _cost_samples(samples: Iterable[PointSamples]) -> Iterable[CostSample]:
    """Item times scaled to the typical plain step: what serving takes, with the shares that the items have of it."""
    for taken in samples:
        item_s = _item_times(taken)
        steps_s = sorted([*taken.plain_s, *map(sum, taken.item_s)])
        scale = statistics.median(steps_s) / sum(item_s)
        yield CostSample(taken.point, tuple(time_s * scale for time_s in item_s))


def _environment(workload: Described, roofline: Roofline) -> Environment:
    versions = {name: metadata.version(name) for name in _LIBRARIES if _is_installed(name)}
    if torch.version.cuda and workload.device.startswith("cuda"):
        versions["cuda"] = torch.version.cuda
    return Environment(
        device=workload.device,
        device_name=device_name(workload.device),
        cpu_name=device_name("cpu"),
        num_threads=torch.get_num_threads(),
        num_cores=num_cores(),
        dtype=workload.card.ref.dtype,
        host=platform.node(),
        platform=platform.platform(),
        roofline=roofline,
        libraries={"python": platform.python_version(), **versions},
    )


def _is_installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _overhead(taken: PointSamples) -> tuple[float, float | None]:
    """What the hooks cost, and half its 95 % interval. Neighbouring steps meet the same machine, so ratios within pairs are
    compared; the interval of their median is the usual one of order statistics (n/2 -+ 0.98 sqrt(n)), free of any shape."""
    ratios = sorted(spans.step_s / plain_s for spans, plain_s in zip(taken.spans, taken.plain_s, strict=True))
    reach = math.ceil(0.98 * math.sqrt(len(ratios)))
    low, high = ratios[max(0, len(ratios) // 2 - reach)], ratios[min(len(ratios) - 1, len(ratios) // 2 + reach)]
    return statistics.median(ratios) - 1.0, (high - low) / 2 if len(ratios) >= FEWEST_SAMPLES else None


def _p95(values: Sequence[float]) -> float:
    """The nearest-rank 95th percentile; with under 20 samples the largest."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, -(-95 * len(ordered) // 100) - 1)]


def _rounded(values: Sequence[float]) -> tuple[float, ...]:
    """Nanoseconds are all a clock knows, and shorter numbers make a smaller file."""
    return tuple(round(value, 9) for value in values[:_MAX_SAMPLES])
